"""The steps of one session's actors on their way from the actor system to one who reads them."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final, Self

import anyio

from actors.runtime.mailbox import Ref
from actors.runtime.tracing import TraceLine, Tracer
from agentos.core.time import utc_now

LINES_KEPT: Final = 10_000  # for a reader that is slow: what a minute of a lively call comes to


class SessionTrace:
    """The steps of one session's actors as they are taken; an async iterator that ends when the session has stopped.

    A reader that is slow misses the oldest steps beyond `LINES_KEPT`: the numbers of the lines have a hole there, and `lost`
    counts them. `started_at` (aware UTC) is when the lines' `seconds` begin. For the loop that the service runs in.
    """

    def __init__(self, session_id: str, tracer: Tracer, ref: Ref, on_close: Callable[["SessionTrace"], None]) -> None:
        self.session_id = session_id
        self.started_at: datetime = utc_now()
        self.lost = 0
        self._lines: deque[TraceLine] = deque()
        self._ended = False
        self._news = anyio.Event()
        self._on_close = on_close
        self._trace = tracer.follow(ref, self._take, self.end)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TraceLine:
        """The next step; waits until there is one."""
        if not await self._wait():
            raise StopAsyncIteration
        return self._lines.popleft()

    async def batch(self) -> list[TraceLine]:
        """The steps that no one has read; waits until there is one. Empty when none will follow."""
        await self._wait()
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def end(self) -> None:
        """No more steps will follow those that wait."""
        self._ended = True
        self._news.set()

    def close(self) -> None:
        """Stop tracing. Twice is once."""
        self._trace.end()
        self.end()
        self._on_close(self)

    async def _wait(self) -> bool:
        """Whether there is a step, once that is known."""
        while not self._lines and not self._ended:
            self._news = anyio.Event()
            await self._news.wait()
        return bool(self._lines)

    def _take(self, line: TraceLine) -> None:
        self._lines.append(line)
        if len(self._lines) > LINES_KEPT:
            self._lines.popleft()
            self.lost += 1
        self._news.set()
