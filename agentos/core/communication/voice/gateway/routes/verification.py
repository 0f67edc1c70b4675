"""Verifications one at a time: each reads the whole chain, and what is stored beside it, and a crowd that asks shares one."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio

from agentos.core.communication.voice.async_service import AsyncVoiceService
from machines.cross_checks import Disagreements
from machines.heads import Head
from machines.verification import Examination

MOST_MISMATCHES: Final = 100  # that are told one by one


class Verified(NamedTuple):
    """A walk along the chain, and what is stored `beside` it and disagrees; None for a chain that does not hold, whose records
    say nothing of anything."""

    found: Examination
    beside: Disagreements | None


class _Walk(NamedTuple):
    number: int
    verified: Verified


class Verifications:
    """Verifies for whoever asks. For one event loop: the work is done in a thread."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._last: _Walk | None = None
        self._asked: set[Head] = set()  # by those whose walk has not begun

    async def next(self, service: AsyncVoiceService, heads: Sequence[Head] = ()) -> Verified:
        """The findings of a verification that begins after this was called, with the states of `heads` in their order.

        Raises `StoreError`.
        """
        wanted = self._begun + 1
        self._asked.update(heads)
        async with self._lock:
            if self._last is None or self._last.number < wanted:
                self._begun += 1
                asked, self._asked = self._asked, set()
                self._last = _Walk(self._begun, await _verified(service, asked))
            found, beside = self._last.verified
        states = {check.head: check for check in found.heads}
        return Verified(found._replace(heads=tuple([states[head] for head in heads])), beside)


async def _verified(service: AsyncVoiceService, heads: set[Head]) -> Verified:
    found = await service.examine_evidence(heads)
    return Verified(found, await service.evidence_disagreements(MOST_MISMATCHES) if found.chain.ok else None)
