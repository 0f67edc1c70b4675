"""Runs of many seeds in several processes, and their report.

report = run_seeds(voice_simulation, range(1000), hours=24)
report.problem        # "" if every promise held, and every kind of fault fired in enough of the seeds
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final

from actors.simulation.runner import Day, Simulation

LEAST_SHARE: Final = 0.01  # of the seeds: a kind of fault that fires in fewer counts as untried
TRIED: Final = 20  # fewer seeds make a share meaningless
AT_ONCE: Final = 4  # seeds that a process takes at a time

Make = Callable[[], Simulation]


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """The report of many runs: `days` by seed, each of `hours`; `kinds` are the kinds of faults that were possible."""

    days: Sequence[Day]
    hours: float
    kinds: Sequence[str]

    @property
    def failing(self) -> list[Day]:
        """The days on which a promise was broken."""
        return [day for day in self.days if day.failure is not None]

    @property
    def faults(self) -> dict[str, int]:
        """How many faults fired, by kind."""
        total: Counter[str] = Counter()
        for day in self.days:
            total.update(day.faults)
        return {kind: total[kind] for kind in sorted({*self.kinds, *total})}

    @property
    def shares(self) -> dict[str, float]:
        """The share of the seeds in which each kind fired."""
        seeds = Counter([kind for day in self.days for kind in day.faults])
        return {kind: seeds[kind] / max(1, len(self.days)) for kind in self.faults}

    @property
    def untried(self) -> list[str]:
        """The kinds that fired in too few of the seeds to count as tried; empty for a few seeds."""
        if len(self.days) < TRIED:
            return []
        return [kind for kind, share in self.shares.items() if share < LEAST_SHARE]

    @property
    def problem(self) -> str:
        """Why the runs failed as a whole; empty if they did not."""
        if self.failing:
            seeds = ", ".join([str(day.seed) for day in self.failing[:5]])
            return f"{len(self.failing)} of {len(self.days)} seeds break a promise: {seeds}"
        if self.untried:
            return f"fired in fewer than {LEAST_SHARE:.0%} of the seeds: {', '.join(self.untried)}"
        return ""

    def as_json(self) -> dict[str, object]:
        """The report as JSON values, with the trace hash of each seed."""
        return {
            "seeds": len(self.days),
            "hours": self.hours,
            "visits": sum(day.visits for day in self.days),
            "messages": sum(day.steps for day in self.days),
            "processes": sum(day.processes for day in self.days),
            "crashes": sum(day.crashes for day in self.days),
            "restarts": sum(day.restarts for day in self.days),
            "faults": self.faults,
            "shares": {kind: round(share, 4) for kind, share in self.shares.items()},
            "untried": self.untried,
            "days": [
                {
                    "seed": day.seed,
                    "trace_hash": day.trace_hash,
                    "visits": day.visits,
                    "messages": day.steps,
                    "faults": day.faults,
                    **({} if day.failure is None else {"failure": day.failure._asdict()}),
                }
                for day in self.days
            ],
        }


def run_seeds(
    make: Make,
    seeds: Iterable[int],
    hours: float = 24.0,
    *,
    processes: int = 1,
    on_day: Callable[[Day], bool | None] | None = None,
) -> SimulationReport:
    """Run every seed; `make()` makes the simulation, once in each process.

    `on_day` is called with each day, in the order of the seeds; if it returns False, no further seed is begun.
    """
    days: list[Day] = []
    for day in _days(make, list(seeds), hours, processes):
        days.append(day)
        if on_day is not None and on_day(day) is False:
            break
    return SimulationReport(tuple(days), hours, tuple(sorted(make().faults)))


def _days(make: Make, seeds: Sequence[int], hours: float, processes: int) -> Iterator[Day]:
    if processes == 1 or len(seeds) == 1:
        simulation = make()
        for seed in seeds:
            yield simulation.run(seed, hours)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_prepare, initargs=(make, hours))
    try:
        yield from pool.map(_run_here, seeds, chunksize=max(1, min(AT_ONCE, len(seeds) // processes)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_here: dict[str, Any] = {}


def _prepare(make: Make, hours: float) -> None:
    _here.update(simulation=make(), hours=hours)


def _run_here(seed: int) -> Day:
    simulation: Simulation = _here["simulation"]
    return simulation.run(seed, _here["hours"])
