"""What becomes of a session whose process died: another process goes on with it, or moves it to the end.

It may be resumed when its caller said beforehand that it would come back, when nobody had begun to end it, and while the window
counted from the last sign of life of its process is open. Until then it waits, in the hands of one process. Who goes on
with it claims it first, and so does who ends it: of two, one wins.
"""

from typing import NamedTuple

from machines.frozen import FrozenMap
from machines.operations import SESSION_STOPPED, SESSION_STOPPING
from machines.session import END_TRIGGER, SESSION, EndReason, VoiceSessionState

RESUME = "resume"


class EndMove(NamedTuple):
    """One record of the end: its operation, the state that it tells, and whether it is the final one."""

    operation: str
    state: VoiceSessionState
    final: bool


def end_of_dead_session(state: VoiceSessionState) -> tuple[EndMove, ...]:
    """The records that move a session from `state` to STOPPED, in order; none for one that is STOPPED."""
    moves: list[EndMove] = []
    if state not in {VoiceSessionState.STOPPING, VoiceSessionState.STOPPED}:
        state = SESSION.fire(state, END_TRIGGER[EndReason.RECOVERED])
        moves.append(EndMove(SESSION_STOPPING, state, final=False))
    if state is VoiceSessionState.STOPPING:
        state = SESSION.fire(state, SESSION.deadlines[state])
        moves.append(EndMove(SESSION_STOPPED, state, final=True))
    return tuple(moves)


def ms_to_resume(state: VoiceSessionState, *, wished: bool, window_ms: int, silent_ms: int) -> int:
    """For how long a session that a dead process left in `state` may still be resumed; 0 when it can't be.

    `wished` is what its caller said, `silent_ms` the time since the last sign of life of the process, which a clock that was
    set back makes negative.
    """
    if not wished or RESUME not in SESSION.legal(state):
        return 0
    return min(window_ms, max(0, window_ms - silent_ms))


class Waiting(NamedTuple):
    """One session of a dead owner: until when it may be resumed, in milliseconds of any clock, and whether it is claimed."""

    owner: str
    until_ms: int
    claimed: bool = False


class AwaitingResume(NamedTuple):
    """The sessions of dead owners that one process has in its hands, by id; a value."""

    sessions: FrozenMap[str, Waiting] = FrozenMap()

    def with_session(self, session_id: str, owner: str, until_ms: int) -> "AwaitingResume":
        """With one more."""
        return AwaitingResume(self.sessions.with_item(session_id, Waiting(owner, until_ms)))

    def open_at(self, now_ms: int) -> frozenset[str]:
        """The sessions that may be resumed at this time."""
        return frozenset([key for key, one in self.sessions.items() if not one.claimed and now_ms < one.until_ms])

    def due_at(self, now_ms: int) -> frozenset[str]:
        """The sessions that are to be ended at this time."""
        return frozenset([key for key, one in self.sessions.items() if not one.claimed and now_ms >= one.until_ms])

    def next_due_ms(self, now_ms: int) -> int | None:
        """When, after this time, the next of them is to be ended; None when none is."""
        return min([one.until_ms for _, one in self.sessions.items() if one.until_ms > now_ms], default=None)

    def claimed(self, session_id: str) -> "AwaitingResume | None":
        """With this session claimed; None when it is not there, or claimed already."""
        one = self.sessions.get(session_id)
        if one is None or one.claimed:
            return None
        return AwaitingResume(self.sessions.with_item(session_id, one._replace(claimed=True)))

    def given_back(self, session_id: str, *, hopeless: bool = False) -> "AwaitingResume":
        """With the claim given up: its time goes on, or, when it is `hopeless`, is over."""
        one = self.sessions.get(session_id)
        if one is None:
            return self
        one = Waiting(one.owner, 0 if hopeless else one.until_ms)
        return AwaitingResume(self.sessions.with_item(session_id, one))

    def without(self, session_id: str) -> "AwaitingResume":
        """Without a session that was resumed or ended."""
        return AwaitingResume(self.sessions.without(session_id))

    def owners(self) -> frozenset[str]:
        """The dead owners that still have a session here: their locks are held."""
        return frozenset([one.owner for _, one in self.sessions.items()])
