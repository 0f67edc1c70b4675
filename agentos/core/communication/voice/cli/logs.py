"""Where the program's log goes: to stderr, one line a message, so that stdout is the result alone."""

import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from agentos.core.communication.voice.cli.exits import one_line

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str) -> None:
    """Log from `level` on. An error's traceback is shown on level `debug` only; above, its type and message."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _plain_error if level != "debug" else structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )


class _Stderr:
    """Writes to whatever stderr is at that moment: a live view puts its own in between."""

    def __init__(self, *_: Any) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg

    def msg(self, message: str) -> None:
        """Write a line."""
        sys.stderr.write(f"{message}\n")


def _plain_error(_: Any, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {one_line(str(error))}"
    return event
