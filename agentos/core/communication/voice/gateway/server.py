"""The server: a voice service with the app in front of it, on a socket, until a signal or a drain ends it.

On asyncio uvicorn serves the app (on uvloop if it is installed, `asyncio_server.py`), on trio anycorn (`trio_server.py`);
`accepting.py` accepts connections for both. The server ends in this order: it takes no new calls, gives running calls time,
stops the rest within their deadlines, makes everything durable, and only then closes its sockets. Until then running calls can
be seen and stopped.
"""

import importlib.util
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import anyio
from anyio.abc import TaskStatus
from fastapi import FastAPI

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import CannotListen
from agentos.core.communication.voice.gateway.access.connections import Connections
from agentos.core.communication.voice.gateway.access.exposure import check_exposure
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.gateway.streams.endpoint import STREAMS_PER_CLIENT
from agentos.core.communication.voice.gateway.trace_export import exporting
from agentos.core.communication.voice.open_files import allow_most_open_files
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.signals import SIGNALS

Backend = Literal["asyncio", "trio"]

BACKLOG: Final = 1024  # connections that the kernel queues while the loop is busy
UNANSWERED_MS: Final = 20_000  # a peer that acknowledges no data for so long counts as gone


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of a server. `port` 0 takes a free port. `origins`, `hosts` and `streams_per_client` are those of
    `voice_app`. `traces` is the address to which traces of calls are sent, see `trace_export.exporting`."""

    host: str = "127.0.0.1"
    port: int = 8080
    backend: Backend = "asyncio"
    authentication: bool = True
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    traces: str | None = None
    streams_per_client: int = STREAMS_PER_CLIENT


def run(settings: VoiceSettings, options: ServerOptions, on_listening: Callable[[str], None]) -> None:
    """Run a server and its event loop until SIGTERM or SIGINT comes, or its service has been drained. A second signal
    shortens the drain.

    `on_listening` gets the server's URL once it takes requests. Raises `UnsafeExposure` if other machines could reach a server
    without authentication, `SettingsError`, `CannotListen`, `StoreError`. For the main thread, which gets the signals.
    """
    check_exposure(options.host, auth=options.authentication)
    allow_most_open_files()
    with exporting(options.traces) as tracer_provider, listening(options.host, options.port) as taken:
        loop: dict[str, Any] = {}
        if options.backend == "asyncio":
            installed = importlib.util.find_spec("uvloop") is not None
            loop["use_uvloop"] = settings.uvloop == "on" or (settings.uvloop == "auto" and installed)
        service = AsyncVoiceService(settings, tracer_provider=tracer_provider)
        anyio.run(_serve, service, options, taken, on_listening, backend=options.backend, backend_options=loop)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, closed at the end. Raises `CannotListen`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise CannotListen(host, port, str(error)) from error
    with taken:
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)  # inherited by the connections
            taken.bind(address)
            taken.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            raise CannotListen(host, port, str(error)) from error
        taken.setblocking(False)
        yield taken


def address_of(taken: socket.socket) -> str:
    """The URL of the server on this socket."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(
    service: AsyncVoiceService, options: ServerOptions, taken: socket.socket, on_listening: Callable[[str], None]
) -> None:
    with anyio.open_signal_receiver(*SIGNALS) as signals:
        async with service, anyio.create_task_group() as watch:
            app = voice_app(
                service,
                authentication=options.authentication,
                origins=options.origins,
                hosts=options.hosts,
                streams_per_client=options.streams_per_client,
            )

            async def drain_at_each() -> None:
                async for _ in signals:
                    app.state.access.refusals.write_sum()  # the service takes no evidence after its end
                    watch.start_soon(service.drain)

            watch.start_soon(drain_at_each)
            async with anyio.create_task_group() as server:
                await server.start(serve, app, taken, service, options.backend)
                on_listening(address_of(taken))
            watch.cancel_scope.cancel()


async def serve(
    app: FastAPI,
    taken: socket.socket,
    service: AsyncVoiceService,
    backend: Backend,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an app on a socket, until its service has ended; started when it takes requests. `backend` is the running event
    loop's kind."""
    settings = service.settings
    connections = Connections(
        total=settings.max_connections,
        per_client=settings.max_connections_per_client,
        strangers=settings.max_unauthenticated_connections,
        proxies=settings.trusted_proxies,
    )
    await _server_of(backend)(app, taken, connections, service.wait_closed, task_status=task_status)


def _server_of(backend: Backend) -> Callable[..., Awaitable[None]]:
    """The server for this loop. Importing the other loop's server too would take a tenth of the start-up time."""
    if backend == "asyncio":
        from agentos.core.communication.voice.gateway.asyncio_server import serve_on_asyncio  # noqa: PLC0415

        return serve_on_asyncio
    from agentos.core.communication.voice.gateway.trio_server import serve_on_trio  # noqa: PLC0415

    return serve_on_trio
