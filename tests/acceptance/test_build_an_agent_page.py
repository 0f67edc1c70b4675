"""The page that builds an agent: its test passes, and its server and its caller run, as they are printed."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.voice.gateway.serving import PATIENCE, ROOT

PAGE = (ROOT / "docs" / "build-an-agent.md").read_text()
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE)


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    """The page's programs, in a folder of their own."""
    place = tmp_path / "agent"
    place.mkdir()
    for name, text in PROGRAMS.items():
        (place / name).write_text(text)
    return place


def environment() -> dict[str, str]:
    # The machine may be busy: the last words have time to be heard.
    return {**os.environ, "PYTHONPATH": str(ROOT), "AGENTOS_VOICE_STOP_TIMEOUT_SECONDS": "60"}


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of the page, with this Python."""
    program, *arguments = command.split()
    assert program == "python"
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """The page's server, on a port that is free: where it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = command.replace("8000", str(port)).split()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + PATIENCE  # noqa: TID251 - a real process
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/orders").close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline  # noqa: TID251
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        complaints = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode in (0, -15)
    assert "Traceback" not in complaints, complaints


def test_the_page_has_all_that_it_needs() -> None:
    assert sorted(PROGRAMS) == ["agent.py", "conftest.py", "host.py", "speak.py", "test_agent.py"]
    assert COMMANDS == [
        "python -m pytest test_agent.py",
        "uvicorn host:app --port 8000",
        "python speak.py 127.0.0.1:8000",
    ]
    assert all(len(text.splitlines()) < 45 for text in PROGRAMS.values())


def test_the_agents_test_passes(folder: Path) -> None:
    options = "-p no:cacheprovider -p no:asyncio"
    done = run(f"{COMMANDS[0]} {options}", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b4 passed", done.stdout), done.stdout  # two, on two loops


@pytest.mark.slow
def test_without_the_agent_the_test_does_not_pass(folder: Path) -> None:
    for name, here, there in (
        ("agent.py", '"meters" in', '"miles" in'),
        ("test_agent.py", "fail_after(30)", "fail_after(1)"),
    ):
        assert here in PROGRAMS[name]
        (folder / name).write_text(PROGRAMS[name].replace(here, there))
    done = run(f"{COMMANDS[0]} -p no:cacheprovider -p no:asyncio -k order_is_taken", folder)
    assert done.returncode == 1
    assert "TimeoutError" in done.stdout
    assert "2 failed" in done.stdout


def test_a_caller_reaches_the_agent_through_the_server(folder: Path) -> None:
    with serving(COMMANDS[1], folder) as where:
        done = run(COMMANDS[2].replace("127.0.0.1:8000", where), folder)
    assert (done.returncode, done.stderr) == (0, "")
    *events, last = done.stdout.splitlines()
    assert events[-1] == "session_stopped"
    assert "stt_final" in events
    orders = json.loads(last.removeprefix("orders: ").replace("'", '"'))
    assert list(orders.values()) == ["go forward ten meters"]
