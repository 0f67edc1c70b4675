"""Stream tickets: each opens the browser stream of one session, once, within a minute.

The service keeps the tickets, so that its host and all its gateways in this process issue and take the same ones. The client
sends a ticket in the first message of a stream, never in a URL. `gateway/access/tickets.py` has the tokens that continue a
stream.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from agentos.core.communication.voice.errors import BadTicket, InvalidState, InvalidTicket, Overloaded
from agentos.core.communication.voice.secrets_in_text import TICKET_PREFIX
from agentos.core.time import monotonic_ms, utc_now
from machines.session import VoiceSession, VoiceSessionState

SECRET_BYTES: Final = 32
LIFETIME_SECONDS: Final = 60
OF_A_SESSION: Final = 4  # usable tickets of one session; a new one replaces the oldest
BOUND: Final = 10_000  # usable tickets in all; some megabytes
REMEMBERED: Final = 10_000  # used or expired tickets, so that evidence can say why one is refused
NO_TOKEN: Final = "local"  # noqa: S105 - an id
"""In place of an access token's id, for tickets that the host or a server without authentication issued."""


class StreamOpener(NamedTuple):
    """The right to open a session's stream, and the id of the access token behind it."""

    session_id: str
    token_id: str


class StreamTicket(NamedTuple):
    """A ticket that opens the browser stream of one session, once, until `expires_at` (aware UTC). It can't be read again."""

    ticket: str
    expires_at: datetime


class _Ticket(NamedTuple):
    opener: StreamOpener
    expires_ms: int


class StreamTickets:
    """The tickets of one service; only their hashes are kept. `now_ms` is monotonic. For the thread of the service's loop."""

    def __init__(self, *, bound: int = BOUND) -> None:
        self._bound = bound
        self._usable: dict[bytes, _Ticket] = {}  # oldest first
        self._of_session: dict[str, list[bytes]] = {}  # of each session, oldest first
        self._over: dict[bytes, BadTicket] = {}  # the reason for each unusable ticket, oldest first

    def issue_for(self, session: VoiceSession, token_id: str) -> StreamTicket:
        """A new ticket for a session, under the access token with this id. Raises `InvalidState` if the session is ending or
        has stopped, `Overloaded` if there are too many tickets."""
        if session.state in (VoiceSessionState.STOPPING, VoiceSessionState.STOPPED):
            raise InvalidState(session.session_id, session.state)
        ticket = self.issue(session.session_id, token_id, monotonic_ms())
        return StreamTicket(ticket, utc_now() + timedelta(seconds=LIFETIME_SECONDS))

    def issue(self, session_id: str, token_id: str, now_ms: int) -> str:
        """A new ticket, valid for `LIFETIME_SECONDS`; it can't be read again. Raises `Overloaded` if there are too many."""
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
        digest = hash_of(ticket)
        self._usable[digest] = _Ticket(StreamOpener(session_id, token_id), now_ms + LIFETIME_SECONDS * 1000)
        self._of_session.setdefault(session_id, []).append(digest)
        return ticket

    def redeem(self, ticket: str, now_ms: int) -> StreamOpener:
        """Use a ticket up, and void the older tickets of its session. Raises `InvalidTicket`."""
        digest = hash_of(ticket)
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
        """Void the tickets of a session that has ended."""
        for digest in list(self._of_session.get(session_id, ())):
            self._end(digest, "unknown_ticket")

    def __len__(self) -> int:
        """How many tickets are kept: usable, or expired but not removed yet."""
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


def hash_of(secret: str) -> bytes:
    """The hash of a ticket or a resume token, which is kept instead of the secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
