"""The rules for a session whose process died: another process resumes it, or moves it to STOPPED.

It may be resumed if its caller asked for that beforehand, if nobody had begun to end it, and while a window is open that
begins with the last sign of life of its process. Meanwhile one process holds it. To resume or to end a session, claim it
first: of two claims, one wins.
"""

from typing import NamedTuple

from machines.frozen import FrozenMap
from machines.operations import SESSION_STOPPED, SESSION_STOPPING
from machines.session import END_TRIGGER, SESSION, EndReason, VoiceSessionState

RESUME = "resume"


class EndMove(NamedTuple):
    """One record of the end: its operation, the session's state in it, and whether it is the final record."""

    operation: str
    state: VoiceSessionState
    final: bool


def end_of_dead_session(state: VoiceSessionState) -> tuple[EndMove, ...]:
    """The records that move a session from `state` to STOPPED, in order; none if it is STOPPED."""
    moves: list[EndMove] = []
    if state not in {VoiceSessionState.STOPPING, VoiceSessionState.STOPPED}:
        state = SESSION.fire(state, END_TRIGGER[EndReason.RECOVERED])
        moves.append(EndMove(SESSION_STOPPING, state, final=False))
    if state is VoiceSessionState.STOPPING:
        state = SESSION.fire(state, SESSION.deadlines[state])
        moves.append(EndMove(SESSION_STOPPED, state, final=True))
    return tuple(moves)


def ms_to_resume(state: VoiceSessionState, *, wished: bool, window_ms: int, silent_ms: int) -> int:
    """For how many milliseconds a session that a dead process left in `state` may still be resumed; 0 if it may not.

    `wished` says whether the caller asked for that, `silent_ms` is the time since the process's last sign of life; a clock
    that was set back makes it negative.
    """
    if not wished or RESUME not in SESSION.legal(state):
        return 0
    return min(window_ms, max(0, window_ms - silent_ms))


class OrphanedSession(NamedTuple):
    """One session of a dead `owner`: it may be resumed until `until_ms`, by any one clock, if it is not `claimed`."""

    owner: str
    until_ms: int
    claimed: bool = False


class AwaitingResume(NamedTuple):
    """The sessions of dead owners that one process holds, by id; a value."""

    sessions: FrozenMap[str, OrphanedSession] = FrozenMap()

    def with_session(self, session_id: str, owner: str, until_ms: int) -> "AwaitingResume":
        """With one more session."""
        return AwaitingResume(self.sessions.with_item(session_id, OrphanedSession(owner, until_ms)))

    def open_at(self, now_ms: int) -> frozenset[str]:
        """The sessions that may be resumed at this time."""
        return frozenset([key for key, one in self.sessions.items() if not one.claimed and now_ms < one.until_ms])

    def due_at(self, now_ms: int) -> frozenset[str]:
        """The sessions that are to be ended at this time."""
        return frozenset([key for key, one in self.sessions.items() if not one.claimed and now_ms >= one.until_ms])

    def next_due_ms(self, now_ms: int) -> int | None:
        """When, after this time, the next session is to be ended; None if none is."""
        return min([one.until_ms for _, one in self.sessions.items() if one.until_ms > now_ms], default=None)

    def claimed(self, session_id: str) -> "AwaitingResume | None":
        """With this session claimed; None if it is not held, or claimed already."""
        one = self.sessions.get(session_id)
        if one is None or one.claimed:
            return None
        return AwaitingResume(self.sessions.with_item(session_id, one._replace(claimed=True)))

    def given_back(self, session_id: str, *, hopeless: bool = False) -> "AwaitingResume":
        """With the claim given up: the session's time goes on, or is over if it is `hopeless`."""
        one = self.sessions.get(session_id)
        if one is None:
            return self
        one = OrphanedSession(one.owner, 0 if hopeless else one.until_ms)
        return AwaitingResume(self.sessions.with_item(session_id, one))

    def without(self, session_id: str) -> "AwaitingResume":
        """Without a session that was resumed or ended."""
        return AwaitingResume(self.sessions.without(session_id))

    def owners(self) -> frozenset[str]:
        """The dead owners that still have a session here, and whose locks are therefore held."""
        return frozenset([one.owner for _, one in self.sessions.items()])
