"""The thread in which a service recovers the sessions of dead processes, and signs that it lives itself."""

import threading
from collections.abc import Callable
from typing import Final

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.communication.voice.recovery.recovery import Recovery
from agentos.core.time import monotonic_ms

SIGN_MS: Final = 1000  # a sign of life costs one system call; a late sign shortens the window to resume
_GRACE_SHARE: Final = 0.8  # of the closing time, to end the sessions that wait to be resumed; then the thread ends

log = logger(__name__)


class RecurringRecovery:
    """Runs a recovery at `start`, every `interval_seconds`, and whenever a session's time to be resumed is over, until
    `close`; in a thread of its own.

    The thread calls `before` before each recovery; `before` may block, for a bounded time. It calls `sign`, if given, about
    every second, also during a recovery.
    """

    def __init__(
        self,
        recovery: Recovery,
        interval_seconds: float,
        before: Callable[[], object],
        sign: Callable[[], None] | None = None,
    ) -> None:
        self._recovery = recovery
        self._interval_ms = int(interval_seconds * 1000)
        self._before = before
        self._sign = sign
        self._looks = {"before": Look("the spilled records"), "sign": Look("the sign of life")}
        self._signed_ms = 0
        self._closing = threading.Event()
        self._close_by_ms = 0
        self._thread = threading.Thread(target=self._run, name="voice-recovery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_seconds: float) -> bool:
        """Break off a running recovery, end the sessions that wait to be resumed, and end the thread.

        Returns True if all that was done in time. Other processes take the sessions that were not ended. Does nothing if the
        thread was never started.
        """
        self._close_by_ms = monotonic_ms() + int(timeout_seconds * _GRACE_SHARE * 1000)
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._looks["before"]:
                self._before()
            self._recover()
            self._wait()
        try:
            self._recovery.close(lambda: monotonic_ms() < self._close_by_ms)
        except Exception:
            log.exception("the sessions that waited to be resumed are left to other processes")

    def _recover(self) -> None:
        try:
            report = self._recovery.run(self._wanted)
        except StoreError as error:
            problems: tuple[str, ...] = (str(error),)
        except Exception:
            log.exception("the recovery failed")
            problems = ()
        else:
            problems = report.problems
            if report.recovered:
                log.warning("sessions of dead processes were ended", sessions=len(report.recovered))
        for problem in problems if not self._closing.is_set() else ():
            log.warning("a session of a dead process could not be recovered", problem=problem)

    def _wanted(self) -> bool:
        self._sign_if_due()
        return not self._closing.is_set()

    def _wait(self) -> None:
        """Wait until the next recovery is due, and sign meanwhile."""
        until = monotonic_ms() + self._interval_ms
        while (now := monotonic_ms()) < until:
            self._sign_if_due()
            due = self._recovery.orphans.next_due_ms()  # asked each time: `orphans` may hold more meanwhile
            until = until if due is None else min(until, due)
            look = until if self._sign is None else min(until, self._signed_ms + SIGN_MS)
            if self._closing.wait(max(0, look - now) / 1000):
                return

    def _sign_if_due(self) -> None:
        if self._sign is not None and (now := monotonic_ms()) >= self._signed_ms + SIGN_MS:
            self._signed_ms = now
            with self._looks["sign"]:
                try:
                    self._sign()
                except StoreError as error:
                    log.warning("a sign of life can't be left", problem=str(error))
