"""The pytest plugin of the simulator: `check_simulation` as an assertion and as a fixture.

pytest imports this module in every run, so it imports the simulator only when it is used.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from actors.simulation.runner import Simulation
    from actors.simulation.runs import Report

SEEDS = 20


class CheckSimulation(Protocol):
    """What the fixture `check_simulation` gives; the function below tells what it does."""

    def __call__(
        self, simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0
    ) -> "Report":
        """Run `simulation`; raises `PromiseBroken` unless every promise holds in every seed."""


def check_simulation(
    simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0
) -> "Report":
    """Run a simulation with each of `seeds` (twenty if nothing is said) for so many hours; their report when all held.

    Else raises a `PromiseBroken`, an `AssertionError`, for the first seed that failed, made as small as it goes; and an
    `AssertionError` when a kind of fault fired in too few of the seeds.
    """
    __tracebackhide__ = True
    from actors.simulation.runner import PromiseBroken  # noqa: PLC0415 - as the module says
    from actors.simulation.runs import run_seeds  # noqa: PLC0415
    from actors.simulation.shrink import shrunk  # noqa: PLC0415

    report = run_seeds(
        lambda: simulation, range(SEEDS) if seeds is None else seeds, hours, on_day=lambda day: day.failure is None
    )
    if report.failing:
        plan, day, _ = shrunk(simulation, report.failing[0], hours)
        assert day.failure is not None
        raise PromiseBroken(plan, day.failure)
    assert not report.problem, report.problem
    return report


@pytest.fixture(name="check_simulation")
def _check_simulation(pytestconfig: pytest.Config) -> CheckSimulation:
    """The assertion `check_simulation(simulation, seeds=..., hours=...)`; `--simulation-seeds` goes before what a test says."""
    given: int | None = pytestconfig.getoption("simulation_seeds")

    def checked(simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0) -> "Report":
        __tracebackhide__ = True
        return check_simulation(simulation, seeds=seeds if given is None else range(given), hours=hours)

    return checked


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of this plugin."""
    group = parser.getgroup("simulation", "simulation (agentos-voice)")
    group.addoption("--simulation-seeds", type=int, metavar="N", help="run every simulation with the seeds 0 to N - 1")
