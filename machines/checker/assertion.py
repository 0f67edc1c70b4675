"""A check as an assertion: it passes if every property holds, and else fails with a readable counterexample.

NOT_DECIDED is a failure too, and says so. The counterexamples are written to a folder, if the caller gives one.
"""

import json
from collections.abc import Iterable, Sequence
from inspect import signature
from typing import Any, Protocol

from machines.checker.checking import check
from machines.checker.model import Model
from machines.checker.regression import regression
from machines.checker.report import as_json, extent, markdown, summary
from machines.checker.result import Outcome, Report, Verdict
from machines.checker.text import one_line, slug


class Folder(Protocol):
    """The methods of `pathlib.Path` that writing counterexamples needs."""

    def __truediv__(self, name: str, /) -> "Folder":
        """The file or folder `name` in this folder."""

    def mkdir(self, *, parents: bool, exist_ok: bool) -> None:
        """Make the folder."""

    def write_text(self, text: str, /, *, encoding: str) -> int:
        """Write the text into this file."""


class CheckFailed(AssertionError):
    """A property fails, or is not decided. `report` is the check's report; `files` are the paths of the written files."""

    def __init__(self, message: str, report: Report, files: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.report = report
        self.files = tuple(files)


def assert_holds(
    model: Model[Any, Any],
    *,
    folder: Folder | None = None,
    expression: str = "",
    imports: Iterable[str] = (),
    **options: Any,
) -> Report:
    """Check `model` with `options` (those of `check`) and return the report if every property holds.

    Else raises `CheckFailed` with the first failing property as Markdown, or with the undecided properties. Then `folder` (made
    if need be) gets `report.json`, a Markdown file for each failing property, and a regression test for each, if the test can
    make the model again: by `expression` and `imports`, as for `regression`, or because its class takes no arguments.
    """
    __tracebackhide__ = True
    report = check(model, **options)
    if report.outcome is not Outcome.HOLDS:
        failing = [verdict for verdict in report.verdicts if verdict.outcome is Outcome.FAILS]
        files: list[str] = []
        if folder is not None:
            files = _write(folder, model, report, failing, (expression, tuple(imports)))
        raise CheckFailed(_message(model, report, failing, files), report, files)
    return report


def made_by(model: Model[Any, Any]) -> tuple[str, tuple[str, ...]]:
    """The expression and the imports that make `model` again, if its class takes no arguments and its module is no test; else
    both are empty.
    """
    kind = type(model)
    name, module = kind.__qualname__, kind.__module__
    last = module.rpartition(".")[2]
    if "." in name or last in {"__main__", "conftest"} or last.startswith("test_") or signature(kind).parameters:
        return "", ()
    return f"{name}()", (f"from {module} import {name}",)


def _message(model: Model[Any, Any], report: Report, failing: list[Verdict], files: list[str]) -> str:
    first, *rest = summary(report)
    lines = [f"{first}: {', '.join(one_line(verdict.name) for verdict in failing)}" if failing else first, *rest, ""]
    if failing:
        lines.append(markdown(model, report, failing[0]))
    else:
        undecided = [verdict for verdict in report.verdicts if verdict.outcome is Outcome.NOT_DECIDED]
        lines.append(f"NOT DECIDED, which is no pass: {extent(report)}")
        lines += [f"  not decided: {verdict.name}: {one_line(verdict.why)}" for verdict in undecided]
    return "\n".join([*lines, *(f"written: {file}" for file in files)])


def _write(
    folder: Folder,
    model: Model[Any, Any],
    report: Report,
    failing: list[Verdict],
    made: tuple[str, tuple[str, ...]],
) -> list[str]:
    expression, imports = made if made[0] else made_by(model)
    texts = {"report.json": json.dumps(as_json(model, report), indent=2) + "\n"}
    for verdict in failing:
        name = slug(verdict.name)
        texts[f"{name}.md"] = markdown(model, report, verdict)
        if expression and verdict.path is not None:
            texts[f"test_{name}.py"] = regression(expression, imports, model, verdict)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name) for name in texts]
