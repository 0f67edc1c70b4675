"""When to try again: after a crash a little later, after too many not for a while."""

from typing import Final

from machines.restart import CrashLog, Intensity

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Breaker:
    """Counts crashes of one thing. Each pause is twice the last one, up to five seconds; more crashes than `intensity`
    allows make it failed for a whole window. Times are seconds of a monotonic clock.
    """

    __slots__ = ("_failed_until", "_intensity", "_log", "not_before")

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._log = CrashLog()
        self._failed_until = float("-inf")
        self.not_before = float("-inf")
        """The next try may be then."""

    def crashed(self, now: float) -> None:
        """Count a crash."""
        self._log, allowed = self._log.after_crash(now, self._intensity)
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** (len(self._log.times) - 1)
        self.not_before = now + min(pause, _LONGEST_PAUSE_SECONDS)
        if not allowed:
            self._failed_until = self.not_before = now + self._intensity.window

    def failed(self, now: float) -> bool:
        """Whether it crashed too often of late to be tried."""
        return now < self._failed_until
