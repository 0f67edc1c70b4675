"""The counts of one service's sessions: how many began, the reasons of their ends, and where their frames went."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from agentos.core.communication.voice.measuring.durations import Durations, DurationStatistics
from machines.session import SessionResult


@dataclass(frozen=True, slots=True)
class RunningSessions:
    """The number of `sessions` of a `provider` in a `state`; "opening" sessions are requested and do not exist yet."""

    state: str
    provider: str
    sessions: int


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """The sessions of one service.

    `running` counts the sessions of this moment; all else counts since the start: sessions that were `started`, and `ended`, by
    the reason of their end; the accepted frames of ended sessions, and their dropped and untranscribed frames, by reason; and
    the durations of `drains`, from the news that a session is STOPPING to the news that it has STOPPED.
    """

    running: tuple[RunningSessions, ...]
    started: int
    ended: dict[str, int]
    accepted_frames: int
    dropped_frames: dict[str, int]
    untranscribed_frames: dict[str, int]
    drains: DurationStatistics


class SessionCounts:
    """Keeps the sums, in the loop's thread."""

    def __init__(self) -> None:
        self.started = 0
        self._ended: Counter[str] = Counter()
        self._accepted = 0
        self._dropped: Counter[str] = Counter()
        self._untranscribed: Counter[str] = Counter()
        self._drains = Durations()

    def ended(self, result: SessionResult, drain_ms: int | None) -> None:
        """Count a session that has ended with `result`; its drain took `drain_ms`, if it had one."""
        self._ended[result.reason.value] += 1
        self._accepted += result.frames.accepted
        self._dropped.update(result.frames.dropped)
        self._untranscribed.update(result.frames.untranscribed)
        if drain_ms is not None:
            self._drains.add_ms(drain_ms)

    def statistics(self, running: Iterable[tuple[str, str]]) -> SessionStatistics:
        """The sums, and the state and provider of each session in `running` counted."""
        return SessionStatistics(
            running=tuple(
                RunningSessions(state, provider, count) for (state, provider), count in sorted(Counter(running).items())
            ),
            started=self.started,
            ended=dict(self._ended),
            accepted_frames=self._accepted,
            dropped_frames=dict(self._dropped),
            untranscribed_frames=dict(self._untranscribed),
            drains=self._drains.statistics(),
        )
