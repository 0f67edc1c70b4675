"""Turns of the event loop for connections with more data than their budget: one connection at a time, in order.

A connection handles data within its budget. With the rest it waits here behind the others, and reads nothing meanwhile. So one
turn of the loop handles the budget of one waiting connection, however many wait.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio

TURNS: Final = "agentos_voice.turns"  # in the state of an ASGI scope


class CallbackTurns:
    """Turns for protocols, on asyncio."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when its turn has come."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        go_on = self._waiting[0]
        try:
            go_on()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._loop.call_soon(self._take)


class TaskTurns:
    """Turns for tasks, on trio; `run` gives them out."""

    def __init__(self) -> None:
        self._waiting: deque[anyio.Event] = deque()
        self._any = anyio.Event()

    async def next(self) -> None:
        """Wait for the calling task's turn."""
        mine = anyio.Event()
        self._waiting.append(mine)
        self._any.set()
        await mine.wait()

    async def run(self) -> None:
        """Give turns out until cancelled."""
        while True:
            await self._any.wait()
            while self._waiting:
                self._waiting.popleft().set()
                await anyio.lowlevel.checkpoint()
            self._any = anyio.Event()
