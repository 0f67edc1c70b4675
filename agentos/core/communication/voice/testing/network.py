"""A server on loopback for tests, and callers who reach it over HTTP and a WebSocket, as clients elsewhere do.

It needs the extras `server` and `client`.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import trio
from anyio.abc import TaskStatus

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.client import StreamFormat, VoiceClient, VoiceStream
from agentos.core.communication.voice.gateway import voice_app
from agentos.core.communication.voice.gateway.server import address_of, listening, serve
from agentos.core.communication.voice.running.cancellation import OwnTask, start
from agentos.core.communication.voice.testing.callers import Caller
from machines.audio import AudioFormat


class VoiceServer:
    """A gateway in front of a `service` that runs, on a free port of loopback: `async with VoiceServer(service) as server:`.

    `url` is its address, and `client()` a client of it. With `authentication` it asks for tokens of the service's home. Leaving
    the block closes the service. On asyncio the block may be left by another task than entered it.
    """

    def __init__(self, service: AsyncVoiceService, *, authentication: bool = False) -> None:
        self.service = service
        self.url: str
        self._app = voice_app(service, authentication=authentication)
        self._ending = anyio.Event()
        self._stack = AsyncExitStack()

    def client(self, token: str | None = None) -> VoiceClient:
        """A client of the server, to be used in an `async with`."""
        return VoiceClient(self.url, token)

    async def __aenter__(self) -> Self:
        if trio.lowlevel.in_trio_run():
            group = await self._stack.enter_async_context(anyio.create_task_group())
            await start(group, self._run)
        else:
            await self._stack.enter_async_context(OwnTask(self._run, self._ending.set))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        await self._stack.aclose()

    async def _run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        backend = "trio" if trio.lowlevel.in_trio_run() else "asyncio"
        with listening("127.0.0.1", 0) as taken:
            async with anyio.create_task_group() as group:
                await group.start(serve, self._app, taken, self.service, backend)
                self.url = address_of(taken)
                task_status.started()
                await self._ending.wait()
                await self.service.aclose()  # then the server ends, too


class NetworkCaller(Caller):
    """A caller at the other end of a stream."""

    def __init__(self, stream: VoiceStream, audio_format: AudioFormat) -> None:
        super().__init__(stream.session_id, audio_format)
        self.stream = stream

    async def hang_up(self) -> str:
        """Wait until the server has everything, and end the session: why it ended."""
        return (await self.stream.finish()).reason

    async def _send(self, data: bytes) -> None:
        await self.stream.send(data)


@asynccontextmanager
async def calling_over(
    client: VoiceClient,
    project_id: str = "test",
    *,
    stt_provider: str = "pocketsphinx",
    metadata: Mapping[str, Any] | None = None,
    audio_format: AudioFormat | None = None,
) -> AsyncGenerator[NetworkCaller]:
    """A call to a server. It is hung up when the block ends, unless that fails. Raises as `VoiceClient.create_session` and its
    streams do."""
    spoken = audio_format if audio_format is not None else AudioFormat()
    session = await client.create_session(
        project_id, "local", stt_provider, metadata, audio_format=spoken.model_dump(mode="json")
    )
    sent = StreamFormat(spoken.encoding.value, spoken.sample_rate, spoken.channels)
    async with client.stream(session["session_id"], formats=(sent,)) as stream:
        caller = NetworkCaller(stream, spoken)
        yield caller
        await caller.hang_up()
