"""Whose token it is, without asking the database for every request.

Tokens that nobody has must not keep those waiting that somebody has: all that wait are looked up together, so that a flood of
them costs the database next to nothing, and a thread at most.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.storage.tokens import AccessToken, revocations
from agentos.core.time import monotonic_ms, utc_now_ms

FRESH_MS: Final = 1000  # how long another process's revocation may go unseen
REMEMBERED: Final = 1000  # tokens; a few hundred bytes each

Whose = Callable[[Collection[str]], Mapping[str, AccessToken]]
"""Looks tokens up: whose they are, without those that nobody has."""


class _Known(NamedTuple):
    token: AccessToken
    since_ms: int
    revocations: int


class _Batch:
    """What is looked up together. Without an answer when it is `done`, whoever looked it up was cancelled."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.done = anyio.Event()
        self.answer: Mapping[str, AccessToken] | VoiceError | None = None


class KnownTokens:
    """Asks `whose` in a thread, and remembers the tokens that stand for `FRESH_MS`; by their hash, never the others.

    A revocation in this process counts at once, one in another process within `FRESH_MS`, an expiry at its time.
    For one event loop.
    """

    def __init__(self, whose: Whose, *, clock: Callable[[], int] = monotonic_ms) -> None:
        self._whose = whose
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._thread = anyio.CapacityLimiter(1)
        self._next: _Batch | None = None  # still open; somebody waits for the thread with it

    def remembered(self, token: str) -> AccessToken | None:
        """Whose it is, if that is known without asking."""
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
        """Whose it is; None for one that does not stand. Raises what `whose` does."""
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
                since, revoked = self._clock(), revocations()  # before it is read: a change meanwhile counts
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
                del self._known[next(iter(self._known))]  # the one that was asked for longest ago
            self._known[digest] = _Known(found, since, revoked)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
