"""What a command gives back, and how it is shown: as text for people or as one JSON object for programs."""

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PROGRAM = "agentos-voice"
_UNWRAPPED = 100_000  # columns where there is no terminal: programs that read text want whole lines


class Outcome(NamedTuple):
    """The result of a command.

    `data` is the JSON object of `--json`; `text` is shown in order without it. `problem` is a line for stderr, when the
    result is not what was hoped for; `code` is the exit code.
    """

    data: dict[str, Any]
    text: Sequence[RenderableType] = ()
    code: int = 0
    problem: str = ""


def show(outcome: Outcome, *, as_json: bool) -> None:
    """Print the outcome on stdout, and its problem on stderr unless `as_json`."""
    if as_json:
        print_json(outcome.data)
        return
    print_text(outcome.text)
    if outcome.problem:
        print_problem(outcome.problem)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object; in ASCII, so that no terminal's encoding can break it."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_text(parts: Iterable[RenderableType]) -> None:
    """Print renderables: wrapped and coloured on a terminal, plain whole lines elsewhere."""
    if sys.stdout.isatty():
        console = terminal()
        for part in parts:
            # Wider than the terminal when it has to be: the terminal then wraps, and what is copied from it is whole.
            console.print(part, width=max(console.width, _needed(part)), crop=False)
        return
    buffer = io.StringIO()
    plain = Console(file=buffer, width=_UNWRAPPED, color_system=None, markup=False, highlight=False, emoji=False)
    for part in parts:
        plain.print(part)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines()))
    sys.stdout.flush()


def print_problem(problem: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{PROGRAM}: {problem}\n")
    sys.stderr.flush()


def terminal() -> Console:
    """The terminal behind stdout. Nothing in a text is markup: names and paths may hold brackets."""
    return Console(markup=False, highlight=False, emoji=False)


def whole(text: str) -> Text:
    """A text that is never wrapped or cut: an id, a path, a token."""
    return Text(text, no_wrap=True, overflow="ignore")


def fields(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Labels with their values, one a line; long values wrap beside their label, between words."""
    cells = [(Text(label, no_wrap=True), value if not isinstance(value, str) else Text(value)) for label, value in rows]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold", min_width=_unbroken(value for _, value in cells))
    for row in cells:
        grid.add_row(*row)
    return grid


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table without lines, whose cells wrap between words only: an id or a path stays whole."""
    cells = [[Text(cell) for cell in row] for row in rows]
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for at, heading in enumerate(headings):
        made.add_column(heading, overflow="fold", min_width=_unbroken([Text(heading), *(row[at] for row in cells)]))
    for row in cells:
        made.add_row(*row)
    return made


def _unbroken(cells: Iterable[RenderableType]) -> int:
    """The width of the widest piece that may not be broken: a whole text, or a word."""
    widths = [0]
    for cell in cells:
        if isinstance(cell, Text):
            pieces = [cell.plain] if cell.no_wrap else cell.plain.split()
            widths += [cell_len(piece) for piece in pieces]
    return max(widths)


def _needed(part: RenderableType) -> int:
    """The columns that a renderable needs so that nothing in it is broken that must not be."""
    if isinstance(part, Text):
        return _unbroken([part])
    if not isinstance(part, Table):
        return 0
    padding = sum(part.padding[at] for at in (1, 3))
    return sum(padding + (column.min_width or _unbroken(column.cells)) for column in part.columns)
