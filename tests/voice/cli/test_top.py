"""`agentos-voice top` and `trace` against a real service in a process of its own, on a (pseudo) terminal where it matters."""

import errno
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console, Group

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.cli.service_view import service_view
from agentos.core.communication.voice.cli.trace import step_text
from agentos.core.communication.voice.running.inspection import ServicePicture
from agentos.core.time import monotonic_ms

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "agentos.core.communication.voice.cli"]
PATIENCE_MS = 60_000
SERVICE = """
import sys, time
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService
with VoiceService() as service:
    session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, {"note": "s3cr3t"})
    print(session.session_id, flush=True)
    for line in sys.stdin:
        if line == "audio\\n":
            service.dispatch_audio_chunk(session.session_id, bytes(32_000))
            while service.get_session(session.session_id).state.value == "created":
                time.sleep(0.01)
        elif line == "stop\\n":
            service.stop_session(session.session_id)
        print("done", flush=True)
"""
ITS_OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes from there
os.execv(sys.argv[1], sys.argv[1:])
"""


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
        "TERM": "xterm-256color",
    }


class Service:
    """A service in a process of its own, with one session."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.session_id = self._read()

    def do(self, what: str) -> None:
        """Have it play `audio` or `stop` the session, and wait until that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._read() == "done"

    def end(self) -> None:
        """Close the service in order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_MS / 1000) == 0

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def a_service() -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        service = Service(process)
        yield service
        service.end()
    finally:
        with process:  # closes its pipes
            process.kill()


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    with a_service() as running:
        yield running


Done = subprocess.CompletedProcess[str]


def run(*arguments: str) -> Done:
    """The command in this process, which saves the imports."""
    output, complaint = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(complaint):
        code = main([*arguments])
    return Done(arguments, code, output.getvalue(), complaint.getvalue())


class Terminal:
    """A command on a terminal of 100 by 30; what it draws is in `drawn`."""

    def __init__(self, *arguments: str) -> None:
        self.leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (30, 100))
        self.before = termios.tcgetattr(self.leader)
        self.drawn = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", ITS_OWN_TERMINAL, *COMMAND, *arguments],
            env=environment(),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        self._follower = follower  # open, so that the settings can be read when the command has ended

    def until(self, condition: Callable[[], object]) -> None:
        """Read what is drawn until the condition holds."""
        deadline = monotonic_ms() + PATIENCE_MS
        while not condition():
            assert monotonic_ms() < deadline, self.text()
            self._read()

    def press(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        self.until(lambda: self.process.poll() is not None)
        self._read()
        return self.process.returncode

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.drawn.decode(errors="replace"))

    def is_as_before(self) -> bool:
        """The settings are those from before, the cursor is shown and the screen is the main one."""
        screen, cursor = (self.drawn.count(code) for code in (b"\x1b[?1049h", b"\x1b[?25l"))
        left, shown = (self.drawn.count(code) for code in (b"\x1b[?1049l", b"\x1b[?25h"))
        assert screen == 1, "it was never shown"
        return termios.tcgetattr(self.leader) == self.before and (screen, cursor) == (left, shown)

    def _read(self) -> None:
        if select.select([self.leader], [], [], 0.05)[0]:
            try:
                self.drawn += os.read(self.leader, 65_536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.leader)
        os.close(self._follower)


@contextmanager
def a_terminal(*arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments)
    try:
        yield terminal
    finally:
        terminal.close()


# --- one picture ---------------------------------------------------------------------------------------------------


def test_once_prints_one_picture(service: Service) -> None:
    service.do("audio")
    done = run("top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{service.process.pid}-" in done.stdout
    assert "1 active" in done.stdout
    assert f"{service.session_id}/recorder" in done.stdout
    assert "no dead letters" in done.stdout
    assert "\x1b" not in done.stdout
    assert "s3cr3t" not in done.stdout


def test_json_is_the_raw_picture(service: Service) -> None:
    done = run("top", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    picture = msgspec.json.decode(done.stdout, type=ServicePicture)
    assert picture.pid == service.process.pid
    assert picture.sessions == {"created": 1}
    assert f"supervisor/{service.session_id}" in {actor.path for actor in picture.system.actors}
    assert len(json.loads(run("top", "--json", "--actors", "2").stdout)["system"]["actors"]) == 2


def test_without_a_terminal_it_looks_once(service: Service) -> None:
    done = run("top")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("sessions") == 1


def test_without_a_service_it_says_what_to_do(home: Path) -> None:
    done = run("top")
    assert (done.returncode, done.stdout) == (5, "")
    assert "no service answers" in done.stderr
    assert "control_socket" in done.stderr
    assert json.loads(run("top", "--json").stdout)["error"]["type"] == "ServiceNotReachable"


def test_a_service_that_was_killed_is_not_found(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    Service(process)
    process.kill()
    process.communicate()
    assert len(list((home / "run").iterdir())) == 1
    assert run("top").returncode == 5
    assert list((home / "run").iterdir()) == []


def test_of_several_services_one_is_chosen(service: Service) -> None:
    with a_service() as other:
        done = run("top", "--once")
        assert done.returncode == 2
        assert all(f"{one.process.pid}-" in done.stderr for one in (service, other))
        assert "--pid" in done.stderr
        chosen = json.loads(run("top", "--json", "--pid", str(other.process.pid)).stdout)
        assert chosen["pid"] == other.process.pid
        by_name = json.loads(run("top", "--json", "--instance", chosen["instance"]).stdout)
        assert by_name["instance"] == chosen["instance"]
        assert run("top", "--pid", "1").returncode == 2


# --- live ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "code"), [(b"q", 0), (b"Q", 0), (b"\x03", 0)], ids=["q", "Q", "Ctrl-C"])
def test_it_refreshes_until_a_key_ends_it_and_leaves_the_terminal_as_it_was(
    service: Service, keys: bytes, code: int
) -> None:
    with a_terminal("top") as terminal:
        terminal.until(lambda: "1 created" in terminal.text())
        service.do("audio")
        terminal.until(lambda: "1 active" in terminal.text())
        terminal.press(b"x\x1a")  # neither a letter nor Ctrl-Z ends or suspends it
        service.do("stop")
        terminal.until(lambda: "none" in terminal.text())
        terminal.press(keys)
        assert terminal.ended() == code
        assert terminal.is_as_before()
        assert "Traceback" not in terminal.text()


def test_a_signal_to_end_leaves_the_terminal_as_it_was(service: Service) -> None:
    with a_terminal("top") as terminal:
        terminal.until(lambda: "1 created" in terminal.text())
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.is_as_before()


def test_the_end_of_the_service_ends_the_view(home: Path) -> None:
    with a_terminal("top") as terminal:
        assert terminal.ended() == 5  # none runs yet
    with a_service() as service, a_terminal("top") as terminal:
        terminal.until(lambda: "1 created" in terminal.text())
        service.end()
        assert terminal.ended() == 5
        assert terminal.is_as_before()
        assert "can't be asked" in terminal.text()


# --- a trace -------------------------------------------------------------------------------------------------------


@contextmanager
def a_trace(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, "trace", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_session_is_followed_to_its_end(service: Service) -> None:
    with a_trace(service.session_id) as process:
        assert process.stdout is not None
        assert service.session_id in process.stdout.readline()
        service.do("audio")
        service.do("stop")
        output, problem = process.communicate(timeout=PATIENCE_MS / 1000)
    assert (process.returncode, problem) == (0, "")
    lines = output.splitlines()
    assert "[created>active] Frames(first=0 count=50 n_bytes=32000" in lines[0]
    assert "tell recorder Frames" in lines[0]
    assert lines[-1] == "the session has stopped"
    assert "s3cr3t" not in output


def test_as_json_each_step_is_a_line(service: Service) -> None:
    with a_trace(service.session_id, "--json") as process:
        while "trace" not in run("top", "--once").stdout:
            pass
        service.do("audio")
        service.do("stop")
        output, problem = process.communicate(timeout=PATIENCE_MS / 1000)
    assert (process.returncode, problem) == (0, "")
    *steps, end = [json.loads(line) for line in output.splitlines()]
    assert msgspec.convert(steps[0], TraceLine).message == "Frames"
    assert end == {"answer": "ended", "lost": 0}


def test_the_service_that_runs_the_session_is_found_among_several(service: Service) -> None:
    with a_service() as other, a_trace(other.session_id) as process:
        assert process.stdout is not None
        assert f"{other.process.pid}-" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_MS / 1000) == 0


def test_a_session_that_nobody_runs_is_refused(service: Service) -> None:
    done = run("trace", "voice-of-nobody")
    assert done.returncode == 2
    assert "voice-of-nobody" in done.stderr


# --- the view ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_view_fits_any_width_and_shows_what_is_wrong(width: int, picture: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=width, height=50, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(Group(*service_view(msgspec.convert(picture, ServicePicture))))
    lines = captured.get().splitlines()
    assert all(len(line) <= width for line in lines)
    if width == 200:
        text = captured.get()
        for shown in (
            "1 held",
            "2 active, 1 created",
            "late by 1 ms, p99 250 ms, at most 300 ms",
            "does not answer; 40 wait, the oldest 2.5 s",
            "voice-1/recorder",
            "3 control, 7 audio",
            "12.5 s",
            "idle 4 s, overrun 60 s",
            "… and 9 more",
            "3 dead letters: 1 late reply, 2 stopped",
            "Frames to voice-2: stopped",
        ):
            assert shown in text


@pytest.fixture
def picture() -> dict[str, Any]:
    """A service in some trouble."""
    zero = {"system": 0, "control": 0, "audio": 0, "deferred": 0}
    actor = {
        "path": "supervisor/voice-1/recorder",
        "kind": "RecorderActor",
        "phase": "open",
        "status": "held",
        "mail": {**zero, "control": 3, "audio": 7},
        "waiting_seconds": 12.5,
        "incarnation": 2,
        "timers": [{"key": "overrun", "seconds_left": 60.0}, {"key": "idle", "seconds_left": 4.2}],
    }
    counts = dict.fromkeys(
        ("ready", "inbox", "timers", "steps", "crashes", "restarts", "cut", "overflowed", "slow_steps"), 0
    )
    return {
        "instance": "77-abc",
        "pid": 77,
        "started_at": "2026-01-01T00:00:00Z",
        "at": "2026-01-01T01:02:03Z",
        "closing": False,
        "sessions": {"active": 2, "created": 1},
        "system": {
            "statistics": {**counts, "actors": 10, "held": 1, "dead_letters": {"stopped": 2, "late reply": 1}},
            "actors": [actor],
            "left_out": 9,
            "dead_letters": [{"to": "voice-2", "kind": "Frames", "reason": "stopped", "error": ""}],
        },
        "ports": {
            "media": {
                **dict.fromkeys(("sessions", "frames", "batches", "stray_frames", "given_up_frames", "errors"), 0),
                "queued_frames": 40,
            },
            "media_waiting_seconds": 2.5,
            "speech": {
                **dict.fromkeys(
                    (
                        "workers",
                        "streams",
                        "queued_frames",
                        "frames_under_way",
                        "undecoded_frames",
                        "wait_seconds",
                        "heard_frames",
                        "abandoned_frames",
                        "stray_frames",
                        "utterances",
                        "workers_started",
                        "workers_died",
                        "workers_hung",
                    ),
                    0,
                ),
                "worker_pids": [],
                "unheard_frames": [],
                "latencies": {"count": 0, "sum_seconds": 0.0, "bounds_seconds": [], "within": []},
            },
            "speech_waiting_seconds": 0.0,
            "store": {
                **dict.fromkeys(
                    (
                        "backlog",
                        "finished",
                        "stored",
                        "failed",
                        "spilled",
                        "recovered",
                        "waiting_in_spill",
                        "events_lost",
                        "transactions",
                        "largest_batch",
                    ),
                    0,
                ),
                "lags": {"count": 0, "sum_seconds": 0.0, "bounds_seconds": [], "within": []},
            },
            "store_waiting_seconds": 0.0,
            "silent": ["media"],
        },
        "loop_lag": {"samples": 100, "last_ms": 0, "p50_ms": 1, "p99_ms": 250, "max_ms": 300},
    }


def test_a_step_is_told_on_one_line() -> None:
    line = TraceLine(
        number=3,
        seconds=1.5,
        actor="supervisor/voice-1/recorder",
        incarnation=2,
        phase="open",
        next_phase="draining",
        message="Stop",
        fields={"upto": 7, "share": 1 / 3, "token": None},
        effects=("tell quality Drain", "cancel_timer idle"),
        error="",
    )
    assert step_text(line) == (
        "  1.500000 recorder#2 [open>draining] Stop(upto=7 share=0.3333 token=-) -> tell quality Drain; cancel_timer idle"
    )
    crashed = replace(line, next_phase="open", fields={}, effects=(), error="ValueError")
    assert step_text(crashed) == "  1.500000 recorder#2 [open] Stop -> failed: ValueError"
