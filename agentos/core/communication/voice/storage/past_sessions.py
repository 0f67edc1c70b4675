"""Sessions as the store has them: those that stopped, those of other processes, and what this service still has to store."""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, Final, NamedTuple, Self, TypeVar

import anyio.to_thread

from agentos.core.communication.voice.errors import InvalidState, SessionNotFound
from agentos.core.communication.voice.sessions.directory import Directory
from agentos.core.communication.voice.storage.chain import StoredLink
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter
from agentos.core.time import to_ms
from machines.cross_checks import Disagreements
from machines.events import VoiceEvent
from machines.heads import Head
from machines.session import VoiceSession, VoiceSessionState
from machines.verification import Examination

MOST_LINKS: Final = 1_000  # of one request that are read at once, if nothing else is asked for

T = TypeVar("T")
EVENTS_AT_ONCE: Final = 250  # for somebody who may take them slowly, or not at all


class SessionKey(NamedTuple):
    """The place of a session in the order of creation; it never changes."""

    created_at_ms: int
    session_id: str

    @classmethod
    def of(cls, session: VoiceSession) -> Self:
        """The place of `session`."""
        return cls(to_ms(session.created_at), session.session_id)


class SessionPage(NamedTuple):
    """Some `sessions`, newest first; more may follow below `next`, if there is one."""

    sessions: tuple[VoiceSession, ...]
    next: SessionKey | None


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

    async def events(self, session_id: str, after: int, limit: int | None = None) -> list[VoiceEvent]:
        """The stored events of a session above number `after`, at most `limit`, with all that were told until now."""
        # Events go to the store behind everything else; those that were told are to be there.
        await reading(self._writer.flush, self._flush_timeout_seconds)
        return await reading(self._store.events, session_id, after, limit)

    async def page(
        self,
        project_id: str | None,
        state: VoiceSessionState | None,
        *,
        limit: int,
        below: SessionKey | None = None,
    ) -> SessionPage:
        """At most `limit` sessions, those that run here too, newest first, from behind `below` on; of one project or in one
        state if given. A session that comes or ends while somebody turns the pages moves none of the others."""
        stored = await reading(self._store.session_page, project_id, state, limit + 1, below)
        running = self._directory.sessions()
        more = len(stored) > limit
        end = SessionKey.of(stored[limit - 1]) if more else None
        found = {session.session_id: session for session in stored[:limit]}
        for session in running:
            kept, key = found.get(session.session_id), SessionKey.of(session)
            if kept is not None and kept.state is VoiceSessionState.STOPPED:
                continue  # the store heard of it first
            asked_for = project_id in (None, session.project_id) and state in (None, session.state)
            if asked_for and (below is None or key < below) and (end is None or key >= end):
                found[session.session_id] = session
            elif kept is not None and not asked_for:
                del found[session.session_id]
        chosen = sorted(found.values(), key=SessionKey.of, reverse=True)
        if len(chosen) > limit:
            return SessionPage(tuple(chosen[:limit]), SessionKey.of(chosen[limit - 1]))
        return SessionPage(tuple(chosen), end)

    async def each_event(self, session_id: str, after: int, below: int | None = None) -> AsyncGenerator[VoiceEvent]:
        """The stored events above number `after`, and below `below`, with all that were told until now; a part of them in
        memory at a time."""
        while below is None or after + 1 < below:
            found = await self.events(session_id, after, EVENTS_AT_ONCE)
            for event in found:
                if below is None or event.number < below:
                    yield event
            if len(found) < EVENTS_AT_ONCE:
                return
            after = found[-1].number

    async def evidence(self, session_id: str, after: int, limit: int) -> list[StoredLink]:
        """At most `limit` evidence records of a session, or of a refused request, behind place `after` of the chain."""
        return await reading(self._store.evidence_page, session_id, after, limit)

    async def examination(self, heads: Collection[Head] = ()) -> Examination:
        """Walk the whole evidence chain, and hold it against noted heads; takes a second for some ten thousand records."""
        return await reading(self._store.examine, heads)

    async def disagreements(self, most: int) -> Disagreements:
        """Hold what is stored beside the chain against it; takes about as long as a walk along it."""
        return await reading(self._store.disagreements, most)

    async def refusal(self, session_id: str) -> SessionNotFound | InvalidState:
        """Why a session that is not running here takes no audio."""
        session = await self.session(session_id) if isinstance(session_id, str) else None
        if session is None:
            return SessionNotFound(session_id)
        if session.state is VoiceSessionState.STOPPED:
            return InvalidState(session_id, session.state)
        return InvalidState(session_id, session.state, "another process runs it, or died")
