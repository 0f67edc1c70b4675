"""One worker process as the port sees it: requests are queued without waiting, answers and the end come as calls."""

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from math import ceil
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Final

import anyio

import actors
import machines
from agentos.core.communication.voice import stt
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.stt.protocol import Answer, PacketReader, ProtocolError, Request, packet

WORKER_MODULE: Final = "agentos.core.communication.voice.stt.worker"
_READ_BYTES: Final = 1 << 16
_SEND_BYTES: Final = 1 << 16
_REAP_SECONDS: Final = 5.0  # a killed process is gone at once, unless the kernel holds it
_REAP_IN_HASTE_SECONDS: Final = 1.0
_GONE_POLL_SECONDS: Final = 0.002
_LAST_WORDS_SECONDS: Final = 0.5

log = logger(__name__)


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
    gone or can't be started. Plain pipes and a plain process: those of the loops can't be had and given back whole when
    every task is cancelled past its shields, as asyncio does at a second Ctrl-C.
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
        self._process: Popen[bytes] | None = None
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
        try:
            self._process = process = self._start()
        except OSError as error:
            self._on_end(f"it can't be started: {error}")
            return
        reason = "it ended"
        try:
            if not self._killed:
                reason = await self._carry(process)
        finally:
            try:
                await _reap(process)
            finally:
                for pipe in _pipes(process):
                    pipe.close()
                code = process.returncode
                self._on_end(reason if code is None else f"{reason} with code {code}")

    def _start(self) -> Popen[bytes]:
        """Start it here, in a millisecond: a thread that does so is one that a cancelled task leaves behind."""
        process = Popen(  # noqa: S603 - the interpreter that was configured, no shell
            self._command,
            bufsize=0,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path())},
            start_new_session=True,
        )
        for pipe in _pipes(process):
            os.set_blocking(pipe.fileno(), False)
        return process

    async def _carry(self, process: Popen[bytes]) -> str:
        """Carry requests and answers until the worker's answers end; how they did."""
        stdin, stdout, stderr = _pipes(process)
        complained = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, stdin)
            tasks.start_soon(self._log, stderr, process.pid, complained)
            reason = await self._read(stdout)
            with anyio.move_on_after(_LAST_WORDS_SECONDS):
                await complained.wait()
            tasks.cancel_scope.cancel()
        return reason

    async def _read(self, stdout: IO[bytes]) -> str:
        answers: PacketReader[Answer] = PacketReader(Answer)
        while data := await _receive(stdout):
            try:
                for answer in answers.feed(data):
                    self._on_answer(answer)
            except ProtocolError as error:
                return f"it sent nonsense: {error}"
        return "it ended"

    async def _write(self, stdin: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader sees the end of the process
            while True:
                await self._news.wait()
                self._news = anyio.Event()
                while self._requests:
                    batch = [self._requests.popleft()]
                    size = len(batch[0])
                    while self._requests and size < _SEND_BYTES:
                        batch.append(self._requests.popleft())
                        size += len(batch[-1])
                    await _send(stdin, b"".join(batch))

    @staticmethod
    async def _log(stderr: IO[bytes], pid: int, done: anyio.Event) -> None:
        """Whatever a worker complains of, a line of log each; a flood is cut, not kept."""
        rest = b""
        while data := await _receive(stderr):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                log.warning("stt_worker_says", pid=pid, line=line.decode(errors="replace"))
            rest = rest[:_READ_BYTES]
        if rest:
            log.warning("stt_worker_says", pid=pid, line=rest.decode(errors="replace"))
        done.set()


def _pipes(process: Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None  # noqa: S101 - pipes, as asked for when it was started
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    return process.stdin, process.stdout, process.stderr


async def _receive(pipe: IO[bytes]) -> bytes:
    """What has come, at least a byte; nothing at the pipe's end."""
    while True:
        await anyio.wait_readable(pipe)
        with contextlib.suppress(BlockingIOError):
            return os.read(pipe.fileno(), _READ_BYTES)


async def _send(pipe: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        await anyio.wait_writable(pipe)
        with contextlib.suppress(BlockingIOError):
            rest = rest[os.write(pipe.fileno(), rest) :]


def _kill(process: Popen[bytes]) -> None:
    """Kill it and all that it started, which would hold its pipes open. Its group is its own as long as it isn't reaped."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def _reap(process: Popen[bytes]) -> None:
    """Kill the process, should it still run, and wait until it is gone, a few seconds at most.

    A wait that is itself cancelled is made up for on the spot, so that no process is left: a killed one takes milliseconds.
    """
    _kill(process)
    try:
        with anyio.move_on_after(_REAP_SECONDS, shield=True):
            while process.poll() is None:  # noqa: ASYNC110 - neither loop tells of it without a handle that is lost when cut
                await anyio.sleep(_GONE_POLL_SECONDS)
    except BaseException:
        with contextlib.suppress(TimeoutExpired):
            process.wait(_REAP_IN_HASTE_SECONDS)
        raise
