"""The pytest plugin: `check_model` as an assertion and as a fixture, its options, and the coverage of the models of a run.

pytest imports this module in every run, also in runs that check nothing, and before coverage is measured. So this module
imports the checker only when a test uses it.
"""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from machines.checker.assertion import Folder
    from machines.checker.coverage import Coverage, CoverageRow
    from machines.checker.model import Model
    from machines.checker.result import Report

WORKER_ROWS = "agentos_voice_model_coverage"

_runs: "list[_PytestRun]" = []  # the last one is the current run; a test of a plugin runs pytest within pytest


class CheckModel(Protocol):
    """The type of the fixture `check_model`; see the function `check_model` below."""

    def __call__(
        self, model: "Model[Any, Any]", *, expression: str = "", imports: Iterable[str] = (), **options: Any
    ) -> "Report":
        """Check `model`; raises an `AssertionError` unless every property holds."""


class _PytestRun:
    """The options of one pytest run, and the coverage of its models."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options: dict[str, int] = {
            name: value
            for name, value in (
                ("max_states", config.getoption("model_max_states")),
                ("seed", config.getoption("model_seed")),
            )
            if value is not None
        }
        given: str | None = config.getoption("model_output")
        self.output: Folder | None = config.invocation_params.dir / given if given else None
        self.at_least: float | None = config.getoption("model_coverage_fail_under")
        self.test = "model"
        self.coverage: Coverage | None = None
        self._taken: dict[str, int] = {}

    def folder(self, base: "Folder | None") -> "Folder | None":
        """The output folder of the model that is checked now: a folder of its own below the run's folder, or below `base`."""
        from machines.checker.text import slug  # noqa: PLC0415 - as the module says

        root = self.output or base
        if root is None:
            return None
        name = slug(self.test, 100)
        self._taken[name] = self._taken.get(name, 0) + 1
        return root / (name if self._taken[name] == 1 else f"{name}_{self._taken[name]}")

    def cover(self, model: "Model[Any, Any]") -> None:
        """Add the coverage of `model`."""
        from machines.checker.coverage import Coverage  # noqa: PLC0415 - as the module says

        self.coverage = self.coverage or Coverage()
        self.coverage.add_model(model)

    def take(self, rows: "Iterable[Iterable[Any]]") -> None:
        """Add the coverage from another process."""
        from machines.checker.coverage import Coverage, CoverageRow  # noqa: PLC0415 - as the module says

        self.coverage = self.coverage or Coverage()
        self.coverage.add(CoverageRow(*row) for row in rows)

    @property
    def rows(self) -> "tuple[CoverageRow, ...]":
        """The coverage of the models so far."""
        return self.coverage.rows if self.coverage else ()

    @property
    def shortfall(self) -> str:
        """Why the coverage fails the run; empty if it does not."""
        if self.at_least is None:
            return ""
        if self.coverage is None or not self.coverage.rows:
            return f"no model that was checked tells its coverage, {self.at_least:g} % is asked for"
        if self.coverage.percent < self.at_least:
            return f"{self.coverage.percent:.1f} % of the pairs are covered, {self.at_least:g} % is asked for"
        return ""


def check_model(
    model: "Model[Any, Any]", *, expression: str = "", imports: Iterable[str] = (), **options: Any
) -> "Report":
    """Check `model` with `options` (those of `machines.checker.checking`) and return the report if every property holds.

    Else, also if a property is undecided, raises an `AssertionError` whose text is the first counterexample as Markdown.
    `--model-max-states` and `--model-seed` override the options. With `--model-output DIR` a failure writes the
    counterexample into DIR as Markdown, JSON and a regression test. That test makes the model again from `expression` with
    `imports`; a class without arguments needs neither.
    """
    __tracebackhide__ = True
    return _checked(model, None, expression, imports, options)


@pytest.fixture(name="check_model")
def _check_model(tmp_path_factory: pytest.TempPathFactory) -> CheckModel:
    """The assertion `check_model(model, **options)`, which writes into pytest's temporary folder without `--model-output`."""

    def checked(
        model: "Model[Any, Any]", *, expression: str = "", imports: Iterable[str] = (), **options: Any
    ) -> "Report":
        __tracebackhide__ = True
        return _checked(model, tmp_path_factory.getbasetemp() / "models", expression, imports, options)

    return checked


def _checked(
    model: "Model[Any, Any]",
    base: "Folder | None",
    expression: str,
    imports: Iterable[str],
    options: dict[str, Any],
) -> "Report":
    __tracebackhide__ = True
    from machines.checker.assertion import assert_holds  # noqa: PLC0415 - as the module says

    run = _runs[-1] if _runs else None
    folder = run.folder(base) if run else None
    asked = {**options, **(run.options if run else {})}
    try:
        return assert_holds(model, folder=folder, expression=expression, imports=imports, **asked)
    finally:
        if run:
            run.cover(model)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this plugin."""
    group = parser.getgroup("model", "model checking (agentos-voice)")
    group.addoption("--model-max-states", type=int, metavar="N", help="look at no more than N states of a model")
    group.addoption("--model-seed", type=int, metavar="N", help="the seed of random walks through models")
    group.addoption("--model-output", metavar="DIR", help="write counterexamples and regression tests to DIR")
    group.addoption(
        "--model-coverage-fail-under",
        type=float,
        metavar="PERCENT",
        help="fail unless PERCENT of the pairs of phase and message that actors declare are covered by models",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect for a pytest run."""
    _runs.append(_PytestRun(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Drop a pytest run that is over; a run that another plugin refused was never begun here."""
    if _runs and _runs[-1].config is config:
        _runs.pop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note which test runs now, for the name of its output folder."""
    _runs[-1].test = item.nodeid
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the coverage of a pytest-xdist worker that has ended to that of the whole run."""
    rows = getattr(node, "workeroutput", {}).get(WORKER_ROWS, ())
    if rows:
        _runs[-1].take(rows)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a passing run whose models cover too little; in a worker of pytest-xdist, send the coverage to the main process."""
    told: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[WORKER_ROWS] = [tuple(row) for row in _runs[-1].rows]
        return
    passed = session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    if passed and _runs[-1].shortfall and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the coverage of the models."""
    run = _runs[-1]
    lines = run.coverage.table() if run.coverage else []
    if lines or (run.shortfall and not terminalreporter.config.option.collectonly):
        terminalreporter.section("model coverage")
        for line in lines:
            terminalreporter.line(line)
        if run.shortfall:
            terminalreporter.line(f"FAIL: {run.shortfall}", red=True)
