"""Idempotency keys: a request that is repeated with its key gets the first answer, and is not carried out twice.

After the IETF draft "The Idempotency-Key HTTP Header Field". A key belongs to one principal, for a day, together with a
fingerprint of its request. The server stores the key, in the table `idempotency_keys`, before it carries the request out, and
the answer before it sends it.

What a process that died in between leaves is a key without an answer, under an owner that is dead. Whoever comes again
with it has the request carried out anew: a session that the dead process may have made, and whose id nobody was told, is ended
with its other sessions by recovery, so that one lives. A request that fails or is cancelled sets its key free at once.
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import InvalidRequest, KeyInUse, KeyReused, RateLimited, StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.secrets_in_text import holds_secret
from agentos.core.communication.voice.storage.database import Writing
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tables import IDEMPOTENCY_KEYS, IdempotencyRow
from agentos.core.time import utc_now_ms

log = logger(__name__)

KEPT_MS: Final = 24 * 3600 * 1000
KEYS_OF_ONE: Final = 20_000  # per principal: with answers of a kilobyte, 20 MB of database
UNSAVED: Final = 1_000  # answers kept in memory because the store did not take them
EXPIRED_AT_ONCE: Final = 500  # removed with each new key, so that no transaction becomes long
RETRY_SECONDS: Final = 1.0
STORE_SECONDS: Final = 10.0  # for giving a key up when its request failed or was cancelled

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_HERE: Final = object()


class HttpAnswer(NamedTuple):
    """An HTTP answer. `replayed` says that it repeats an earlier answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    replayed: bool = False


_here: dict[str, HttpAnswer | None] = {}
"""The attempts of this process: None while one is carried out, or its answer if the store did not take it."""


def checked_key(header: str) -> str:
    """The key in an `Idempotency-Key` header, with or without quotes. Raises `InvalidRequest`."""
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not _KEY.fullmatch(key):
        problem = "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces, a UUID for example"
        raise InvalidRequest(problem, field="Idempotency-Key")
    if holds_secret(key):
        problem = "Idempotency-Key holds a token, which would be stored with it: take a UUID for example"
        raise InvalidRequest(problem, field="Idempotency-Key")
    return key


def fingerprint(method: str, path: str, body: bytes) -> str:
    """The fingerprint of a request: equal for the same route and the same body as JSON, whatever its formatting."""
    with contextlib.suppress(ValueError, RecursionError):  # a body that is no JSON counts by its bytes
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(b"\n".join((method.encode(), path.encode("utf-8", "surrogateescape"), body))).hexdigest()


class IdempotencyKeys:
    """The keys of a server, for its event loop. `store` gives the store, and is called at each use, since a service may start
    after its server; its errors are passed on."""

    def __init__(self, store: Callable[[], VoiceStore]) -> None:
        self._store = store

    async def once(
        self, principal_id: str, key: str, request_fingerprint: str, run: Callable[[], Awaitable[HttpAnswer]]
    ) -> HttpAnswer:
        """The answer of `run`, or its earlier answer to the same request with this key.

        The answer is kept for a day; if `run` raises, or is cancelled, the key is free again. Raises `KeyReused` if the key
        came with another request, `KeyInUse` while the request is carried out, here or in another living process,
        `RateLimited` if the principal has too many keys, `StoreError`, and the errors of `run`.
        """
        attempt = secrets.token_hex(16)
        claim = _Claim(self._store(), principal_id, key, request_fingerprint, attempt)
        _here[attempt] = None
        try:
            known = await anyio.to_thread.run_sync(claim.begin, abandon_on_cancel=True)
            if known is not None:
                return known
            try:
                answer = await run()
            except BaseException:
                await _quietly(claim.give_up)
                raise
            _keep(attempt, answer)
            if await _quietly(claim.finish, answer):
                _here.pop(attempt, None)
            return answer
        finally:
            if _here.get(attempt) is None:
                _here.pop(attempt, None)


class _Claim(NamedTuple):
    """One attempt at a request with a key. Its methods block and raise `StoreError`."""

    store: VoiceStore
    principal: str
    key: str
    fingerprint: str
    attempt: str

    def begin(self) -> HttpAnswer | None:
        """Take the key. Returns None if this attempt must carry the request out, else the stored answer."""
        now = utc_now_ms()
        with self.store.transaction() as writing:
            _remove_expired(writing, now)
            row = self._stored(writing)
            if row is None or row.expires_at_ms <= now:
                if row is None:
                    self._check_room(writing)
                self._take(writing, now)
                return None
            if row.fingerprint != self.fingerprint:
                raise KeyReused
            answer = self._answer(writing, row)
            if answer is None:
                self._take(writing, now)
                return None
        _here.pop(row.attempt, None)  # the store has it now
        return answer._replace(replayed=True)

    def _stored(self, writing: Writing) -> IdempotencyRow | None:
        return next(writing.select(IDEMPOTENCY_KEYS, {"principal": [self.principal], "key": [self.key]}), None)

    def _answer(self, writing: Writing, row: IdempotencyRow) -> HttpAnswer | None:
        """The stored answer; None if the attempt was abandoned. Raises `KeyInUse` while another attempt is running."""
        if row.status is not None:
            headers = tuple((str(name), str(value)) for name, value in json.loads(row.headers or "[]"))
            return HttpAnswer(row.status, headers, bytes(row.body or b""))
        unsaved = _here.get(row.attempt, _NOT_HERE)
        if isinstance(unsaved, HttpAnswer):
            _write(writing, row, unsaved)
            return unsaved
        elsewhere = row.owner != self.store.owner and not self.store.owners.is_dead(row.owner)
        if unsaved is None or elsewhere:
            raise KeyInUse(retry_after_seconds=RETRY_SECONDS)
        return None

    def finish(self, answer: HttpAnswer) -> None:
        """Store the answer."""
        with self.store.transaction() as writing:
            row = self._stored(writing)
            if row is not None and row.attempt == self.attempt:
                _write(writing, row, answer)

    def give_up(self) -> None:
        """Free the key, as if it had never come."""
        with self.store.transaction() as writing:
            row = self._stored(writing)
            if row is not None and row.attempt == self.attempt and row.status is None:
                writing.delete(IDEMPOTENCY_KEYS, [(self.principal, self.key)])

    def _check_room(self, writing: Writing) -> None:
        if writing.count(IDEMPOTENCY_KEYS, {"principal": [self.principal]}) >= KEYS_OF_ONE:
            raise RateLimited(f"{KEYS_OF_ONE:,} idempotency keys were used within a day", retry_after_seconds=600)

    def _take(self, writing: Writing, now: int) -> None:
        row = IdempotencyRow(
            self.principal, self.key, self.fingerprint, self.store.owner, self.attempt, expires_at_ms=now + KEPT_MS
        )
        writing.put(IDEMPOTENCY_KEYS, [row])


def _write(writing: Writing, row: IdempotencyRow, answer: HttpAnswer) -> None:
    kept = row._replace(status=answer.status, headers=json.dumps(answer.headers), body=answer.body)
    writing.put(IDEMPOTENCY_KEYS, [kept])


def _remove_expired(writing: Writing, now: int) -> None:
    for limit in (1, EXPIRED_AT_ONCE):  # mostly not even one has
        oldest = list(writing.select(IDEMPOTENCY_KEYS, order=("expires_at_ms",), limit=limit))
        expired = [(row.principal, row.key) for row in oldest if row.expires_at_ms <= now]
        if not expired:
            return
    writing.delete(IDEMPOTENCY_KEYS, expired)


def _keep(attempt: str, answer: HttpAnswer) -> None:
    unsaved = [known for known, kept in _here.items() if kept is not None]
    if len(unsaved) >= UNSAVED:
        del _here[unsaved[0]]
    _here[attempt] = answer


async def _quietly(action: Callable[..., None], *arguments: object) -> bool:
    """Call `action`, also if the request was cancelled. Returns False, and logs, if the store failed."""
    try:
        with anyio.fail_after(STORE_SECONDS, shield=True):
            await anyio.to_thread.run_sync(action, *arguments, abandon_on_cancel=True)
    except (StoreError, TimeoutError) as error:
        log.warning("idempotency_key_not_stored", problem=str(error) or "the store does not answer")
        return False
    return True
