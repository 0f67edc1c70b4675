"""The time contract: the only place that reads a clock.

Wall time is aware UTC; epochs are integer milliseconds; deadlines are counted on the monotonic clock, which never jumps.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

monotonic_seconds: Final = time.monotonic
"""Seconds on a clock that never goes back, read as cheaply as can be; only differences mean anything."""


def utc_now() -> datetime:
    """The present, as an aware datetime in UTC. Its text is `.isoformat()`."""
    return datetime.now(UTC)


def utc_now_ms() -> int:
    """The present in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic_ns() // 1_000_000


def from_ms(epoch_ms: int) -> datetime:
    """The aware UTC datetime of `epoch_ms` milliseconds since the epoch."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def to_ms(at: datetime) -> int:
    """The whole milliseconds from the epoch to the aware datetime `at`."""
    return (at - _EPOCH) // _MILLISECOND
