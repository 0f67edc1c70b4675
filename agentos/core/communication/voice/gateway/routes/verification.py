"""Verifications one at a time: each reads the whole chain, and a crowd that asks shares one."""

from typing import NamedTuple

import anyio

from agentos.core.communication.voice.past_sessions import PastSessions
from machines.evidence import Verification


class _Walk(NamedTuple):
    number: int
    found: Verification


class Verifications:
    """Walks along the chain for whoever asks. For one event loop."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._last: _Walk | None = None

    async def next(self, past: PastSessions) -> Verification:
        """What a walk finds that begins after this was called. Raises `StoreError`."""
        wanted = self._begun + 1
        async with self._lock:
            if self._last is None or self._last.number < wanted:
                self._begun += 1
                self._last = _Walk(self._begun, await past.verification())
            return self._last.found
