"""Sessions as the store has them: those that stopped, those of other processes, and what this service still has to store."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

from agentos.core.communication.voice.directory import Directory
from agentos.core.communication.voice.errors import InvalidState, SessionNotFound
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter
from machines.events import VoiceEvent
from machines.session import VoiceSession, VoiceSessionState

T = TypeVar("T")


async def reading(call: Callable[..., T], *arguments: Any) -> T:
    """A read of the store, in a thread; bounded by the store's own busy timeout, and given up when cancelled."""
    return await anyio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True)


class PastSessions:
    """Reads what the directory of running sessions does not have, or does not have alone.

    Each method raises `StoreError` when the store is needed and can't be read.
    """

    def __init__(
        self, store: VoiceStore, writer: GroupCommitWriter, directory: Directory, flush_timeout_seconds: float
    ) -> None:
        self._store = store
        self._writer = writer
        self._directory = directory
        self._flush_timeout_seconds = flush_timeout_seconds

    async def session(self, session_id: str) -> VoiceSession | None:
        """A session that is not running here: from the store, or as it stopped when the store does not have that yet."""
        kept = self._directory.session(session_id)
        try:
            stored = await reading(self._store.session, session_id)
        except OSError:
            if kept is None:
                raise
            return kept
        if stored is not None and stored.state is VoiceSessionState.STOPPED:
            self._directory.stored(session_id)
            return stored
        return kept if kept is not None else stored

    async def sessions(self, project_id: str | None) -> list[VoiceSession]:
        """All sessions, those that run here too, in no order; of one project if given."""
        running = self._directory.sessions()
        found = {session.session_id: session for session in await reading(self._store.sessions, project_id)}
        for session in running:
            stored = found.get(session.session_id)
            stopped_meanwhile = stored is not None and stored.state is VoiceSessionState.STOPPED
            if not stopped_meanwhile and project_id in (None, session.project_id):
                found[session.session_id] = session
        return list(found.values())

    async def events(self, session_id: str, after: int) -> list[VoiceEvent]:
        """The stored events of a session above number `after`, with all that were told until now."""
        # Events go to the store behind everything else; those that were told are to be there.
        await reading(self._writer.flush, self._flush_timeout_seconds)
        return await reading(self._store.events, session_id, after)

    async def refusal(self, session_id: str) -> SessionNotFound | InvalidState:
        """Why a session that is not running here takes no audio."""
        session = await self.session(session_id) if isinstance(session_id, str) else None
        if session is None:
            return SessionNotFound(session_id)
        if session.state is VoiceSessionState.STOPPED:
            return InvalidState(session_id, session.state)
        return InvalidState(session_id, session.state, "another process runs it, or died")
