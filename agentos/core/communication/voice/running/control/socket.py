"""The control socket: a running service answers there what it is asked about itself, for `agentos-voice top` and `trace`.

Only the user that runs the service can open it. A service that can't have one, because of its platform or file system, says
so in the log and runs without.
"""

from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskStatus

from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.running.control.connection import ControlConnection, LineTooLong
from agentos.core.communication.voice.running.control.folder import HAS_SOCKETS, listen
from agentos.core.communication.voice.running.control.protocol import (
    MAX_REQUEST_BYTES,
    Answer,
    Inspect,
    Picture,
    Refused,
    TraceEnded,
    TraceStep,
    Tracing,
    decode_request,
    encode,
)
from agentos.core.communication.voice.running.inspection import ServiceInspector

log = logger(__name__)

MOST_CLIENTS: Final = 8
IDLE_SECONDS: Final = 60.0  # a client that asks nothing for so long is let go
SLOW_SECONDS: Final = 5.0  # as is one that does not take its answer
RETRY_SECONDS: Final = 1.0  # when no more files can be opened


class ControlSocket:
    """Answers the clients of one service on a socket in the `home`."""

    def __init__(self, inspector: ServiceInspector, home: Path) -> None:
        self._inspector = inspector
        self._home = home
        self._clients = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; started when clients can connect, or when it is known that there is no socket here."""
        if not HAS_SOCKETS:
            log.info("no control socket: this platform has no Unix sockets")
            task_status.started()
            return
        try:
            # Not in a thread: whoever waits for one can be cancelled, and what it has bound would be left open.
            bound, path = listen(self._home, self._inspector.instance)
        except OSError as error:
            log.warning("no control socket, so `top` and `trace` will not find this service", error=str(error))
            task_status.started()
            return
        with bound:
            bound.setblocking(False)
            try:
                async with anyio.create_task_group() as clients:
                    task_status.started()
                    while True:
                        await anyio.wait_readable(bound)
                        try:
                            client, _ = bound.accept()
                        except BlockingIOError:
                            continue  # it went away before it was let in
                        except OSError as error:
                            log.warning("the control socket takes no client now", error=str(error))
                            await anyio.sleep(RETRY_SECONDS)
                        else:
                            clients.start_soon(self._client, ControlConnection(client))
            finally:
                path.unlink(missing_ok=True)

    async def _client(self, connection: ControlConnection) -> None:
        self._clients += 1
        try:
            with connection:
                if self._clients > MOST_CLIENTS:
                    problem = f"{MOST_CLIENTS} clients are connected, the most that may"
                    await _send(connection, Refused("Overloaded", problem))
                else:
                    await self._converse(connection)
        except OSError:  # also a timeout
            pass  # it went away, or was let go
        except Exception:  # whatever a client can bring about must not reach the service
            log.exception("a client of the control socket failed")
        finally:
            self._clients -= 1

    async def _converse(self, connection: ControlConnection) -> None:
        while True:
            try:
                with anyio.fail_after(IDLE_SECONDS):
                    line = await connection.line(MAX_REQUEST_BYTES)
                if line is None:
                    return
                request = decode_request(line)
            except LineTooLong:
                problem = f"a request has at most {MAX_REQUEST_BYTES} bytes"
                await _send(connection, Refused("InvalidRequest", problem))
                return
            except (ValueError, RecursionError, msgspec.MsgspecError) as error:
                await _send(connection, Refused("InvalidRequest", str(error)))
                continue
            if isinstance(request, Inspect):
                await _send(connection, Picture(self._inspector.picture(request.most_actors)))
            elif not await self._trace(connection, request.session_id):
                return

    async def _trace(self, connection: ControlConnection, session_id: str) -> bool:
        """Tell the steps of a session until it stops; False when the client has had enough before."""
        try:
            trace = self._inspector.trace(session_id)
        except SessionNotFound as error:
            await _send(connection, Refused("SessionNotFound", str(error)))
            return True
        ended = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when_stirred, connection, group.cancel_scope)
                await _send(connection, Tracing(trace.session_id, trace.started_at))
                while lines := await trace.batch():
                    await _send(connection, *map(TraceStep, lines))
                ended = True
                group.cancel_scope.cancel()  # before the client knows that it may ask again
        except* OSError:
            ended = False
        finally:
            trace.close()
        if ended:
            await _send(connection, TraceEnded(trace.lost))
        return ended


async def _cancel_when_stirred(connection: ControlConnection, scope: anyio.CancelScope) -> None:
    await connection.stirred()
    scope.cancel()


async def _send(connection: ControlConnection, *answers: Answer) -> None:
    """Raises `TimeoutError` when the client does not take them."""
    with anyio.fail_after(SLOW_SECONDS):
        await connection.send(b"".join(encode(answer) + b"\n" for answer in answers))
