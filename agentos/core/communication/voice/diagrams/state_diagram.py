"""A state machine as a drawing: its states, every move with its trigger and reason, final states and deadlines."""

from typing import Any, Final, NamedTuple

from agentos.core.communication.voice.diagrams.svg import FAINT, Drawing, text_width
from machines.lifecycle import Lifecycle, Move

AnyLifecycle = Lifecycle[Any]

_INITIAL, _BETWEEN, _FINAL = "#e3f2fd", "#f0f4f8", "#e6f4ea"
_TOP: Final = 46  # room for the mark of the initial state, and as much at the bottom
_BOX_WIDTH: Final = 210
_BOX_HEIGHT: Final = 50
_LINE: Final = 18  # distance between labels
_LANE: Final = 30  # distance between arcs
_SMALL: Final = 12
_CORNER: Final = 10


class _Joint(NamedTuple):
    """All moves from one state to another, by the places of the states; `lane` counts the arcs from the inside, from 1, and is
    0 for an arrow straight down to the next state.
    """

    source: int
    dest: int
    lane: int
    moves: list[Move[Any]]


def machine_mermaid(machine: AnyLifecycle) -> str:
    """The machine as a Mermaid state diagram."""
    lines = [f"%% {machine.name}: drawn from the code by `agentos-voice diagrams`", "stateDiagram-v2"]
    lines += [f'    state "{_text(state).upper()}" as {_text(state)}' for state in machine.states]
    lines.append(f"    [*] --> {_text(machine.initial)}")
    lines += [
        f"    {_text(move.source)} --> {_text(move.dest)} : {move.trigger} ({move.why})" for move in machine.moves
    ]
    for state in machine.states:
        if state in machine.final:
            lines.append(f"    {_text(state)} --> [*]")
        if state in machine.deadlines:
            lines.append(f"    note right of {_text(state)} : its deadline fires {machine.deadlines[state]}")
    return "\n".join(lines) + "\n"


def machine_svg(machine: AnyLifecycle) -> str:
    """The machine as SVG: the states from top to bottom as declared, with arcs on the left for moves that skip states."""
    joints = _joints(machine)
    bows = [joint for joint in joints if joint.lane]
    left = 24 + max((_LANE * bow.lane + 10 + _widest(bow) for bow in bows), default=0)
    right = 14 + max((_widest(joint) for joint in joints if not joint.lane), default=0)
    middle = left + _BOX_WIDTH // 2
    tops = _tops(len(machine.states), joints)
    width = max(left + _BOX_WIDTH, middle + right) + 24
    drawing = Drawing(width, tops[-1] + _BOX_HEIGHT + _TOP, f"The states of a {machine.name}")
    for joint in joints:
        if joint.lane:
            _bow(drawing, joint, left, tops)
        else:
            start, end = tops[joint.source] + _BOX_HEIGHT, tops[joint.dest]
            drawing.arrow(f"M{middle} {start} V{end}")
            _labels(drawing, joint, middle + 14, (start + end) // 2, "start")
    for state, top in zip(machine.states, tops, strict=True):
        _state(drawing, machine, state, left, top)
    return drawing.render()


def _joints(machine: AnyLifecycle) -> list[_Joint]:
    place = {state: at for at, state in enumerate(machine.states)}
    grouped: dict[tuple[int, int], list[Move[Any]]] = {}
    for move in machine.moves:
        grouped.setdefault((place[move.source], place[move.dest]), []).append(move)
    lanes = 0
    joints = []
    for source, dest in sorted(grouped, key=lambda pair: (abs(pair[1] - pair[0]), pair)):
        straight = dest == source + 1
        lanes += not straight
        joints.append(_Joint(source, dest, 0 if straight else lanes, grouped[source, dest]))
    return joints


def _tops(states: int, joints: list[_Joint]) -> list[int]:
    tops = [_TOP]
    for at in range(states - 1):
        labels = max((len(joint.moves) for joint in joints if (joint.source, joint.dest) == (at, at + 1)), default=0)
        tops.append(tops[-1] + _BOX_HEIGHT + 32 + _LINE * max(1, labels))
    return tops


def _bow(drawing: Drawing, joint: _Joint, left: int, tops: list[int]) -> None:
    edge = left - _LANE * joint.lane
    start = tops[joint.source] + _BOX_HEIGHT // 2
    end = tops[joint.dest] + _BOX_HEIGHT // 2 - (_BOX_HEIGHT // 4 if joint.source == joint.dest else 0)
    turn = _CORNER if end > start else -_CORNER
    drawing.arrow(
        f"M{left} {start} H{edge + _CORNER} Q{edge} {start} {edge} {start + turn} "
        f"V{end - turn} Q{edge} {end} {edge + _CORNER} {end} H{left}"
    )
    _labels(drawing, joint, edge - 10, (start + end) // 2, "end")


def _labels(drawing: Drawing, joint: _Joint, x: int, y: int, anchor: str) -> None:
    first = y - _LINE * (len(joint.moves) - 1) // 2 + 4
    for at, move in enumerate(joint.moves):
        drawing.text(x, first + _LINE * at, _label(move), anchor=anchor, size=_SMALL)


def _state(drawing: Drawing, machine: AnyLifecycle, state: Any, left: int, top: int) -> None:
    final, middle = state in machine.final, left + _BOX_WIDTH // 2
    fill = _INITIAL if state == machine.initial else _FINAL if final else _BETWEEN
    drawing.box(left, top, _BOX_WIDTH, _BOX_HEIGHT, fill=fill)
    deadline = machine.deadlines.get(state)
    drawing.text(middle, top + (22 if deadline else 30), _text(state).upper(), anchor="middle", bold=True)
    if deadline:
        drawing.text(middle, top + 40, f"deadline: {deadline}", anchor="middle", size=_SMALL, fill=FAINT)
    if state == machine.initial:
        drawing.dot(middle, top - 34, 6)
        drawing.arrow(f"M{middle} {top - 28} V{top}")
    if final:
        bottom = top + _BOX_HEIGHT
        drawing.arrow(f"M{middle} {bottom} V{bottom + 22}")
        drawing.ring(middle, bottom + 30, 8)
        drawing.dot(middle, bottom + 30, 4)


def _label(move: Move[Any]) -> str:
    return f"{move.trigger}: {move.why}"


def _widest(joint: _Joint) -> int:
    return max(text_width(_label(move), _SMALL) for move in joint.moves)


def _text(state: Any) -> str:
    return str(getattr(state, "value", state))
