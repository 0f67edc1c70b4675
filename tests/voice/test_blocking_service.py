"""The blocking service: the same behaviour from any thread, with or without a loop around it."""

import asyncio
import inspect
import json
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceProvider,
    VoiceService,
    VoiceSession,
    VoiceSessionState,
)
from agentos.core.communication.voice.errors import (
    Draining,
    InvalidRequest,
    InvalidState,
    Overloaded,
    PolicyDenied,
    ServiceClosed,
    SessionNotFound,
    StoreError,
)
from agentos.core.communication.voice.recording.manifest import has_samples
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.settings import VoiceSettings

FRAME = 640
PATIENCE = 30
LOOPS = [{"uvloop": "off"}, {"uvloop": "on"}, {"loop": "trio"}]

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


def create(service: VoiceService, metadata: dict[str, Any] | None = None) -> VoiceSession:
    return service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "voice" in thread.name]


@pytest.fixture(params=LOOPS, ids=lambda loop: "-".join(loop.values()))
def service(request: pytest.FixtureRequest, make_settings: MakeSettings) -> Iterator[VoiceService]:
    with VoiceService(make_settings(**request.param)) as running:
        yield running
    assert threads() == []


LOOP_ONLY = {
    "aclose": "close",
    **dict.fromkeys(["run", "door", "fates", "snapshots", "can_be_resumed", "token_store", "voice_store", "transport"]),
}
"""What only makes sense in a loop, and what it is called here."""


@pytest.mark.parametrize(
    "name", [name for name in vars(AsyncVoiceService) if not name.startswith("_") and name not in LOOP_ONLY]
)
def test_it_has_every_method_of_the_asynchronous_one_with_the_same_arguments(name: str) -> None:
    theirs, ours = getattr(AsyncVoiceService, name), getattr(VoiceService, name)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
    else:
        assert list(inspect.signature(ours).parameters.values()) == list(inspect.signature(theirs).parameters.values())


def test_before_a_call_it_can_be_asked_for_the_verdict_and_the_room(service: VoiceService) -> None:
    verdict = service.evaluate_request("p", "twilio", "whisper_local", {"requires_data_access": True})
    assert verdict.reason_code == "ADMIN_TOKEN_REQUIRED"
    service.check_room()
    session = create(service)
    service.begin_drain()
    assert not service.ready
    with pytest.raises(Draining):
        service.check_room()
    waiting = threading.Thread(target=service.wait_closed)
    waiting.start()
    assert service.stop_session(session.session_id)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_whole_call(service: VoiceService, records: Records, verified: Callable[[], int]) -> None:
    session = create(service, {"user": "u"})
    assert session.state is VoiceSessionState.CREATED
    for _ in range(100):
        service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
    assert [active.session_id for active in service.list_active_sessions()] == [session.session_id]
    assert service.stop_session(session.session_id)
    ended = service.get_session(session.session_id)
    assert ended is not None
    assert ended.state is VoiceSessionState.STOPPED
    assert ended.result is not None
    assert ended.result.frames.accepted == ended.result.frames.accounted == 100
    assert service.list_sessions("project", VoiceSessionState.STOPPED) == [ended]
    assert service.list_active_sessions() == []
    kinds = [event.event_type.value for event in service.events(session.session_id)]
    assert kinds[0] == "session_started"
    assert kinds[-1] == "session_stopped"
    assert service.get_provider(VoiceProvider.LOCAL).validate_config()[0]
    assert service.statistics().media.frames == 100
    assert [record["operation"] for record in records()][-1] == "session_stopped"
    assert verified() == 4


def test_its_errors_are_those_of_the_async_one(service: VoiceService) -> None:
    with pytest.raises(InvalidRequest, match="project_id"):
        service.create_session("", VoiceProvider.LOCAL, STTProvider.WHISPER)
    with pytest.raises(PolicyDenied):
        create(service, {"requires_data_access": True})
    with pytest.raises(SessionNotFound):
        service.dispatch_audio_chunk("voice-unknown", b"ab")
    with pytest.raises(SessionNotFound):
        list(service.events("voice-unknown"))
    assert service.stop_session("voice-unknown") is False
    assert service.get_session("voice-unknown") is None
    session = create(service)
    with pytest.raises(InvalidRequest, match="audio_data"):
        service.dispatch_audio_chunk(session.session_id, "text")  # type: ignore[arg-type]
    service.stop_session(session.session_id)
    with pytest.raises(InvalidState, match="STOPPED"):
        service.dispatch_audio_chunk(session.session_id, b"ab")
    assert service.stop_session(session.session_id)


def test_events_come_while_the_session_runs(service: VoiceService) -> None:
    session = create(service)
    events = service.events(session.session_id)
    assert next(events).event_type.value == "session_started"
    service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
    while next(events).payload.get("state") != "active":
        pass
    service.stop_session(session.session_id)
    assert [event.event_type.value for event in events][-1] == "session_stopped"
    started = service.events(session.session_id)
    next(started)
    started.close()  # type: ignore[attr-defined]


def test_many_threads_have_calls_of_their_own(service: VoiceService, verified: Callable[[], int]) -> None:
    def call(mark: int) -> VoiceSession:
        session = create(service, {"mark": mark, "recording_enabled": True})
        for _ in range(20):
            service.dispatch_audio_chunk(session.session_id, bytes([mark]) * FRAME)
        assert service.stop_session(session.session_id)
        service.recording(session.session_id)
        ended = service.get_session(session.session_id)
        assert ended is not None
        return ended

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(call, range(24)))
    assert [session.metadata["mark"] for session in ended] == list(range(24))
    assert len({session.session_id for session in ended}) == 24
    for session in ended:
        assert session.result is not None
        assert session.result.frames.recorded == 20
    assert verified() == 24 * 5, "four records of each session, and one of its recording"


def test_many_threads_that_use_it_first_start_it_once(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service, ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(lambda _: create(service), range(8)))
        assert len({session.session_id for session in sessions}) == 8
        assert threads().count("voice-service") == 1


def test_stops_from_many_threads_are_all_true(service: VoiceService, records: Records) -> None:
    session = create(service)
    service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: service.stop_session(session.session_id), range(8))) == [True] * 8
    assert [record["operation"] for record in records()].count("session_stopped") == 1


def test_closing_stops_what_runs_and_twice_is_once(make_settings: MakeSettings, records: Records) -> None:
    service = VoiceService(make_settings())
    sessions = [create(service) for _ in range(3)]
    service.close()
    service.close()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: service.close(), range(4)))
    assert threads() == []
    for session in sessions:
        last = records(session.session_id)[-1]
        assert last["operation"] == "session_stopped"
        assert last["response_summary"]["result"]["reason"] == "shutdown"


def test_closing_what_never_ran_starts_nothing(make_settings: MakeSettings, home: Path) -> None:
    VoiceService(make_settings()).close()
    with VoiceService(make_settings()):
        pass
    assert threads() == []
    assert not home.exists()


def test_a_closed_service_takes_no_calls(make_settings: MakeSettings) -> None:
    service = VoiceService(make_settings())
    session = create(service)
    service.close()
    for call in (
        lambda: create(service),
        lambda: service.stop_session(session.session_id),
        lambda: service.get_session(session.session_id),
        lambda: service.dispatch_audio_chunk(session.session_id, bytes(FRAME)),
        lambda: list(service.events(session.session_id)),
        lambda: service.get_provider(VoiceProvider.LOCAL),
        service.list_sessions,
        service.list_active_sessions,
        service.statistics,
    ):
        with pytest.raises(ServiceClosed):
            call()
    assert threads() == []


def test_calls_that_wait_while_it_closes_end(make_settings: MakeSettings) -> None:
    ended: list[object] = []
    service = VoiceService(make_settings())
    session = create(service)

    def listen() -> None:
        try:
            ended.append([event.event_type.value for event in service.events(session.session_id)][-1])
        except ServiceClosed:
            ended.append("closed")

    def work() -> None:
        try:
            while True:
                service.stop_session(create(service).session_id)
        except (ServiceClosed, OSError) as error:
            ended.append(type(error).__name__)

    running = [threading.Thread(target=target) for target in (listen, listen, work, work, work)]
    for thread in running:
        thread.start()
    while len(service.list_sessions()) < 5:
        pass
    service.close()
    for thread in running:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in running)
    assert sorted(map(str, ended)) == ["ServiceClosed"] * 3 + ["session_stopped"] * 2


def test_a_store_that_can_not_be_opened_is_told_at_the_first_use(make_settings: MakeSettings, home: Path) -> None:
    home.mkdir()
    (home / "voice.db").write_text("no database, " * 100)
    with VoiceService(make_settings()) as service:
        for _ in range(2):
            with pytest.raises(StoreError):
                create(service)
        (home / "voice.db").unlink()
        assert service.stop_session(create(service).session_id)
    assert threads() == []


def test_without_room_a_chunk_is_refused(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    write = RecordingWriter.write

    def stand_still(writer: RecordingWriter, first_frame: int, data: bytes) -> None:
        assert go_on.wait(PATIENCE)
        write(writer, first_frame, data)

    monkeypatch.setattr(RecordingWriter, "write", stand_still)
    with VoiceService(make_settings(backlog_seconds=0.2, dispatch_timeout_seconds=0.05)) as service:
        session = create(service, {"recording_enabled": True})
        service.dispatch_audio_chunk(session.session_id, bytes(10 * FRAME))
        with pytest.raises(Overloaded):
            service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
        go_on.set()
        service.stop_session(session.session_id)
        ended = service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert ended.result.frames.accepted == ended.result.frames.recorded == 10


class TestInsideALoop:
    """It works, and says once that it is the wrong one there."""

    @staticmethod
    def use(service: VoiceService) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session = create(service)
            service.dispatch_audio_chunk(session.session_id, bytes(FRAME))
            assert service.stop_session(session.session_id)
            assert service.get_session(session.session_id) is not None
        for warning in caught:
            assert warning.filename == __file__  # it points at whoever called
        return [str(warning.message) for warning in caught if warning.category is RuntimeWarning]

    @pytest.mark.parametrize("runner", ["asyncio", "trio"])
    def test_it_works_and_warns_once(self, service: VoiceService, runner: str) -> None:
        async def main() -> list[str]:
            return self.use(service)

        told = asyncio.run(main()) if runner == "asyncio" else trio.run(main)
        assert len(told) == 1
        assert "AsyncVoiceService" in told[0]

    @pytest.mark.parametrize("runner", ["asyncio", "trio"])
    def test_in_a_worker_thread_of_a_loop_there_is_nothing_to_warn_of(self, service: VoiceService, runner: str) -> None:
        async def in_asyncio() -> list[str]:
            return await asyncio.to_thread(self.use, service)

        async def in_trio() -> list[str]:
            return await trio.to_thread.run_sync(self.use, service)

        assert (asyncio.run(in_asyncio()) if runner == "asyncio" else trio.run(in_trio)) == []

    def test_without_a_loop_there_is_nothing_to_warn_of(self, service: VoiceService) -> None:
        assert self.use(service) == []


PROGRAM = """
import sys, threading
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService

def call():
    global service
    service = VoiceService()
    for _ in range(2):
        session = service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True})
        service.dispatch_audio_chunk(session.session_id, bytes(32_000))

def use():
    {use}
"""
ENDS = {
    "falls off the end": "call()",
    "in another thread": "t = threading.Thread(target=call); t.start(); t.join()",
    "in a daemon thread that still runs": (
        "e = threading.Event(); t = threading.Thread(target=lambda: (call(), e.set(), threading.Event().wait()), "
        "daemon=True); t.start(); e.wait()"
    ),
    "exits": "call(); sys.exit(3)",
    "fails": "call(); raise RuntimeError('the host failed')",
    "inside a loop": "import asyncio\n    async def main(): call()\n    asyncio.run(main())",
}


def run_program(folder: Path, use: str, loop: str = "asyncio") -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM.replace("{use}", use) + "\nuse()\n")
    variables = {
        "AGENTOS_VOICE_LOOP": loop,
        "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_thread_that_outlives_the_main_one_is_told_that_it_is_too_late(home: Path, tmp_path: Path) -> None:
    done = run_program(tmp_path, "threading.Thread(target=lambda: (threading.main_thread().join(), call())).start()")
    assert "ServiceClosed: the interpreter is exiting" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_is_open_at_the_exit_is_flushed(end: str, loop: str, home: Path, tmp_path: Path) -> None:
    done = run_program(tmp_path, ENDS[end], loop)
    assert done.returncode == {"exits": 3, "fails": 1}.get(end, 0), done.stderr
    if end == "fails":
        assert done.stderr.rstrip().endswith("RuntimeError: the host failed")
    elif end == "inside a loop":
        assert "AsyncVoiceService" in done.stderr
    else:
        assert done.stderr == ""
    with closing(sqlite3.connect(home / "voice.db")) as database:
        texts = [text for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]
    last = [record for record in map(json.loads, texts) if record["operation"] == "session_stopped"]
    assert len(last) == 2
    for record in last:
        result = record["response_summary"]["result"]
        assert result["frames"]["recorded"] == 50
        assert result["recording"]["samples"] == 16_000
        assert has_samples(Path(result["recording"]["path"]).parent)
    assert list(home.glob("*.spill")) == []


FORKED = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService
service = VoiceService()
session = service.create_session("p", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX)
if os.fork() == 0:
    signal.alarm(20)
    for call in (service.get_session, lambda session_id: service.dispatch_audio_chunk(session_id, bytes(640))):
        try:
            call(session.session_id)
        except RuntimeError as error:
            print(error, flush=True)
    service.close()
    os._exit(0)
os.wait()
print(service.stop_session(session.session_id), flush=True)
"""


def test_a_forked_child_is_told_that_the_service_is_not_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    told = "this voice service belongs to the process that was forked; create a new one here"
    assert (done.stdout.splitlines(), done.returncode) == ([told, told, "True"], 0)
