"""A sequence diagram as SVG for the page: lifelines, arrows, lost messages, notes, the bad step and the loop boxed.

No font is measured: widths are estimated, on the wide side. Colours are classes of the page's style sheet, so the drawing
follows the reader's light or dark mode.
"""

import textwrap
from typing import Final
from xml.sax.saxutils import escape

from machines.checker.model import Happening
from machines.checker.sequence import ARROWS, LONGEST_NAME, Line, SequenceDiagram, line_text
from machines.checker.text import one_line, shortened

_ADVANCE: Final = 7.4  # pixels of an average letter at 13 pixels
_COLUMNS: Final = 38  # letters in a line of text
_LEADING: Final = 17  # pixels from one line of text to the next
_HEAD: Final = 34  # height of a participant's box
_GAP: Final = 130  # least distance between lifelines
_MARGIN: Final = 36
_PAD: Final = 12  # above and below a row
_SELF: Final = 46  # how far a message to oneself swings out


class _DiagramRow:
    """One line of the diagram with its vertical place."""

    __slots__ = ("height", "line", "source", "target", "top", "words")

    def __init__(self, line: Line, columns: dict[str, int]) -> None:
        self.line = line
        self.words = textwrap.wrap(line_text(line), _COLUMNS) or ["-"]
        self.source = columns[line.happening.source]
        self.target = columns.get(line.happening.target, self.source)
        self.top = 0
        self.height = _LEADING * len(self.words) + _PAD + (18 if self.is_arrow else 14)

    @property
    def is_arrow(self) -> bool:
        """Whether the line is an arrow between participants, or from one back to itself."""
        return self.line.happening.kind in ARROWS and bool(self.line.happening.target)

    @property
    def width(self) -> int:
        """The width of its text, in pixels."""
        return _width(self.words)


class _Paper:
    """The shapes drawn so far."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def text(self, x: int, y: int, words: str, *, anchor: str = "middle", kind: str = "ink") -> None:
        """One line of text."""
        self.shapes.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>')

    def box(self, x: int, y: int, width: int, height: int, kind: str, radius: int = 6) -> None:
        """A rectangle."""
        self.shapes.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" class="{kind}"/>')

    def path(self, way: str, kind: str, end: str = "") -> None:
        """A line, with the marker `end` at its end."""
        marker = f' marker-end="url(#{end})"' if end else ""
        self.shapes.append(f'<path d="{way}" class="{kind}"{marker}/>')


def drawing(diagram: SequenceDiagram, *, ident: str, title: str) -> str:
    """`diagram` as an SVG element whose title is `title`; `ident` (letters, digits, hyphens) is unique on the page."""
    columns = {name: at for at, name in enumerate(diagram.participants)}
    rows = [_DiagramRow(line, columns) for line in diagram.lines]
    places, width = _places(diagram.participants, rows)
    top = _MARGIN + _HEAD + (_LEADING + _PAD if diagram.skipped or diagram.at_start else _PAD)
    for row in rows:
        row.top = top + (_LEADING + 6 if row.line.opens and row.line.step in {diagram.bad, diagram.loop} else 0)
        top = row.top + row.height
    foot = top + _PAD * 2
    paper = _Paper()
    _frames(paper, diagram, rows, width)
    for name, x in zip(diagram.participants, places, strict=True):
        paper.path(f"M{x} {_MARGIN + _HEAD} V{foot}", "life")
        _participant(paper, x, _MARGIN, name)
        _participant(paper, x, foot, name)
    if diagram.skipped:
        paper.text(width // 2, _MARGIN + _HEAD + _LEADING, f"steps 1 to {diagram.skipped} are not drawn", kind="faint")
    elif diagram.at_start:
        paper.text(width // 2, _MARGIN + _HEAD + _LEADING, "the initial state breaks it", kind="danger")
    for row in rows:
        if row.is_arrow:
            _arrow(paper, row, places, ident)
        else:
            _note(paper, row, places)
    height = foot + _HEAD + _MARGIN
    head = "".join(
        f'<marker id="{ident}-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" class="head-{kind}"/></marker>'
        for kind in ("message", "duplicate")
    )
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<svg {size} role="img" aria-labelledby="{ident}-title">',
            f'<title id="{ident}-title">{escape(one_line(title))}</title>',
            f"<defs>{head}</defs>",
            *paper.shapes,
            "</svg>",
        ]
    )


def _width(words: list[str]) -> int:
    return round(max(map(len, words)) * _ADVANCE) + 1


def _places(participants: tuple[str, ...], rows: list[_DiagramRow]) -> tuple[list[int], int]:
    """The place of each lifeline, with room for every text, and the width of the whole."""
    gaps = [_GAP] * len(participants)  # to the right of each lifeline
    for one, other in zip(range(len(participants)), range(1, len(participants)), strict=False):
        gaps[one] = max(gaps[one], (_box_width(participants[one]) + _box_width(participants[other])) // 2 + 16)
    left = _MARGIN + max(_box_width(name) for name in participants) // 2
    right = left
    for row in sorted(rows, key=lambda row: abs(row.target - row.source)):
        low, high = sorted((row.source, row.target))
        if row.is_arrow and low != high:
            missing = row.width + 28 - sum(gaps[low:high])
            if missing > 0:
                for at in range(low, high):
                    gaps[at] += missing // (high - low) + 1
        elif row.is_arrow:
            right = max(right, row.width + _SELF + _MARGIN) if high == len(participants) - 1 else right
            gaps[high] = max(gaps[high], row.width + _SELF // 2)
        else:
            left = max(left, row.width // 2 + _MARGIN) if low == 0 else left
            right = max(right, row.width // 2 + _MARGIN) if high == len(participants) - 1 else right
    places = [left]
    for gap in gaps[:-1]:
        places.append(places[-1] + gap)
    widest = max((row.width // 2 + _MARGIN + (places[row.source] + places[row.target]) // 2 for row in rows), default=0)
    return places, max(places[-1] + right, widest)


def _box_width(name: str) -> int:
    return max(70, _width([_name(name)]) + 20)


def _name(name: str) -> str:
    return shortened(one_line(name), LONGEST_NAME)


def _participant(paper: _Paper, x: int, y: int, name: str) -> None:
    width = _box_width(name)
    paper.box(x - width // 2, y, width, _HEAD, "actor")
    paper.text(x, y + 22, _name(name), kind="strong")


def _frames(paper: _Paper, diagram: SequenceDiagram, rows: list[_DiagramRow], width: int) -> None:
    loop = [row for row in rows if diagram.loop is not None and row.line.step >= diagram.loop]
    bad = [row for row in rows if row.line.step == diagram.bad]
    for framed, kind, inset, words in ((loop, "loop", 10, "loop for ever"), (bad, "bad", 16, "here it breaks")):
        if framed:
            top = framed[0].top - _LEADING - 4
            paper.box(inset, top, width - 2 * inset, framed[-1].top + framed[-1].height - top + 4, kind)
            paper.text(inset + 8, top + 15, words, anchor="start", kind="danger" if kind == "bad" else "faint")


def _arrow(paper: _Paper, row: _DiagramRow, places: list[int], ident: str) -> None:
    kind = row.line.happening.kind
    start, end = places[row.source], places[row.target]
    base = row.top + row.height - 10
    if row.source == row.target:
        for at, words in enumerate(row.words):
            paper.text(start + 14, row.top + _PAD + _LEADING * at, words, anchor="start")
        way = f"M{start} {base - 10} H{start + _SELF} V{base} H{start + (14 if kind == 'drop' else 2)}"
        cross = start + 14
    else:
        for at, words in enumerate(row.words):
            paper.text((start + end) // 2, row.top + _PAD + _LEADING * at, words)
        cross = start + (end - start) * 3 // 4
        way = f"M{start} {base} H{cross if kind == 'drop' else end}"
    paper.path(way, kind, "" if kind == "drop" else f"{ident}-{kind}")
    if kind == "drop":
        paper.path(f"M{cross - 6} {base - 6} l12 12 m0 -12 l-12 12", "cross")


def _note(paper: _Paper, row: _DiagramRow, places: list[int]) -> None:
    middle = (places[row.source] + places[row.target]) // 2
    width = max(row.width + 16, abs(places[row.source] - places[row.target]) + 16)
    happening: Happening = row.line.happening
    kind = happening.kind if happening.kind in {"timer", "crash", "restart", "spawn", "stop"} else "note"
    top, height = row.top + 4, row.height - 10
    paper.box(middle - width // 2, top, width, height, f"note {kind}", 3)
    for at, words in enumerate(row.words):
        paper.text(middle, top + _PAD // 2 + 14 + _LEADING * at, words)
    if kind == "timer":
        x, y = middle - width // 2, top
        paper.shapes.append(f'<circle cx="{x}" cy="{y}" r="7" class="clock"/>')
        paper.path(f"M{x} {y - 4} V{y} H{x + 4}", "hand")
    elif kind == "crash":
        x, y = middle - width // 2, top
        paper.path(f"M{x - 6} {y - 6} l12 12 m0 -12 l-12 12", "cross")
