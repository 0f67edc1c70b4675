"""The project's diagrams, drawn from the code: each state machine, and which actor tells which what.

As Mermaid, which many viewers draw from text, and as SVG with a layout of our own. The text is the same for the same code,
so a diagram that differs is stale.
"""

from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final, NamedTuple

import machines
from agentos.core.communication.voice.message_flow import (
    ACTORS,
    DIRECTORY,
    SERVICE,
    SYSTEM,
    Flow,
    Kind,
    flows,
    name_of,
    nodes,
    parents,
)
from agentos.core.communication.voice.svg import FAINT, INK, RULE, Drawing, text_width
from machines.lifecycle import Lifecycle, Move

AnyLifecycle = Lifecycle[Any]
_NOTE: Final = "drawn from the code by `agentos-voice diagrams`; not edited by hand"

_FILLS: Final = {"initial": "#e3f2fd", "between": "#f0f4f8", "final": "#e6f4ea"}
_COLOURS: Final = {Kind.TELL: "#1565c0", Kind.WORK: "#b45309", Kind.FACT: "#6d28d9", Kind.REPLY: "#15803d"}
_ARROWS: Final = {Kind.TELL: "-->", Kind.WORK: "==>", Kind.FACT: "-->", Kind.REPLY: "-.->"}


def draw() -> dict[str, str]:
    """Every diagram: the file's name and its text."""
    drawn: dict[str, str] = {}
    for machine in machines_declared():
        drawn[f"{machine.name}.mmd"] = machine_mermaid(machine)
        drawn[f"{machine.name}.svg"] = machine_svg(machine)
    drawn["actors.mmd"] = actors_mermaid(flows(), parents())
    drawn["actors.svg"] = actors_svg(flows())
    return drawn


def compare(drawn: dict[str, str], folder: Path) -> dict[str, str]:
    """What is wrong with the diagrams in `folder`: the names of files that are "missing", "stale" or "extra"."""
    there = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    wrong = {}
    for name in sorted({*drawn, *there}):
        if name not in there:
            wrong[name] = "missing"
        elif name not in drawn:
            wrong[name] = "extra"
        elif not there[name].is_file() or there[name].read_bytes() != drawn[name].encode():
            wrong[name] = "stale"
    return wrong


def machines_declared() -> list[AnyLifecycle]:
    """Every state machine that a module of `machines` declares, by name."""
    found: dict[str, AnyLifecycle] = {}
    for module in iter_modules(machines.__path__):
        if not module.ispkg:
            values = vars(import_module(f"{machines.__name__}.{module.name}")).values()
            found |= {value.name: value for value in values if isinstance(value, Lifecycle)}
    return [found[name] for name in sorted(found)]


# --- a state machine -----------------------------------------------------------------------------------------------


def machine_mermaid(machine: AnyLifecycle) -> str:
    """A Mermaid state diagram: every move with its trigger and its reason, the final states and the deadlines."""
    lines = [f"%% {machine.name}: {_NOTE}", "stateDiagram-v2"]
    lines += [f'    state "{_text(state).upper()}" as {_text(state)}' for state in machine.states]
    lines.append(f"    [*] --> {_text(machine.initial)}")
    lines += [
        f"    {_text(move.source)} --> {_text(move.dest)} : {move.trigger} ({move.why})" for move in machine.moves
    ]
    for state in machine.states:
        if state in machine.final:
            lines.append(f"    {_text(state)} --> [*]")
        if state in machine.deadlines:
            lines.append(f"    note right of {_text(state)} : has a deadline, which fires {machine.deadlines[state]}")
    return "\n".join(lines) + "\n"


class _Bow(NamedTuple):
    """An arrow between two states that are not neighbours, or that goes back: a bow on the left."""

    source: int
    dest: int
    moves: list[Move[Any]]
    lane: int


_TOP, _BOX_WIDTH, _BOX_HEIGHT, _LINE, _LANE = 46, 190, 50, 18, 26


def machine_svg(machine: AnyLifecycle) -> str:
    """The same as an SVG: the states from top to bottom, neighbours joined straight, the rest by bows on the left."""
    place = {state: at for at, state in enumerate(machine.states)}
    grouped: dict[tuple[int, int], list[Move[Any]]] = {}
    for move in machine.moves:
        grouped.setdefault((place[move.source], place[move.dest]), []).append(move)
    straight = {pair: moves for pair, moves in grouped.items() if pair[1] == pair[0] + 1}
    bows = [
        _Bow(source, dest, moves, lane)
        for lane, ((source, dest), moves) in enumerate(sorted(grouped.items() - straight.items(), key=lambda item: item[0]))
    ] if False else _bows(grouped, straight)
    left = 24 + max((_label_width(move) + _LANE * (bow.lane + 1) for bow in bows for move in bow.moves), default=0) + 12
    right = max((_label_width(move) for moves in straight.values() for move in moves), default=0)
    tops = [_TOP]
    for at, _ in pairwise(range(len(machine.states))):
        lines = len(straight.get((at, at + 1), ()))
        beside = max((len(bow.moves) for bow in bows if bow.source <= at < bow.dest), default=0)
        tops.append(tops[-1] + _BOX_HEIGHT + max(46, 26 + _LINE * max(lines, beside)))
    middle = left + _BOX_WIDTH // 2
    width = max(left + _BOX_WIDTH, middle + 14 + right) + 24
    drawing = Drawing(width, tops[-1] + _BOX_HEIGHT + 46, f"The states of a {machine.name}")
    _ends(drawing, machine, tops, middle)
    for (source, dest), moves in sorted(straight.items()):
        drawing.arrow(f"M{middle} {tops[source] + _BOX_HEIGHT} V{tops[dest]}")
        _labels(drawing, moves, middle + 14, (tops[source] + _BOX_HEIGHT + tops[dest]) // 2, "start")
    for bow in bows:
        edge = left - _LANE * (bow.lane + 1)
        start, end = tops[bow.source] + _BOX_HEIGHT // 2, tops[bow.dest] + _BOX_HEIGHT // 2
        drawing.arrow(f"M{left} {start} H{edge + 10} Q{edge} {start} {edge} {start + 10} V{end - 10} Q{edge} {end} {edge + 10} {end} H{left}")
        _labels(drawing, bow.moves, edge - 10, (start + end) // 2, "end")
    for state, top in zip(machine.states, tops, strict=True):
        _state(drawing, machine, state, left, top)
    return drawing.render()
