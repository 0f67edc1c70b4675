"""`agentos-voice check`: search a model for a run that breaks a property.

A user's model is named as "module:attribute". If the attribute is a function, it gets the options of the command line by the
names of its parameters, as `voice_model` does.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from cyclopts import Parameter
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from actors.model.actor_model import Schedule, Timers
from actors.model.parts import Faults, UnknownFault
from agentos.core.communication.voice.cli.exits import FAILS, NOT_DECIDED, OK, InputError
from agentos.core.communication.voice.cli.options import Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, terminal
from agentos.core.communication.voice.cli.user_code import blamed, described_type, imported
from machines import checker
from machines.checker.coverage import Coverage
from machines.checker.model import Model
from machines.checker.options import Options, Progress
from machines.checker.page import page
from machines.checker.regression import regression
from machines.checker.report import as_json, claim, extent, markdown, rounds, summary
from machines.checker.result import Path as Run
from machines.checker.result import Report, Verdict
from machines.checker.text import changes

VOICE: Final = "voice"

_NAMES: Final = {VOICE: "actors.voice_lab.model:voice_model", "stream": "machines.stream.model:stream_model"}
_CODES: Final = {checker.Outcome.HOLDS: OK, checker.Outcome.FAILS: FAILS, checker.Outcome.NOT_DECIDED: NOT_DECIDED}
_STYLES: Final = {"ok": "green", "FAIL": "bold red", "?": "yellow"}

Kind = Annotated[
    list[str] | None,
    Parameter(negative=(), help="At most so many faults of a kind, and of no other kind: crash=1."),
]


def check(  # noqa: PLR0913 - each argument is an option of the command
    model: Annotated[
        str,
        Parameter(
            help="`voice`, `stream`, or a model of your own as module:attribute, an object or a function that makes one."
        ),
    ] = VOICE,
    /,
    *,
    sessions: Annotated[int | None, Parameter(help="How many calls there are.")] = None,
    frames: Annotated[int | None, Parameter(help="How many frames of audio each call has at most.")] = None,
    stops: Annotated[int | None, Parameter(help="How often each call is stopped.")] = None,
    refused: Annotated[int | None, Parameter(help="How many of the calls are against the policy.")] = None,
    pauses: Annotated[
        int | None,
        Parameter(help="How often the client of `stream` captures nothing for a while; only its media time tells."),
    ] = None,
    in_turn: Annotated[bool, Parameter(negative=(), help="Clients request calls one after the other.")] = False,
    silence: Annotated[bool, Parameter(negative=(), help="Calls end when nobody speaks.")] = False,
    faults: Annotated[int | None, Parameter(help="How many faults a run may have; by default one for `voice`.")] = None,
    kind: Kind = None,
    schedule: Annotated[
        Literal["turns", "any-order"] | None, Parameter(help="Mail in the dispatcher's order, or in any.")
    ] = None,
    any_time: Annotated[
        bool, Parameter(negative=(), help="Timers come due at any time, not in the order of their deadlines.")
    ] = False,
    strategy: Annotated[
        Literal["breadth", "depth", "walk", "pct"],
        Parameter(help="All states, nearest or newest first; or runs at random, or by random priorities."),
    ] = "breadth",
    max_states: Annotated[int | None, Parameter(help="Stop at so many states.")] = None,
    max_depth: Annotated[int | None, Parameter(help="Go no further than so many steps.")] = None,
    seconds: Annotated[float | None, Parameter(help="Stop after so long.")] = None,
    seed: Annotated[int, Parameter(help="The seed of random runs.")] = 0,
    walks: Annotated[int, Parameter(help="How many random runs.")] = 100,
    fingerprints: Annotated[
        bool, Parameter(negative=(), help="Keep 64 bits of each state, not all of it: less memory, not quite certain.")
    ] = False,
    html: Annotated[Path | None, Parameter(help="Write a page with the diagrams of all counterexamples.")] = None,
    markdown_file: Annotated[
        Path | None, Parameter(name="--markdown", help="Write the counterexamples as Markdown.")
    ] = None,
    regression_file: Annotated[
        Path | None, Parameter(name="--regression", help="Write the first counterexample as a test for pytest.")
    ] = None,
    json_output: Json = False,
) -> CommandOutcome:
    """Search all orders, timers and faults for a run that breaks a promise.

    After a search that ended early (at a bound, or by Ctrl-C) a property that it has not seen broken is not decided.
    """
    sizes = {"sessions": sessions, "frames": frames, "stops": stops, "refused": refused, "pauses": pauses}
    given: dict[str, Any] = {name: number for name, number in sizes.items() if number is not None}
    _not_negative(given)
    files = _Files(html, markdown_file, regression_file)
    files.refuse_unwritable()
    if in_turn:
        given["in_turn"] = True
    if silence:
        given["silence"] = True
    made = _model(model, {**given, **_rules(model, faults, kind, schedule, any_time=any_time)})
    options = {
        "strategy": strategy,
        "max_states": max_states,
        "max_depth": max_depth,
        "seconds": seconds,
        "seed": seed,
        "walks": walks,
        "visited": "fingerprint" if fingerprints else "exact",
    }
    try:
        Options(**options)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from None
    with blamed(f"the model {model} can't be checked"), _progress(shown=not json_output) as progress:
        report = checker.check(made.model, progress=progress, **options)  # type: ignore[arg-type]
    return _outcome(made, report, files)


# --- the model -----------------------------------------------------------------------------------------------------------


class _Made(NamedTuple):
    """A model, with the expression and the imports by which a test makes it again."""

    model: Model[Any, Any]
    expression: str
    imports: tuple[str, ...]


def _model(name: str, given: Mapping[str, Any]) -> _Made:
    """The model called `name`, made with the `given` options."""
    target = _NAMES.get(name, name)
    module, colon, attribute = target.partition(":")
    if not (colon and module and attribute.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        ours = " or ".join(f"`{one}`" for one in _NAMES)
        raise InputError(f"{name!r} is no model: give {ours}, or yours as module:attribute")
    found = imported(module, attribute)
    imports: tuple[str, ...] = (f"from {module} import {attribute}",)
    if isinstance(found, Model):
        if given:
            raise InputError(f"{name} is made already: {_options(given)} can only be given to what makes a model")
        return _Made(found, attribute, imports)
    if not callable(found):
        raise InputError(f"{name} is {described_type(found)}, neither a model nor a function that makes one")
    _refuse_unknown(name, found, given)
    try:
        with blamed(f"{name} makes no model"):
            made = found(**given)
    except UnknownFault as error:
        raise InputError(f"--kind: {error}") from None
    if not isinstance(made, Model):
        raise InputError(f"{name} gave {described_type(made)}, not a model")
    arguments = ", ".join(f"{key}={_source(value)}" for key, value in given.items())
    kinds = {type(value) for value in given.values()}
    if Faults in kinds:
        imports += ("from actors.model.parts import Faults",)
    used = [kind.__name__ for kind in (Schedule, Timers) if kind in kinds]
    if used:
        imports += (f"from actors.model.actor_model import {', '.join(used)}",)
    return _Made(made, f"{attribute}({arguments})", imports)


def _refuse_unknown(name: str, maker: Callable[..., Any], given: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {one.name for one in parameters if one.kind in {one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD}}
    unknown = {key: value for key, value in given.items() if key not in known}
    if unknown:
        raise InputError(f"{name} does not take {_options(unknown)}")


def _rules(
    model: str, faults: int | None, kind: Sequence[str] | None, schedule: str | None, *, any_time: bool
) -> dict[str, Any]:
    """The options for faults, mail and timers, as parameters of a model."""
    rules: dict[str, Any] = {}
    kinds = dict(map(_limit, kind or ()))
    if model == VOICE:
        faults = 1 if faults is None else faults
    if kinds and faults is None:
        faults = sum(kinds.values())
    if faults is not None:
        _not_negative({"faults": faults})
        rules["faults"] = Faults(faults, kinds)
    if schedule is not None:
        rules["schedule"] = Schedule.TURNS if schedule == "turns" else Schedule.ANY_ORDER
    if any_time:
        rules["timers"] = Timers.ANY_TIME
    return rules


def _limit(text: str) -> tuple[str, int]:
    name, _, limit = text.partition("=")
    if not name or not limit.isdecimal():
        raise InputError(f"--kind is given as crash=1, a name and a number, not {text!r}")
    return name, int(limit)


def _not_negative(given: Mapping[str, int]) -> None:
    for name, number in given.items():
        if number < 0:
            raise InputError(f"--{name} is at least 0, not {number}")


def _options(given: Mapping[str, Any]) -> str:
    names = {"faults": "--faults and --kind", "timers": "--any-time"}
    return ", ".join(names.get(name, f"--{name}") for name in given)


def _source(value: Any) -> str:
    """`value` as Python source."""
    if isinstance(value, Faults):
        return f"Faults({value.total}, {dict(value.kinds)!r})" if value.kinds else f"Faults({value.total})"
    return str(value) if isinstance(value, Schedule | Timers) else repr(value)


# --- while it runs -------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A function that draws the progress of a search in one line, which is erased afterwards; None without a terminal."""
    if not shown or not sys.stdout.isatty():
        yield None
        return
    with Live(console=terminal(), auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(_line(progress), refresh=True)


def _line(progress: Progress) -> Text:
    text = f"{progress.states:,} states, depth {progress.depth:,}, {progress.queue:,} waiting, {progress.rate:,.0f} a second"
    return Text(f"{text}, {progress.seconds:.0f} s", style="dim", no_wrap=True, overflow="ellipsis")


# --- what was found ------------------------------------------------------------------------------------------------------


class _Files(NamedTuple):
    """The files to which reports are to be written."""

    html: Path | None
    markdown: Path | None
    regression: Path | None

    def refuse_unwritable(self) -> None:
        """Raise `InputError` for a file that can't be written, before any search is made."""
        for path in filter(None, self):
            if path.is_dir() or not path.parent.is_dir():
                raise InputError(f"can't write to {path}; give a file in a folder that exists")

    def write(self, made: _Made, report: Report) -> dict[str, str]:
        """Write the requested reports, as far as there is something to report; return the files by kind."""
        failing = _failing(report)
        shown = [verdict for verdict in failing if verdict.path is not None]
        texts: dict[str, tuple[Path, str]] = {}
        if self.html is not None:
            texts["html"] = (self.html, page(made.model, report))
        if self.markdown is not None:
            parts = [markdown(made.model, report, verdict) for verdict in failing] or [_short_markdown(report)]
            texts["markdown"] = (self.markdown, "\n".join(parts))
        if self.regression is not None and shown:
            texts["regression"] = (
                self.regression,
                regression(made.expression, made.imports, made.model, shown[0]),
            )
        for path, text in texts.values():
            try:
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise InputError(f"can't write to {path}: {error.strerror}") from error
        return {name: str(path) for name, (path, _) in texts.items()}


def _failing(report: Report) -> list[Verdict]:
    return [verdict for verdict in report.verdicts if verdict.outcome is checker.Outcome.FAILS]


def _short_markdown(report: Report) -> str:
    return "\n".join(["```text", *summary(report), "```", ""])


def _outcome(made: _Made, report: Report, files: _Files) -> CommandOutcome:
    coverage = Coverage()
    coverage.add_model(made.model)
    with blamed("the report can't be made"):
        data = as_json(made.model, report)
        text = [*_summary(report), *_counterexamples(made.model, report), *_coverage(coverage)]
        written = files.write(made, report)
    data["coverage"] = {
        "percent": round(coverage.percent, 1) if coverage.rows else None,
        "uncovered": [[row.actor, row.phase, row.message] for row in coverage.uncovered],
    }
    data["files"] = written
    text += [Text(f"written: {path}") for path in written.values()]
    return CommandOutcome(data, text, _CODES[report.outcome], _problem(report))


def _summary(report: Report) -> list[RenderableType]:
    lines = []
    for line in summary(report):
        text = Text(line)
        mark = line.split()[0]
        if line.startswith("  ") and mark in _STYLES:
            text.stylize(_STYLES[mark], 2, 2 + len(mark))
        lines.append(text)
    return [*lines]


def _counterexamples(model: Model[Any, Any], report: Report) -> list[RenderableType]:
    text: list[RenderableType] = []
    for verdict in _failing(report):
        text += [Text(), Text(f"{verdict.name}: {verdict.why}", style="bold"), Text(f"  {claim(model, verdict)}")]
        if verdict.path is not None:
            text += _steps(model, verdict.path)
    return text


def _steps(model: Model[Any, Any], run: Run) -> list[RenderableType]:
    """The steps of a run, the changes of the last one, and the mailboxes at the end."""
    text: list[RenderableType] = [
        Text(f"  {at}. {model.label(step.action)}") for at, step in enumerate(run.steps, start=1)
    ]
    if run.loop is not None:
        text.append(Text(f"  {rounds(run)}"))
    before = run.steps[-2].state if len(run.steps) > 1 else run.initial
    text += [
        Text(f"     {change.field}: {change.old} → {change.new}", style="dim")
        for change in changes(model.fields(before), model.fields(run.last))
    ]
    for name, items in model.pending(run.last).items():
        text.append(Text(f"     in the mailbox of {name}: {', '.join(map(str, items))}", style="dim"))
    return text


def _coverage(coverage: Coverage) -> list[RenderableType]:
    lines = coverage.table()
    return [Text(), *map(Text, lines)] if lines else []


def _problem(report: Report) -> str:
    if report.outcome is checker.Outcome.FAILS:
        names = ", ".join(verdict.name for verdict in _failing(report))
        return f"{len(_failing(report))} of {len(report.verdicts)} properties fail: {names}"
    if report.outcome is checker.Outcome.NOT_DECIDED:
        return f"not decided: {extent(report)}"
    return ""
