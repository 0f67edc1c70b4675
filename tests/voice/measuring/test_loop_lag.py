"""How late the loop wakes a sleeper: told as it was, and forgotten after the window."""

import anyio
import anyio.lowlevel
import pytest

from agentos.core.communication.voice.measuring.loop_lag import LoopLag, LoopLagStatistics
from agentos.core.time import monotonic_ms

NOTHING = LoopLagStatistics(0, 0, 0, 0, 0)


class LateClock:
    """Milliseconds of a loop that wakes each sleeper of 10 ms later by the next of `late`."""

    def __init__(self, *late: int) -> None:
        self.now = 1000
        self._late = list(late)
        self._asleep = False

    def __call__(self) -> int:
        if self._asleep and self._late:
            self.now += 10 + self._late.pop(0)
        self._asleep = not self._asleep
        return self.now

    def done(self) -> bool:
        return not self._late


async def measured(clock: LateClock, window_seconds: float = 10.0) -> LoopLag:
    """A measure that has seen all that the clock has."""
    lag = LoopLag(interval_seconds=0.01, window_seconds=window_seconds, clock=clock)
    while not clock.done():
        await lag.measure()
    return lag


def test_before_the_first_sample_there_is_nothing() -> None:
    assert LoopLag(interval_seconds=1).statistics() == NOTHING


@pytest.mark.anyio
async def test_what_was_seen_is_told(anyio_backend: object) -> None:
    lag = await measured(LateClock(3, 0, 70, 5, 1))
    assert lag.statistics() == LoopLagStatistics(samples=5, last_ms=1, p50_ms=3, p99_ms=70, max_ms=70)


@pytest.mark.anyio
async def test_a_wake_that_comes_early_is_not_late(anyio_backend: object) -> None:
    lag = await measured(LateClock(-4))
    assert lag.statistics() == LoopLagStatistics(1, 0, 0, 0, 0)


@pytest.mark.anyio
async def test_what_is_older_than_the_window_is_forgotten(anyio_backend: object) -> None:
    clock = LateClock(500, 2, 3)
    lag = await measured(clock, window_seconds=0.02)
    assert lag.statistics().max_ms == 3
    assert lag.statistics().samples == 2
    clock.now += 1000
    assert lag.statistics() == NOTHING


@pytest.mark.anyio
async def test_one_in_a_hundred_is_not_the_99th_percentile(anyio_backend: object) -> None:
    lag = await measured(LateClock(*[1] * 198, 40, 90))
    found = lag.statistics()
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (1, 1, 90)


@pytest.mark.anyio
async def test_a_loop_that_was_held_up_is_seen_on_the_real_clock(anyio_backend: object) -> None:
    lag = LoopLag(interval_seconds=0.01)
    held_ms = 200

    async def hold() -> None:
        ends = monotonic_ms() + held_ms
        while monotonic_ms() < ends:
            pass  # nothing else runs on this loop

    async with anyio.create_task_group() as group:
        group.start_soon(lag.measure)
        for _ in range(2):  # trio may take this task before the other in the first round
            await anyio.lowlevel.checkpoint()
        await hold()
    assert lag.statistics().max_ms >= held_ms - 20
