"""Looks that are taken again and again while a service runs: one that raises is said in the log, and the next is taken anyway.

A measurement, a heartbeat, a sweep: none of them may end the task that takes it, since with that task the service would end,
and every call with it.
"""

from types import TracebackType
from typing import Final

from agentos.core.communication.voice.logs import logger
from agentos.core.time import monotonic_ms

SAID_AGAIN_MS: Final = 60_000  # what fails four times a second is not said four times a second

log = logger(__name__)


class Look:
    """A context manager for each look of one kind: an `Exception` in the block is logged, at once and then once a minute, and
    goes no further. Cancellation does. `within` are the words of a person for what is looked at."""

    def __init__(self, within: str) -> None:
        self._within = within
        self._said_ms: int | None = None

    def __enter__(self) -> None:
        """Begin a look."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End it: True for an error that is dealt with."""
        del kind, traceback
        if not isinstance(error, Exception):
            return False
        now = monotonic_ms()
        if self._said_ms is None or now - self._said_ms >= SAID_AGAIN_MS:
            self._said_ms = now
            log.error("look_failed", look=self._within, exc_info=error)
        return True
