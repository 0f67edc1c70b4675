"""Restart intensity: how many crashes within which time are still worth a restart.

As in OTP, a supervisor that restarts a child more than `limit` times within `window` seconds gives up. Crashes are counted
within the window, so an occasional crash is forgiven and a storm of crashes is not.

Backoff: how long a restart waits. After its first crash in a quiet time a child is restarted at once, so that nobody notices;
a child that crashes again waits, longer each time. Jitter keeps children from restarting all at once. It is not random: it
follows from the child's name, the number of the crash and a seed, so every run is alike.
"""

import zlib

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


class Streak(Struct, frozen=True, gc=False):
    """Crashes in a row, each within the quiet time after the one before: how many, and when the last one came."""

    crashes: int = 0
    at: float = 0.0

    def after_crash(self, at: float, backoff: "Backoff") -> "Streak":
        """The streak with a crash at `at`, or a new streak if nothing crashed for long enough."""
        goes_on = self.crashes and at - self.at < backoff.quiet
        return Streak(self.crashes + 1 if goes_on else 1, at)


class Backoff(Struct, frozen=True, gc=False):
    """How many seconds a restart waits: none after the first crash of a streak, `first` after the second, and `factor` times
    as long after each further one, up to `most`. Up to the share `jitter` of a wait is taken off. A streak ends after `quiet`
    seconds without a crash. Raises `ValueError` for numbers with which a wait would shrink, or be none.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 10.0
    jitter: float = 0.25
    quiet: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0.0 < self.first <= self.most and self.factor >= 1.0 and 0.0 <= self.jitter < 1.0 and self.quiet > 0.0):
            raise ValueError(f"a backoff needs 0 < first <= most, factor >= 1, 0 <= jitter < 1 and quiet > 0: {self}")

    def seconds(self, name: str, crashes: int) -> float:
        """The wait in seconds before child `name` is restarted, after that many `crashes` in a row."""
        if crashes <= 1:
            return 0.0
        try:
            whole = min(self.most, self.first * self.factor ** (crashes - 2))
        except OverflowError:
            whole = self.most
        spread = zlib.crc32(f"{self.seed}:{name}:{crashes}".encode()) / 2**32
        return whole * (1.0 - self.jitter * spread)
