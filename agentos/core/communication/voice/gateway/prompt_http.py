"""HTTP/1.1 on asyncio for clients that say in time what they want: who opens a connection and sends no request is cut off."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS: Final = 5.0  # for the head of a request, from the opening of the connection or from its first byte


class PromptHttp(H11Protocol):
    """uvicorn's protocol with a deadline for the head of each request. Between requests its own keep-alive deadline counts."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has opened a connection."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Some of what a client sends."""
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._came()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
