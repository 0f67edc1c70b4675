"""What comes in: wrong arguments change nothing; every byte that was accepted is kept or declared."""

import hashlib
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceService, VoiceSession
from agentos.core.communication.voice.errors import ChunkTooLarge, InvalidRequest, InvalidState, Overloaded
from agentos.core.communication.voice.models import SessionResult
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.running import request
from agentos.core.communication.voice.settings import VoiceSettings
from machines.communication import RiskLevel
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
FRAME = 640
PATIENCE = 30
RECORDED = {"recording_enabled": True}

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
Audio = Callable[..., bytes]


async def create(service: AsyncVoiceService, metadata: dict[str, Any] | None = None, **more: Any) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata, **more)


async def result_of(service: AsyncVoiceService, session_id: str) -> SessionResult:
    assert await service.stop_session(session_id)
    await service.recording(session_id)
    session = await service.get_session(session_id)
    assert session is not None
    assert session.result is not None
    return session.result


def played(result: SessionResult) -> bytes:
    """The samples in the recording, as the bytes that went in."""
    assert result.recording is not None
    samples, _ = soundfile.read(result.recording.path, dtype="int16", always_2d=True)
    return np.ascontiguousarray(samples).tobytes()


def spoken(result: SessionResult) -> bool:
    frames = result.frames
    return frames.accepted == frames.accounted + sum(frames.dropped.values()) and frames.accepted == (
        frames.transcribed + sum(frames.untranscribed.values())
    )


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("project_id", ("", VoiceProvider.LOCAL, STTProvider.WHISPER)),
        ("project_id", (None, VoiceProvider.LOCAL, STTProvider.WHISPER)),
        ("project_id", (7, VoiceProvider.LOCAL, STTProvider.WHISPER)),
        ("project_id", ("\ud800", VoiceProvider.LOCAL, STTProvider.WHISPER)),
        ("provider", ("p", "LOCAL", STTProvider.WHISPER)),
        ("provider", ("p", None, STTProvider.WHISPER)),
        ("stt_provider", ("p", VoiceProvider.LOCAL, "whisper")),
        ("stt_provider", ("p", VoiceProvider.LOCAL, None)),
        ("metadata", ("p", VoiceProvider.LOCAL, STTProvider.WHISPER, "text")),
        ("metadata", ("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"a": math.nan})),
        ("metadata", ("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"a": "\ud800"})),
        ("metadata", ("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": "yes"})),
    ],
    ids=repr,
)
async def test_a_wrong_argument_is_refused_by_name_and_changes_nothing(
    make_settings: MakeSettings, records: Records, field: str, arguments: tuple[Any, ...]
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(InvalidRequest, match=field) as caught:
            await service.create_session(*arguments)
        assert isinstance(caught.value, ValueError)
        assert caught.value.field == field
        assert service.statistics().sessions == 0
        assert await service.list_sessions() == []
    assert records() == []


async def test_members_are_taken_by_their_values_too(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        for heard in STTProvider:
            session = await service.create_session("p", "local", heard.value)
            assert (session.provider, session.stt_provider) == (VoiceProvider.LOCAL, heard)
        verdict = await service.evaluate_request("p", "twilio", "whisper_local")
        assert verdict.metadata["provider"] == "twilio"
        assert service.get_provider("twilio") is service.get_provider(VoiceProvider.TWILIO)
        assert len(await service.list_sessions(state="created")) == len(STTProvider)
        with pytest.raises(InvalidRequest, match="state"):
            await service.list_sessions(state="CREATED")


async def test_a_key_that_looks_like_a_risk_flag_is_said_once(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "_warned_of", set())
    async with AsyncVoiceService(make_settings()) as service:
        for _ in range(3):
            session = await create(service, {"record_me": True, "recording": "the text of a title", "note": True})
    assert session.risk_tier is RiskLevel.LOW
    said = [record.getMessage() for record in caplog.records if "metadata_key_is_no_flag" in record.getMessage()]
    assert said == ["metadata_key_is_no_flag: key='record_me' did_you_mean='recording_enabled'"]


async def test_a_wrong_format_is_refused_by_name(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(InvalidRequest, match="audio_format") as caught:
            await create(service, audio_format={"sample_rate": 8000})
        assert caught.value.field == "audio_format"
    assert records() == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"big": 10**4000},
        {"text": "ä\U0001f600\x00\x7f\u2028"},
        {"": {"": [[], {}, None, 1e308, -0.0]}},
        {"$ref": "'; DROP TABLE evidence; --"},
    ],
    ids=["huge integer", "odd text", "empty names", "sql"],
)
async def test_odd_metadata_that_is_json_comes_back_as_it_was(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int], metadata: dict[str, Any]
) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service, metadata)
        assert plain(session.metadata) == metadata
        assert await service.stop_session(session.session_id)
        stored = await service.get_session(session.session_id)
    assert stored is not None
    assert plain(stored.metadata) == metadata
    assert records()[0]["request_summary"]["metadata"] == metadata
    assert verified() == 3


async def test_what_is_no_audio_is_refused_and_the_session_goes_on(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(max_chunk_bytes=2 * FRAME)) as service:
        session = await create(service)
        for strange in ("text", None, 5, [1]):
            with pytest.raises(InvalidRequest, match="audio_data must be bytes"):
                await service.dispatch_audio_chunk(session.session_id, strange)  # type: ignore[arg-type]
        with pytest.raises(ChunkTooLarge, match="1,281 bytes") as caught:
            await service.dispatch_audio_chunk(session.session_id, bytes(2 * FRAME + 1))
        assert isinstance(caught.value, ValueError)
        assert caught.value.limit_bytes == 2 * FRAME
        await service.dispatch_audio_chunk(session.session_id, b"")
        await service.dispatch_audio_chunk(session.session_id, bytes(2 * FRAME))
        result = await result_of(service, session.session_id)
    assert (result.frames.accepted, result.frames.bytes) == (2, 2 * FRAME)


@pytest.mark.parametrize("size", [1, 3, 7, 639, 640, 641, 1279, 10_001, 200_000])
async def test_chunks_of_any_size_are_one_stream(make_settings: MakeSettings, audio: Audio, size: int) -> None:
    whole = audio(3 * 16_000 if size > 3 else 1_000) + b"\x01"  # half a sample is left at the end
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service, RECORDED)
        for at in range(0, len(whole), size):
            await service.dispatch_audio_chunk(session.session_id, whole[at : at + size])
        result = await result_of(service, session.session_id)
    frames = result.frames
    assert frames.accepted == frames.recorded == -(-(len(whole) - 1) // FRAME)
    assert frames.bytes == len(whole) - 1
    assert frames.leftover_bytes == 1
    assert frames.digest == hashlib.sha256(whole[:-1]).hexdigest()
    assert spoken(result)
    assert played(result) == whole[:-1]
    assert result.recording is not None
    assert result.recording.gaps == ()


async def test_three_bytes_make_a_session_active_and_are_accounted(
    make_settings: MakeSettings, records: Records
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        await service.dispatch_audio_chunk(session.session_id, b"...")
        result = await result_of(service, session.session_id)
    assert (result.frames.accepted, result.frames.bytes, result.frames.leftover_bytes) == (1, 2, 1)
    assert "session_active" in [record["operation"] for record in records()]


async def test_audio_from_two_tasks_is_kept_whole(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service, RECORDED)

        async def speak(mark: int) -> None:
            for _ in range(100):
                await service.dispatch_audio_chunk(session.session_id, bytes([mark]) * FRAME)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(speak, 1)
            group.start_soon(speak, 2)
        result = await result_of(service, session.session_id)
    whole = played(result)
    pieces = [whole[at : at + FRAME] for at in range(0, len(whole), FRAME)]
    assert sorted(pieces) == sorted([b"\1" * FRAME] * 100 + [b"\2" * FRAME] * 100)
    assert result.frames.digest == hashlib.sha256(whole).hexdigest()


class StoppedEncoder:
    """Recordings stand still until they are let go: what a disk does that does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        write = RecordingWriter.write

        def stand_still(writer: RecordingWriter, first_frame: int, data: bytes) -> None:
            assert self.go_on.wait(PATIENCE)
            write(writer, first_frame, data)

        monkeypatch.setattr(RecordingWriter, "write", stand_still)


async def test_without_room_a_chunk_is_refused_whole_and_later_taken(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, audio: Audio
) -> None:
    encoder = StoppedEncoder(monkeypatch)
    taken = b""
    async with AsyncVoiceService(make_settings(backlog_seconds=0.2, dispatch_timeout_seconds=0.05)) as service:
        session = await create(service, RECORDED)
        for number in range(10):
            chunk = audio(320, number * 320)
            await service.dispatch_audio_chunk(session.session_id, chunk)
            taken += chunk
        for _ in range(2):
            with pytest.raises(Overloaded, match=session.session_id) as caught:
                await service.dispatch_audio_chunk(session.session_id, b"refused!" * 80)
        assert caught.value.retry_after_seconds > 0
        encoder.go_on.set()
        last = audio(320, 9_999)
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    await service.dispatch_audio_chunk(session.session_id, last)
                except Overloaded:
                    continue
                break
        result = await result_of(service, session.session_id)
    assert played(result) == taken + last
    assert result.frames.accepted == 11
    assert spoken(result)


async def test_a_chunk_that_waits_gets_in_when_there_is_room(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StoppedEncoder(monkeypatch)
    async with AsyncVoiceService(make_settings(backlog_seconds=0.2, dispatch_timeout_seconds=PATIENCE)) as service:
        session = await create(service, RECORDED)
        await service.dispatch_audio_chunk(session.session_id, bytes(10 * FRAME))
        async with anyio.create_task_group() as group:
            group.start_soon(service.dispatch_audio_chunk, session.session_id, bytes(FRAME))
            group.start_soon(service.dispatch_audio_chunk, session.session_id, bytes(FRAME))
            await anyio.sleep(0.01)  # both wait now
            encoder.go_on.set()
        result = await result_of(service, session.session_id)
    assert result.frames.accepted == result.frames.accounted == 12


async def test_a_chunk_that_waits_for_room_learns_of_the_stop(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StoppedEncoder(monkeypatch)
    settings = make_settings(backlog_seconds=0.2, dispatch_timeout_seconds=PATIENCE, stop_timeout_seconds=0.3)
    async with AsyncVoiceService(settings) as service:
        session = await create(service, RECORDED)
        await service.dispatch_audio_chunk(session.session_id, bytes(10 * FRAME))

        async def one_more() -> None:
            with pytest.raises(InvalidState, match="STOPP"):
                await service.dispatch_audio_chunk(session.session_id, bytes(FRAME))

        async with anyio.create_task_group() as group:
            group.start_soon(one_more)
            await anyio.sleep(0.01)  # it waits now
            assert await service.stop_session(session.session_id)
        encoder.go_on.set()
        result = await result_of(service, session.session_id)
    assert not result.drained
    assert result.frames.accepted == 10
    assert result.frames.dropped == {"drain_expired": 10}
    assert spoken(result)


async def test_no_chunk_that_was_accepted_is_forgotten_when_the_stop_comes_between(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service, RECORDED)
        accepted = 0

        async def speak() -> None:
            nonlocal accepted
            with pytest.raises(InvalidState):
                while True:
                    await service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
                    accepted += 1
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(speak)
            await anyio.sleep(0.05)
            result = await result_of(service, session.session_id)
    assert result.frames.accepted == accepted
    assert set(result.frames.dropped) <= {"late"}
    assert spoken(result)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_threads_that_speak_into_one_session_lose_nothing_also_while_it_stops(
    make_settings: MakeSettings, home: Path
) -> None:
    accepted = [0, 0, 0]
    with VoiceService(make_settings()) as service:
        session = await anyio.to_thread.run_sync(
            lambda: service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, RECORDED)
        )

        def speak(mark: int) -> None:
            try:
                while True:
                    service.dispatch_audio_chunk(session.session_id, bytes([mark]) * FRAME)
                    accepted[mark] += 1
            except InvalidState:
                return

        threads = [threading.Thread(target=speak, args=(mark,)) for mark in range(3)]
        for thread in threads:
            thread.start()
        await anyio.sleep(0.2)
        assert await anyio.to_thread.run_sync(service.stop_session, session.session_id)
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join, PATIENCE)
        await anyio.to_thread.run_sync(service.recording, session.session_id)  # it is packed behind the end
        ended = await anyio.to_thread.run_sync(service.get_session, session.session_id)
    assert ended is not None
    assert ended.result is not None
    frames = ended.result.frames
    assert frames.accepted == sum(accepted)
    assert set(frames.dropped) <= {"late"}
    assert spoken(ended.result)
    whole = played(ended.result)
    assert len(whole) == frames.bytes == frames.recorded * FRAME
    assert all(len(set(whole[at : at + FRAME])) == 1 for at in range(0, len(whole), FRAME))
    assert frames.digest == hashlib.sha256(whole).hexdigest()
