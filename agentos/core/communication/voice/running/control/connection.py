"""One client of the control socket: lines come in, bytes go out, and nothing blocks.

It waits for the bare socket, on asyncio and trio alike: a wait for readiness takes nothing, so one that is cancelled has lost
nothing.
"""

import socket
from typing import Self

import anyio
import anyio.lowlevel

_CHUNK_BYTES = 4096


class LineTooLong(Exception):
    """The client sent more than a line may have."""


class ControlConnection:
    """The server's end of one connection; a context manager that hangs up. The rest raises `OSError` when
    the client has."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    async def line(self, most_bytes: int) -> bytes | None:
        """The next line, without its end; None when the client has hung up. Raises `LineTooLong`."""
        while b"\n" not in self._unread:
            if len(self._unread) >= most_bytes:
                raise LineTooLong
            await anyio.wait_readable(self._raw)
            try:
                received = self._raw.recv(_CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not received:
                return None
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        if len(line) > most_bytes:
            raise LineTooLong
        return line

    async def stirred(self) -> None:
        """Return when the client hangs up or says anything."""
        if not self._unread:
            await anyio.wait_readable(self._raw)

    async def send(self, data: bytes) -> None:
        """Return when all of it was taken over."""
        await anyio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            try:
                left = left[self._raw.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._raw)
