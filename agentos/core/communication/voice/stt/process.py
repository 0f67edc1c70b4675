"""One worker process as the port sees it: requests are queued without waiting, answers and the end come as calls."""

import os
import sys
from collections import deque
from collections.abc import Callable
from math import ceil
from pathlib import Path
from subprocess import PIPE
from typing import Final

import anyio
import structlog
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

import actors
import machines
from agentos.core.communication.voice import stt
from agentos.core.communication.voice.stt.protocol import Answer, PacketReader, ProtocolError, Request, packet

WORKER_MODULE: Final = "agentos.core.communication.voice.stt.worker"
_READ_BYTES: Final = 1 << 16
_SEND_BYTES: Final = 1 << 16
_REAP_SECONDS: Final = 5.0  # a killed process is gone at once, unless the kernel holds it
_LAST_WORDS_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


def search_path() -> list[str]:
    """Where a worker looks for modules: where this process does, without the folder of its script or its current folder,
    whose files are nobody's packages; and where this project is, should that have been such a folder."""
    entries = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
    if entries and not sys.flags.safe_path and entries[0] == _script_folder():
        del entries[0]
    roots = (Path(str(actors.__file__)).parents[1], Path(str(machines.__file__)).parents[1], _root_of_this())
    return [*dict.fromkeys([*entries, *(str(root) for root in roots)])]


def _root_of_this() -> Path:
    return Path(str(stt.__file__)).resolve().parents[len(stt.__name__.split("."))]


def _script_folder() -> str | None:
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:  # run with -m
        return str(Path.cwd())
    script = getattr(main, "__file__", None)
    return str(Path(script).resolve().parent) if script else None


class WorkerProcess:
    """A worker from its start to its end.

    `on_answer(answer)` and `on_end(reason)` are called in the loop's thread, the latter once, last, when the process is
    gone or can't be started.
    """

    def __init__(
        self,
        executable: str,
        *,
        wedge_seconds: float,
        on_answer: Callable[[Answer], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._command = [executable, "-P", "-m", WORKER_MODULE, str(ceil(wedge_seconds))]
        self._on_answer = on_answer
        self._on_end = on_end
        self._requests: deque[bytes] = deque()
        self._news = anyio.Event()
        self._process: Process | None = None
        self._killed = False

    @property
    def pid(self) -> int | None:
        """The process id, once it runs."""
        return None if self._process is None else self._process.pid

    def send(self, request: Request) -> None:
        """Queue a request; never waits. How many may be under way is the caller's to bound."""
        self._requests.append(packet(request))
        self._news.set()

    def kill(self) -> None:
        """Have the process killed; its end is told as usual."""
        self._killed = True
        if self._process is not None:
            _kill(self._process)

    async def run(self) -> None:
        """Start the process, carry requests and answers, and reap it. Cancelled, it kills the process first."""
        reason = "it ended"
        try:
            # A start that was cancelled half-way would leave a process that nobody knows.
            with anyio.CancelScope(shield=True):
                self._process = process = await anyio.open_process(
                    self._command,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path())},
                    start_new_session=True,
                )
        except OSError as error:
            self._on_end(f"it can't be started: {error}")
            return
        try:
            if not self._killed:
                await self._carry(process)
        except ProtocolError as error:
            reason = f"it sent nonsense: {error}"
        finally:
            _kill(process)
            with anyio.move_on_after(_REAP_SECONDS, shield=True):
                await process.wait()
            with anyio.move_on_after(_REAP_SECONDS, shield=True):
                await process.aclose()
            if process.returncode is not None:
                reason += f" with code {process.returncode}"
            self._on_end(reason)

    async def _carry(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - pipes, as asked for above
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        complained = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, process.stdin)
            tasks.start_soon(self._log, process.stderr, process.pid, complained)
            try:
                await self._read(process.stdout)
            finally:
                with anyio.move_on_after(_LAST_WORDS_SECONDS):
                    await complained.wait()
                tasks.cancel_scope.cancel()

    async def _read(self, stdout: ByteReceiveStream) -> None:
        answers: PacketReader[Answer] = PacketReader(Answer)
        try:
            while True:
                for answer in answers.feed(await stdout.receive(_READ_BYTES)):
                    self._on_answer(answer)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return

    async def _write(self, stdin: ByteSendStream) -> None:
        try:
            while True:
                await self._news.wait()
                self._news = anyio.Event()
                while self._requests:
                    batch = [self._requests.popleft()]
                    size = len(batch[0])
                    while self._requests and size < _SEND_BYTES:
                        batch.append(self._requests.popleft())
                        size += len(batch[-1])
                    await stdin.send(b"".join(batch))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return  # the reader sees the end of the process

    @staticmethod
    async def _log(stderr: ByteReceiveStream, pid: int, done: anyio.Event) -> None:
        """Whatever a worker complains of, a line of log each; a flood is cut, not kept."""
        rest = b""
        try:
            while True:
                *lines, rest = (rest + await stderr.receive(_READ_BYTES)).split(b"\n")
                for line in lines:
                    log.warning("stt_worker_says", pid=pid, line=line.decode(errors="replace"))
                rest = rest[:_READ_BYTES]
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            if rest:
                log.warning("stt_worker_says", pid=pid, line=rest.decode(errors="replace"))
            done.set()


def _kill(process: Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return
