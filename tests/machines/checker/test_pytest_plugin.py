"""The plugin, by runs of pytest in a run of pytest."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
ALONE = ("-p", "machines.pytest_plugin")
LOADED = () if entry_points(group="pytest11", name="agentos_voice") else ("-p", "machines.pytest_plugin")
COUNTER = """
from machines.checker import Model, always, sometimes
from machines.checker.coverage import CoverageRow


class Counter(Model):
    name = "counter"

    def initial(self):
        return [0]

    def actions(self, state):
        return ["add", "rest"]

    def step(self, state, action):
        return min(state + 1, 9) if action == "add" else state

    def properties(self):
        return [always("under five", lambda state: state < 5), sometimes("three", lambda state: state == 3)]

    def coverage(self):
        yield CoverageRow("counter", "counting", "Add", 9, True, False)
        yield CoverageRow("counter", "counting", "Rest", 9, False, False)


class Small(Counter):
    def step(self, state, action):
        return min(state + 1, 4)
"""


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makepyfile(counter=COUNTER)
    monkeypatch.syspath_prepend(str(pytester.path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(pytester.path)]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return pytester


@pytest.fixture
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other plugins take longer to load, in each process, than the tests take."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(runs: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    runs.makepyfile(test_it=test)
    return runs.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *LOADED, *options)


PASSING = """
from counter import Small

def test_small(check_model):
    report = check_model(Small())
    assert report.states == 5
"""
FAILING = """
from counter import Counter

def test_counter(check_model):
    check_model(Counter())
"""


def test_a_model_whose_properties_hold_passes(runs: pytest.Pytester) -> None:
    run(runs, PASSING).assert_outcomes(passed=1)


def test_a_failure_shows_the_counterexample_and_says_where_it_was_written(runs: pytest.Pytester) -> None:
    result = run(runs, FAILING, "--basetemp", "kept")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *CheckFailed: counter: fails: under five",
            "E *# counter: under five",
            "E *5. add [*][*]← here[*][*]",
            "E *sequenceDiagram",
            "E *written: *report.json",
            "E *written: *under_five.md",
            "E *written: *test_under_five.py",
        ]
    )
    folder = runs.path / "kept" / "models" / "test_it_py_test_counter"
    twin = json.loads((folder / "report.json").read_text())
    assert twin["verdicts"][0]["path"]["choices"] == [0, 0, 0, 0, 0, 0]
    assert "1. add\n" in (folder / "under_five.md").read_text()


def test_what_was_written_goes_where_one_wants_it(runs: pytest.Pytester) -> None:
    twice = FAILING + "\ndef test_both(check_model):\n    check_model(Small())\n    check_model(Counter())\n"
    twice = twice.replace("import Counter", "import Counter, Small")
    run(runs, twice, "--model-output", "out").assert_outcomes(failed=2)
    names = ["report.json", "test_under_five.py", "under_five.md"]
    assert sorted(path.name for path in (runs.path / "out").iterdir()) == [
        "test_it_py_test_both_2",
        "test_it_py_test_counter",
    ]
    assert sorted(path.name for path in (runs.path / "out" / "test_it_py_test_counter").iterdir()) == names


@pytest.mark.usefixtures("no_other_plugins")
def test_the_regression_that_was_written_fails_with_the_model_and_passes_without_the_fault(
    runs: pytest.Pytester,
) -> None:
    runs.makepyfile(test_it=FAILING)
    runs.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *ALONE, "--model-output", "out")
    regression = runs.path / "out" / "test_it_py_test_counter" / "test_under_five.py"
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *ALONE, str(regression))
    again = runs.run(*command, timeout=60)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*counter: this run still breaks 'under five'*"])
    (runs.path / "counter.py").write_text(COUNTER.replace("min(state + 1, 9)", "min(state + 1, 4)"))
    runs.run(*command, timeout=60).assert_outcomes(passed=1)


def test_a_class_with_arguments_needs_its_expression(runs: pytest.Pytester) -> None:
    test = """
        from counter import Counter

        class Upto(Counter):
            def __init__(self, limit):
                self.limit = limit

        def test_without(check_model):
            check_model(Upto(9))

        def test_with(check_model):
            check_model(Upto(9), expression="Upto(9)", imports=["from upto import Upto"])
    """
    run(runs, test, "--model-output", "out").assert_outcomes(failed=2)
    assert not (runs.path / "out" / "test_it_py_test_without" / "test_under_five.py").exists()
    text = (runs.path / "out" / "test_it_py_test_with" / "test_under_five.py").read_text()
    assert "from upto import Upto\n" in text
    assert "    model = Upto(9)\n" in text


def test_not_decided_is_a_failure_and_says_so(runs: pytest.Pytester) -> None:
    test = "from counter import Small\n\ndef test_small(check_model):\n    check_model(Small(), max_states=3)\n"
    result = run(runs, test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*NOT DECIDED, which is no pass: 3 states,*stopped by max_states", "E *not decided: under five: *max_states"]
    )


def test_the_bound_of_the_command_line_goes_first(runs: pytest.Pytester) -> None:
    run(runs, PASSING, "--model-max-states", "2").assert_outcomes(failed=1)
    run(runs, PASSING, "--model-max-states", "500").assert_outcomes(passed=1)


def test_the_seed_of_the_command_line_makes_the_walk(runs: pytest.Pytester) -> None:
    test = """
        import pytest
        from counter import Small

        class Wide(Small):
            def actions(self, state):
                return range(50)

            def step(self, state, action):
                return (*state, action) if len(state) < 3 else state

            def initial(self):
                return [()]

            def properties(self):
                return []

        def test_seed(check_model):
            seen = []
            model = Wide()
            step = model.step
            model.step = lambda state, action: seen.append(step(state, action)) or seen[-1]
            with pytest.raises(AssertionError):
                check_model(model, strategy="walk", walks=1, max_depth=3, self_check=False)
            with open("seen", "a") as file:
                print(max(seen, key=len), file=file)
    """
    for seed in ("7", "7", "8"):
        run(runs, test, "--model-seed", seed).assert_outcomes(passed=1)
    first, again, other = (runs.path / "seen").read_text().splitlines()
    assert first == again != other


def test_the_assertion_can_be_imported(runs: pytest.Pytester) -> None:
    test = """
        import pytest
        from counter import Counter, Small
        from machines.pytest_plugin import check_model

        def test_small():
            assert check_model(Small()).complete

        def test_counter():
            with pytest.raises(AssertionError, match="under five") as failure:
                check_model(Counter())
            assert failure.value.report.states == 6
            assert failure.value.files == ()
    """
    result = run(runs, test)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*model coverage*"])


def test_the_coverage_of_a_run_is_shown(runs: pytest.Pytester) -> None:
    result = run(runs, PASSING)
    result.stdout.fnmatch_lines(
        [
            "*= model coverage =*",
            "actor    pairs  covered  steps",
            "counter      2    50.0%  18",
            "uncovered: counter in counting: Rest: came 9 times and did nothing",
        ]
    )
    assert result.ret == pytest.ExitCode.OK


def test_too_little_coverage_fails_the_run(runs: pytest.Pytester) -> None:
    result = run(runs, PASSING, "--model-coverage-fail-under", "60")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAIL: 50.0 % of the pairs are covered, 60 % is asked for"])
    assert run(runs, PASSING, "--model-coverage-fail-under", "50").ret == pytest.ExitCode.OK


def test_no_coverage_at_all_does_not_pass_the_gate(runs: pytest.Pytester) -> None:
    test = "def test_nothing():\n    pass\n"
    result = run(runs, test, "--model-coverage-fail-under", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAIL: no model that was checked tells its coverage, 1 % is asked for"])
    assert run(runs, test, "--model-coverage-fail-under", "1", "--collect-only").ret == pytest.ExitCode.OK


def test_a_run_that_checks_nothing_says_nothing(runs: pytest.Pytester) -> None:
    result = run(runs, "def test_nothing():\n    pass\n")
    result.stdout.no_fnmatch_line("*model coverage*")


def test_it_is_an_entry_point_that_imports_neither_the_checker_nor_the_service() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = project["entry-points"]["pytest11"]["agentos_voice"]
    loaded = "sorted(it for it in sys.modules if it.split('.')[0] in ('machines', 'actors', 'agentos', 'hypothesis'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; print(*{loaded})"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["machines", name]


@pytest.mark.usefixtures("no_other_plugins")
def test_what_the_workers_of_a_run_cover_is_put_together(runs: pytest.Pytester) -> None:
    runs.makepyfile(test_other=PASSING, test_more=PASSING)
    options = (
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        *ALONE,
        "-p",
        "xdist",
        "-n",
        "2",
        "--model-coverage-fail-under",
    )
    runs.makepyfile(test_it=PASSING)
    found = runs.runpytest_subprocess(*options, "50")
    assert found.ret == pytest.ExitCode.OK
    found.stdout.fnmatch_lines(["*model coverage*", "counter *2 *50.0%*54"])
    assert runs.runpytest_subprocess(*options, "60").ret == pytest.ExitCode.TESTS_FAILED
