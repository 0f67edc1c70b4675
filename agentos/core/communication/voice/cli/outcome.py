"""The outcome of a command, shown as text for people or as one JSON object for programs."""

import io
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

PROGRAM = "agentos-voice"
_UNWRAPPED = 100_000  # columns without a terminal: programs that read text need whole lines


class CommandOutcome(NamedTuple):
    """The outcome of a command.

    `data` is the JSON object of `--json`; without that option, `text` is shown in order. `problem` is a line for stderr, if
    something is wrong; `code` is the exit code.
    """

    data: dict[str, Any]
    text: Sequence[RenderableType] = ()
    code: int = 0
    problem: str = ""


def show(outcome: CommandOutcome, *, as_json: bool) -> None:
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
        for part in (_fitting(part, console) for part in parts):
            # Wider than the terminal if need be: the terminal then wraps, and text copied from it is whole.
            console.print(part, width=max(console.width, _needed(part)), crop=False)
        return
    buffer = io.StringIO()
    plain = Console(file=buffer, width=_UNWRAPPED, color_system=None, markup=False, highlight=False, emoji=False)
    for part in parts:
        plain.print(part)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines()))
    sys.stdout.flush()


def print_problem(problem: str) -> None:
    """Print one line on stderr; on a terminal, broken between words at its width."""
    line = f"{PROGRAM}: {problem}"
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        line = textwrap.fill(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def terminal() -> Console:
    """The console of stdout, without markup: names and paths may contain brackets."""
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


def _fitting(part: RenderableType, console: Console) -> RenderableType:
    """A renderable that fits the terminal, except for pieces that may not be broken: a too wide table with headings becomes a
    block of lines for each row, one without headings gets its last column wrapped. Other renderables stay."""
    if not isinstance(part, Table) or _wanted(part) <= console.width:
        return part
    rows = list(zip(*(column.cells for column in part.columns), strict=True))
    if part.show_header:
        headings = [str(column.header) for column in part.columns]
        blocks = [_fitting(fields(zip(headings, row, strict=True)), console) for row in rows]
        return Group(*[line for block in blocks for line in (block, Text())][:-1])
    labels = [(_unbroken(column.cells), column.style) for column in part.columns[:-1]]
    width = console.width - sum(label_width + 2 for label_width, _ in labels)
    return Group(*(line for row in rows for line in _wrapped(row, labels, width)))


def _wrapped(row: Sequence[RenderableType], labels: Sequence[tuple[int, StyleType]], width: int) -> Iterable[Text]:
    """A row as lines: its labels, followed by its last cell, broken between words."""
    head = Text(no_wrap=True)
    for cell, (label_width, style) in zip(row, labels, strict=False):
        label = cell.plain if isinstance(cell, Text) else str(cell)
        head.append(label.ljust(label_width), style).append("  ")
    last = row[-1] if isinstance(row[-1], Text) else Text(str(row[-1]))
    for line in textwrap.wrap(last.plain, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]:
        yield Text(no_wrap=True, overflow="ignore").append(head).append(line, last.style)
        head = Text(" " * len(head))


def _wanted(part: Table) -> int:
    """The columns that a table needs if only its last column may wrap."""
    *others, last = part.columns
    cells = [max((cell_len(str(cell)) for cell in column.cells), default=0) for column in others]
    padding = sum(part.padding[at] for at in (1, 3)) * len(part.columns)
    return sum(cells) + padding + (last.min_width or _unbroken(last.cells))


def _unbroken(cells: Iterable[RenderableType]) -> int:
    """The width of the widest piece that may not be broken: a whole text, or a word."""
    widths = [0]
    for cell in cells:
        if isinstance(cell, Text):
            pieces = [cell.plain] if cell.no_wrap else cell.plain.split()
            widths += [cell_len(piece) for piece in pieces]
    return max(widths)


def _needed(part: RenderableType) -> int:
    """The columns that a renderable needs to keep its unbreakable pieces whole."""
    if isinstance(part, Text):
        return _unbroken([part])
    if isinstance(part, Group):
        return max(map(_needed, part.renderables), default=0)
    if not isinstance(part, Table):
        return 0
    padding = sum(part.padding[at] for at in (1, 3))
    return sum(padding + (column.min_width or _unbroken(column.cells)) for column in part.columns)
