"""WebSockets on asyncio for an app that takes messages as they arrive, without a queue or a task switch.

This module cuts whole binary messages, like audio, out of the data and unmasks them. All other frames, and all suspicious ones,
go to `websockets`, one at a time: so good frames in front of a violation are taken first.

A connection has a budget for each turn of the loop, and waits behind the others with the rest. The connection is not read while
it waits, while its app has a message to take, or while its client does not take the answers.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.speedups import apply_mask

from agentos.core.communication.voice.gateway.access.connections import GUEST
from agentos.core.communication.voice.gateway.streams.connection import AT_ONCE
from agentos.core.communication.voice.gateway.turns import TURNS, CallbackTurns
from agentos.core.communication.voice.gateway.websocket_frames import (
    AFTER_CLOSE,
    BEFORE_HELLO,
    BINARY,
    MORE,
    PENALTY_SECONDS,
    STRANGE,
    TOO_MUCH,
    UNITS,
    UNITS_OF_OTHERS,
    frame_at,
    is_counted,
)
from machines.stream.messages import StreamCode


class UvicornWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with the extension `AT_ONCE` in the scope of ASGI: a function to which the app gives two of its own.

    The first function gets each binary message as it arrives, and returns whether it has taken it. A message that it has not
    taken comes by `receive`, and so do all messages behind it, so the order stays. The second function is called for each frame
    that is no message of its own.
    """

    _taker: Callable[[bytes], bool] | None = None
    _count: Callable[[], None] | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turns: CallbackTurns = self.app_state[TURNS]
        self._pieces: list[bytes] = []  # of data that is not cut yet
        self._held = 0  # bytes in the pieces
        self._need = 1  # bytes needed for the next frame
        self._plain = (
            False  # frames are cut here; before the handshake and behind a violation `websockets` gets all there is
        )
        self._waits = False  # whether the connection waits for its turn
        self._stalled = False  # the client does not read our data
        self._spare = BEFORE_HELLO
        self._most: int = self.config.ws_max_size
        self._app_has_ended = False
        self._lost: list[Exception | None] = []  # the error of a closed connection whose data is not all handled yet

    # --- what comes --------------------------------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        """Take the handshake of a WebSocket."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = {**(self.scope["extensions"] or {}), AT_ONCE: self._give_to}
            self.scope["extensions"] = extensions
            self._plain = True

    def _give_to(self, taker: Callable[[bytes], bool], count: Callable[[], None]) -> None:
        self._taker, self._count = taker, count

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message to the app. Text that is no UTF-8 ends the connection (RFC 6455, 8.1), without a log entry."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def data_received(self, data: bytes) -> None:
        """Take data of the client."""
        if not self._plain:
            super().data_received(data)
            return
        if self._held or self._waits or self.read_paused or self._stalled:
            self._pieces.append(data)
            self._held += len(data)
            if self._waits or self.read_paused or self._stalled:
                self.transport.pause_reading()
                return
            if self._held < self._need:
                return
            data = self._all()
        self._work(data)

    def _all(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return data

    def _work(self, data: bytes) -> None:
        """Handle data within the budget, and keep the rest."""
        done = self._cut(data)
        if self.conn.writes and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
        if done < len(data):
            self._pieces.append(data[done:] if done else data)
            self._held = len(data) - done
        if self._waits or self.read_paused or self._stalled:
            self.transport.pause_reading()

    def _cut(self, data: bytes) -> int:
        """Handle one frame after the other within the budget; return the number of bytes handled."""
        at, units, taker, conn = 0, UNITS, self._taker, self.conn
        while not (self.read_paused or self._stalled):
            if units <= 0:
                self._soon()
                break
            kind, begins, ends = frame_at(
                data, at, self._most if conn.current_size is None else self._most - conn.current_size
            )
            if kind == MORE:
                self._need = ends
                break
            if kind == BINARY and taker is not None and conn.current_size is None and not self.close_sent:
                payload = apply_mask(data[begins:ends], data[begins - 4 : begins])
                at = ends
                units -= 1
                if not taker(payload):
                    self.queue.put_nowait({"type": "websocket.receive", "bytes": payload})
                    self.read_paused = True
                continue
            if self._is_too_much():
                return len(data)
            if kind == STRANGE:
                self._plain = False
                super().data_received(data[at:])
                return len(data)
            units -= UNITS_OF_OTHERS
            if self._count is not None and is_counted(kind):
                self._count()
            super().data_received(data[at:ends])
            at = ends
            if self._finished():
                return len(data)
        return at

    def _is_too_much(self) -> bool:
        """Whether more data came than is allowed before the hello or behind the end; then the connection is closed."""
        if self._taker is not None and not self.close_sent:
            return False
        if self.close_sent and self._spare <= BEFORE_HELLO:
            self._spare = BEFORE_HELLO + AFTER_CLOSE
        self._spare -= 1
        if self.close_sent and self._spare == BEFORE_HELLO:
            self.transport.abort()
            return True
        if not self.close_sent and self._spare < 0:
            self.conn.fail(StreamCode.TOO_MANY, TOO_MUCH)
            self.queue.put_nowait({"type": "websocket.disconnect", "code": StreamCode.TOO_MANY, "reason": TOO_MUCH})
            self.close_sent = self._stalled = True
            self.close_timer = self.loop.call_later(PENALTY_SECONDS, self.transport.close)
            return True
        return False

    def _finished(self) -> bool:
        """Whether further data would be ignored."""
        return self.conn.close_rcvd is not None or self.conn.parser_exc is not None

    def handle_ping(self) -> None:
        """Answer a ping; the pongs of a turn are written together."""

    # --- turns -------------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        if not self._waits:
            self._waits = True
            self._turns.add(self._turn)

    def _turn(self) -> None:
        self._waits = False
        if self._held and not (self.read_paused or self._stalled):
            self._work(self._all())
        self._go_on()

    def _go_on(self) -> None:
        """Once all data is handled, read on, or report that the connection is lost."""
        if self._waits or self.read_paused or self._stalled:
            return
        if self._lost:
            super().connection_lost(self._lost.pop())
        elif not self.disconnected:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The next message for the app."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            # Held data goes on in a later turn: the app takes this message first.
            self._soon()
        return message

    async def send(self, message: Any) -> None:
        """Send a message of the app."""
        await super().send(message)
        if message["type"] == "websocket.close":
            self._soon()  # the app takes nothing more, and the client's close may be among the held data

    def pause_writing(self) -> None:
        """Stop reading and answering a client that does not read our data."""
        super().pause_writing()
        self._stalled = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on: the client has read our data."""
        super().resume_writing()
        self._stalled = False
        self._soon()

    # --- the end -----------------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is closed; earlier data is handled first."""
        self.app_state[GUEST].left()
        self._stalled = False
        if self._held and (self._waits or self.read_paused) and not self._app_has_ended:
            self.disconnected = True
            self.writable.set()
            self._lost.append(exc)
        else:
            super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Note that the app has ended, and takes nothing more."""
        super().on_task_complete(task)
        self._app_has_ended = True
        if self._lost:
            super().connection_lost(self._lost.pop())

    def handle_parser_exception(self) -> None:
        """Send a close frame to a client that broke the rules, if it is still connected."""
        if not self._lost:
            super().handle_parser_exception()
            return
        assert self.conn.close_sent is not None  # noqa: S101 - `websockets` has failed the connection
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.close_sent = True
