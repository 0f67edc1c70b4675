"""Whose token it is, without asking the database for every request."""

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from agentos.core.communication.voice.storage.tokens import AccessToken, revocations
from agentos.core.time import monotonic_ms, utc_now_ms

FRESH_MS: Final = 1000  # how long another process's revocation may go unseen
REMEMBERED: Final = 1000  # tokens; a few hundred bytes each
LOOKUPS: Final = 4  # at once; a flood of tokens that nobody has must not take every thread of the loop


class _Known(NamedTuple):
    token: AccessToken
    since_ms: int
    revocations: int


class KnownTokens:
    """Asks `who` in a thread, and remembers the tokens that stand for `FRESH_MS`; by their hash, never the others.

    A revocation in this process counts at once, one in another process within `FRESH_MS`, an expiry at its time.
    For one event loop.
    """

    def __init__(self, who: Callable[[str], AccessToken | None], *, clock: Callable[[], int] = monotonic_ms) -> None:
        self._who = who
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._threads = anyio.CapacityLimiter(LOOKUPS)

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
        """Whose it is; None for one that does not stand. Raises what `who` does."""
        since, revoked = self._clock(), revocations()  # before it is read: a change meanwhile counts
        found = await anyio.to_thread.run_sync(self._who, token, abandon_on_cancel=True, limiter=self._threads)
        digest = _digest(token)
        self._known.pop(digest, None)
        if found is not None:
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]  # the one that was asked for longest ago
            self._known[digest] = _Known(found, since, revoked)
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
