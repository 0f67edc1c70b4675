"""The app on trio, served by anycorn's protocols and lifespan. Connections come from `accepting.py`."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anycorn
import anyio
from anycorn.lifespan import Lifespan
from anycorn.typing import ConnectionState, LifespanState
from anycorn.utils import wrap_app
from anycorn.worker_context import WorkerContext
from anyio.abc import SocketStream, TaskStatus
from fastapi import FastAPI

from agentos.core.communication.voice.gateway.accepting import accept
from agentos.core.communication.voice.gateway.access.connections import GUEST, Connections, Guest
from agentos.core.communication.voice.gateway.streams.endpoint import LARGEST_MESSAGE_BYTES
from agentos.core.communication.voice.gateway.trio_connection import TrioConnection
from agentos.core.communication.voice.gateway.turns import TURNS, TaskTurns
from agentos.core.communication.voice.logs import logger

KEEP_ALIVE_SECONDS: Final = 5
CLOSE_SECONDS: Final = 5  # for replies still under way when the service has ended

log = logger(__name__)


async def serve_on_trio(
    app: FastAPI,
    taken: socket.socket,
    connections: Connections,
    wait_closed: Callable[[], Awaitable[Any]],
    *,
    task_status: TaskStatus[None],
) -> None:
    """Serve the app on a socket, until `wait_closed` has returned and the replies under way are sent."""
    config = anycorn.Config()
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.alpn_protocols = ["http/1.1"]
    config.websocket_max_message_size = LARGEST_MESSAGE_BYTES
    config.websocket_permessage_deflate = False
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]
    state: LifespanState = {}
    lifespan, context = Lifespan(wrapped, config, state), WorkerContext(None)

    async with config.log, anyio.create_task_group() as group:
        await group.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        turns = TaskTurns()
        group.start_soon(turns.run)
        async with anyio.create_task_group() as serving:

            async def serve(client: socket.socket, guest: Guest, scope: anyio.CancelScope) -> None:
                try:
                    with scope:
                        try:
                            stream = await SocketStream.from_socket(client)
                        except ValueError:  # the socket is no longer connected: the client has gone
                            client.close()
                            return
                        its_state = ConnectionState({**state, GUEST: guest, TURNS: turns})
                        await TrioConnection(wrapped, config, context, its_state, stream).run()
                except Exception:  # any error ends this connection alone
                    log.exception("connection_failed")
                finally:
                    guest.left()

            async def begin(client: socket.socket, guest: Guest) -> None:
                scope = anyio.CancelScope()
                guest.end = scope.cancel
                serving.start_soon(serve, client, guest, scope)

            async with anyio.create_task_group() as accepting:
                accepting.start_soon(accept, taken, connections, begin)
                task_status.started()
                await wait_closed()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            serving.cancel_scope.deadline = anyio.current_time() + CLOSE_SECONDS
        await lifespan.wait_for_shutdown()
        group.cancel_scope.cancel()
