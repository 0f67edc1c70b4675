"""Verifications run one at a time: each reads the whole chain and the data beside it, and all waiting requests share the
next."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio

from agentos.core.communication.voice.async_service import AsyncVoiceService
from machines.cross_checks import Disagreements
from machines.heads import Head
from machines.verification import Examination

MOST_MISMATCHES: Final = 100  # listed one by one


class Verified(NamedTuple):
    """The result of a walk along the chain, and the mismatches of the data `beside` it; None if the chain is broken, since its
    records prove nothing then."""

    found: Examination
    beside: Disagreements | None


class _SharedWalk(NamedTuple):
    number: int
    verified: Verified


class Verifications:
    """Runs verifications, each in a thread. For one event loop."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._last: _SharedWalk | None = None
        self._asked: set[Head] = set()  # the heads of requests that wait for the next walk

    async def next(self, service: AsyncVoiceService, heads: Sequence[Head] = ()) -> Verified:
        """The result of a verification that begins after this call, with the states of `heads` in their order.

        Raises `StoreError`.
        """
        wanted = self._begun + 1
        self._asked.update(heads)
        async with self._lock:
            if self._last is None or self._last.number < wanted:
                self._begun += 1
                asked, self._asked = self._asked, set()
                self._last = _SharedWalk(self._begun, await _verified(service, asked))
            found, beside = self._last.verified
        states = {check.head: check for check in found.heads}
        return Verified(found._replace(heads=tuple([states[head] for head in heads])), beside)


async def _verified(service: AsyncVoiceService, heads: set[Head]) -> Verified:
    found = await service.examine_evidence(heads)
    return Verified(found, await service.evidence_disagreements(MOST_MISMATCHES) if found.chain.ok else None)
