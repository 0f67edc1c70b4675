"""The control socket: there while the service runs, for its user alone, and no client can harm the service."""

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread
import msgspec
import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSession
from agentos.core.communication.voice.errors import ServiceNotReachable, SessionNotFound
from agentos.core.communication.voice.running.control import folder
from agentos.core.communication.voice.running.control import socket as control
from agentos.core.communication.voice.running.control.client import ControlClient, services_of
from agentos.core.communication.voice.running.control.protocol import MAX_REQUEST_BYTES, TraceEnded
from agentos.core.communication.voice.settings import VoiceSettings
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., VoiceSettings]
PATIENCE = 30
SECOND = bytes(32_000)
in_thread = anyio.to_thread.run_sync


async def create(service: AsyncVoiceService) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)


def the_socket(home: Path) -> Path:
    (path,) = services_of(home)
    return path


class Talk:
    """A client that says what it likes."""

    def __init__(self, path: Path) -> None:
        self.connection = folder.connect(path, timeout_seconds=PATIENCE)
        self.answers = self.connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        self.connection.close()

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def hear(self) -> Any:
        """The next answer; None when the other end has hung up."""
        try:
            line = self.answers.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None


async def with_talk(home: Path, script: Callable[[Talk], Any]) -> Any:
    def run() -> Any:
        with Talk(the_socket(home)) as talk:
            return script(talk)

    return await in_thread(run)


async def test_a_picture_is_there_for_the_asking(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        await create(service)

        def ask() -> Any:
            with ControlClient(the_socket(home)) as client:
                return client.instance, client.inspect(100), client.inspect(2)

        instance, whole, part = await in_thread(ask)
        assert whole.sessions == {"created": 1}
        assert whole.instance == instance == service.inspect().instance
        assert [actor.path for actor in whole.system.actors] == [
            actor.path for actor in service.inspect().system.actors
        ]
        assert (len(part.system.actors), part.system.left_out) == (2, 3)


async def test_only_its_user_can_come_in_and_it_goes_with_the_service(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()):
        path = the_socket(home)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stem.startswith(f"{os.getpid()}-")
    assert list(folder.folder_of(home).iterdir()) == []
    with pytest.raises(ServiceNotReachable, match="none runs"):
        services_of(home)


async def test_a_folder_that_was_open_to_others_is_closed_to_them(make_settings: MakeSettings, home: Path) -> None:
    folder.folder_of(home).mkdir(parents=True, mode=0o755)
    async with AsyncVoiceService(make_settings()):
        assert stat.S_IMODE(folder.folder_of(home).stat().st_mode) == 0o700


async def test_there_is_none_when_the_settings_forbid_it(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings(control_socket="off")) as service:
        assert not folder.folder_of(home).exists()
        assert service.inspect().sessions == {}


async def test_two_services_of_one_process_have_one_each(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()), AsyncVoiceService(make_settings()):
        assert len(services_of(home)) == 2
    assert folder.running(home) == []


async def test_a_dead_process_s_socket_is_removed_and_a_living_one_s_is_not(
    make_settings: MakeSettings, home: Path
) -> None:
    dead = folder.folder_of(home)
    dead.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead / "1-dead.sock"))  # and nobody listens
    async with AsyncVoiceService(make_settings()) as first, AsyncVoiceService(make_settings()) as second:
        names = {path.stem for path in folder.running(home)}
        assert names == {first.inspect().instance, second.inspect().instance}
    assert list(dead.iterdir()) == []


def test_a_socket_that_is_being_bound_is_left_alone_until_it_is_too_old(home: Path) -> None:
    where = folder.folder_of(home)
    where.mkdir(parents=True)
    young, old = where / f"1-young{folder.BINDING}", where / f"1-old{folder.BINDING}"
    for path in (young, old):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    os.utime(old, (0, 0))
    assert folder.running(home) == []
    assert list(where.iterdir()) == [young]


async def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    home = tmp_path / ("long" * 30) / "home"
    async with AsyncVoiceService(make_settings(home=home)) as service:
        path = the_socket(home)
        assert len(os.fsencode(path)) > 108

        def ask() -> Any:
            with ControlClient(path) as client:
                return client.inspect(0).instance

        assert await in_thread(ask) == service.inspect().instance
    assert list(folder.folder_of(home).iterdir()) == []


async def test_a_service_that_can_have_no_socket_runs_without(
    make_settings: MakeSettings, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.mkdir()
    folder.folder_of(home).write_text("in the way")
    with caplog.at_level("INFO"):
        async with AsyncVoiceService(make_settings()) as service:
            await create(service)
    (line,) = [line for line in caplog.records if "no control socket" in line.getMessage()]
    assert (line.levelname, "File exists" in line.getMessage()) == ("WARNING", True)


async def test_a_platform_without_unix_sockets_has_none(
    make_settings: MakeSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "HAS_SOCKETS", False)
    async with AsyncVoiceService(make_settings()) as service:
        await create(service)
        assert not folder.folder_of(home).exists()


# --- the trace -----------------------------------------------------------------------------------------------------


async def test_a_session_is_traced_to_its_end_and_the_connection_goes_on(
    make_settings: MakeSettings, home: Path
) -> None:
    begun = anyio.Event()
    steps: list[Any] = []

    def follow(session_id: str) -> Any:
        with ControlClient(the_socket(home)) as client:
            client.trace(session_id)
            anyio.from_thread.run_sync(begun.set)
            steps.extend(client.steps())
            return client.inspect(0).sessions

    async with AsyncVoiceService(make_settings()) as service, anyio.create_task_group() as group:
        session = await create(service)
        after: list[Any] = []

        async def read() -> None:
            after.append(await in_thread(follow, session.session_id))

        group.start_soon(read)
        await begun.wait()
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        await service.stop_session(session.session_id)
    assert steps[0].message == "Frames"
    assert steps[-2].next_phase == "stopped"
    assert steps[-1] == TraceEnded(0)
    assert after == [{}]


async def test_a_session_that_does_not_run_is_refused(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()):

        def ask() -> None:
            with ControlClient(the_socket(home)) as client:
                with pytest.raises(SessionNotFound):
                    client.trace("voice-of-nobody")
                client.inspect(0)

        await in_thread(ask)


async def test_a_reader_that_hangs_up_ends_its_trace(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        request = msgspec.json.encode({"request": "trace", "session_id": session.session_id}) + b"\n"

        def begin(talk: Talk) -> Any:
            talk.say(request)
            return talk.hear()

        assert (await with_talk(home, begin))["answer"] == "tracing"
        with anyio.fail_after(PATIENCE):
            while "trace" in {actor.path for actor in service.inspect().system.actors}:
                await anyio.sleep(0.01)


# --- clients that misbehave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_line",
    [b"hello\n", b"{}\n", b'{"request":"shutdown"}\n', b'{"request":"inspect","most_actors":-1}\n', b"\xff\n", b"\n"],
)
async def test_what_is_not_understood_is_refused_and_the_next_request_taken(
    make_settings: MakeSettings, home: Path, request_line: bytes
) -> None:
    def script(talk: Talk) -> Any:
        talk.say(request_line)
        refused = talk.hear()
        talk.say(b'{"request":"inspect","most_actors":100}\n')
        return refused, talk.hear()

    async with AsyncVoiceService(make_settings()):
        refused, taken = await with_talk(home, script)
    assert (refused["answer"], refused["kind"]) == ("refused", "InvalidRequest")
    assert taken["answer"] == "picture"


async def test_a_request_without_end_is_cut_off(make_settings: MakeSettings, home: Path) -> None:
    def script(talk: Talk) -> Any:
        talk.say(b"x" * (MAX_REQUEST_BYTES + 1))
        return talk.hear(), talk.hear()

    async with AsyncVoiceService(make_settings()):
        refused, then = await with_talk(home, script)
    assert refused["answer"] == "refused"
    assert then is None


async def test_one_client_too_many_is_refused_and_a_place_becomes_free(
    make_settings: MakeSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MOST_CLIENTS", 2)

    def script(path: Path) -> Any:
        with Talk(path) as first, Talk(path) as second:
            for talk in (first, second):
                talk.say(b'{"request":"inspect","most_actors":100}\n')
                assert talk.hear()["answer"] == "picture"
            with Talk(path) as third:
                refused = third.hear(), third.hear()
        while True:
            with Talk(path) as fourth:
                fourth.say(b'{"request":"inspect","most_actors":100}\n')
                if fourth.hear()["answer"] == "picture":
                    return refused

    async with AsyncVoiceService(make_settings()) as service:
        path = folder.folder_of(home) / f"{service.inspect().instance}{folder.SUFFIX}"
        refused, then = await in_thread(script, path)
    assert refused["kind"] == "Overloaded"
    assert then is None


async def test_a_client_that_says_nothing_is_let_go(
    make_settings: MakeSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.05)
    async with AsyncVoiceService(make_settings()):
        assert await with_talk(home, Talk.hear) is None


async def test_a_client_that_takes_no_answers_is_let_go(
    make_settings: MakeSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SLOW_SECONDS", 0.05)

    def script(talk: Talk) -> Any:
        for _ in range(5_000):  # answers of two kilobytes each: far more than a socket holds
            try:
                talk.say(b'{"request":"inspect","most_actors":100}\n')
            except (BrokenPipeError, ConnectionResetError):
                return True
        return False

    async with AsyncVoiceService(make_settings()) as service:
        for _ in range(5):
            await create(service)
        assert await with_talk(home, script)
        await create(service)


async def test_the_end_of_the_service_hangs_up(make_settings: MakeSettings, home: Path) -> None:
    async with AsyncVoiceService(make_settings()):
        talk = await in_thread(Talk, the_socket(home))
    with talk:
        assert await in_thread(talk.hear) is None
