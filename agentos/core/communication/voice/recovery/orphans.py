"""The orphaned sessions that this process holds, with the locks of their dead owners; safe from many threads.

`machines.recovery.AwaitingResume` rules when each may be resumed or ended; times are those of the monotonic clock.
"""

from collections.abc import Iterable
from threading import Lock

from agentos.core.communication.voice.storage.ownership import Ownership
from agentos.core.time import monotonic_ms
from machines.recovery import AwaitingResume
from machines.session import VoiceSession


class OrphanedSessions:
    """Sessions of dead owners that wait to be resumed or ended.

    An owner's lock is held while one of its sessions is here, so no other process touches them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._state = AwaitingResume()
        self._sessions: dict[str, VoiceSession] = {}
        self._ownerships: dict[str, Ownership] = {}

    def hold(self, ownership: Ownership, sessions: Iterable[tuple[VoiceSession, int]]) -> None:
        """Hold the sessions of a dead owner, each with the time until which it may be resumed."""
        with self._lock:
            self._ownerships[ownership.owner] = ownership
            for session, until_ms in sessions:
                self._sessions[session.session_id] = session
                self._state = self._state.with_session(session.session_id, ownership.owner, until_ms)

    def resumable(self) -> list[VoiceSession]:
        """The sessions that may be resumed now, as their processes left them."""
        with self._lock:
            return [self._sessions[session_id] for session_id in sorted(self._state.open_at(monotonic_ms()))]

    def session(self, session_id: str) -> VoiceSession | None:
        """The session as its process left it; None if it is not held here."""
        with self._lock:
            return self._sessions.get(session_id)

    def claim_to_resume(self, session_id: str) -> tuple[VoiceSession, str] | None:
        """Claim a session to resume, until `give_back` or `done`: the session and its owner; None if it may not be resumed."""
        with self._lock:
            return self._claim(session_id) if session_id in self._state.open_at(monotonic_ms()) else None

    def claim_to_end(self, session_id: str) -> tuple[VoiceSession, str] | None:
        """Claim a session to end it, also before its time is over; None if it is not held here, or claimed already."""
        with self._lock:
            return self._claim(session_id)

    def _claim(self, session_id: str) -> tuple[VoiceSession, str] | None:
        claimed = self._state.claimed(session_id)
        if claimed is None:
            return None
        self._state = claimed
        return self._sessions[session_id], claimed.sessions.get(session_id).owner  # type: ignore[union-attr]

    def give_back(self, session_id: str, *, hopeless: bool = False) -> None:
        """Give a claim up. A `hopeless` session can't be resumed and is due to be ended at once."""
        with self._lock:
            self._state = self._state.given_back(session_id, hopeless=hopeless)

    def done(self, session_id: str) -> None:
        """Forget a session that was resumed or ended, and release its owner's lock after the owner's last session.

        Raises `StoreError` if the lock file can't be removed.
        """
        with self._lock:
            self._state = self._state.without(session_id)
            self._sessions.pop(session_id, None)
            left = self._state.owners()
            spent = [self._ownerships.pop(owner) for owner in list(self._ownerships) if owner not in left]
        for ownership in spent:
            ownership.release()

    def due(self) -> list[str]:
        """The unclaimed sessions whose time to be resumed is over."""
        with self._lock:
            return sorted(self._state.due_at(monotonic_ms()))

    def all(self) -> list[str]:
        """Every session that is held here."""
        with self._lock:
            return sorted(self._sessions)

    def next_due_ms(self) -> int | None:
        """When the next session falls due to be ended; None if none will."""
        with self._lock:
            return self._state.next_due_ms(monotonic_ms())

    def let_go(self) -> None:
        """Let go of all sessions, as if this process had died: other processes may take them."""
        with self._lock:
            ownerships, self._ownerships = list(self._ownerships.values()), {}
            self._state, self._sessions = AwaitingResume(), {}
        for ownership in ownerships:
            ownership.forget()
