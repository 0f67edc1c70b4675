"""A port that hangs is noticed: new calls are refused, calls that end do not wait for it, until it answers again."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from actors.runtime.health import PortBack, PortSilent
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSession
from agentos.core.communication.voice.errors import Overloaded
from agentos.core.communication.voice.logs import LOGGER
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.running import resources
from agentos.core.communication.voice.running.port_health import PortHealth
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.stt.port import SpeechPort
from machines.recording import RecordingState
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
PATIENCE = 30  # seconds, for what must come; no test waits so long
SECOND = bytes(32_000)
QUICK = {"heartbeat_seconds": 0.05, "heartbeat_timeout_seconds": 1}


class Disk:
    """The disk under the recordings; while it hangs, a write does not return."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sound = threading.Event()
        self._sound.set()
        write = RecordingWriter.write

        def written(writer: RecordingWriter, *arguments: Any) -> None:
            assert self._sound.wait(PATIENCE)
            write(writer, *arguments)

        monkeypatch.setattr(RecordingWriter, "write", written)

    def hang(self) -> None:
        self._sound.clear()

    def go_on(self) -> None:
        self._sound.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.go_on()


class Turns:
    """The turns of the speech port; while they hang, what was handed over waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._hanging = False
        self._waiting: list[tuple[SpeechPort, Any]] = []
        turn = SpeechPort._turn

        def turned(port: SpeechPort, now: float) -> None:
            if self._hanging:
                self._waiting += [(port, step) for step in port._inbox]
                port._inbox.clear()
            else:
                turn(port, now)

        monkeypatch.setattr(SpeechPort, "_turn", turned)

    def hang(self) -> None:
        self._hanging = True

    def go_on(self) -> None:
        self._hanging = False
        waiting, self._waiting = self._waiting, []
        for port, (step, arguments) in waiting:
            port._post(step, *arguments)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


async def create(service: AsyncVoiceService, engine: STTProvider = STTProvider.WHISPER) -> VoiceSession:
    metadata = {"recording_enabled": True}
    return await service.create_session("project", VoiceProvider.LOCAL, engine, metadata)


def failed_ports(records: Records, session_id: str) -> list[tuple[str, str]]:
    """Which ports are on record as failed in a session, and why."""
    said = [one["response_summary"] for one in records(session_id) if one["operation"] == "port_failed"]
    return [(one["port"], one["reason"]) for one in said]


async def wait_for(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


def silent(service: AsyncVoiceService) -> tuple[str, ...]:
    """What a picture says."""
    return service.inspect().ports.silent


def logged(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name.startswith(LOGGER)]


def refusing(service: AsyncVoiceService) -> tuple[str, ...]:
    """What a new call is held against."""
    return service.statistics().load.silent_ports


@pytest.mark.anyio
async def test_a_disk_that_hangs_is_noticed_new_calls_are_refused_and_taken_again_when_it_goes_on(
    make_settings: MakeSettings, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", LOGGER):
        async with AsyncVoiceService(make_settings(**QUICK)) as service:
            session = await create(service)
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            await wait_for(lambda: service.statistics().media.frames == 50)
            assert silent(service) == ()
            disk.hang()
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            await wait_for(lambda: refusing(service) == ("media",))
            assert silent(service) == ("media",)
            with pytest.raises(Overloaded, match="the media port does not answer") as refused:
                await create(service)
            assert refused.value.retry_after_seconds == 5
            disk.go_on()
            await wait_for(lambda: refusing(service) == ())
            assert silent(service) == ()
            await create(service)
            assert await service.stop_session(session.session_id)
            ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert (ended.result.frames.accounted, ended.result.frames.dropped) == (100, {}), "a call that waits loses nothing"
    events = [(line.event, line.facts["port"]) for line in logged(caplog) if line.event.startswith("port_")]
    assert events == [("port_silent", "media"), ("port_back", "media")]


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_that_ends_does_not_wait_for_a_disk_that_hangs_and_declares_what_it_has_not(
    make_settings: MakeSettings, disk: Disk, records: Records, when: str
) -> None:
    settings = make_settings(**QUICK, stop_timeout_seconds=10 * PATIENCE)
    async with AsyncVoiceService(settings) as service:
        session = await create(service)
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        await wait_for(lambda: service.statistics().media.frames == 50)
        disk.hang()
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        if when == "after":
            await wait_for(lambda: silent(service))
        with anyio.fail_after(PATIENCE):
            assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
        with anyio.move_on_after(0.05) as waited:
            await service.recording(session.session_id)
        assert waited.cancelled_caught, "samples are there"
        disk.go_on()
        await wait_for(lambda: not silent(service))
        with anyio.fail_after(PATIENCE):
            recording = await service.recording(session.session_id)
    assert recording is not None
    assert (recording.state, recording.samples, recording.gaps) == (RecordingState.READY, 100 * 320, ())
    assert [one["operation"] for one in records(recording.recording_id)] == ["recording_ready"]
    assert ended is not None
    assert ended.result is not None
    frames = ended.result.frames
    assert (frames.accepted, frames.accounted, frames.dropped) == (100, 50, {"media_silent": 50})
    assert (frames.recorded, ended.result.recording) == (0, None)
    assert failed_ports(records, session.session_id) == [("media", "media_silent")]


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_that_ends_does_not_wait_for_a_speech_port_that_hangs_and_declares_what_was_not_heard(
    make_settings: MakeSettings, turns: Turns, records: Records, when: str
) -> None:
    settings = make_settings(**QUICK, stop_timeout_seconds=10 * PATIENCE, stt_workers=1)
    async with AsyncVoiceService(settings) as service:
        session = await create(service, STTProvider.POCKETSPHINX)
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        await wait_for(
            lambda: service.statistics().speech.frames_under_way + service.statistics().speech.heard_frames == 50
        )
        turns.hang()
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        if when == "after":
            await wait_for(lambda: silent(service))
        with anyio.fail_after(PATIENCE):
            assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
        turns.go_on()
        await wait_for(lambda: not silent(service) and not service.statistics().speech.streams)
    assert ended is not None
    assert ended.result is not None
    frames = ended.result.frames
    assert ended.result.drained
    assert (frames.accepted, frames.recorded, frames.dropped) == (100, 100, {})
    assert frames.untranscribed == {"speech_silent": 100 - frames.transcribed}
    assert frames.transcribed <= 50
    assert failed_ports(records, session.session_id) == [("speech", "speech_silent")]


@pytest.mark.anyio
async def test_while_the_speech_port_is_silent_only_calls_that_are_not_transcribed_are_taken_and_then_all_again(
    make_settings: MakeSettings, turns: Turns
) -> None:
    async with AsyncVoiceService(make_settings(**QUICK, stt_workers=1)) as service:
        turns.hang()
        await wait_for(lambda: refusing(service) == ("speech",))
        with pytest.raises(Overloaded, match="the speech port does not answer"):
            await create(service, STTProvider.POCKETSPHINX)
        recorded = await create(service)
        assert recorded.stt_engine == "none"
        await service.dispatch_audio_chunk(recorded.session_id, SECOND)
        assert await service.stop_session(recorded.session_id)
        turns.go_on()
        await wait_for(lambda: refusing(service) == ())
        heard = await create(service, STTProvider.POCKETSPHINX)
        await service.dispatch_audio_chunk(heard.session_id, SECOND)
        assert await service.stop_session(heard.session_id)
        ended = await service.get_session(heard.session_id)
    assert ended is not None
    assert ended.result is not None
    assert (ended.result.frames.transcribed, ended.result.frames.untranscribed) == (50, {})


@pytest.mark.anyio
async def test_a_thread_that_hangs_at_the_very_end_is_left_alone_and_the_log_says_so(
    make_settings: MakeSettings, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "CLOSING_GRACE_SECONDS", 0.1)
    settings = make_settings(heartbeat_seconds=0, stop_timeout_seconds=0.1)
    with caplog.at_level("INFO", LOGGER):
        async with AsyncVoiceService(settings) as service:
            session = await create(service)
            disk.hang()
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            assert await service.stop_session(session.session_id)
    said = [line.facts["port"] for line in logged(caplog) if line.event == "port_abandoned"]
    assert said == ["media"]


@pytest.mark.anyio
async def test_without_heartbeats_nobody_is_watched(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(heartbeat_seconds=0)) as service:
        assert "health" not in {actor.path for actor in service.inspect().system.actors}


def test_what_is_known_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []
    health = PortHealth({"media": told.append})
    with caplog.at_level("INFO", LOGGER):
        for news in (PortBack("media"), PortSilent("media"), PortSilent("media"), PortSilent("speech")):
            health.submit(news)
        assert health.silent == ("media", "speech")
        for news in (PortBack("media"), PortBack("media")):
            health.submit(news)
    assert set(health.silent) == {"speech"}
    assert told == [PortSilent("media"), PortBack("media")]
    assert [line.event for line in logged(caplog)] == ["port_silent", "port_silent", "port_back"]
