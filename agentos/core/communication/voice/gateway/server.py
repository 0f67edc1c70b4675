"""The server: a voice service with the app in front of it, on a socket, until it is told to end.

asyncio is served by uvicorn (on uvloop where it is installed), trio by anycorn. The end goes in this order: no new
calls, time for those that run, a stop with its deadlines for what is left, everything durable, and only then the
sockets close. Until then what runs can be seen and stopped.
"""

import importlib.util
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import anycorn
import anyio
import uvicorn
from anyio.abc import TaskStatus
from fastapi import FastAPI

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import CannotListen
from agentos.core.communication.voice.gateway.access.exposure import check_exposure
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.gateway.prompt_http import PromptHttp
from agentos.core.communication.voice.gateway.prompt_websocket import PromptWebSocket
from agentos.core.communication.voice.gateway.streams.endpoint import LARGEST_MESSAGE_BYTES, STREAMS_PER_CLIENT
from agentos.core.communication.voice.gateway.trace_export import exporting
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.signals import SIGNALS

Backend = Literal["asyncio", "trio"]

BACKLOG: Final = 1024  # connections that the kernel holds while the loop is busy
KEEP_ALIVE_SECONDS: Final = 5
UNANSWERED_MS: Final = 20_000  # a peer that acknowledges nothing for so long is gone, and what was to be sent to it
CLOSE_SECONDS: Final = 5  # for replies that are under way when the service has ended


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where and for whom. `port` 0 takes a free one. `origins`, `hosts` and `streams_per_client` are those of `voice_app`.
    `traces` is where the traces of calls are sent, see `trace_export.exporting`."""

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

    `on_listening` gets its address once requests are taken. Raises `UnsafeExposure` when others could reach it and nobody is
    asked who they are, `SettingsError`, `CannotListen`, `StoreError`. For the main thread, which gets the signals.
    """
    check_exposure(options.host, auth=options.authentication)
    with exporting(options.traces) as tracer_provider, listening(options.host, options.port) as taken:
        loop: dict[str, Any] = {}
        if options.backend == "asyncio":
            installed = importlib.util.find_spec("uvloop") is not None
            loop["use_uvloop"] = settings.uvloop == "on" or (settings.uvloop == "auto" and installed)
        service = AsyncVoiceService(settings, tracer_provider=tracer_provider)
        anyio.run(_serve, service, options, taken, on_listening, backend=options.backend, backend_options=loop)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes connections; closed at the end. Raises `CannotListen`."""
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
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)  # of the connections
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
                    app.state.access.refusals.write_sum()  # once the service has ended, nothing goes into evidence
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
    """Serve an app on a socket, until its service has ended; started when requests are taken. `backend` is the loop
    that runs."""
    if backend == "asyncio":
        await _uvicorn(app, taken, service, task_status=task_status)
    else:
        await _anycorn(app, taken, service, task_status=task_status)


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, without its signal handlers: signals begin a drain here, which comes first."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        self._on_started()


async def _uvicorn(
    app: FastAPI, taken: socket.socket, service: AsyncVoiceService, *, task_status: TaskStatus[None]
) -> None:
    config = uvicorn.Config(
        app,
        http=PromptHttp,
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client's own word for where it comes from
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ws=PromptWebSocket,
        ws_max_size=LARGEST_MESSAGE_BYTES,
        ws_ping_interval=None,  # a stream has heartbeats of its own
        ws_per_message_deflate=False,  # audio does not get smaller, and each connection would hold its window
    )
    server = _Uvicorn(config, task_status.started)
    async with anyio.create_task_group() as group:

        async def end_with_the_service() -> None:
            await service.wait_closed()
            server.should_exit = True

        group.start_soon(end_with_the_service)
        await server.serve(sockets=[taken])
        group.cancel_scope.cancel()


async def _anycorn(
    app: FastAPI, taken: socket.socket, service: AsyncVoiceService, *, task_status: TaskStatus[None]
) -> None:
    config = anycorn.Config()
    config.bind = [f"fd://{socket.socket.detach(taken.dup())}"]
    config.backlog = BACKLOG
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.graceful_timeout = CLOSE_SECONDS
    config.alpn_protocols = ["http/1.1"]
    config.websocket_max_message_size = LARGEST_MESSAGE_BYTES
    config.websocket_permessage_deflate = False
    async with anyio.create_task_group() as group:
        await group.start(
            partial(anycorn.serve, app, config, shutdown_trigger=service.wait_closed, mode="asgi")  # type: ignore[arg-type]
        )
        task_status.started()
