"""The messages between actors as drawings: a Mermaid flow chart, and a chart with a column for each node and a row a
message."""

from collections.abc import Mapping, Sequence
from typing import Final

from agentos.core.communication.voice.diagrams.message_flow import DIRECTORY, SERVICE, SYSTEM, Flow, FlowKind, nodes
from agentos.core.communication.voice.diagrams.svg import FAINT, INK, RULE, Drawing, text_width

_COLOURS: Final = {FlowKind.TELL: "#1565c0", FlowKind.WORK: "#b45309", FlowKind.FACT: "#7b1fa2", FlowKind.REPLY: "#15803d"}
_KINDS: Final = {
    FlowKind.TELL: "told to a mailbox",
    FlowKind.WORK: "work for a port",
    FlowKind.FACT: "a port's fact",
    FlowKind.REPLY: "a reply",
}
_ARROWS: Final = {FlowKind.TELL: "-->", FlowKind.WORK: "==>", FlowKind.FACT: "-->", FlowKind.REPLY: "-.->"}
_BAND: Final = "#f5f7fa"
_SIZE: Final = 12
_COLUMN: Final = 86
_ROW: Final = 20
_HEAD: Final = 78  # the legend and the nodes' names
_MARGIN: Final = 16


def actors_mermaid(flows: Sequence[Flow], parents: Mapping[str, str]) -> str:
    """A Mermaid flow chart: thick arrows are work for a port, dotted ones replies, lines without a head lead to spawned
    actors."""
    lines = ["%% the voice actors: drawn from the code by `agentos-voice diagrams`", "flowchart LR"]
    actors = {*parents, *parents.values()}
    for node in nodes():
        shape = f'["{node}"]' if node in actors else f'(["{node}"])' if node in {SERVICE, SYSTEM} else f'[("{node}")]'
        lines.append(f"    {_id(node)}{shape}")
    lines += [f'    {_id(parent)} -.-|"spawns"| {_id(child)}' for child, parent in parents.items()]
    joined: dict[tuple[str, str, FlowKind], list[str]] = {}
    for flow in flows:
        for receiver in flow.receivers:
            joined.setdefault((flow.sender, receiver, flow.kind), []).append(flow.message)
    place = {node: at for at, node in enumerate(nodes())}
    for sender, receiver, kind in sorted(joined, key=lambda edge: (place[edge[0]], place[edge[1]], edge[2].value)):
        told = "<br/>".join(joined[sender, receiver, kind])
        lines.append(f'    {_id(sender)} {_ARROWS[kind]}|"{told}"| {_id(receiver)}')
    return "\n".join(lines) + "\n"


def actors_svg(flows: Sequence[Flow]) -> str:
    """A chart: a column for each node, a row for each message, from its sender's dot to its receivers' heads."""
    names = max(text_width(flow.message, _SIZE) for flow in flows)
    first = _MARGIN + names + _COLUMN // 2
    columns = {node: first + _COLUMN * at for at, node in enumerate(nodes())}
    width = first + _COLUMN * (len(columns) - 1) + _COLUMN // 2 + _MARGIN
    height = _HEAD + _ROW * len(flows) + _MARGIN
    drawing = Drawing(width, height, "Which actor tells which what")
    for at in range(0, len(flows), 2):
        drawing.band(_MARGIN // 2, _HEAD + _ROW * at, width - _MARGIN, _ROW, fill=_BAND)
    _legend(drawing)
    for node, x in columns.items():
        outside = node in {SERVICE, DIRECTORY, SYSTEM} or node not in _actors(flows)
        drawing.text(x, _HEAD - 12, node, anchor="middle", size=_SIZE, bold=not outside, fill=FAINT if outside else INK)
        drawing.line(x, _HEAD - 4, x, height - _MARGIN // 2, stroke=RULE)
    for at, flow in enumerate(flows):
        y = _HEAD + _ROW * at + _ROW // 2
        drawing.text(_MARGIN, y + 4, flow.message, size=_SIZE)
        colour, start = _COLOURS[flow.kind], columns[flow.sender]
        for receiver in flow.receivers:
            drawing.arrow(f"M{start} {y} H{columns[receiver]}", stroke=colour, dashed=flow.kind is FlowKind.REPLY)
        drawing.dot(start, y, 3, fill=colour)
    return drawing.render()


def _legend(drawing: Drawing) -> None:
    x = _MARGIN
    for kind, meaning in _KINDS.items():
        drawing.arrow(f"M{x} 24 H{x + 34}", stroke=_COLOURS[kind], dashed=kind is FlowKind.REPLY)
        drawing.dot(x, 24, 3, fill=_COLOURS[kind])
        drawing.text(x + 42, 28, meaning, size=_SIZE)
        x += 42 + text_width(meaning, _SIZE) + 20


def _actors(flows: Sequence[Flow]) -> set[str]:
    """The nodes that are told messages; ports are handed work instead, and the service gets replies."""
    return {receiver for flow in flows if flow.kind is FlowKind.TELL for receiver in flow.receivers}


def _id(node: str) -> str:
    return node.replace(" ", "_")
