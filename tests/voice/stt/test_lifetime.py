"""A worker lives no longer than its parent, and starting one never runs the user's program again."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

import actors

ROOT = Path(str(actors.__file__)).parents[1]

PROGRAM = """
import os, sys, wave
from pathlib import Path
import anyio
from actors.voice.messages import Finish, Finished, Hear, Listen, Utterance
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.stt.port import SpeechPort
from agentos.core.communication.voice.stt.registry import Engines
from machines.audio import AudioFormat
from machines.session import STTProvider

with open(RUNS, "a") as runs:
    runs.write("ran\\n")

def children():
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")  # a child belongs to the thread that made it
    return sum(len(task.read_text().split()) for task in tasks)

async def main():
    with wave.open(SPEECH) as sound:
        audio = sound.readframes(sound.getnframes())
    frames = len(audio) // 640
    finished = anyio.Event()

    def tell(to, fact):
        if isinstance(fact, Utterance):
            print(fact.text, flush=True)
        if isinstance(fact, Finished):
            finished.set()

    port = SpeechPort(
        take=lambda session, first, count: audio[first * 640 : (first + count) * 640], tell=tell, post=tell,
        room=lambda *_: None, engines=Engines(load_settings()),
        workers=1, start_timeout_seconds=40, hang_timeout_seconds=30, backlog_frames=1500,
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(port.run)
        port.submit(Listen("voice-1", STTProvider.POCKETSPHINX, AudioFormat(), "me"))
        port.submit(Hear("voice-1", 0, frames))
        port.submit(Finish("voice-1"))
        await finished.wait()
        print("worker", *port.statistics().worker_pids, flush=True)
        print("children", children(), flush=True)
        if WAIT:
            await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
    print("left", children(), flush=True)

anyio.run(main, backend=BACKEND)
"""


@pytest.fixture
def program(tmp_path: Path, speak: Callable[[str], bytes]) -> Callable[..., str]:
    with wave.open(str(tmp_path / "speech.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(speak("go forward ten meters"))

    def source(*, wait: bool, backend: str = "asyncio") -> str:
        constants = {
            "RUNS": str(tmp_path / "runs"),
            "SPEECH": str(tmp_path / "speech.wav"),
            "WAIT": wait,
            "BACKEND": backend,
        }
        return "".join(f"{name} = {value!r}\n" for name, value in constants.items()) + textwrap.dedent(PROGRAM)

    return source


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def gone_within(pid: int, seconds: float) -> bool:
    give_up = time.monotonic() + seconds  # noqa: TID251 - waits for another process, outside the product
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > give_up:  # noqa: TID251
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(("way", "backend"), [("standard input", "asyncio"), ("a file", "trio")])
def test_a_program_without_a_main_guard_runs_once(
    tmp_path: Path, program: Callable[..., str], way: str, backend: str
) -> None:
    source = program(wait=False, backend=backend)
    folder = tmp_path / "where it runs"
    folder.mkdir()
    (folder / "signal.py").write_text("raise SystemExit('the current folder is nobody's package')")
    script = tmp_path / "user.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, "-P", "-"] if way == "standard input" else [sys.executable, str(script)],
        input=source if way == "standard input" else None,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "go forward ten meters"
    assert lines[2:] == ["children 1", "left 0"]
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert gone_within(int(lines[1].split()[1]), 20)


def test_a_killed_parent_leaves_no_worker(program: Callable[..., str]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(program(wait=True))
        parent.stdin.close()
        lines = [parent.stdout.readline().split() for _ in range(3)]
        assert lines[2] == ["children", "1"]
        worker = int(lines[1][1])
        assert Path(f"/proc/{worker}").exists()
        parent.send_signal(signal.SIGKILL)
        parent.wait(20)
        assert gone_within(worker, 20)
    finally:
        parent.kill()
        parent.wait(20)
        assert parent.stdout is not None
        parent.stdout.close()


def test_a_worker_leaves_ctrl_c_to_its_parent_and_ends_with_its_input() -> None:
    module = "agentos.core.communication.voice.stt.worker"
    with subprocess.Popen(
        [sys.executable, "-P", "-m", module, "30"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.read(4) != b""  # it is ready, and past its set-up
        worker.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.5)
        worker.stdin.close()
        assert worker.wait(20) == 0
