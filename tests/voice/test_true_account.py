"""The account is true: a call that ends before its engine is done keeps what was told of it, and declares the rest."""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceEventType, VoiceProvider
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.store import VoiceStore

MakeSettings = Callable[..., VoiceSettings]
PATIENCE = 60
SAMPLES, _ = soundfile.read(SAMPLE, dtype="int16")
SENTENCE = np.concatenate([SAMPLES, np.zeros(9600, np.int16)]).tobytes()
MORE = 11  # sentences, more than can be decoded in the time that this stop has


@pytest.mark.anyio
async def test_the_drain_deadline_takes_nothing_away_that_listeners_were_told(make_settings: MakeSettings) -> None:
    settings = make_settings(stop_timeout_seconds=0.05)
    async with AsyncVoiceService(settings) as service:
        session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX)
        for _ in range(2):
            await service.dispatch_audio_chunk(session.session_id, SENTENCE)
        told: list[str] = []
        spoken = 0
        with anyio.fail_after(PATIENCE):
            async with aclosing(service.events(session.session_id)) as events:
                async for event in events:
                    if event.event_type is VoiceEventType.STT_FINAL:
                        told.append(event.payload["text"])
                        spoken += (event.payload["end_ms"] - event.payload["start_ms"]) // 20
                        break
        for _ in range(MORE):
            await service.dispatch_audio_chunk(session.session_id, SENTENCE)
        await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)

    assert ended.result is not None
    frames = ended.result.frames
    assert not ended.result.drained
    assert ended.result.transcript.startswith(" ".join(told))
    assert spoken <= frames.transcribed < frames.accepted
    assert frames.untranscribed == {"drain_expired": frames.accepted - frames.transcribed}


async def first_final(service: AsyncVoiceService) -> tuple[str, int, dict[str, Any]]:
    """A sentence is said: the session, and the number and payload of what its listeners are told."""
    session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX)
    await service.dispatch_audio_chunk(session.session_id, SENTENCE)
    with anyio.fail_after(PATIENCE):
        async with aclosing(service.events(session.session_id)) as events:
            async for event in events:
                if event.event_type is VoiceEventType.STT_FINAL:
                    return session.session_id, event.number, event.payload
    raise AssertionError


@pytest.mark.anyio
async def test_what_listeners_are_told_was_said_outlives_the_process(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_events = VoiceStore.add_events

    def slowly(self: VoiceStore, events: Sequence[Any]) -> None:
        time.sleep(0.1)
        add_events(self, events)

    monkeypatch.setattr(VoiceStore, "add_events", slowly)
    async with AsyncVoiceService(make_settings()) as service:
        session_id, number, payload = await first_final(service)
        stored = {event.number: event.payload for event in service.voice_store().events(session_id)}
    assert stored[number] == payload


@pytest.mark.anyio
async def test_a_store_that_is_down_keeps_no_words_from_listeners(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(self: VoiceStore, events: Sequence[Any]) -> None:
        raise StoreError("the disk is full", kind="full")

    monkeypatch.setattr(VoiceStore, "add_events", down)
    async with AsyncVoiceService(make_settings()) as service:
        _, _, payload = await first_final(service)
    assert payload["stored"] is False
