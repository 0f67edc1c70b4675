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
from actors.voice import CallAudio, PartContext
from actors.voice.messages import Drain, Frames
from agentos.core.communication.voice import AsyncVoiceService, VoiceEvent, VoiceEventType, VoiceService
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
