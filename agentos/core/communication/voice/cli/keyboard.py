"""Single keys from the terminal, while a view is shown on it."""

import os
import select
import signal
import sys
import termios
from types import FrameType, TracebackType
from typing import Any, Self

from agentos.core.communication.voice.cli.exits import Interrupted

_LOCAL_FLAGS, _SPECIAL = 3, 6  # indices in the list of `termios.tcgetattr`
_NONE = b"\x00"


class Keyboard:
    """Keys as they are pressed, unechoed; a context manager that leaves the terminal as it was, also on SIGTERM.

    Ctrl-C raises `KeyboardInterrupt` as usual; Ctrl-Z does nothing, since a suspended view would leave the terminal unusable.
    If the standard input is no terminal, there are no keys.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] = []
        self._handler: Any = None

    def __enter__(self) -> Self:
        self._handler = signal.signal(signal.SIGTERM, _interrupt)
        if self._input is not None:
            self._before = termios.tcgetattr(self._input)
            single = termios.tcgetattr(self._input)
            single[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
            single[_SPECIAL][termios.VSUSP] = _NONE
            termios.tcsetattr(self._input, termios.TCSADRAIN, single)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._input is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
        signal.signal(signal.SIGTERM, self._handler)

    def pressed(self, within_seconds: float) -> str:
        """The pressed keys, after waiting up to `within_seconds` for the first; empty if there was none."""
        readable = select.select([] if self._input is None else [self._input], [], [], within_seconds)[0]
        return os.read(self._input, 64).decode(errors="replace") if readable and self._input is not None else ""


def _interrupt(signum: int, _: FrameType | None) -> None:
    raise Interrupted(signum)
