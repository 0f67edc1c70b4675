"""A session that asks for an engine that can't be had: another one runs and everybody is told, or none, or it is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceEventType, VoiceProvider, VoiceSession
from agentos.core.communication.voice.errors import STTUnavailable
from agentos.core.communication.voice.settings import VoiceSettings

pytestmark = pytest.mark.anyio
SECOND = bytes(32_000)

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


async def call(service: AsyncVoiceService, engine: STTProvider) -> tuple[VoiceSession, VoiceSession]:
    """A whole call: as it was created, and as it ended."""
    session = await service.create_session("project", VoiceProvider.LOCAL, engine, {"recording_enabled": True})
    await service.dispatch_audio_chunk(session.session_id, SECOND)
    assert await service.stop_session(session.session_id)
    ended = await service.get_session(session.session_id)
    assert ended is not None
    return session, ended


async def test_the_embedded_engine_hears_every_frame(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings(on_stt_unavailable="fallback", stt_workers=1)) as service:
        session, ended = await call(service, STTProvider.POCKETSPHINX)
        assert [event async for event in service.events(session.session_id) if "fallback" in event.event_type] == []
    assert session.stt_engine == "pocketsphinx"
    assert ended.result is not None
    assert ended.result.drained
    frames = ended.result.frames
    assert (frames.accepted, frames.recorded, frames.transcribed, frames.untranscribed) == (50, 50, 50, {})
    assert records(session.session_id)[0]["request_summary"]["stt_fallback"] == ""


async def test_by_default_the_embedded_engine_takes_over_and_everybody_is_told(
    make_settings: MakeSettings, records: Records
) -> None:
    async with AsyncVoiceService(make_settings(on_stt_unavailable="fallback", stt_workers=1)) as service:
        session, ended = await call(service, STTProvider.GOOGLE)
        told = [event async for event in service.events(session.session_id)]
    assert session.stt_provider is STTProvider.GOOGLE  # what was asked for
    assert session.stt_engine == ended.stt_engine == "pocketsphinx"  # what runs
    (fallback,) = [event for event in told if event.event_type is VoiceEventType.STT_FALLBACK]
    assert fallback.payload["asked"] == "google"
    assert fallback.payload["runs"] == "pocketsphinx"
    assert "google" in fallback.payload["reason"]
    for record in records(session.session_id):
        assert record["request_summary"]["stt_provider"] == "google"
        assert record["request_summary"]["stt_engine"] == "pocketsphinx"
        assert "google" in record["request_summary"]["stt_fallback"]
    assert ended.result is not None
    assert ended.result.frames.transcribed == 50


async def test_record_only_keeps_the_audio_and_says_that_nobody_heard_it(
    make_settings: MakeSettings, records: Records
) -> None:
    async with AsyncVoiceService(make_settings(on_stt_unavailable="record_only")) as service:
        session, ended = await call(service, STTProvider.AWS)
        told = [event async for event in service.events(session.session_id)]
        assert service.statistics().speech.workers_started == 0
    assert session.stt_provider is STTProvider.AWS
    assert session.stt_engine == "none"
    assert [event.payload["runs"] for event in told if event.event_type is VoiceEventType.STT_FALLBACK] == ["none"]
    assert records(session.session_id)[0]["request_summary"]["stt_engine"] == "none"
    assert ended.result is not None
    frames = ended.result.frames
    assert (frames.recorded, frames.transcribed, frames.untranscribed) == (50, 0, {"no_engine": 50})
    assert ended.result.transcript == ""


async def test_refuse_makes_no_session(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings(on_stt_unavailable="refuse")) as service:
        with pytest.raises(STTUnavailable, match="azure") as caught:
            await service.create_session("project", VoiceProvider.LOCAL, STTProvider.AZURE)
        assert isinstance(caught.value, ValueError)
        assert service.statistics().sessions == 0
    assert records() == []
