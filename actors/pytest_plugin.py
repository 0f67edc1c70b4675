"""The pytest plugin of the simulator: `check_simulation` as an assertion and as a fixture.

pytest imports this module in every run, so this module imports the simulator only when a test uses it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from actors.simulation.runner import Simulation
    from actors.simulation.runs import SimulationReport

SEEDS = 20


class CheckSimulation(Protocol):
    """The type of the fixture `check_simulation`; see the function `check_simulation` below."""

    def __call__(
        self, simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0
    ) -> "SimulationReport":
        """Run `simulation`; raises `PromiseBroken` unless every promise holds in every seed."""


def check_simulation(
    simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0
) -> "SimulationReport":
    """Run a simulation with each of `seeds` (twenty by default) for so many hours, and return the report if all promises held.

    Else raises a `PromiseBroken`, an `AssertionError`, for the first seed that failed, with its shrunk plan. Also raises an
    `AssertionError` if a kind of fault fired in too few of the seeds.
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
    """The assertion `check_simulation(simulation, seeds=..., hours=...)`; `--simulation-seeds` overrides a test's seeds."""
    given: int | None = pytestconfig.getoption("simulation_seeds")

    def checked(
        simulation: "Simulation", *, seeds: "Iterable[int] | None" = None, hours: float = 24.0
    ) -> "SimulationReport":
        __tracebackhide__ = True
        return check_simulation(simulation, seeds=seeds if given is None else range(given), hours=hours)

    return checked


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of this plugin."""
    group = parser.getgroup("simulation", "simulation (agentos-voice)")
    group.addoption("--simulation-seeds", type=int, metavar="N", help="run every simulation with the seeds 0 to N - 1")
