"""Restart intensity: how many crashes within which time are still worth a restart.

As in OTP, a supervisor that restarts a child more than `limit` times within `window` seconds gives up. Crashes are counted
within the window, not since the last one, so slow leaks of crashes are forgiven and storms are not.
"""

from msgspec import Struct


class Intensity(Struct, frozen=True, gc=False):
    """At most `limit` restarts within any `window` seconds."""

    limit: int
    window: float


class CrashLog(Struct, frozen=True, gc=False):
    """The times (seconds of the system's clock) of the crashes that still count."""

    times: tuple[float, ...] = ()

    def after_crash(self, at: float, intensity: Intensity) -> tuple["CrashLog", bool]:
        """The log with a crash at `at`, and whether a restart is still allowed."""
        recent = tuple(time for time in self.times if time > at - intensity.window)
        return CrashLog((*recent, at)[-(intensity.limit + 1) :]), len(recent) < intensity.limit
