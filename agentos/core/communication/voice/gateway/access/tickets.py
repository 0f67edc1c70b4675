"""The credentials of streams: tickets open a stream, resume tokens continue one. Neither is valid for anything else.

A stream that a ticket (`sessions/stream_tickets.py`) opened gets a resume token. The token stays the same through all
connections, so a client that missed the answer to its last connection still has the right token. The database stores its hash,
so that it outlives the process. Using a new ticket of the session replaces the token.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import InvalidTicket
from agentos.core.communication.voice.secrets_in_text import RESUME_PREFIX
from agentos.core.communication.voice.sessions.stream_tickets import (
    NO_TOKEN,
    SECRET_BYTES,
    StreamOpener,
    StreamTickets,
    hash_of,
)
from agentos.core.communication.voice.storage.database import Writing
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tables import SESSIONS, STREAM_MARKS, STREAMS, StreamMarkRow, StreamRow
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.time import monotonic_ms, utc_now_ms
from machines.session import VoiceSessionState
from machines.stream.media_time import MOST_MARKS, Mark

LOOKUPS: Final = 4  # of resume tokens at once: a flood of bad ones must not take every thread of the loop


class OpenedStream(NamedTuple):
    """An opened stream: its session, its resume `token`, the id of the access token behind it, and its stored `marks`, oldest
    first."""

    session_id: str
    token: str
    token_id: str
    marks: tuple[Mark, ...] = ()


class ResumeTokens:
    """The resume tokens: one for each session, in the table `streams`. All methods block.

    Making a token also removes the tokens of stopped sessions.
    """

    def __init__(self, store: VoiceStore) -> None:
        self._store = store
        self._tokens = TokenStore(store)

    def issue(self, opener: StreamOpener) -> str:
        """Make a durable token for a new stream; the session's earlier token is void.

        Raises `InvalidTicket` if the access token behind the stream is no longer valid, and `StoreError`.
        """
        self._check(opener.token_id)
        token = RESUME_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        row = StreamRow(opener.session_id, hash_of(token).hex(), opener.token_id, utc_now_ms())
        with self._store.transaction() as writing:
            known = [stream.session_id for stream in writing.select(STREAMS)]
            stopped = {"session_id": known, "state": [VoiceSessionState.STOPPED.value]}
            over = {session.session_id for session in writing.select(SESSIONS, stopped)} if known else set()
            _drop(writing, {*over, opener.session_id})
            writing.add(STREAMS, [row])
        return token

    def opened(self, token: str) -> OpenedStream:
        """The stream of this token, which is valid until it is replaced.

        Raises `InvalidTicket`, also if the access token that opened the stream is no longer valid, and `StoreError`.
        """
        digest = hash_of(token).hex()
        newest: list[StreamMarkRow] = []
        with self._store.reading() as reading:
            row = next(reading.select(STREAMS, {"hash": [digest]}), None)
            of_stream = {"stream": [digest]}
            newest += reading.select(STREAM_MARKS, of_stream, order=("number",), descending=True, limit=MOST_MARKS)
        if row is None or not hmac.compare_digest(row.hash, digest):
            raise InvalidTicket("unknown_resume")
        self._check(row.token_id)
        oldest_first = tuple(Mark(mark.number, mark.frame, mark.media_ms) for mark in reversed(newest))
        return OpenedStream(row.session_id, token, row.token_id, oldest_first)

    def forget(self, session_id: str) -> None:
        """Void the token of a session that has ended. Raises `StoreError`."""
        with self._store.transaction() as writing:
            _drop(writing, {session_id})

    def _check(self, token_id: str) -> None:
        if token_id != NO_TOKEN and not self._tokens.standing([token_id]):
            raise InvalidTicket("revoked_token")


def _drop(writing: Writing, session_ids: Collection[str]) -> None:
    """Remove the streams of these sessions, and their marks."""
    streams = list(writing.select(STREAMS, {"session_id": sorted(session_ids)}))
    if streams:
        marks = writing.select(STREAM_MARKS, {"stream": [stream.hash for stream in streams]})
        writing.delete(STREAM_MARKS, [(mark.stream, mark.number) for mark in marks])
        writing.delete(STREAMS, [(stream.session_id,) for stream in streams])


class StreamCredentials:
    """The credentials of a server's streams, for its event loop: the service's `tickets`, and resume tokens. `store` gives the
    store, and is called at each use, since a service may start after its server; its errors are passed on.

    Callers record refusals themselves (`AccessControl.refused`).
    """

    def __init__(
        self, store: Callable[[], VoiceStore], tickets: StreamTickets, *, clock: Callable[[], int] = monotonic_ms
    ) -> None:
        self._store = store
        self.tickets = tickets
        self._clock = clock
        self._opening = anyio.Lock()
        self._newest: dict[
            str, StreamOpener
        ] = {}  # by session, while a stream is being opened: the last used ticket's right
        self._threads = anyio.CapacityLimiter(LOOKUPS)

    async def open(self, ticket: str, check: Callable[[str], Awaitable[object]] | None = None) -> OpenedStream:
        """Use a ticket, and return the new stream; the session's earlier token is void.

        `check` is called with the session's id first: if it raises, the earlier token stays valid. Raises `InvalidTicket`,
        `StoreError`, and the errors of `check`; the ticket is used up all the same.
        """
        opener = self._newest_of(self.tickets.redeem(ticket, self._clock()))
        try:
            if check is not None:
                await check(opener.session_id)
            async with self._opening:
                if self._newest.get(opener.session_id) is not opener:
                    raise InvalidTicket("replaced_ticket")
                token = await anyio.to_thread.run_sync(ResumeTokens(self._store()).issue, opener)
        finally:
            if self._newest.get(opener.session_id) is opener:
                del self._newest[opener.session_id]
        return OpenedStream(opener.session_id, token, opener.token_id)

    def _newest_of(self, opener: StreamOpener) -> StreamOpener:
        self._newest[opener.session_id] = opener
        return opener

    async def resume(self, token: str) -> OpenedStream:
        """The stream of a resume token. Raises `InvalidTicket`, `StoreError`."""
        opened = ResumeTokens(self._store()).opened
        return await anyio.to_thread.run_sync(opened, token, abandon_on_cancel=True, limiter=self._threads)

    async def forget(self, session_id: str) -> None:
        """Void all tickets and tokens of a session that has ended. Raises `StoreError`."""
        self.tickets.forget(session_id)
        await anyio.to_thread.run_sync(ResumeTokens(self._store()).forget, session_id)
