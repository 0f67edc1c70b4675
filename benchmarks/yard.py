"""The two units. What is a message or less is measured in yards (y): the CPU time of one `deque.append` and `popleft`. What is
more is measured beside the same work written by hand, as so many times of it.

Machines differ and drift; a figure in microseconds does not hold, and one in yards only from run to run of one machine. The
unit is taken before and after each of several runs, by CPU time, and the figure is the median.
"""

import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

YARD_ROUNDS = 200_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: CPU microseconds and yards for one operation."""

    name: str
    loop: str
    micros: float
    yards: float
    goal: float | None = None

    def line(self) -> str:
        """The figure as a row of a table."""
        goal = "" if self.goal is None else f"{self.goal:>8.0f} y {'ok' if self.yards <= self.goal else 'OVER'}"
        return f"{self.name:<44} {self.loop:<8} {self.micros:>10.2f} us {self.yards:>8.1f} y {goal}"


def yard(clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds of CPU for one append and popleft."""
    queue: deque[int] = deque()
    began = clock()
    for _ in range(YARD_ROUNDS):
        queue.append(1)
        queue.popleft()
    return (clock() - began) / YARD_ROUNDS


def measure(name: str, loop: str, run: Callable[[int], None], rounds: int, *, goal: float | None, runs: int) -> Figure:
    """The median of `runs` runs of `run(rounds)`, by the CPU time of this thread, for one round."""
    seconds, yards = [], []
    run(max(1, rounds // 10))
    for _ in range(runs):
        before = yard()
        began = time.thread_time()
        run(rounds)
        each = (time.thread_time() - began) / rounds
        seconds.append(each)
        yards.append(each / ((before + yard()) / 2))
    return Figure(name, loop, statistics.median(seconds) * 1e6, statistics.median(yards), goal)


async def measure_async(
    name: str, loop: str, run: Callable[[int], Awaitable[None]], rounds: int, *, goal: float | None, runs: int
) -> Figure:
    """Like `measure`, for work that awaits."""
    seconds, yards = [], []
    await run(max(1, rounds // 10))
    for _ in range(runs):
        before = yard()
        began = time.thread_time()
        await run(rounds)
        each = (time.thread_time() - began) / rounds
        seconds.append(each)
        yards.append(each / ((before + yard()) / 2))
    return Figure(name, loop, statistics.median(seconds) * 1e6, statistics.median(yards), goal)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """CPU microseconds for one operation, and how many times that is what it takes by hand."""

    name: str
    loop: str
    micros: float
    times: float
    goal: float | None = None

    def line(self) -> str:
        """The figure as a row of a table."""
        goal = "" if self.goal is None else f", goal {self.goal:.1f} {'ok' if self.times <= self.goal else 'OVER'}"
        return f"{self.name:<44} {self.loop:<8} {self.micros:>10.2f} us {self.times:>8.2f} times by hand{goal}"


async def measure_beside(
    name: str,
    loop: str,
    run: Callable[[int], Awaitable[None]],
    by_hand: Callable[[int], Awaitable[None]],
    rounds: int,
    *,
    goal: float | None,
    runs: int,
) -> SideBySide:
    """The median of `runs` runs of `run(rounds)`, each between two of `by_hand(rounds)`, by the CPU time of this thread."""

    async def each(what: Callable[[int], Awaitable[None]]) -> float:
        began = time.thread_time()
        await what(rounds)
        return (time.thread_time() - began) / rounds

    for warm in (run, by_hand):
        await warm(max(1, rounds // 10))
    seconds, times = [], []
    before = await each(by_hand)
    for _ in range(runs):
        taken = await each(run)
        after = await each(by_hand)
        seconds.append(taken)
        times.append(2 * taken / (before + after))
        before = after
    return SideBySide(name, loop, statistics.median(seconds) * 1e6, statistics.median(times), goal)
