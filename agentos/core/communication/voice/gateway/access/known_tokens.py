"""A cache of access tokens, so that not every request asks the database.

Unknown tokens must not delay known ones: all waiting tokens are looked up together, so a flood of unknown tokens costs the
database next to nothing, and one thread at most.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.storage.tokens import AccessToken, revocations
from agentos.core.time import monotonic_ms, utc_now_ms

FRESH_MS: Final = 1000  # how long a revocation in another process may go unseen
REMEMBERED: Final = 1000  # tokens; a few hundred bytes each

Whose = Callable[[Collection[str]], Mapping[str, AccessToken]]
"""Looks tokens up; the result has no unknown ones."""


class _Known(NamedTuple):
    token: AccessToken
    since_ms: int
    revocations: int


class _Batch:
    """Tokens that are looked up together. A `done` batch without an answer was cancelled."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.done = anyio.Event()
        self.answer: Mapping[str, AccessToken] | VoiceError | None = None


class KnownTokens:
    """Asks `whose` in a thread, and remembers valid tokens, by their hash, for `FRESH_MS`; never invalid ones.

    A revocation in this process counts at once, one in another process within `FRESH_MS`, an expiry at its time.
    For one event loop.
    """

    def __init__(self, whose: Whose, *, clock: Callable[[], int] = monotonic_ms) -> None:
        self._whose = whose
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._thread = anyio.CapacityLimiter(1)
        self._next: _Batch | None = None  # takes more tokens, until the thread is free

    def remembered(self, token: str) -> AccessToken | None:
        """The access token with this secret, if it is remembered."""
        found = self._known.get(_digest(token))
        if (
            found is None
            or found.revocations != revocations()
            or self._clock() - found.since_ms >= FRESH_MS
            or not found.token.stands(utc_now_ms())
        ):
            return None
        return found.token

    async def ask(self, token: str) -> AccessToken | None:
        """The access token with this secret; None if it is not valid. Raises the errors of `whose`."""
        answer = None
        while answer is None:
            batch = self._next
            if batch is not None:
                batch.tokens.add(token)
                await batch.done.wait()
            else:
                batch = self._next = _Batch()
                batch.tokens.add(token)
                await self._look_up(batch)
            answer = batch.answer
        if isinstance(answer, VoiceError):
            raise answer
        return answer.get(token)

    async def _look_up(self, batch: _Batch) -> None:
        try:
            async with self._thread:
                self._next = None
                since, revoked = (
                    self._clock(),
                    revocations(),
                )  # before the lookup, so that a revocation meanwhile counts
                try:
                    found = await anyio.to_thread.run_sync(self._whose, batch.tokens, abandon_on_cancel=True)
                except VoiceError as error:
                    batch.answer = error
                    return
            for token in batch.tokens:
                self._remember(token, found.get(token), since, revoked)
            batch.answer = found
        finally:
            if self._next is batch:
                self._next = None
            batch.done.set()

    def _remember(self, token: str, found: AccessToken | None, since: int, revoked: int) -> None:
        digest = _digest(token)
        self._known.pop(digest, None)
        if found is not None:
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]  # the least recently used one
            self._known[digest] = _Known(found, since, revoked)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
