"""The app on asyncio, served by uvicorn's protocols and lifespan. Connections come from `accepting.py`."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import uvicorn
from anyio.abc import TaskStatus
from fastapi import FastAPI

from agentos.core.communication.voice.gateway.accepting import accept
from agentos.core.communication.voice.gateway.access.connections import GUEST, Connections, Guest
from agentos.core.communication.voice.gateway.streams.endpoint import LARGEST_MESSAGE_BYTES
from agentos.core.communication.voice.gateway.turns import TURNS, CallbackTurns
from agentos.core.communication.voice.gateway.uvicorn_http import UvicornHttp
from agentos.core.communication.voice.gateway.uvicorn_websocket import UvicornWebSocket

KEEP_ALIVE_SECONDS: Final = 5
CLOSE_SECONDS: Final = 5  # for replies still under way when the service has ended


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, without its signal handlers, since here a signal begins a drain first; and without its own sockets.
    `on_started` is called when the app's lifespan has begun."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._turns = CallbackTurns(asyncio.get_running_loop())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        self._on_started()

    async def begin(self, client: socket.socket, guest: Guest) -> None:
        """Begin to serve a connection."""
        loop = asyncio.get_running_loop()
        state = {**self.lifespan.state, GUEST: guest, TURNS: self._turns}

        def protocol() -> UvicornHttp:
            return UvicornHttp(self.config, self.server_state, state, loop)

        transport, _ = await loop.connect_accepted_socket(protocol, client)
        guest.end = transport.abort


async def serve_on_asyncio(
    app: FastAPI,
    taken: socket.socket,
    connections: Connections,
    wait_closed: Callable[[], Awaitable[Any]],
    *,
    task_status: TaskStatus[None],
) -> None:
    """Serve the app on a socket, until `wait_closed` has returned and the replies under way are sent."""
    config = uvicorn.Config(
        app,
        http=UvicornHttp,
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could forge its address in them
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ws=UvicornWebSocket,
        ws_max_size=LARGEST_MESSAGE_BYTES,
        ws_ping_interval=None,  # a stream has heartbeats of its own
        ws_per_message_deflate=False,  # compression does not make audio smaller, and costs a window for each connection
    )
    started = anyio.Event()
    server = _Uvicorn(config, started.set)
    async with anyio.create_task_group() as group:

        async def accept_until_closed() -> None:
            await started.wait()
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(accept, taken, connections, server.begin)
                task_status.started()
                await wait_closed()
                accepting.cancel_scope.cancel()
            server.should_exit = True

        group.start_soon(accept_until_closed)
        await server.serve(sockets=[])
        group.cancel_scope.cancel()
