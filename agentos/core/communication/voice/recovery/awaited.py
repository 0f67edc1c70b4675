"""The sessions of dead processes that this one has in its hands, with the locks of their owners; safe from many threads.

What may be done with each when is `machines.recovery.AwaitingResume`; times are those of the monotonic clock.
"""

from collections.abc import Iterable
from threading import Lock

from agentos.core.communication.voice.storage.ownership import Ownership
from agentos.core.time import monotonic_ms
from machines.recovery import AwaitingResume
from machines.session import VoiceSession


class AwaitedSessions:
    """Sessions that wait to be resumed, and those of the same owners that wait to be ended.

    An owner's lock is held while one of its sessions is here, and so nobody else touches them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._state = AwaitingResume()
        self._sessions: dict[str, VoiceSession] = {}
        self._ownerships: dict[str, Ownership] = {}

    def hold(self, ownership: Ownership, sessions: Iterable[tuple[VoiceSession, int]]) -> None:
        """Take the sessions of a dead owner, each with the time until when it may be resumed."""
        with self._lock:
            self._ownerships[ownership.owner] = ownership
            for session, until_ms in sessions:
                self._sessions[session.session_id] = session
                self._state = self._state.with_session(session.session_id, ownership.owner, until_ms)

    def resumable(self) -> list[VoiceSession]:
        """The sessions that may be resumed now, as they were left."""
        with self._lock:
            return [self._sessions[session_id] for session_id in sorted(self._state.open_at(monotonic_ms()))]

    def session(self, session_id: str) -> VoiceSession | None:
        """A session that is here, as it was left; None when it is not."""
        with self._lock:
            return self._sessions.get(session_id)

    def claim_to_resume(self, session_id: str) -> tuple[VoiceSession, str] | None:
        """The session with its owner, for the caller alone until it is given back or done; None when it may not be resumed."""
        with self._lock:
            return self._claim(session_id) if session_id in self._state.open_at(monotonic_ms()) else None

    def claim_to_end(self, session_id: str) -> tuple[VoiceSession, str] | None:
        """The same, whether its time is over or not; None when it is not here, or claimed."""
        with self._lock:
            return self._claim(session_id)

    def _claim(self, session_id: str) -> tuple[VoiceSession, str] | None:
        claimed = self._state.claimed(session_id)
        if claimed is None:
            return None
        self._state = claimed
        return self._sessions[session_id], claimed.sessions.get(session_id).owner  # type: ignore[union-attr]

    def give_back(self, session_id: str, *, hopeless: bool = False) -> None:
        """Nothing came of a claim; a `hopeless` session can't be resumed, and is to be ended."""
        with self._lock:
            self._state = self._state.given_back(session_id, hopeless=hopeless)

    def done(self, session_id: str) -> None:
        """It was resumed or ended. Raises `StoreError` when the lock file of its owner can't be removed."""
        with self._lock:
            self._state = self._state.without(session_id)
            self._sessions.pop(session_id, None)
            left = self._state.owners()
            spent = [self._ownerships.pop(owner) for owner in list(self._ownerships) if owner not in left]
        for ownership in spent:
            ownership.release()

    def due(self) -> list[str]:
        """The sessions that are to be ended now."""
        with self._lock:
            return sorted(self._state.due_at(monotonic_ms()))

    def all(self) -> list[str]:
        """Every session that is here."""
        with self._lock:
            return sorted(self._sessions)

    def next_due_ms(self) -> int | None:
        """When the next one is to be ended; None when there is none in time to come."""
        with self._lock:
            return self._state.next_due_ms(monotonic_ms())

    def let_go(self) -> None:
        """Leave what is here as a process that dies does, for others to take."""
        with self._lock:
            ownerships, self._ownerships = list(self._ownerships.values()), {}
            self._state, self._sessions = AwaitingResume(), {}
        for ownership in ownerships:
            ownership.forget()
