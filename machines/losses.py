"""Frames of a call that were lost for good, as runs in the order of their numbers.

The sender of the call is told of them, so that it never takes lost frames for stored. Adjacent frames that are lost for one
reason make one run, so there are few runs. If there are too many runs even so, the frames from there on count as unknown.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

MAX_FRAME: Final = 2**32 - 1
MOST_RUNS: Final = 10_000  # an hour and more of a disk that takes every tenth second and refuses the next

FrameNumber = Annotated[int, Meta(ge=0, le=MAX_FRAME)]
Count = Annotated[int, Meta(ge=1, le=MAX_FRAME)]
Reason = Annotated[str, Meta(min_length=1, max_length=64)]


class Lost(NamedTuple):
    """A run of `frames` lost frames from `first` on, and the reason."""

    first: FrameNumber
    frames: Count
    reason: Reason

    @property
    def upto(self) -> int:
        """The frame behind the run."""
        return self.first + self.frames


class Losses:
    """The runs of one call, in order. One thread adds, any thread may read. Losses from frame `known_below` on are unknown,
    because there were too many runs."""

    __slots__ = ("_runs", "known_below")

    def __init__(self, runs: Sequence[Lost] = ()) -> None:
        self._runs = list(runs)
        self.known_below = MAX_FRAME

    def add(self, first: int, count: int, reason: str) -> None:
        """Add `count` frames from `first` on, none of which was added before."""
        last = self._runs[-1] if self._runs else None
        if last is not None and last.upto == first and last.reason == reason:
            self._runs[-1] = Lost(last.first, last.frames + count, reason)
        elif len(self._runs) < MOST_RUNS:
            insort(self._runs, Lost(first, count, reason))
        else:
            self.known_below = min(self.known_below, first)

    def between(self, known: int, below: int) -> tuple[Lost, ...]:
        """The losses among the frames from `known` on and below `below`."""
        runs = self._runs
        if not runs or runs[-1].upto <= known:
            return ()
        start = max(0, bisect_right(runs, known, key=_first) - 1)
        return clipped(runs[start:], known, below)


def clipped(runs: Sequence[Lost], known: int, below: int = MAX_FRAME) -> tuple[Lost, ...]:
    """These runs, cut to the frames from `known` on and below `below`."""
    return tuple(
        [
            Lost(first, upto - first, run.reason)
            for run in runs
            if (first := max(known, run.first)) < (upto := min(below, run.upto))
        ]
    )


def counted(counts: tuple[tuple[str, int], ...], reason: str, more: int) -> tuple[tuple[str, int], ...]:
    """Counts by reason with `more` added to one of them, in the order of the reasons' names."""
    by_reason = dict(counts)
    by_reason[reason] = by_reason.get(reason, 0) + more
    return tuple(sorted(by_reason.items()))


def total(counts: tuple[tuple[str, int], ...]) -> int:
    """The sum of these counts, whatever the reason."""
    return sum([count for _, count in counts]) if counts else 0


def _first(run: Lost) -> int:
    return run.first
