"""The simulator's plugin, by runs of pytest in a run of pytest."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
LOADED = () if entry_points(group="pytest11", name="agentos_voice_simulation") else ("-p", "actors.pytest_plugin")
TEST = """
from actors.runtime.actor import Actor
from actors.simulation.runner import FaultKind, Simulation


class Clock(Actor):
    __slots__ = ("ticks",)
    state = ("ticks",)
    handles = {}

    def __init__(self):
        self.ticks = 0

    def start(self, out):
        out.set_timer("tick", 60.0)

    def timeout(self, timer, out):
        self.ticks += 1
        if self.ticks < 10:
            out.set_timer("tick", 60.0)


def clock():
    jumps = {"clock jump": FaultKind(("",), 1000, 9000)}
    simulation = Simulation("clock", lambda world: world.spawn(Clock(), "clock"), faults=jumps, faults_in_a_day=800.0)
    simulation.at_end("it ticks ten times", lambda clock: clock.ticks == 10, of=["clock"])
    return simulation


def test_it(check_simulation):
    assert len(check_simulation(clock(), hours=0.2).days) == SEEDS


def test_wrong(check_simulation):
    simulation = clock()
    simulation.always("never nine", lambda clock: clock.ticks != 9, of=["clock"])
    check_simulation(simulation, seeds=[7], hours=0.2)
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(pytester: pytest.Pytester, seeds: int, *options: str) -> pytest.RunResult:
    file = pytester.makepyfile(test_clock=TEST.replace("SEEDS", str(seeds)))
    return pytester.runpytest_subprocess(*LOADED, "-p", "no:cacheprovider", *options, file)


def test_the_fixture_runs_twenty_seeds_or_says_what_is_broken_with_the_smallest_plan(pytester: pytest.Pytester) -> None:
    result = run(pytester, 20)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*PromiseBroken: never nine (seed 7, step 10, at *s)", "*clock: {'ticks': 9}"])
    result.stdout.no_fnmatch_line("*clock jump*s: clock jump*")


def test_the_option_goes_before_what_a_test_says(pytester: pytest.Pytester) -> None:
    result = run(pytester, 3, "--simulation-seeds", "3")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*never nine (seed 0,*"])


def test_it_is_an_entry_point_that_does_not_import_the_simulator() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = project["entry-points"]["pytest11"]["agentos_voice_simulation"]
    loaded = "sorted(it for it in sys.modules if it.split('.')[0] in ('machines', 'actors', 'agentos'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; print(*{loaded})"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["actors", name, "machines", "machines.facade"]
