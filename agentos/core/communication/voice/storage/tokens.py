"""Admin tokens: 256 random bits each, of which only the SHA-256 is stored.

A token that long can't be guessed, so a plain hash is enough; a slow one is for passwords that people choose.
"""

import builtins
import hashlib
import hmac
import math
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from agentos.core.communication.voice.storage.schema import admin_tokens
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.time import utc_now_ms

PREFIX = "avt_"  # lets people and secret scanners tell what it is
TOKEN_BYTES = 32
ID_BYTES = 8
NAME_LIMIT = 200
LIFETIME_LIMIT_SECONDS = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class AdminToken:
    """What is known of a token; never the token. Times are epoch milliseconds, None for never."""

    id: str
    name: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class TokenStore:
    """The admin tokens of one store. Every method may raise `StoreError`."""

    def __init__(self, store: VoiceStore) -> None:
        self._store = store

    def create(self, name: str, lifetime_seconds: float | None = None) -> str:
        """Make a token and return it, this once. `name` says for whom it is; without a lifetime it never expires.

        Raises `ValueError` for an empty or overlong name, or a lifetime that is not a positive number of at most a
        hundred years.
        """
        problem = _problem(name, lifetime_seconds)
        if problem is not None:
            raise ValueError(problem)
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = utc_now_ms()
        row = {
            "id": f"tok-{secrets.token_hex(ID_BYTES)}",
            "hash": _digest(token),
            "name": name,
            "created_at_ms": now,
            "expires_at_ms": None if lifetime_seconds is None else now + math.ceil(lifetime_seconds * 1000),
            "revoked_at_ms": None,
        }
        with self._store.transaction() as connection:
            connection.execute(sa.insert(admin_tokens), row)
        return token

    def valid(self, token: object) -> bool:
        """Whether this is a token that was created, has not expired and was not revoked. Anything else is just False."""
        if not isinstance(token, str) or not token.startswith(PREFIX) or not token.isascii():
            return False
        digest = _digest(token)
        with self._store.reading() as connection:
            row = connection.execute(sa.select(admin_tokens).where(admin_tokens.c.hash == digest)).first()
        if row is None or not hmac.compare_digest(row.hash, digest):
            return False
        return row.revoked_at_ms is None and (row.expires_at_ms is None or utc_now_ms() < row.expires_at_ms)

    def revoke(self, token_id: str) -> bool:
        """Make a token invalid from now on; False when there is none with this id or it was revoked before."""
        statement = (
            sa.update(admin_tokens)
            .where(admin_tokens.c.id == token_id, admin_tokens.c.revoked_at_ms.is_(None))
            .values(revoked_at_ms=utc_now_ms())
        )
        with self._store.transaction() as connection:
            return connection.execute(statement).rowcount == 1

    def list(self) -> builtins.list[AdminToken]:
        """Every token, also the expired and revoked ones, oldest first."""
        table = admin_tokens.c
        query = sa.select(table.id, table.name, table.created_at_ms, table.expires_at_ms, table.revoked_at_ms)
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(table.created_at_ms, table.id)).all()
        return [AdminToken(*row) for row in rows]


def _problem(name: object, lifetime_seconds: object) -> str | None:
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        return f"name must be 1 to {NAME_LIMIT} printable characters, got {name!r}"
    if lifetime_seconds is None:
        return None
    if (
        isinstance(lifetime_seconds, bool)
        or not isinstance(lifetime_seconds, int | float)
        or not 0 < lifetime_seconds <= LIFETIME_LIMIT_SECONDS
    ):
        return f"lifetime_seconds must be above 0 and at most {LIFETIME_LIMIT_SECONDS}, got {lifetime_seconds!r}"
    return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
