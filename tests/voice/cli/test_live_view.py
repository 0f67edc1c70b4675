"""The live view on terminals of several widths, and a whole call on a real (pseudo) terminal."""

import errno
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentos.core.communication.voice.cli.live_view import LiveView, clock
from agentos.core.communication.voice.samples import SAMPLE_TEXT
from machines.events import VoiceEvent, VoiceEventType

ROOT = Path(__file__).parents[3]


def event(kind: VoiceEventType, **payload: Any) -> VoiceEvent:
    return VoiceEvent(event_id="evt-1", session_id="voice-1", event_type=kind, payload=payload, timestamp_ms=0)


class Screen:
    """A view of ten seconds on a console that keeps what is drawn."""

    def __init__(self, width: int = 80, height: int = 20) -> None:
        self._console = Console(
            file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, markup=False
        )
        self.view = LiveView(self._console, seconds=10.0)

    def lines(self) -> list[str]:
        with self._console.capture() as captured:
            self._console.print(self.view.render())
        return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_view_fits_any_width(width: int) -> None:
    screen = Screen(width)
    screen.view.event(event(VoiceEventType.STATE_CHANGED, state="active"))
    screen.view.event(event(VoiceEventType.AUDIO_RECEIVED, level_dbfs=-20.0, peak_dbfs=-6.0, frames=1, upto_frame=1))
    screen.view.event(event(VoiceEventType.STT_FINAL, text="one two three four five six seven " * 3))
    screen.view.progress(5.0)
    assert all(len(line) <= width for line in screen.lines())
    assert "ACTIVE" in screen.lines()[0]


def test_progress_and_level_are_shown() -> None:
    screen = Screen()
    screen.view.progress(2.5)
    screen.view.event(event(VoiceEventType.AUDIO_RECEIVED, level_dbfs=-30.0, peak_dbfs=-6.0, frames=1, upto_frame=1))
    status, meter, *_ = screen.lines()
    assert "0:02.5 / 0:10.0" in status
    assert "-30.0 dBFS" in meter
    assert meter.count("█") == pytest.approx(0.5 * (meter.count("█") + meter.count("·") + 1), abs=1)
    assert meter.count("│") == 1


def test_silence_has_no_level() -> None:
    screen = Screen()
    screen.view.event(event(VoiceEventType.AUDIO_RECEIVED, level_dbfs=None, peak_dbfs=None, frames=1, upto_frame=1))
    assert not {"█", "│"} & set(screen.lines()[1])


def test_a_partial_text_is_replaced_by_the_final_one() -> None:
    screen = Screen()
    assert "…" in screen.lines()[2]
    screen.view.event(event(VoiceEventType.STT_PARTIAL, text="go for"))
    assert "go for" in screen.lines()[2]
    screen.view.event(event(VoiceEventType.STT_FINAL, text="go forward"))
    screen.view.event(event(VoiceEventType.STT_PARTIAL, text="ten"))
    assert screen.lines()[2].split() == ["said", "go", "forward", "ten"]


def test_of_a_long_text_the_last_lines_are_shown() -> None:
    screen = Screen(width=40, height=8)
    screen.view.event(event(VoiceEventType.STT_FINAL, text=" ".join(f"word{number}" for number in range(200))))
    lines = screen.lines()
    assert len(lines) < 8
    assert "word199" in lines[-1]
    assert "word0 " not in "".join(lines)


def test_a_text_with_brackets_is_no_markup() -> None:
    screen = Screen()
    screen.view.event(event(VoiceEventType.STT_FINAL, text="[bold]loud[/] and [no tag"))
    assert "[bold]loud[/] and [no tag" in screen.lines()[2]


def test_the_end_takes_the_level_away() -> None:
    screen = Screen()
    screen.view.event(event(VoiceEventType.AUDIO_RECEIVED, level_dbfs=-3.0, peak_dbfs=-1.0, frames=1, upto_frame=1))
    screen.view.event(event(VoiceEventType.STATE_CHANGED, state="stopping"))
    assert "█" not in screen.lines()[1]
    screen.view.event(event(VoiceEventType.SESSION_STOPPED, reason="stopped"))
    assert "STOPPED" in screen.lines()[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00.0"), (0.3, "0:00.3"), (61.25, "1:01.2"), (3600.0, "60:00.0")]
)
def test_the_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_call_on_a_terminal_shows_the_view_and_then_the_summary() -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentos.core.communication.voice.cli", "call"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    drawn = b""
    try:
        while chunk := _read(leader):
            drawn += chunk
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())
    assert "ACTIVE" in text
    assert "dBFS" in text
    assert SAMPLE_TEXT in text
    assert "Traceback" not in text
    assert text.rindex("recording") > text.rindex("ACTIVE")
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h") == 1  # the cursor is there again


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError as error:
        if error.errno == errno.EIO:  # how Linux says that the other end is closed
            return b""
        raise
