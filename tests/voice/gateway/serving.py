"""The real server as a process of its own on loopback, and curl to ask it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-W", "error", "-m", "agentos.core.communication.voice.cli", "serve", "--port", "0"]
PATIENCE = 60
CURL = shutil.which("curl")


class Server:
    """A server process, and where it listens."""

    def __init__(self, options: tuple[str, ...], environment: dict[str, str]) -> None:
        self._options = options
        self._environment = environment
        self.complaints = ""
        self.begin([*COMMAND, *options])

    def begin(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said.startswith("listening on http://127.0.0.1:"):
            self.gone()
            raise AssertionError(said + self.complaints)
        self.url = said.split()[-1]

    def killed(self) -> None:
        """Kill it, without a chance to clean up, and begin it again on the same home and port."""
        self.gone()
        self.begin([*COMMAND[:-1], self.url.rpartition(":")[2], *self._options])

    def gone(self) -> None:
        """Kill it if it still runs, and keep what it said on standard error."""
        if self.process.poll() is None:
            self.process.kill()
        self.complaints += self.process.communicate()[1]

    def curl(self, path: str, *options: str, status: int | None = None) -> Any:
        """What curl prints of a reply: its JSON."""
        code, body = self.raw(path, *options)
        assert status in (None, code), body
        return json.loads(body)

    def raw(self, path: str, *options: str) -> tuple[int, str]:
        command = ["curl", "-sS", "--max-time", str(PATIENCE), "-w", "\n%{http_code}", *options, self.url + path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        body, _, code = done.stdout.rpartition("\n")
        return int(code), body

    def create(self, *options: str) -> str:
        body = '{"project_id": "demo", "stt_provider": "whisper_local"}'
        made = self.curl("/v1/sessions", "--json", body, *options, status=201)
        session_id: str = made["session_id"]
        return session_id

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE  # noqa: TID251 - a real process
        while not condition():
            assert time.monotonic() < deadline  # noqa: TID251
            time.sleep(0.02)


@contextmanager
def serving(*options: str, **settings: str) -> Iterator[Server]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
        **{f"AGENTOS_VOICE_{name.upper()}": value for name, value in settings.items()},
    }
    server = Server(options, environment)
    try:
        yield server
    finally:
        server.gone()
    assert "Traceback" not in server.complaints, server.complaints
    assert "Warning" not in server.complaints, server.complaints
