"""Server-sent events: a response that sends live events, and a heartbeat while there are none."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentos.core.communication.voice.gateway.routes.presence import while_there

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0  # proxies cut connections that are silent for half a minute or more
SEND_SECONDS: Final = 30.0  # a reader that takes nothing for so long is gone
RETRY_MS: Final = 1000

_HEARTBEAT: Final = b": still here\n\n"


def written(data: str, *, event: str, number: int) -> bytes:
    """One event on the wire. `data` is one line."""
    return f"id: {number}\nevent: {event}\ndata: {data}\n\n".encode()


@contextmanager
def _always(end: Callable[[], None]) -> Iterator[None]:
    del end
    yield


class EventStream(Response):
    """Sends the `events`, until they end or the reader goes away, and a heartbeat after `heartbeat_seconds` without an event.

    The context `place` is entered meanwhile; if entering raises an error, the error is the answer. So is the context that
    `allowed` makes from a function that ends the stream."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        place: AbstractContextManager[None] | None = None,
        allowed: Callable[[Callable[[], None]], AbstractContextManager[None]] = _always,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._place = place if place is not None else nullcontext()
        self._allowed = allowed
        self._heartbeat_seconds = heartbeat_seconds
        self._sending = anyio.Lock()
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the response."""
        del scope
        with self._place:
            await self._follow(receive, send)

    async def _follow(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events), while_there(receive), anyio.create_task_group() as group:
            group.start_soon(self._beat, send)
            try:
                await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
                with anyio.CancelScope() as following, self._allowed(following.cancel):
                    async for event in self._events:
                        await self._send(send, event)
                        self._quiet = False
                with anyio.move_on_after(SEND_SECONDS):
                    async with self._sending:
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                pass  # the server sees that the body did not end, and closes the connection
            group.cancel_scope.cancel()

    async def _send(self, send: Send, data: bytes) -> None:
        with anyio.fail_after(SEND_SECONDS):
            async with self._sending:
                await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _beat(self, send: Send) -> None:
        while True:
            self._quiet = True
            await anyio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await self._send(send, _HEARTBEAT)
