"""The result of a check as text: a summary for terminals, a counterexample as Markdown, the whole result as JSON."""

import re
from collections.abc import Mapping
from typing import Any, Final

from machines.checker.choices import choices
from machines.checker.model import Model, Property
from machines.checker.result import Outcome, Path, Report, Verdict
from machines.checker.sequence import bad_step, happenings, mermaid, sequence
from machines.checker.text import bare, changes, named_fields, one_line, shortened, shown

MOST_LISTED: Final = 400  # steps of a path in Markdown, from both its ends; the JSON form has all

_MEANING: Final = {
    "always": "holds in every reachable state",
    "always_step": "holds for every step from a reachable state",
    "sometimes": "holds in at least one reachable state",
    "can_always_reach": "can still be reached from every reachable state",
    "leads_to": "follows in the end, on every fair path",
    "no_deadlock": "no run ends where it may not",
}
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_MARKS: Final = {Outcome.HOLDS: "ok  ", Outcome.FAILS: "FAIL", Outcome.NOT_DECIDED: "?   "}


def claim(model: Model[Any, Any], verdict: Verdict) -> str:
    """The property in one line: its kind in words, and the first paragraph of its condition's docstring, if any."""
    meaning = _MEANING.get(verdict.kind, verdict.kind)
    return " ".join(filter(None, [f"{meaning}.", _documented(model, verdict.name)]))


def extent(report: Report) -> str:
    """The extent of a search, in one line."""
    end = "all reachable states" if report.complete else f"not all: stopped by {report.stopped_by or 'its bounds'}"
    took = f"{report.seconds:.2f} s" + (f", {report.states / report.seconds:,.0f} states/s" if report.seconds else "")
    return f"{report.states:,} states, {report.transitions:,} steps, depth {report.depth:,}, {took}; {end}"


def rounds(path: Path) -> str:
    """Which steps of a lasso repeat, as a sentence."""
    if path.loop is None or path.loop >= len(path.steps):
        return "The run stays there for ever."
    return f"Steps {path.loop + 1} to {len(path.steps)} repeat for ever."


def summary(report: Report) -> list[str]:
    """The result as lines for a terminal: the outcome, the extent, and a line for each property."""
    lines = [
        f"{one_line(report.model)}: {report.outcome.value}",
        f"  {report.strategy}: {extent(report)}",
    ]
    for verdict in report.verdicts:
        length = ""
        if verdict.path is not None:
            kind = "lasso" if verdict.path.loop is not None else "path"
            length = f" [{kind} of {len(verdict.path.steps)}]"
        why = f": {one_line(verdict.why)}" if verdict.why else ""
        lines.append(f"  {_MARKS[verdict.outcome]} {verdict.kind} {one_line(verdict.name)}{length}{why}")
    return lines


def markdown(model: Model[Any, Any], report: Report, verdict: Verdict) -> str:
    """One verdict as a Markdown page: the property, the configuration and, if there is a path, its steps with the fields that
    each changed, a Mermaid sequence diagram, and the mailboxes at its end.
    """
    out = [f"# {escaped(report.model)}: {escaped(verdict.name)}", ""]
    out += [
        f"- **Outcome:** {verdict.outcome.value}" + (f": {escaped(verdict.why)}" if verdict.why else ""),
        f"- **Property:** {escaped(verdict.name)} ({escaped(verdict.kind)})",
        f"- **It claims:** {escaped(claim(model, verdict))}",
        f"- **Search:** {escaped(report.strategy)}; {extent(report)}",
        "",
    ]
    for title, given in (("Configuration", model.configuration()), ("Search options", report.configuration)):
        if given:
            out += [
                f"## {title}",
                "",
                *(f"- {escaped(str(name))}: {code(bare(it))}" for name, it in given.items()),
                "",
            ]
    if verdict.path is None:
        return "\n".join(out).rstrip() + "\n"
    out += [*_initial(model, verdict.path), *_steps(model, verdict), ""]
    out += ["## Sequence", "", "```mermaid", mermaid(sequence(model, verdict)).rstrip(), "```", ""]
    return "\n".join([*out, *_mailboxes(model, verdict.path)]).rstrip() + "\n"


def as_json(model: Model[Any, Any], report: Report) -> dict[str, Any]:
    """The whole result, as plain lists, dicts, texts and numbers.

    Each path has `choices`: the place of the initial state among `model.initial()`, then the place of each step among
    `model.successors(state)`. With the model, `machines.checker.replaying` needs only these.
    """
    return {
        "model": report.model,
        "outcome": report.outcome.value,
        "strategy": report.strategy,
        "states": report.states,
        "transitions": report.transitions,
        "depth": report.depth,
        "seconds": report.seconds,
        "complete": report.complete,
        "stopped_by": report.stopped_by,
        "configuration": _plain(model.configuration()),
        "search": _plain(report.configuration),
        "verdicts": [
            {
                "property": verdict.name,
                "kind": verdict.kind,
                "claim": claim(model, verdict),
                "outcome": verdict.outcome.value,
                "why": verdict.why,
                "path": None if verdict.path is None else _path(model, verdict, verdict.path),
            }
            for verdict in report.verdicts
        ],
    }


def escaped(text: str) -> str:
    """`text` as Markdown prose in one line, with all markup escaped."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def code(text: str) -> str:
    """`text`, which may have any characters, as a Markdown code span."""
    text = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _documented(model: Model[Any, Any], name: str) -> str:
    found: Property | None = next((it for it in model.properties() if it.name == name), None)
    text = (getattr(found.holds, "__doc__", None) if found else None) or ""
    return text.strip().split("\n\n")[0].replace("\n", " ").strip()


def _initial(model: Model[Any, Any], path: Path) -> list[str]:
    fields = named_fields(model, path.initial)
    return ["## From", "", *(f"- {escaped(name)}: {code(shortened(value))}" for name, value in fields.items()), ""]


def _steps(model: Model[Any, Any], verdict: Verdict) -> list[str]:
    path = verdict.path
    assert path is not None  # noqa: S101 - the only caller asked
    bad = bad_step(verdict)
    out = ["## Steps", ""]
    if not path.steps:
        out.append("None: the initial state is the one.")
    left_out = range(MOST_LISTED // 2, len(path.steps) - MOST_LISTED // 2)
    fields = model.fields(path.initial)
    for at, step in enumerate(path.steps):
        before, fields = fields, model.fields(step.state)
        if at in left_out:
            if at == left_out.start:
                out += ["", f"Steps {left_out.start + 1} to {left_out.stop} are left out.", ""]
            continue
        number = f"{at + 1}. "
        begins = "*(the loop begins)* " if at == path.loop else ""
        mark = " **← here**" if at == bad else ""
        out.append(f"{number}{begins}{escaped(model.label(step.action))}{mark}")
        indent = " " * len(number)
        out += [f"{indent}- {escaped(it.field)}: {code(it.old)} → {code(it.new)}" for it in changes(before, fields)]
    if path.loop is not None:
        out += ["", rounds(path)]
    return out


def _mailboxes(model: Model[Any, Any], path: Path) -> list[str]:
    pending = model.pending(path.last)
    if not pending:
        return []
    lines = [
        f"- {escaped(name)}: " + (", ".join(code(shortened(item)) for item in items) or "empty")
        for name, items in pending.items()
    ]
    return ["## Mailboxes at the end", "", *lines, ""]


def _path(model: Model[Any, Any], verdict: Verdict, path: Path) -> dict[str, Any]:
    taken = choices(model, path)
    fields = model.fields(path.initial)
    steps = []
    for at, step in enumerate(path.steps):
        before, fields = fields, model.fields(step.state)
        steps.append(
            {
                "action": model.label(step.action),
                "choice": taken[at + 1],
                "changed": {it.field: [it.old, it.new] for it in changes(before, fields)},
                "happenings": [it._asdict() for it in happenings(model, path, at)],
            }
        )
    return {
        "choices": list(taken),
        "loop": path.loop,
        "bad_step": bad_step(verdict),
        "initial": named_fields(model, path.initial),
        "steps": steps,
        "pending": {name: [str(item) for item in items] for name, items in model.pending(path.last).items()},
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): it if isinstance(it, bool | int | float | str | None) else shown(it) for name, it in values.items()
    }
