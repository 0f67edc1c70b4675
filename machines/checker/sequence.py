"""A path as a sequence diagram: its participants, the lines of each step, and the diagram as Mermaid text.

`sequence` makes the diagram as data; `mermaid` writes it for Markdown, and `machines.checker.drawing` draws it as SVG.
"""

import re
from typing import Any, Final, NamedTuple

from machines.checker.model import Happening, Model
from machines.checker.result import Path, Verdict
from machines.checker.text import one_line, shortened

LONGEST_LINE: Final = 100  # characters of one line of a diagram
LONGEST_NAME: Final = 40  # characters of a participant's name
MOST_STEPS: Final = 80  # a longer path is drawn from its end; Mermaid refuses texts over 50,000 characters
ARROWS: Final = ("message", "drop", "duplicate")  # the happenings that go from one participant to another

_INCARNATION: Final = re.compile(r"#\d+$")
_UNSAFE: Final = re.compile(r"[^\w .,()\[\]/=+*!?'|~:→-]")
_WRAP: Final = re.compile(r"^((?:no)?wrap):", re.IGNORECASE)  # a directive at the beginning of a text
_KEYWORD: Final = re.compile(
    r"\b([Ee])([Nn][Dd])\b"
)  # the word "end" closes a block wherever Mermaid's reader meets it
_BAD: Final = "rgba(220, 38, 38, 0.15)"


class Line(NamedTuple):
    """One line of a diagram: a happening of step `step`, counted from 0; `opens` is set on the first line of a step."""

    step: int
    happening: Happening
    opens: bool


class SequenceDiagram(NamedTuple):
    """A sequence diagram.

    `participants` are in the order in which they first appear, with the incarnations of one beside each other. `bad` is the
    step that breaks the property and `loop` the step to which the run comes back, both counted from 0; None if there is none.
    `skipped` steps at the beginning are not drawn. `at_start` says that the initial state breaks the property.
    """

    participants: tuple[str, ...]
    lines: tuple[Line, ...]
    bad: int | None = None
    loop: int | None = None
    skipped: int = 0
    at_start: bool = False


def bad_step(verdict: Verdict) -> int | None:
    """The step of the path that breaks the property, counted from 0; None for a lasso, which breaks the property as a whole,
    for a witness, and if the initial state breaks the property.
    """
    path = verdict.path
    if path is None or path.loop is not None or not path.steps or verdict.kind == "sometimes":
        return None
    return len(path.steps) - 1


def sequence(model: Model[Any, Any], verdict: Verdict) -> SequenceDiagram:
    """The path of `verdict` as a diagram. Raises `ValueError` if the verdict has no path."""
    path = verdict.path
    if path is None:
        raise ValueError(f"there is no path to show for {verdict.name!r}: it {verdict.outcome.value}")
    skipped = max(0, len(path.steps) - MOST_STEPS)
    if path.loop is not None:
        skipped = min(skipped, path.loop)
    lines: list[Line] = []
    for at in range(skipped, len(path.steps)):
        lines += [Line(at, happening, not place) for place, happening in enumerate(happenings(model, path, at))]
    participants = _participants(lines) or (model.name,)
    at_start = not path.steps and verdict.kind != "sometimes"
    return SequenceDiagram(participants, tuple(lines), bad_step(verdict), path.loop, skipped, at_start)


def happenings(model: Model[Any, Any], path: Path, at: int) -> list[Happening]:
    """The happenings of step `at` of `path`; a note with the action's label if the model gives none."""
    step = path.steps[at]
    before = path.steps[at - 1].state if at else path.initial
    found = [
        happening if happening.source else happening._replace(source=model.name)
        for happening in model.happenings(before, step.action, step.state)
    ]
    return found or [Happening("note", model.name, model.label(step.action))]


def line_text(line: Line) -> str:
    """The label of a line: the number of the step at its first line, the kind unless it is plain, and the text, shortened."""
    kind, _, text, _ = line.happening
    if kind == "drop":
        text = f"{text} (lost)"
    elif kind == "duplicate":
        text = f"{text} (again)"
    elif kind not in {"message", "note"} and not text.lower().startswith(kind):
        text = f"{kind}: {text}" if text else kind
    number = f"{line.step + 1}. " if line.opens else ""
    return number + shortened(one_line(text), LONGEST_LINE)


def mermaid(diagram: SequenceDiagram) -> str:
    """`diagram` as the text of a Mermaid sequence diagram; every text in it is escaped."""
    names = {name: f"p{at}" for at, name in enumerate(diagram.participants)}
    everyone = f"p0,p{len(names) - 1}" if len(names) > 1 else "p0"
    out = ["sequenceDiagram"]
    out += [f"    participant {short} as {escaped(shortened(name, LONGEST_NAME))}" for name, short in names.items()]
    if diagram.skipped:
        out.append(f"    Note over {everyone}: steps 1 to {diagram.skipped} are not drawn")
    if diagram.at_start:
        out += [f"    rect {_BAD}", f"    Note over {everyone}: the initial state", "    end"]
    depth = 1
    for at, line in enumerate(diagram.lines):
        if line.opens and line.step == diagram.loop:
            out.append(f"{'    ' * depth}loop for ever")
            depth += 1
        if line.opens and line.step == diagram.bad:
            out.append(f"{'    ' * depth}rect {_BAD}")
            depth += 1
        out.append("    " * depth + _mermaid_line(line, names))
        is_last = at + 1 == len(diagram.lines)
        if line.step == diagram.bad and (is_last or diagram.lines[at + 1].step != line.step):
            depth -= 1
            out.append("    " * depth + "end")
    if depth > 1:
        out.append("    end")
    if diagram.loop is not None and diagram.loop >= diagram.skipped + _steps(diagram):
        out.append(f"    Note over {everyone}: and stays here for ever")
    return "\n".join(out) + "\n"


def escaped(text: str) -> str:
    """`text` for any place in a Mermaid diagram: characters that are syntax there become numeric entities."""
    plain = _UNSAFE.sub(lambda found: f"#{ord(found[0])};", one_line(text))
    plain = _KEYWORD.sub(lambda found: f"#{ord(found[1])};{found[2]}", plain)
    return _WRAP.sub(r"\1#58;", plain) or "-"


def _steps(diagram: SequenceDiagram) -> int:
    return len({line.step for line in diagram.lines})


def _mermaid_line(line: Line, names: dict[str, str]) -> str:
    kind, source, _, target = line.happening
    text = escaped(line_text(line))
    if kind in ARROWS and target:
        arrow = {"message": "->>", "drop": "-x", "duplicate": "-->>"}[kind]
        return f"{names[source]}{arrow}{names[target]}: {text}"
    over = f"{names[source]},{names[target]}" if target and target != source else names[source]
    return f"Note over {over}: {text}"


def _participants(lines: list[Line]) -> tuple[str, ...]:
    families: dict[str, dict[str, None]] = {}
    for line in lines:
        for name in (line.happening.source, line.happening.target):
            if name:
                families.setdefault(_INCARNATION.sub("", name), {})[name] = None
    return tuple(name for family in families.values() for name in family)
