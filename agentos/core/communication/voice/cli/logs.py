"""The program's log: to stderr, one line a message, so that stdout has the result alone."""

import logging
import sys
from typing import TextIO

from agentos.core.communication.voice.cli.exits import one_line
from agentos.core.communication.voice.logs import LOGGER, set_level


def configure_logging(level: str) -> None:
    """Log from `level` on. An error's traceback is shown on level `debug` only; above, its type and message."""
    handler = _Stderr()
    handler.setFormatter(_Line(tracebacks=level == "debug"))
    library = logging.getLogger(LOGGER)
    for other in [other for other in library.handlers if isinstance(other, _Stderr)]:
        library.removeHandler(other)
    library.addHandler(handler)
    library.propagate = False
    set_level(level)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which a live view replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The current `sys.stderr`."""
        return sys.stderr


class _Line(logging.Formatter):
    """Formats a line as `[warning] event: facts`."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        text = f"[{record.levelname.lower()}] {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return text
        if self._tracebacks and record.exc_info:
            return f"{text}\n{self.formatException(record.exc_info)}"
        return f"{text}: {type(error).__name__}: {one_line(str(error))}"
