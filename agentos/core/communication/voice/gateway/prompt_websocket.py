"""WebSockets on asyncio for an app that takes messages as they come: what is taken so costs no queue and no task switch."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from agentos.core.communication.voice.gateway.streams.connection import AT_ONCE


class PromptWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with the extension `AT_ONCE` in the scope of ASGI: a function to which the app gives its own.

    That one gets each binary message when it comes, and says whether it has taken it. What it has not taken comes by
    `receive`, and so does all that comes while something waits there: the order stays.
    """

    _taker: Callable[[bytes], bool] | None = None

    def handle_connect(self, event: Request) -> None:
        """Somebody asks for a WebSocket."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = {**(self.scope["extensions"] or {}), AT_ONCE: self._give_to}
            self.scope["extensions"] = extensions

    def handle_bytes(self, event: Frame) -> None:
        """The first frame of a binary message, or all of it."""
        taker = self._taker if event.fin and not self.close_sent and self.queue.empty() else None
        if taker is None or not taker(bytes(event.data)):
            super().handle_bytes(event)

    def _give_to(self, taker: Callable[[bytes], bool]) -> None:
        self._taker = taker
