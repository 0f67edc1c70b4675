"""The carry-over: a chain of a version that had personal content in its records is made anew, once, without it.

The first record of the new chain names the head of the older one, and a digest of all its hashes, which stay beside the new
chain. Behind it come the records of the older chain in their order, each with its id, its content sealed (`sealing.py`). So:

- a head that was noted before is one of the older chain, or it is not (`HeadState.BEFORE_CARRY_OVER`);
- while its content is there, a record that was carried over is, to the letter, the one that the older chain had.

An older chain that was broken is carried over with all its records, and the new one says for ever that it was.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from machines.communication import ConnectorType, RequestStatus, RiskLevel
from machines.evidence import ChainRow, EvidenceRecord, canonical_json, link, record_id
from machines.heads import Head
from machines.operations import CHAIN_CARRIED_OVER, RECORD_UNREADABLE

REQUEST: Final = "chain"  # the request id of the first record: it belongs to no session


class CarriedOver(NamedTuple):
    """What the first record of a chain says of the older one that it was made from.

    That had `records`, of which the first `held` ones did; its last one stood at `place` and had the hash `head`. `hashes` is
    the SHA-256 of all its hashes, each with a newline behind it. `fault` and `at_seq` are what its verification found.
    """

    records: int
    held: int
    place: int
    head: str
    hashes: str
    fault: str | None = None
    at_seq: int | None = None

    def record(self, at: datetime, audit_trace_id: str) -> EvidenceRecord:
        """The first record of the new chain."""
        return EvidenceRecord(
            id=record_id("chain-carried-over", 1),
            request_id=REQUEST,
            connector_type=ConnectorType.CUSTOM,
            operation=CHAIN_CARRIED_OVER,
            request_summary=self._asdict(),
            status=RequestStatus.SUCCESS if self.fault is None else RequestStatus.FAILED,
            metadata={"audit_trace_id": audit_trace_id, "risk_tier": RiskLevel.LOW.value},
            created_at=at,
        )


class Hashes:
    """The digest of the hashes of a chain, as it grows."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, own: str) -> None:
        """Take the hash of the next link."""
        self._digest.update(f"{own}\n".encode())

    @property
    def text(self) -> str:
        """The digest so far, as lower-case hex."""
        return self._digest.hexdigest()


def carried_over(record: dict[str, Any]) -> CarriedOver | None:
    """What the first record of a chain says of an older one; None when it says nothing of one.

    Raises `ValueError` when what it says can't be read.
    """
    if record.get("operation") != CHAIN_CARRIED_OVER:
        return None
    try:
        found = CarriedOver(**record["request_summary"])
        counts = (found.records, found.held, found.place)
    except (KeyError, TypeError) as error:
        raise ValueError("what it says of an older chain can't be read") from error
    if not all(isinstance(count, int) for count in counts) or not isinstance(found.head, str):
        raise ValueError("what it says of an older chain can't be read")
    return found


def carried(row: ChainRow, at: datetime) -> dict[str, Any]:
    """The record of a link of the older chain, still to be sealed; for one that can't be read a record that has its text."""
    try:
        record = json.loads(row.record)
        canonical_json(record).encode()
        readable = (
            isinstance(record, dict) and record.get("id") == row.id and record.get("request_id") == row.request_id
        )
    except (RecursionError, TypeError, ValueError):
        readable = False
    if readable:
        return dict(record)
    return EvidenceRecord(
        id=row.id,
        request_id=row.request_id,
        connector_type=ConnectorType.CUSTOM,
        operation=RECORD_UNREADABLE,
        request_summary={"text": row.record},
        status=RequestStatus.FAILED,
        metadata={"risk_tier": RiskLevel.LOW.value},
        created_at=at,
    ).model_dump(mode="json")


class OldChain:
    """The hashes of the older chain, walked along with the records that were carried over from it.

    `heads` are those that are asked for.
    """

    def __init__(self, links: Iterable[Head], heads: Collection[Head]) -> None:
        self._links = iter(links)
        self._asked = frozenset(heads)
        self._found: set[Head] = set()
        self._last = Head()
        self._count = 0
        self._hashes = Hashes()

    def step(self, was: str | None, carried: CarriedOver) -> str | None:
        """Take the next link; what is wrong with it. `was` is the text that the record had, None when that is not known."""
        before = self._last.hash
        if not self._take():
            return "its hash from before the carry-over is not there"
        if was is not None and self._count <= carried.held and link(before, was) != self._last.hash:
            return "it is not the record that was carried over"
        return None

    def fault(self, carried: CarriedOver) -> str | None:
        """What is wrong with the whole, once all records were walked."""
        if self._take() or self._last != (carried.place, carried.head) or self._hashes.text != carried.hashes:
            return "the hashes from before the carry-over are not those that it names"
        if carried.fault is not None:
            return f"the chain that this one was made from was broken at its record {carried.at_seq}: {carried.fault}"
        return None

    def has(self, head: Head) -> bool:
        """Whether a head that is asked for is one of the older chain."""
        while self._take():
            pass
        return head in self._found

    def _take(self) -> bool:
        found = next(self._links, None)
        if found is None:
            return False
        self._last, self._count = found, self._count + 1
        self._hashes.add(found.hash)
        if found in self._asked:
            self._found.add(found)
        return True
