"""Drawings as SVG text: a few shapes, and the same text for the same drawing on every machine.

No font is measured: widths are estimated, so that the output depends on the drawing alone.
"""

from typing import Final
from xml.sax.saxutils import escape, quoteattr

INK: Final = "#1f2933"
FAINT: Final = "#7b8794"
RULE: Final = "#e4e7eb"
FONT: Final = "ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"
FONT_SIZE: Final = 13
ADVANCE: Final = 0.58  # the width of an average letter, in font sizes; on the wide side


def text_width(text: str, size: int = FONT_SIZE) -> int:
    """About how wide `text` is, in pixels; rather too much than too little."""
    return round(len(text) * size * ADVANCE) + 1


class Drawing:
    """An SVG under construction; coordinates are whole pixels from the top left."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width = width
        self._height = height
        self._title = title
        self._shapes: list[str] = []
        self._colours: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, *, fill: str, stroke: str = INK, radius: int = 8) -> None:
        """A rectangle with round corners."""
        self._shapes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{stroke}"/>'
        )

    def dot(self, x: int, y: int, radius: int, *, fill: str = INK) -> None:
        """A filled circle."""
        self._shapes.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>')

    def ring(self, x: int, y: int, radius: int, *, stroke: str = INK) -> None:
        """A circle that is not filled."""
        self._shapes.append(
            f'<circle cx="{x}" cy="{y}" r="{radius}" fill="none" stroke="{stroke}" stroke-width="1.5"/>'
        )

    def band(self, x: int, y: int, width: int, height: int, *, fill: str) -> None:
        """A rectangle without an outline."""
        self._shapes.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>')

    def text(
        self,
        x: int,
        y: int,
        words: str,
        *,
        anchor: str = "start",
        size: int = FONT_SIZE,
        fill: str = INK,
        bold: bool = False,
    ) -> None:
        """A line of text whose base line begins, is centred or ends (`anchor`) at the point."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"{weight}>{escape(words)}</text>'
        )

    def line(self, x1: int, y1: int, x2: int, y2: int, *, stroke: str = RULE, width: int = 1) -> None:
        """A straight line."""
        self._shapes.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-width="{width}"/>')

    def arrow(self, path: str, *, stroke: str = INK, dashed: bool = False) -> None:
        """An SVG path with a head at its end."""
        if stroke not in self._colours:
            self._colours.append(stroke)
        dashes = ' stroke-dasharray="5 3"' if dashed else ""
        head = f"url(#head-{self._colours.index(stroke)})"
        self._shapes.append(
            f'<path d={quoteattr(path)} fill="none" stroke="{stroke}" stroke-width="1.5"{dashes} marker-end="{head}"/>'
        )

    def render(self) -> str:
        """The whole file."""
        heads = [
            f'<marker id="head-{at}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
            for at, colour in enumerate(self._colours)
        ]
        lines = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" height="{self._height}" '
                f'viewBox="0 0 {self._width} {self._height}" font-family="{FONT}" role="img">'
            ),
            f"<title>{escape(self._title)}</title>",
            *(["<defs>", *heads, "</defs>"] if heads else []),
            f'<rect width="{self._width}" height="{self._height}" fill="#ffffff"/>',
            *self._shapes,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"
