"""Programs that need not import the service first: one process has imported it, and forks for each of them.

What a test sees is a real process: it has an id, an environment and a standard output of its own, and can be killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_LONGEST = 1 << 17  # bytes of a program with its arguments and environment
_PATIENCE_SECONDS = 60
_FORKING = f"""
import json, os, socket, sys, traceback
import agentos.core.communication.voice.async_service, agentos.core.communication.voice.service
import anyio, uvloop

line = socket.socket(fileno=int(sys.argv[1]))
while True:
    wanted, outputs, _, _ = socket.recv_fds(line, {_LONGEST}, 1)
    if not wanted:
        break  # no more tests
    child = os.fork()
    if child:
        os.close(outputs[0])
        _, status = os.waitpid(child, 0)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())
        continue
    code = 1
    try:
        program = json.loads(wanted)
        line.close()
        os.dup2(outputs[0], 1)
        os.close(outputs[0])
        os.environ.clear()
        os.environ.update(program["environment"])
        sys.argv = ["-c", *program["arguments"]]
        exec(compile(program["code"], "<program>", "exec"), {{"__name__": "__main__"}})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
"""


class Forking:
    """A process that forks for programs, one after the other."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def run(self, code: str, *arguments: str, environment: Mapping[str, str]) -> tuple[int, bytes]:
        """Run a program as `python -c code arguments…` would; its exit code, negative for a signal, and its standard output."""
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as output:
            try:
                wanted = {"code": code, "arguments": arguments, "environment": dict(environment)}
                socket.send_fds(self._line, [json.dumps(wanted).encode()], [theirs])
            finally:
                os.close(theirs)
            status = self._line.recv(_LONGEST)
            assert status, "the process that forks is gone"
            return int(status), output.read()


@contextmanager
def forking() -> Iterator[Forking]:
    """Start the process that forks; it ends with the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.settimeout(_PATIENCE_SECONDS)
        with (
            theirs,
            subprocess.Popen(
                [sys.executable, "-c", _FORKING, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                pass_fds=[theirs.fileno()],
                process_group=0,
            ) as process,
        ):
            theirs.close()
            try:
                yield Forking(ours)
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # with a program that hangs
