"""`agentos-voice simulate`: days of the service under a virtual clock, with faults, each from one seed.

A user's simulation is named as "module:attribute": a function that makes a `Simulation`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from actors.simulation.plan import Plan
from actors.simulation.runner import Day, Simulation
from actors.simulation.runs import SimulationReport, run_seeds
from actors.simulation.shrink import shrunk
from agentos.core.communication.voice.cli.exits import FAILS, NOT_DECIDED, OK, InputError
from agentos.core.communication.voice.cli.options import Json
from agentos.core.communication.voice.cli.outcome import PROGRAM, CommandOutcome, table, terminal
from agentos.core.communication.voice.cli.user_code import blamed, described_type, imported
from agentos.core.time import monotonic_ms

VOICE: Final = "voice"
LAST_LINES: Final = 12  # of the trace of a failing run

_NAMES: Final = {VOICE: "actors.voice_lab.simulation:voice_simulation"}


def simulate(  # noqa: PLR0913 - each argument is an option of the command
    simulation: Annotated[
        str, Parameter(help="`voice`, or your own function that makes a simulation, as module:attribute.")
    ] = VOICE,
    /,
    *,
    seeds: Annotated[int, Parameter(help="How many seeds.")] = 10,
    first: Annotated[int, Parameter(help="The first seed.")] = 0,
    seed: Annotated[int | None, Parameter(help="This seed alone.")] = None,
    hours: Annotated[float, Parameter(help="How long each run is, in hours of virtual time.")] = 24.0,
    seconds: Annotated[float | None, Parameter(help="Begin no further seed after so long.")] = None,
    processes: Annotated[int | None, Parameter(help="How many run at once; by default one for each core.")] = None,
    visits: Annotated[str | None, Parameter(help="With --seed: only these calls of its plan, as 3,17; `none`.")] = None,
    faults: Annotated[str | None, Parameter(help="With --seed: only these faults of its plan, as 4,9; `none`.")] = None,
    until_ms: Annotated[int | None, Parameter(help="With --seed: nothing of its plan from this time on.")] = None,
    trace: Annotated[int, Parameter(help="With --seed: show the last lines of the trace, so many.")] = 0,
    shrink: Annotated[bool, Parameter(help="Shrink the first plan that fails.")] = True,
    json_output: Json = False,
) -> CommandOutcome:
    """Run days with calls and faults, and check the promises at every step.

    The same seed gives the same run on every machine. If a seed breaks a promise, its plan is shrunk, and the command that
    shows the failure again is printed.
    """
    if hours <= 0 or seeds < 1 or (processes is not None and processes < 1):
        raise InputError("--hours is more than 0, --seeds and --processes are at least 1")
    make = _maker(simulation)
    if seed is not None:
        return _one(simulation, make(), seed, hours, (visits, faults, until_ms), trace)
    if visits or faults or until_ms is not None or trace:
        raise InputError("--visits, --faults, --until-ms and --trace are about one seed: give it with --seed")
    began = monotonic_ms()
    with _progress(seeds, shown=not json_output) as advance, blamed(f"the simulation {simulation} failed"):

        def on_day(day: Day) -> bool:
            advance(day)
            return seconds is None or monotonic_ms() - began < seconds * 1000

        report = run_seeds(
            make, range(first, first + seeds), hours, processes=processes or os.cpu_count() or 1, on_day=on_day
        )
    return _outcome(simulation, make, report, shrink=shrink, took_ms=monotonic_ms() - began)


def _maker(name: str) -> Callable[[], Simulation]:
    target = _NAMES.get(name, name)
    module, colon, attribute = target.partition(":")
    if not (colon and module and attribute.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise InputError(f"{name!r} is no simulation: give `{VOICE}`, or what makes yours as module:attribute")
    make = imported(module, attribute)
    if not callable(make):
        raise InputError(f"{name} is {described_type(make)}, not a function that makes a simulation")
    with blamed(f"{name} makes no simulation"):
        made = make()
    if not isinstance(made, Simulation):
        raise InputError(f"{name} gave {described_type(made)}, not a simulation")
    found: Callable[[], Simulation] = make
    return found


# --- one seed ------------------------------------------------------------------------------------------------------------


def _one(
    name: str,
    simulation: Simulation,
    seed: int,
    hours: float,
    parts: tuple[str | None, str | None, int | None],
    trace: int,
) -> CommandOutcome:
    plan = simulation.plan(seed, hours)
    visits, faults, until_ms = parts
    plan = plan.only(
        _numbers("--visits", visits, {one.number for one in plan.visits}),
        _numbers("--faults", faults, {one.number for one in plan.faults}),
        plan.until_ms if until_ms is None else until_ms,
    )
    with blamed(f"the simulation {name} failed"):
        day = simulation.follow(plan, keep_lines=trace)
    report = SimulationReport((day,), hours, tuple(sorted(simulation.faults)))
    text: list[RenderableType] = [*_summary(report), *_planned(plan), *_failure(day), *map(Text, day.lines)]
    data = {**report.as_json(), "trace": list(day.lines)}
    return CommandOutcome(data, text, FAILS if day.failure else OK, report.problem)


def _numbers(option: str, given: str | None, known: set[int]) -> set[int]:
    if given is None:
        return known
    if given == "none":
        return set()
    words = given.split(",")
    if not all(word.isdecimal() for word in words):
        raise InputError(f"{option} is given as 3,17 or `none`, not {given!r}")
    numbers = {int(word) for word in words}
    if not numbers <= known:
        raise InputError(
            f"{option}: the plan has no number {min(numbers - known)}; it has 1 to {max(known, default=0)}"
        )
    return numbers


def _planned(plan: Plan) -> list[RenderableType]:
    rows = [(f"{one.at_ms / 1000:,.3f} s", f"visit {one.number}", str(one.what)) for one in plan.visits]
    rows += [
        (f"{one.at_ms / 1000:,.3f} s", f"fault {one.number}", f"{one.kind} {one.target} {one.size}")
        for one in plan.faults
    ]
    return (
        [Text(), table(["when", "what", ""], sorted(rows, key=lambda row: float(row[0][:-2].replace(",", ""))))]
        if 0 < len(rows) <= 40
        else []
    )


# --- many ----------------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(seeds: int, *, shown: bool) -> Iterator[Callable[[Day], None]]:
    if not shown or not sys.stdout.isatty():
        yield lambda _: None
        return
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[found]}"),
    )
    with Progress(*columns, console=terminal(), transient=True) as bar:
        task = bar.add_task("seeds", total=seeds, found="")
        failing: list[int] = []

        def advance(day: Day) -> None:
            if day.failure is not None:
                failing.append(day.seed)
            bar.update(task, advance=1, found=f"{len(failing)} fail" if failing else "")

        yield advance


def _outcome(
    name: str, make: Callable[[], Simulation], report: SimulationReport, *, shrink: bool, took_ms: int
) -> CommandOutcome:
    data = {**report.as_json(), "seconds": took_ms / 1000}
    text = _summary(report, took_ms)
    for day in report.failing[:5]:
        text += _failure(day)
    if report.failing:
        day, plan, runs = report.failing[0], None, 0
        if shrink:
            plan, day, runs = shrunk(make(), day, report.hours)
            text += [Text(), Text(f"made smaller in {runs} runs:", style="bold"), *_failure(day), *_planned(plan)]
        again = _command(name, day.seed, report.hours, plan)
        data["again"] = again
        text += [Text(), Text(f"again: {again}", no_wrap=True, overflow="ignore")]
    code = FAILS if report.failing else NOT_DECIDED if report.problem else OK
    return CommandOutcome(data, text, code, report.problem)


def _command(name: str, seed: int, hours: float, plan: Plan | None) -> str:
    words = [PROGRAM, "simulate", *([] if name == VOICE else [name]), "--seed", str(seed), "--hours", f"{hours:g}"]
    if plan is not None:
        words += ["--visits", _listed([one.number for one in plan.visits])] if plan.visits or name == VOICE else []
        words += ["--faults", _listed([one.number for one in plan.faults]), "--until-ms", str(plan.until_ms)]
    return " ".join([*words, "--trace", str(LAST_LINES)])


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _summary(report: SimulationReport, took_ms: int | None = None) -> list[RenderableType]:
    found: dict[str, Any] = report.as_json()
    took = "" if took_ms is None else f", in {took_ms / 1000:,.1f} s"
    seeds = "1 seed" if found["seeds"] == 1 else f"{found['seeds']:,} seeds"
    lines = [
        f"{seeds} of {report.hours:g} hours{took}: {found['visits']:,} calls, {found['messages']:,} messages",
        f"{found['crashes']:,} crashes of actors, {found['restarts']:,} restarts, {found['processes']:,} processes",
    ]
    rows = [(kind, f"{count:,}", f"{report.shares[kind]:.1%}") for kind, count in report.faults.items()]
    result = Text(report.problem or "every promise holds", style="bold red" if report.problem else "green")
    return [*map(Text, lines), Text(), table(["fault", "fired", "in seeds"], rows), Text(), result]


def _failure(day: Day) -> list[RenderableType]:
    failure = day.failure
    if failure is None:
        return []
    at = f"seed {day.seed}, step {failure.step:,}, at {failure.at_ms / 1000:,.3f} s"
    return [Text(), Text(f"{failure.promise}: {at}", style="bold"), Text(f"  {failure.detail}")]
