"""The live view of a call on a terminal: state, level, progress, and the words as they come."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from machines.events import VoiceEvent, VoiceEventType

FLOOR_DBFS: Final = -60.0  # quieter frames count as silent
LOUD_DBFS: Final = -12.0
TOO_LOUD_DBFS: Final = -3.0
METER_CELLS: Final = 60  # one for each decibel
REFRESHES_PER_SECOND: Final = 10
FIXED_LINES: Final = 3  # state, level, and one left free at the bottom

_STYLES: Final[Mapping[str, str]] = {"created": "cyan", "active": "green", "stopping": "yellow", "stopped": "dim"}


class LiveView:
    """The view of one call; a context manager that leaves the terminal as it was.

    `event` and `progress` only note the news; a thread of the view draws.
    """

    def __init__(self, console: Console, *, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._played = 0.0
        self._state = "opening"
        self._level: float | None = None
        self._peak: float | None = None
        self._said: list[str] = []
        self._partial = ""
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def progress(self, seconds: float) -> None:
        """Note that so many seconds of the file were played."""
        self._played = min(seconds, self._seconds)

    def event(self, event: VoiceEvent) -> None:
        """Note an event of the session."""
        payload: Mapping[str, Any] = event.payload
        match event.event_type:
            case VoiceEventType.SESSION_STARTED | VoiceEventType.STATE_CHANGED:
                self._state = payload["state"]
                if self._state in {"stopping", "stopped"}:
                    self._level = self._peak = None
            case VoiceEventType.SESSION_STOPPED:
                self._state = "stopped"
            case VoiceEventType.AUDIO_RECEIVED:
                self._level, self._peak = payload["level_dbfs"], payload["peak_dbfs"]
            case VoiceEventType.STT_PARTIAL:
                self._partial = payload["text"]
            case VoiceEventType.STT_FINAL:
                self._said.append(payload["text"])
                self._partial = ""
            case _:
                pass

    def render(self) -> RenderableType:
        """The current view."""
        return Group(self._status(), self._meter(), *self._words())

    def _status(self) -> RenderableType:
        line = Table.grid(expand=True, padding=(0, 2, 0, 0))
        line.add_column(min_width=8, no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_row(
            Text(self._state.upper(), style=f"bold {_STYLES.get(self._state, 'cyan')}"),
            Text(f"{clock(self._played)} / {clock(self._seconds)}"),
            ProgressBar(total=self._seconds or 1.0, completed=self._played),
        )
        return line

    def _meter(self) -> RenderableType:
        line = Table.grid(expand=True, padding=(0, 2, 0, 0))
        line.add_column(width=8, no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(width=11, no_wrap=True, justify="right")
        text = "" if self._level is None else f"{self._level:.1f} dBFS"
        line.add_row(Text("level", style="dim"), _Bar(self._level, self._peak), Text(text))
        return line

    def _words(self) -> list[RenderableType]:
        words = Text(" ".join(text for text in self._said if text))
        if self._partial:
            words.append(f"{' ' if words else ''}{self._partial}", style="italic dim")
        if not words:
            words.append("…", style="dim")
        width = max(1, self._console.width - 10)
        lines = list(words.wrap(self._console, width))[-max(1, self._console.height - FIXED_LINES) :]
        shown = Table.grid(padding=(0, 2, 0, 0))
        shown.add_column(width=8, no_wrap=True)
        shown.add_column(no_wrap=True)
        for at, text in enumerate(lines):
            shown.add_row(Text("said" if at == 0 else "", style="dim"), text)
        return [shown]


class _Bar:
    """A level meter over the available width: green, yellow if loud, red near full scale, with a mark at the peak."""

    def __init__(self, level: float | None, peak: float | None) -> None:
        self._level = level
        self._peak = peak

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, min(options.max_width, METER_CELLS))
        lit = _cells(self._level, width)
        peak = _cells(self._peak, width) - 1
        bar = Text(no_wrap=True)
        for cell in range(width):
            at_dbfs = FLOOR_DBFS * (1 - (cell + 1) / width)
            colour = "red" if at_dbfs > TOO_LOUD_DBFS else "yellow" if at_dbfs > LOUD_DBFS else "green"
            if cell < lit:
                bar.append("█", style=colour)
            else:
                bar.append("│" if cell == peak else "·", style=colour if cell == peak else "dim")
        yield bar


def _cells(dbfs: float | None, width: int) -> int:
    if dbfs is None:
        return 0
    return round(width * min(1.0, max(0.0, 1 - dbfs / FLOOR_DBFS)))


def clock(seconds: float) -> str:
    """Seconds as `m:ss.t`."""
    tenths = int(seconds * 10 + 1e-6)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
