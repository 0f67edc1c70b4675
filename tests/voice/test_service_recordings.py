"""A call's end waits for no recording, and leaves nothing of the session at work: the service finishes it, or the next one."""

import fcntl
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import AsyncVoiceService, VoiceService
from agentos.core.communication.voice.errors import InvalidState, ServiceClosed, SessionNotFound
from agentos.core.communication.voice.recording import finishing, recordings
from agentos.core.communication.voice.recording.segments import Plain, make_private_folder
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.recording import RecordingState
from machines.session import STTProvider, VoiceProvider, VoiceSessionState
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

MakeSettings = Callable[..., VoiceSettings]
FINISHING, READY, FAILED = RecordingState

pytestmark = pytest.mark.anyio


async def call(service: AsyncVoiceService, audio: bytes, *, recorded: bool = True) -> str:
    """A call that has had this audio, and stands."""
    session = await service.create_session(
        "p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": recorded}
    )
    for at in range(0, len(audio), 32_000):
        await service.dispatch_audio_chunk(session.session_id, audio[at : at + 32_000])
    return session.session_id


async def state(service: AsyncVoiceService, session_id: str) -> RecordingState | None:
    session = await service.get_session(session_id)
    assert session is not None
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    return None if session.result.recording is None else session.result.recording.state


@contextmanager
def held(settings: VoiceSettings, session_id: str) -> Iterator[None]:
    """Another process is at this recording."""
    make_private_folder(settings.recordings / session_id)  # the audio may not have come so far
    descriptor = os.open(settings.recordings / session_id, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def test_whoever_wants_the_file_waits_for_it(make_settings: MakeSettings, audio: Callable[..., bytes]) -> None:
    said = audio(160_000)
    async with AsyncVoiceService(make_settings(recording_segment_seconds=1)) as service:
        session_id = await call(service, said)
        with pytest.raises(InvalidState, match="once it has stopped"):
            await service.recording(session_id)
        with held(service.settings, session_id):
            assert await service.stop_session(session_id)
            assert await state(service, session_id) is FINISHING
            with anyio.move_on_after(0.05) as waited:
                await service.recording(session_id)
            assert waited.cancelled_caught
        with anyio.fail_after(20):
            found = await service.recording(session_id)
        assert found is not None
        assert found.state is READY
        assert soundfile.read(found.path, dtype="int16")[0].tobytes() == said
        plain = await call(service, said, recorded=False)
        await service.stop_session(plain)
        assert await service.recording(plain) is None
        with pytest.raises(SessionNotFound):
            await service.recording("voice-0")


async def test_the_result_says_all_of_it_before_it_is_one_file(
    make_settings: MakeSettings, audio: Callable[..., bytes]
) -> None:
    async with AsyncVoiceService(make_settings(recording_segment_seconds=1)) as service:
        session_id = await call(service, audio(80_000))
        with held(service.settings, session_id):
            await service.stop_session(session_id)
            session = await service.get_session(session_id)
            assert session is not None
            assert session.result is not None
            recording, frames = session.result.recording, session.result.frames
            assert recording is not None
            assert (recording.samples, recording.seconds, recording.segments) == (80_000, 5.0, 5)
            assert recording.digest == frames.digest
            final = service.voice_store().evidence(session_id)[-1]
            assert final.response_summary is not None
            said = final.response_summary["result"]["recording"]
            assert (said["state"], said["digest"], said["samples"]) == ("finishing", recording.digest, 80_000)
        await service.recording(session_id)
        assert service.voice_store().evidence(session_id)[-1] == final


async def test_calls_that_end_together_with_the_service_leave_their_recordings_to_the_next(
    make_settings: MakeSettings, audio: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they were, and however little of them was sealed: closing encodes nothing, and its deadlines do not pass."""
    encoded: list[Path] = []

    def endless(*_: Any) -> Generator[None, None, None]:
        while True:
            yield

    def encode_steps(source: Path, plain: Plain) -> Generator[None, None, str]:
        encoded.append(source)
        yield from endless()
        return ""

    said = audio(160_000)
    with monkeypatch.context() as patched:
        patched.setattr(recordings, "encode_steps", encode_steps)
        patched.setattr(finishing, "finished_steps", endless)
        async with AsyncVoiceService(make_settings(recording_segment_seconds=1)) as service:
            calls = [await call(service, said) for _ in range(3)]
            first = calls[0]
            await service.stop_session(first)
            assert await state(service, first) is FINISHING
            async with anyio.create_task_group() as group:
                group.start_soon(service.aclose)
                with pytest.raises(ServiceClosed):
                    await service.recording(first)
    assert len(encoded) <= len(calls), "of each at the most the one that was under way"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("voice-finishing")]
    with open_to_read(make_settings().database) as store:
        for session in store.sessions():
            assert session.result is not None
            assert session.result.drained
            assert session.result.recording is not None
            assert session.result.recording.state is FINISHING
    async with AsyncVoiceService(make_settings()) as service:
        for session_id in calls:
            with anyio.fail_after(20):
                found = await service.recording(session_id)
            assert found is not None
            assert found.state is READY
            assert soundfile.read(found.path, dtype="int16")[0].tobytes() == said


async def test_nothing_of_the_session_is_left_while_its_recording_is_finished(
    make_settings: MakeSettings, audio: Callable[..., bytes]
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session_id = await call(service, audio(32_000))
        with held(service.settings, session_id):
            await service.stop_session(session_id)
            with anyio.fail_after(20):
                while service.statistics().media.sessions:
                    await anyio.sleep(0.01)
            assert await state(service, session_id) is FINISHING
            assert not [actor for actor in service.inspect().system.actors if session_id in actor.path]
            assert service.statistics().sessions == 0


async def test_one_that_is_damaged_is_told_and_not_waited_for(
    make_settings: MakeSettings, audio: Callable[..., bytes]
) -> None:
    async with AsyncVoiceService(make_settings(recording_segment_seconds=1)) as service:
        session_id = await call(service, audio(40_000))
        with held(service.settings, session_id):
            await service.stop_session(session_id)
            for file in (service.settings.recordings / session_id).glob("000000.*"):
                file.write_bytes(b"damaged")
        with anyio.fail_after(20):
            found = await service.recording(session_id)
        assert found is not None
        assert found.state is FAILED


def test_a_blocking_service_waits_too(make_settings: MakeSettings, audio: Callable[..., bytes]) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("p", "local", "whisper_local", {"recording_enabled": True})
        service.dispatch_audio_chunk(session.session_id, audio(32_000))
        service.stop_session(session.session_id)
        found = service.recording(session.session_id)
    assert found is not None
    assert found.state is READY
    assert Path(found.path).is_file()
