"""How late the event loop wakes a task that has slept: what everybody else on the loop waits for too."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

import anyio

from agentos.core.time import monotonic_ms

WINDOW_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class LoopLagStatistics:
    """How late the loop woke a sleeper within the last seconds, in milliseconds: the last time, the median, the 99th percentile
    (nearest rank) and the latest of all; all 0 when there is no sample. `samples` is how often it was measured."""

    samples: int
    last_ms: int
    p50_ms: int
    p99_ms: int
    max_ms: int


class LoopLag:
    """Measures the loop that it is asked in, on asyncio and trio; keeps what it saw in the last `window_seconds`. `clock` gives
    monotonic milliseconds."""

    def __init__(
        self,
        *,
        interval_seconds: float,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._window_ms = int(window_seconds * 1000)
        self._clock = clock
        self._samples: deque[tuple[int, int]] = deque()  # when it woke, and how late

    async def measure(self) -> int:
        """Measure once, which takes `interval_seconds`: how late it was, in milliseconds."""
        due = self._clock() + int(self._interval_seconds * 1000)
        await anyio.sleep(self._interval_seconds)
        woke = self._clock()
        late = max(0, woke - due)
        self._samples.append((woke, late))
        self._forget(woke)
        return late

    def statistics(self) -> LoopLagStatistics:
        """The last seconds, at this moment."""
        self._forget(self._clock())
        late = sorted(late for _, late in self._samples)
        if not late:
            return LoopLagStatistics(0, 0, 0, 0, 0)
        last = self._samples[-1][1]
        return LoopLagStatistics(len(late), last, _rank(late, 0.5), _rank(late, 0.99), late[-1])

    def _forget(self, now: int) -> None:
        while self._samples and self._samples[0][0] < now - self._window_ms:
            self._samples.popleft()


def _rank(ordered: list[int], share: float) -> int:
    return ordered[ceil(share * len(ordered)) - 1]
