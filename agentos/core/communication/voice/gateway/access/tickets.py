"""What opens a stream: tickets, and the tokens that streams go on with. Neither is good for anything else.

A ticket is for one session, once, for a minute, and lives in this process. It is shown in the first message of a stream, never
in a URL. With it a stream gets its resume token, which stays the same through all its connections, so that a client that never
saw the answer to its last one still has the right one. It is in the database, by its hash, so that it outlives the process.
A new ticket that is used replaces it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
import sqlalchemy as sa

from agentos.core.communication.voice.errors import BadTicket, InvalidTicket, Overloaded
from agentos.core.communication.voice.gateway.access.control import LOCAL, Principal
from agentos.core.communication.voice.secrets_in_text import RESUME_PREFIX, TICKET_PREFIX
from agentos.core.communication.voice.storage.schema import sessions, stream_marks, streams
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.time import monotonic_ms, utc_now_ms
from machines.session import VoiceSessionState
from machines.stream.media_time import MOST_MARKS, Mark

SECRET_BYTES: Final = 32
LIFETIME_SECONDS: Final = 60
OF_A_SESSION: Final = 4  # that can still be used; a newer one takes the place of the oldest
BOUND: Final = 10_000  # that can still be used; some megabytes
LOOKUPS: Final = 4  # of resume tokens at once: a flood of bad ones must not take every thread of the loop
REMEMBERED: Final = 10_000  # that can't any longer, so that evidence can say why
UNKNOWN_MARKS: Final = sa.delete(stream_marks).where(stream_marks.c.stream.not_in(sa.select(streams.c.hash)))


class StreamOpener(NamedTuple):
    """Which session a stream may be opened to, and by whom."""

    session_id: str
    principal: Principal


class OpenedStream(NamedTuple):
    """A stream that is open: its session, the `token` that it goes on with, the id of the access token behind it, and the
    `marks` that are stored of it, oldest first."""

    session_id: str
    token: str
    token_id: str
    marks: tuple[Mark, ...] = ()


class _Ticket(NamedTuple):
    opener: StreamOpener
    expires_ms: int


class StreamTickets:
    """The tickets of one process; only their hashes are kept. Times are monotonic milliseconds, handed in."""

    def __init__(self, *, bound: int = BOUND) -> None:
        self._bound = bound
        self._usable: dict[bytes, _Ticket] = {}  # oldest first
        self._of_session: dict[str, list[bytes]] = {}  # the same, oldest first
        self._over: dict[bytes, BadTicket] = {}  # why the others can't be used, oldest first

    def issue(self, session_id: str, principal: Principal, now_ms: int) -> str:
        """A new ticket, told this once; good for `LIFETIME_SECONDS`. Raises `Overloaded` when there are too many."""
        while self._usable:
            oldest = next(iter(self._usable))
            if now_ms < self._usable[oldest].expires_ms:
                break
            self._end(oldest, "expired_ticket")
        if len(self._of_session.get(session_id, ())) >= OF_A_SESSION:
            self._end(self._of_session[session_id][0], "replaced_ticket")
        if len(self._usable) >= self._bound:
            raise Overloaded(f"{self._bound:,} stream tickets wait to be used", retry_after_seconds=1)
        ticket = TICKET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        digest = _digest(ticket)
        self._usable[digest] = _Ticket(StreamOpener(session_id, principal), now_ms + LIFETIME_SECONDS * 1000)
        self._of_session.setdefault(session_id, []).append(digest)
        return ticket

    def redeem(self, ticket: str, now_ms: int) -> StreamOpener:
        """Use a ticket up; the older ones of its session are void with it. Raises `InvalidTicket`."""
        digest = _digest(ticket)
        found = self._usable.get(digest)
        if found is None:
            raise InvalidTicket(self._over.get(digest, "unknown_ticket"))
        if now_ms >= found.expires_ms:
            self._end(digest, "expired_ticket")
            raise InvalidTicket("expired_ticket")
        own = self._of_session[found.opener.session_id]
        for older in own[: own.index(digest)]:
            self._end(older, "replaced_ticket")
        self._end(digest, "used_ticket")
        return found.opener

    def forget(self, session_id: str) -> None:
        """The session has ended: none of its tickets opens anything."""
        for digest in list(self._of_session.get(session_id, ())):
            self._end(digest, "unknown_ticket")

    def __len__(self) -> int:
        """How many can still be used, or have expired and nobody noticed yet."""
        return len(self._usable)

    def _end(self, digest: bytes, why: BadTicket) -> None:
        session_id = self._usable.pop(digest).opener.session_id
        own = self._of_session[session_id]
        own.remove(digest)
        if not own:
            del self._of_session[session_id]
        if len(self._over) >= REMEMBERED:
            del self._over[next(iter(self._over))]
        self._over[digest] = why


class ResumeTokens:
    """The tokens that streams go on with: one for each session, in the table `streams`. Its methods block.

    They are gone with their sessions: what belongs to a stopped one is removed with the next that is made.
    """

    def __init__(self, store: VoiceStore) -> None:
        self._store = store
        self._tokens = TokenStore(store)

    def issue(self, opener: StreamOpener) -> str:
        """A token for the stream that is being opened, durable; the one that its session had is void.

        Raises `InvalidTicket` when the access token behind it stands no longer, and `StoreError`.
        """
        self._check(opener.principal.token_id)
        token = RESUME_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        row = {
            "session_id": opener.session_id,
            "hash": _digest(token).hex(),
            "token_id": opener.principal.token_id,
            "created_at_ms": utc_now_ms(),
        }
        ended = sa.select(sessions.c.session_id).where(
            sessions.c.session_id == streams.c.session_id, sessions.c.state == VoiceSessionState.STOPPED.value
        )
        with self._store.transaction() as connection:
            connection.execute(sa.delete(streams).where(streams.c.session_id == opener.session_id))
            connection.execute(sa.delete(streams).where(ended.exists()))
            connection.execute(sa.insert(streams), row)
            connection.execute(UNKNOWN_MARKS)
        return token

    def opened(self, token: str) -> OpenedStream:
        """The stream that goes on with this token. It may be used again and again, until it is replaced.

        Raises `InvalidTicket`, also when the access token that the stream was opened with stands no longer, and `StoreError`.
        """
        digest = _digest(token).hex()
        query = sa.select(streams).where(streams.c.hash == digest)
        of_stream = sa.select(stream_marks).where(stream_marks.c.stream == digest)
        newest = of_stream.order_by(stream_marks.c.number.desc()).limit(MOST_MARKS)
        with self._store.reading() as connection:
            row = connection.execute(query).first()
            marks = connection.execute(newest).all()
        if row is None or not hmac.compare_digest(row.hash, digest):
            raise InvalidTicket("unknown_resume")
        self._check(row.token_id)
        oldest_first = tuple(Mark(mark.number, mark.frame, mark.media_ms) for mark in reversed(marks))
        return OpenedStream(str(row.session_id), token, str(row.token_id), oldest_first)

    def forget(self, session_id: str) -> None:
        """The session has ended: its token is void. Raises `StoreError`."""
        with self._store.transaction() as connection:
            connection.execute(sa.delete(streams).where(streams.c.session_id == session_id))
            connection.execute(UNKNOWN_MARKS)

    def _check(self, token_id: str) -> None:
        if token_id != LOCAL.token_id and not self._tokens.standing([token_id]):
            raise InvalidTicket("revoked_token")


class StreamCredentials:
    """Tickets and resume tokens of a server, for its event loop. `store` is asked when it is needed, since a service may start
    after its server; what it raises goes on.

    A refusal is to be put on record by whoever asked (`AccessControl.refused`).
    """

    def __init__(self, store: Callable[[], VoiceStore], *, clock: Callable[[], int] = monotonic_ms) -> None:
        self._store = store
        self._clock = clock
        self._tickets = StreamTickets()
        self._opening = anyio.Lock()
        self._newest: dict[
            str, StreamOpener
        ] = {}  # by session: whose ticket was used last, while its stream is being opened
        self._threads = anyio.CapacityLimiter(LOOKUPS)

    def ticket(self, session_id: str, principal: Principal) -> str:
        """A ticket for a session that the principal may stream to. Raises `Overloaded`."""
        return self._tickets.issue(session_id, principal, self._clock())

    async def open(self, ticket: str, check: Callable[[str], Awaitable[object]] | None = None) -> OpenedStream:
        """Use a ticket: the stream that begins, whose token is the only one of its session from now on.

        `check` gets the session's id before that: when it raises, the token that the session had is as good as before. Raises
        `InvalidTicket`, `StoreError`, and what `check` does; the ticket is used up all the same.
        """
        opener = self._newest_of(self._tickets.redeem(ticket, self._clock()))
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
        return OpenedStream(opener.session_id, token, opener.principal.token_id)

    def _newest_of(self, opener: StreamOpener) -> StreamOpener:
        self._newest[opener.session_id] = opener
        return opener

    async def resume(self, token: str) -> OpenedStream:
        """The stream that goes on with a token. Raises `InvalidTicket`, `StoreError`."""
        opened = ResumeTokens(self._store()).opened
        return await anyio.to_thread.run_sync(opened, token, abandon_on_cancel=True, limiter=self._threads)

    async def forget(self, session_id: str) -> None:
        """The session has ended: nothing opens a stream to it any longer. Raises `StoreError`."""
        self._tickets.forget(session_id)
        await anyio.to_thread.run_sync(ResumeTokens(self._store()).forget, session_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
