"""The lag of the event loop: how late it wakes a sleeping task. All tasks of the loop wait as long."""

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
    """The lag of the loop within the last seconds, in milliseconds: the last, the median, the 99th percentile (nearest rank)
    and the largest; all 0 without samples. `samples` is the number of measurements."""

    samples: int
    last_ms: int
    p50_ms: int
    p99_ms: int
    max_ms: int


class LoopLag:
    """Measures the lag of the loop that runs `measure`, asyncio or trio; keeps the measurements of the last `window_seconds`.
    `clock` gives monotonic milliseconds."""

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
        self._samples: deque[tuple[int, int]] = deque()  # the time, and the lag

    async def measure(self) -> int:
        """Measure once, which takes `interval_seconds`; return the lag in milliseconds."""
        due = self._clock() + int(self._interval_seconds * 1000)
        await anyio.sleep(self._interval_seconds)
        woke = self._clock()
        late = max(0, woke - due)
        self._samples.append((woke, late))
        self._forget(woke)
        return late

    def statistics(self) -> LoopLagStatistics:
        """The lag within the last seconds."""
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
