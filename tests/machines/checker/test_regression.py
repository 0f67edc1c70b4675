"""A counterexample as a test of its own: it fails while the model has it, and passes once that is mended."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from machines.checker import Outcome, Report, Verdict, check
from machines.checker.regression import assert_mended, regression
from tests.machines.checker.examples.courier import Courier

ROOT = Path(__file__).parents[3]
RUFF = Path(sys.executable).with_name("ruff")
MODEL = '''
from machines.checker import Model, always, always_step, can_always_reach, leads_to, no_deadlock

MENDED = False


class Lift(Model):
    """A lift between three floors: it can get stuck, fall, and wait for ever, until it is mended."""

    name = "lift"

    def __init__(self, floors: int) -> None:
        self.floors = floors

    def initial(self):
        return [-1, 0]

    def actions(self, state):
        if state < 0:
            return ["start"] if MENDED else []
        up = ["go \\u2191 \\"up\\""] if state < self.floors else []
        if MENDED:
            return ["down"] if state else up
        return ["wait", *up]

    def step(self, state, action):
        return {"start": 0, "wait": state, "down": state - 1}.get(action, state + 1)

    def is_fair(self, action):
        return MENDED

    def properties(self):
        return [
            always("low", lambda state: state < 3 or MENDED),
            always_step("no jump", lambda before, action, after: after < 2 or MENDED),
            no_deadlock("goes on"),
            can_always_reach("ground", lambda state: state == 0),
            leads_to("comes down", lambda state: state == 1, lambda state: state == 0),
        ]
'''


@pytest.fixture
def lift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Report]:
    (tmp_path / "lift.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lift", raising=False)
    model = import_module("lift").Lift(5)
    monkeypatch.delitem(sys.modules, "lift")
    return model, check(model)


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take longer to load than the test takes
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_fails_now_and_passes_once_mended(lift: tuple[Any, Report], tmp_path: Path) -> None:
    model, report = lift
    assert {verdict.outcome for verdict in report.verdicts} == {Outcome.FAILS}
    for at, verdict in enumerate(report.verdicts):
        text = regression("Lift(5)", ["from lift import Lift"], model, verdict)
        (tmp_path / f"test_{at}.py").write_text(text, encoding="utf-8")
    pytest_command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "--rootdir", str(tmp_path))
    now = run(*pytest_command, folder=tmp_path)
    assert now.returncode == 1, now.stdout + now.stderr
    assert "5 failed" in now.stdout
    for verdict in report.verdicts:
        assert f"lift: this run still breaks {verdict.name!r}" in now.stdout
    (tmp_path / "lift.py").write_text(MODEL.replace("MENDED = False", "MENDED = True"), encoding="utf-8")
    mended = run(*pytest_command, folder=tmp_path)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "5 passed" in mended.stdout


if RUFF.exists():  # it comes with the extra `lint`, and what it says is the same on every Python

    def test_ruff_accepts_what_is_written(lift: tuple[Any, Report], tmp_path: Path) -> None:
        model, report = lift
        for at, verdict in enumerate(report.verdicts):
            text = regression("Lift(5)", ["from lift import Lift"], model, verdict)
            (tmp_path / f"test_{at}.py").write_text(text, encoding="utf-8")
        left_out = "D,S,INP001,COM812,CPY,I001"  # I001 asks whose project it is; the others as in this one's tests
        rules = ["--isolated", "--line-length", "120", "--select", "ALL", "--ignore", left_out]
        done = subprocess.run(
            [RUFF, "check", "--no-cache", *rules, *tmp_path.glob("test_*.py")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def verdict_of(model: Courier, name: str) -> Verdict:
    return check(model).verdict(name)


def test_a_property_that_holds_and_a_missing_witness_have_no_regression() -> None:
    model = Courier()
    with pytest.raises(ValueError, match="no counterexample to 'something comes'"):
        regression("Courier()", (), model, verdict_of(model, "something comes"))
    missing = Verdict("something comes", "sometimes", Outcome.FAILS)
    with pytest.raises(ValueError, match="no counterexample"):
        regression("Courier()", (), model, missing)


@pytest.mark.parametrize(
    ("expression", "imports"), [("Courier(", ()), ("x = 1", ()), ("Courier()", ("from import x",))]
)
def test_what_is_not_python_is_refused(expression: str, imports: Sequence[str]) -> None:
    model = Courier(frozenset({"lose"}))
    with pytest.raises(ValueError, match="not valid Python"):
        regression(expression, imports, model, verdict_of(model, "all can come"))


def test_no_name_or_label_breaks_the_module() -> None:
    class Quoting(Courier):
        name = 'a "model" \\ with """ and \n'

        def label(self, action: str) -> str:
            return f'{action} \\ \' " """ é \u2028' + "long " * 60

        def properties(self) -> Any:
            return [claim._replace(name=f"1. \"{claim.name}\" 'x' \\") for claim in super().properties()]

    model = Quoting(frozenset({"lose"}))
    [verdict] = [it for it in check(model).verdicts if it.kind == "can_always_reach"]
    text = regression("Quoting()", (), model, verdict)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120
    found: dict[str, Any] = {"Quoting": lambda: model}
    exec(compile(text, "regression", "exec"), found)
    with pytest.raises(AssertionError, match="this run still breaks"):
        found["test_1_all_can_come_x"]()


def test_it_does_not_pass_because_something_was_renamed() -> None:
    model = Courier(frozenset({"lose"}))
    with pytest.raises(AssertionError, match="another run breaks 'all can come'"):
        assert_mended(model, "all can come", (0, 0, 1), ("dispatch", "mislay"))


def test_a_run_that_is_no_longer_possible_passes_when_no_other_breaks_the_property() -> None:
    assert_mended(Courier(), "all can come", (0, 0, 5), ("send", "lose"))


def test_a_lasso_that_no_longer_closes_is_none() -> None:
    model = Courier(lazy=True)
    with pytest.raises(AssertionError, match="another run breaks 'what is sent comes'"):
        assert_mended(model, "what is sent comes", (0, 0, 0, 1), ("send", "send", "nap"), loop=2)
