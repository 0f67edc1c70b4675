"""Access tokens: 256 random bits each, of which only the SHA-256 is stored.

A token that long can't be guessed, so a plain hash is enough; a slow one is for passwords that people choose. What a role may
do is `gateway/access.py`; the policy asks for one thing only, whether a token is an admin's.
"""

import builtins
import hashlib
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.secrets_in_text import ACCESS_PREFIX, holds_secret
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tables import TOKENS, TokenRow
from agentos.core.time import utc_now_ms

TOKEN_BYTES = 32
ID_BYTES = 8
NAME_LIMIT = 200
PROJECT_LIMIT = 200
LIFETIME_LIMIT_SECONDS = 100 * 366 * 86_400

_revocations: list[None] = []  # one entry each: to append is atomic, and tokens are revoked by hand
_FORM = re.compile(ACCESS_PREFIX + r"[A-Za-z0-9_-]{43}")


class Role(str, Enum):
    """What a token may be for. `PROJECT` is bound to one project, the others to none."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is known of a token; never the token. `project` is set for the role `PROJECT` only. Times are epoch
    milliseconds, None for never."""

    id: str
    name: str
    role: Role
    project: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None

    def stands(self, now_ms: int) -> bool:
        """Whether it has neither expired by now nor been revoked."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


class TokenStore:
    """The tokens of one store. Every method blocks and may raise `StoreError`."""

    def __init__(self, store: VoiceStore) -> None:
        self._store = store

    def create(
        self,
        name: str,
        lifetime_seconds: float | None = None,
        *,
        role: Role = Role.ADMIN,
        project: str | None = None,
    ) -> str:
        """Make a token and return it, this once. `name` says for whom it is; without a lifetime it never expires.

        Raises `InvalidRequest` (a `ValueError`) naming the field: an empty or overlong name, a lifetime that is not a
        positive number of at most a hundred years, the role `PROJECT` without a project or another one with it.
        """
        _check(name, lifetime_seconds, role, project)
        token = ACCESS_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = utc_now_ms()
        row = TokenRow(
            id=f"tok-{secrets.token_hex(ID_BYTES)}",
            hash=_digest(token),
            name=name,
            role=role.value,
            project=project,
            created_at_ms=now,
            expires_at_ms=None if lifetime_seconds is None else now + math.ceil(lifetime_seconds * 1000),
            revoked_at_ms=None,
        )
        with self._store.transaction() as writing:
            writing.add(TOKENS, [row])
        return token

    def who(self, token: object) -> AccessToken | None:
        """Whose token this is; None for anything that was never created, has expired or was revoked."""
        return self.whose([token]).get(token) if isinstance(token, str) else None

    def whose(self, tokens: Iterable[object]) -> dict[str, AccessToken]:
        """Whose tokens these are, without those that `who` knows nobody for. Many cost hardly more than one."""
        digests = {_digest(token): token for token in tokens if isinstance(token, str) and _FORM.fullmatch(token)}
        now = utc_now_ms()
        found = {digests[row.hash]: _token(row) for row in self._rows("hash", list(digests))}
        return {token: known for token, known in found.items() if known.stands(now)}

    def valid(self, token: object) -> bool:
        """Whether this is an admin's token that stands, which is what the policy asks. Anything else is just False."""
        found = self.who(token)
        return found is not None and found.role is Role.ADMIN

    def standing(self, token_ids: Iterable[str]) -> set[str]:
        """Those of the tokens with these ids that stand: made, not revoked, not expired."""
        now = utc_now_ms()
        return {row.id for row in self._rows("id", list(token_ids)) if _token(row).stands(now)}

    def _rows(self, column: str, wanted: builtins.list[str]) -> builtins.list[TokenRow]:
        if not wanted:
            return []
        with self._store.reading() as reading:
            return [*reading.select(TOKENS, {column: wanted})]

    def revoke(self, token_id: str) -> bool:
        """Make a token invalid from now on; False when there is none with this id or it was revoked before."""
        try:
            with self._store.transaction() as writing:
                standing = [row for row in writing.select(TOKENS, {"id": [token_id]}) if row.revoked_at_ms is None]
                writing.put(TOKENS, [row._replace(revoked_at_ms=utc_now_ms()) for row in standing])
                return bool(standing)
        finally:
            _revocations.append(None)

    def list(self) -> builtins.list[AccessToken]:
        """Every token, also the expired and revoked ones, oldest first."""
        with self._store.reading() as reading:
            return [_token(row) for row in reading.select(TOKENS, order=("created_at_ms", "id"))]


def revocations() -> int:
    """How many revocations there were in this process, through any store. Who remembers tokens asks again when it changes."""
    return len(_revocations)


def _check(name: object, lifetime_seconds: object, role: object, project: object) -> None:
    if not _printable(name, NAME_LIMIT):
        raise InvalidRequest(f"name must be 1 to {NAME_LIMIT} printable characters, got {_short(name)}", field="name")
    for field, text in (("name", name), ("project", project)):
        if isinstance(text, str) and holds_secret(text):
            raise InvalidRequest(f"{field} holds a token, which would be stored with it", field=field)
    if lifetime_seconds is not None and (
        isinstance(lifetime_seconds, bool)
        or not isinstance(lifetime_seconds, int | float)
        or not 0 < lifetime_seconds <= LIFETIME_LIMIT_SECONDS
    ):
        problem = (
            f"lifetime_seconds must be above 0 and at most {LIFETIME_LIMIT_SECONDS}, got {_short(lifetime_seconds)}"
        )
        raise InvalidRequest(problem, field="lifetime_seconds")
    if not isinstance(role, Role):
        raise InvalidRequest(f"role must be a Role, got {_short(role)}", field="role")
    if role is not Role.PROJECT and project is not None:
        problem = (
            f"a token of the role {role.value!r} is for all projects: leave the project out, or take the role 'project'"
        )
        raise InvalidRequest(problem, field="project")
    if role is Role.PROJECT and project is None:
        raise InvalidRequest("a token of the role 'project' is for one project: name the project", field="project")
    if project is not None and not _printable(project, PROJECT_LIMIT):
        problem = f"project must be 1 to {PROJECT_LIMIT} printable characters, got {_short(project)}"
        raise InvalidRequest(problem, field="project")


def _printable(text: object, limit: int) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text) <= limit and text.isprintable()


def _short(value: object) -> str:
    return f"{value!a:.80}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _token(row: TokenRow) -> AccessToken:
    return AccessToken(
        row.id, row.name, Role(row.role), row.project, row.created_at_ms, row.expires_at_ms, row.revoked_at_ms
    )
