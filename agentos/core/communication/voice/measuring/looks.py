"""Looks: work that a service repeats while it runs. If one look raises, the error is logged, and the next look is taken anyway.

A measurement, a heartbeat, a sweep: an error in one must not end its task, since the service, and every call, would end with
it.
"""

from types import TracebackType
from typing import Final

from agentos.core.communication.voice.logs import logger
from agentos.core.time import monotonic_ms

SAID_AGAIN_MS: Final = 60_000  # a look that fails four times a second is not logged four times a second

log = logger(__name__)


class Look:
    """A context manager for the looks of one kind. It logs an `Exception` of the block, at once and then once a minute, and
    suppresses it; cancellation passes. `within` names the look in the log."""

    def __init__(self, within: str) -> None:
        self._within = within
        self._said_ms: int | None = None

    def __enter__(self) -> None:
        """Begin a look."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End a look. Returns True for an error that was logged."""
        del kind, traceback
        if not isinstance(error, Exception):
            return False
        now = monotonic_ms()
        if self._said_ms is None or now - self._said_ms >= SAID_AGAIN_MS:
            self._said_ms = now
            log.error("look_failed", look=self._within, exc_info=error)
        return True
