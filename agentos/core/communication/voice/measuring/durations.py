"""Durations, counted in buckets for metrics, at the cost of one addition each."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class DurationStatistics:
    """The durations counted since the start.

    `within[i]` of the `count` durations are at most `bounds_seconds[i]`; `sum_seconds` is their sum.
    """

    count: int
    sum_seconds: float
    bounds_seconds: tuple[float, ...]
    within: tuple[int, ...]


class Durations:
    """Counts durations. One thread adds; any may look, and sees whole buckets, perhaps without the newest."""

    __slots__ = ("_counts", "_sum_ms")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self._sum_ms = 0

    def add_ms(self, milliseconds: int) -> None:
        """Count one duration."""
        self._counts[bisect_left(BOUNDS_SECONDS, milliseconds / 1000)] += 1
        self._sum_ms += milliseconds

    def statistics(self) -> DurationStatistics:
        """The durations counted so far."""
        within = tuple(accumulate(self._counts))
        return DurationStatistics(within[-1], self._sum_ms / 1000, BOUNDS_SECONDS, within[:-1])
