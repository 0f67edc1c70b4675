"""A part of a call that a host brings works in real calls: with audio, news, evidence, its result, and its failures."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from actors import IGNORE, Actor, ActorDeclarationError, Out
from actors.voice import CallAudio, CallPart, Hears, PartContext
from actors.voice.messages import Drain, Frames, PartRecord
from agentos.core.communication.voice import AsyncVoiceService, VoiceEvent, VoiceEventType, VoiceService
from agentos.core.communication.voice.errors import UnusableExtension
from agentos.core.communication.voice.settings import VoiceSettings
from machines.session import SessionResult
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)
MakeSettings = Callable[..., VoiceSettings]

PAGE = (Path(__file__).parents[3] / "docs" / "add-a-part.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))


def page_module(name: str) -> Any:
    """A program of the page `add-a-part.md`, as a module."""
    module = ModuleType(name)
    exec(compile(PROGRAMS[f"{name}.py"], f"{name}.py", "exec"), vars(module))
    return module


SHOUTING = page_module("shouting")
LoudnessPort, ShoutingPart = SHOUTING.LoudnessPort, SHOUTING.ShoutingPart

QUIET, LOUD = b"\0\1" * 320, b"\0\x70" * 320  # a frame each


def test_the_part_is_short() -> None:
    assert sorted(PROGRAMS) == ["call_with_shouting.py", "check_shouting.py", "shouting.py"]
    assert len(PROGRAMS["shouting.py"].splitlines()) < 80


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("call_with_shouting.py", r"^\{'shouting': \{'loud_ms': 1000\}\}$"),
        ("check_shouting.py", r"(^\{.*\} [\d,]+ states every promise holds\n?){3}\Z"),
    ],
)
def test_the_programs_of_the_page_run(program: str, said: str, tmp_path: Path) -> None:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={
            **os.environ,
            "AGENTOS_VOICE_HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout, re.MULTILINE), done.stdout


async def called(service: AsyncVoiceService, *frames: bytes) -> SessionResult:
    """The result of a call with these frames."""
    session = await service.create_session("p", "local", "whisper_local")
    for frame in frames:
        await service.dispatch_audio_chunk(session.session_id, frame)
    assert await service.stop_session(session.session_id)
    ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    return ended.result


@pytest.mark.anyio
async def test_a_part_hears_the_audio_of_a_call_and_stands_in_its_result(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(), parts=[ShoutingPart()]) as service:
        session = await service.create_session("p", "local", "whisper_local")
        async with anyio.create_task_group() as group:
            events: list[VoiceEvent] = []

            async def listen() -> None:
                events.extend([event async for event in service.events(session.session_id)])

            group.start_soon(listen)
            for frame in (QUIET, LOUD, LOUD, QUIET):
                await service.dispatch_audio_chunk(session.session_id, frame)
            assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert (ended.result.drained, ended.result.parts) == (True, {"shouting": {"loud_ms": 40}})
    told = [event.payload for event in events if event.event_type is VoiceEventType.PART_REPORTED]
    assert told[-1] == {"part": "shouting", "loud_frames": 2}


def test_the_blocking_service_takes_parts_too(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings(), parts=[ShoutingPart()]) as service:
        session = service.create_session("p", "local", "whisper_local")
        service.dispatch_audio_chunk(session.session_id, LOUD)
        assert service.stop_session(session.session_id)
        ended = service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert ended.result.parts == {"shouting": {"loud_ms": 20}}


class Stuck(LoudnessPort):
    """Never gets to the audio."""

    held = threading.Event()

    def work(self, work: Any) -> None:
        self.held.wait()


class StuckPart(ShoutingPart):
    def open_port(self, audio: CallAudio) -> Stuck:
        return Stuck(audio)


@pytest.mark.anyio
async def test_a_part_whose_port_is_stuck_holds_up_neither_callers_nor_the_end_beyond_its_deadline(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(backlog_seconds=1, stop_timeout_seconds=0.5)
    try:
        async with AsyncVoiceService(settings, parts=[StuckPart()]) as service:
            with anyio.fail_after(60):  # a caller that is held up would wait for ever
                result = await called(service, *[QUIET] * 500)
            Stuck.held.set()
    finally:
        Stuck.held.set()
    assert (result.drained, result.frames.accounted, result.parts) == (False, 500, {"shouting": {"loud_ms": 0}})


class Broken(LoudnessPort):
    """Fails at its first work of audio."""

    def work(self, work: Any) -> None:
        if work.frames is not None:
            raise OSError("no microphone")
        super().work(work)


class BrokenPart(ShoutingPart):
    def open_port(self, audio: CallAudio) -> Broken:
        return Broken(audio)


@pytest.mark.anyio
async def test_what_a_port_raises_is_logged_and_its_thread_goes_on(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncVoiceService(make_settings(), parts=[BrokenPart()]) as service:
        result = await called(service, LOUD)
    assert (result.drained, result.parts) == (True, {"shouting": {"loud_ms": 0}})
    assert "part_work_failed" in caplog.text


class Astray(LoudnessPort):
    """Tells what it measured to nobody."""

    def work(self, work: Any) -> None:
        if work.frames is not None:
            self.audio.tell("me", SHOUTING.Measured(0, last=False))
        super().work(work)


@pytest.mark.anyio
async def test_what_a_port_tells_to_no_actor_is_an_error_of_the_port(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncVoiceService(make_settings(), parts=[part(open_port=lambda _, audio: Astray(audio))]) as service:
        assert (await called(service, LOUD)).drained
    assert "a message goes to the Ref of an actor, not to 'me'" in caplog.text


class CrashingActor(Actor):
    """Crashes on every frame."""

    __slots__ = ()
    handles = {Frames: "frames", Drain: IGNORE}  # noqa: RUF012 - a table on an actor class is never changed

    def frames(self, message: Frames, out: Out) -> None:
        raise RuntimeError("again")


class CrashingPart(ShoutingPart):
    kind = CrashingActor

    def actor(self, context: PartContext) -> Actor:
        return CrashingActor()


@pytest.mark.anyio
async def test_a_part_that_crashes_again_and_again_costs_no_call(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(restart_limit=2), parts=[CrashingPart()]) as service:
        result = await called(service, *[QUIET] * 20)
    assert (result.reason.value, result.drained, result.frames.accounted) == ("stopped", True, 20)


def fails(*_: Any) -> Any:
    raise RuntimeError("by mistake")


def part(**of_its_own: Any) -> CallPart:
    """The part of the page, with these methods and names of its own."""
    changed: CallPart = type("Changed", (ShoutingPart,), of_its_own)()
    return changed


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("outcome", "entry"),
    [
        (fails, {"error": "outcome() raised RuntimeError"}),
        (lambda *_: [1], {"error": "outcome() gave list, not an object"}),
        (lambda *_: {"x": object()}, {"error": "outcome() gave a value that is not JSON: TypeError"}),
        (lambda *_: {"x": float("nan")}, {"error": "outcome() gave a value that is not JSON: ValueError"}),
        (lambda *_: {"x": "\ud800"}, {"error": "outcome() gave a value that is not JSON: UnicodeEncodeError"}),
        (lambda *_: {"x": "y" * 70_000}, {"error": "outcome() gave 70,009 bytes, more than 65,536"}),
    ],
    ids=["raises", "list", "object", "nan", "surrogate", "large"],
)
async def test_no_outcome_keeps_a_call_from_its_final_record(
    make_settings: MakeSettings, verified: Callable[[], int], outcome: Any, entry: dict[str, str]
) -> None:
    async with AsyncVoiceService(make_settings(), parts=[part(outcome=outcome)]) as service:
        result = await called(service, LOUD)
    assert (result.drained, result.frames.accounted, result.parts) == (True, 1, {"shouting": entry})
    assert verified() == 4


@pytest.mark.anyio
@pytest.mark.parametrize("make", [fails, lambda *_: None], ids=["raises", "no actor"])
async def test_a_part_that_makes_no_actor_takes_no_audio_from_the_others(
    make_settings: MakeSettings, make: Any
) -> None:
    async with AsyncVoiceService(make_settings(restart_limit=2), parts=[part(actor=make)]) as service:
        result = await called(service, LOUD)
    assert (result.reason.value, result.drained, result.frames.accounted) == ("stopped", True, 1)


@pytest.mark.anyio
async def test_a_part_that_can_not_begin_costs_its_call_alone(make_settings: MakeSettings) -> None:
    asked: list[None] = []

    def takes(*_: Any) -> bool:
        asked.append(None)
        if len(asked) in (1, 3):
            raise RuntimeError("by mistake")
        return True

    async with AsyncVoiceService(make_settings(), parts=[part(takes=takes)]) as service:
        with pytest.raises(UnusableExtension, match=r"'shouting' \(parts\).*takes\(\) raised RuntimeError: by mistake"):
            await called(service, LOUD)
        with pytest.raises(OSError, match="a part of the call can't begin: RuntimeError: by mistake"):
            await called(service, LOUD)
        assert (await called(service, LOUD)).parts == {"shouting": {"loud_ms": 20}}


class Deaf(Stuck):
    """Never gets to the audio, and does not take the work that would end that either."""

    held = threading.Event()

    def submit(self, work: Any) -> None:
        if work == "release":
            raise OSError("no microphone")
        super().submit(work)


@pytest.mark.anyio
@pytest.mark.parametrize("release", [fails, lambda *_: "release"], ids=["the part", "its port"])
async def test_a_release_that_fails_holds_up_no_end(make_settings: MakeSettings, release: Any) -> None:
    Deaf.held.clear()
    stuck = part(open_port=lambda _, audio: Deaf(audio), release=release)
    try:
        async with AsyncVoiceService(make_settings(stop_timeout_seconds=0.5), parts=[stuck]) as service:
            result = await called(service, LOUD)
            Deaf.held.set()
    finally:
        Deaf.held.set()
    assert (result.reason.value, result.drained, result.frames.accounted) == ("stopped", False, 1)


class NotClosed(LoudnessPort):
    def close(self, seconds: float) -> bool:
        super().close(seconds)
        raise OSError("no microphone")


@pytest.mark.anyio
async def test_a_port_that_fails_at_its_close_keeps_nothing_open(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    async with AsyncVoiceService(settings, parts=[part(open_port=lambda _, audio: NotClosed(audio))]) as service:
        assert (await called(service, LOUD)).drained
    assert "part_port_not_closed" in caplog.text
    assert not [thread.name for thread in threading.enumerate() if "agentos-voice store" in thread.name]


@pytest.mark.anyio
async def test_a_part_without_a_port_is_refused_at_the_start(make_settings: MakeSettings) -> None:
    with pytest.raises(UnusableExtension, match=r"open_port\(\) gave no port, but None"):
        async with AsyncVoiceService(make_settings(), parts=[part(open_port=lambda *_: None)]):
            pass


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (ShoutingPart, "an instance of a CallPart, not <class"),
        (part(name="a/b"), "the name 'a/b' of Changed is no lower-case letter"),
        (part(port="Loud"), "the port 'Loud' of Changed is no lower-case letter"),
        (part(port="media"), "the port 'media' of the part 'shouting' is one of the service's own"),
        (part(hears=Hears.VOICE), "'shouting' notices speech, so it needs the method upto"),
        (part(begins_with=fails), r"begins_with\(None\) of the part 'shouting' raised RuntimeError"),
    ],
)
def test_a_part_that_can_not_work_is_refused_at_once(make_settings: MakeSettings, given: Any, problem: str) -> None:
    with pytest.raises(ActorDeclarationError, match=problem):
        AsyncVoiceService(make_settings(), parts=[given])


def test_a_record_of_a_part_is_no_record_of_its_session() -> None:
    with pytest.raises(ValueError, match="session_stopped is an operation of the session"):
        PartRecord("session_stopped", ())
    with pytest.raises(ValueError, match="state is a field of the session's own"):
        PartRecord("shouting_heard", (("state", "stopped"),))


class UntoldActor(SHOUTING.ShoutingActor):  # type: ignore[misc]
    """Tells listeners what can't be told."""

    __slots__ = ()

    def measured(self, message: Any, out: Out) -> None:
        if message.loud:
            self.call.event(loud=object())
        super().measured(message, out)


@pytest.mark.anyio
async def test_news_that_are_not_json_are_an_error_of_the_part(make_settings: MakeSettings) -> None:
    untold = part(kind=UntoldActor, actor=lambda _, context: UntoldActor(context))
    async with AsyncVoiceService(make_settings(restart_limit=1), parts=[untold]) as service:
        session = await service.create_session("p", "local", "whisper_local")
        await service.dispatch_audio_chunk(session.session_id, LOUD)
        assert await service.stop_session(session.session_id)
        events = [event async for event in service.events(session.session_id)]
    (error, *_) = [event.payload for event in events if event.event_type is VoiceEventType.ERROR]
    assert (error["part"], error["error"][:9]) == ("shouting", "TypeError")
    assert all(event.event_type is not VoiceEventType.PART_REPORTED for event in events)


class UnopenedPart(ShoutingPart):
    def open_port(self, audio: CallAudio) -> Any:
        raise OSError("no microphone")


@pytest.mark.anyio
async def test_a_port_that_can_not_be_opened_keeps_the_service_from_starting_and_leaves_nothing_behind(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    with pytest.raises(OSError, match="no microphone"):
        async with AsyncVoiceService(settings, parts=[UnopenedPart()]):
            pass
    async with AsyncVoiceService(settings, parts=[ShoutingPart()]) as service:  # the home is free again
        assert (await called(service, LOUD)).parts == {"shouting": {"loud_ms": 20}}
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("agentos-voice Loud")]


def test_parts_of_one_name_are_refused_at_once(make_settings: MakeSettings) -> None:
    with pytest.raises(ActorDeclarationError, match="two parts of a call have one name"):
        AsyncVoiceService(make_settings(), parts=[ShoutingPart(), ShoutingPart()])
