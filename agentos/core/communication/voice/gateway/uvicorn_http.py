"""HTTP/1.1 on asyncio with a deadline for each request's head, and with turns.

A client that opens a connection and sends no request is cut off. Data is read in slices: a chunk of one byte costs as much as
one of thousands, so a connection gets one slice in a turn of the loop, and waits behind the others with the rest.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from agentos.core.communication.voice.gateway.access.connections import GUEST
from agentos.core.communication.voice.gateway.turns import TURNS, CallbackTurns

HEAD_SECONDS: Final = 5.0  # for the head of a request, from the opening of the connection or from its first byte
SLICE_BYTES: Final = 1_024  # at most two hundred chunks of a byte, three milliseconds
MOST_HELD_BYTES: Final = 1_048_576  # waiting: two reads; a client that waits for answers has fewer


class UvicornHttp(H11Protocol):
    """uvicorn's protocol with a deadline for the head of each request, and with turns. Between requests uvicorn's keep-alive
    deadline holds."""

    _deadline: asyncio.TimerHandle | None = None
    _held = b""  # data that is not handled yet

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self._turns: CallbackTurns = self.app_state[TURNS]
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take data of the client."""
        if self._held:
            self._held += data
            if len(self._held) > MOST_HELD_BYTES:
                self.transport.abort()
            self.transport.pause_reading()  # reading resumes after the reply
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Handle one slice; the rest waits for its turn."""
        self._held = data[SLICE_BYTES:]
        super().data_received(data[:SLICE_BYTES])
        protocol = self.transport.get_protocol()
        if protocol is not self and isinstance(protocol, asyncio.Protocol):
            self._came()
            rest, self._held = self.conn.trailing_data[0] + self._held, b""
            if rest:
                protocol.data_received(rest)
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.is_closing():
            self._came()
        else:
            self._await_head()
        if self._held:
            self.transport.pause_reading()
            self._turns.add(self._turn)

    def _turn(self) -> None:
        if self.transport.is_closing():
            self._held = b""
            return
        self._read(self._held)
        if not self._held and not self.flow.read_paused and self.transport.get_protocol() is self:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """End the connection with the server. A request that is not whole yet is dropped as if its client had gone; else its
        task would wait for the rest for ever."""
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self.transport.close()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is closed."""
        self._came()
        self.app_state[GUEST].left()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
