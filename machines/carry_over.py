"""The carry-over: a chain whose records hold personal content, as older versions wrote them, is rewritten once without it.

The first record of the new chain names the head of the older chain and a digest of all its hashes, which stay beside the new
chain. Then come the older chain's records in their order, each with its id and with its content sealed (`sealing.py`). So:

- a walk can tell whether a head that was noted earlier belongs to the older chain (`HeadState.BEFORE_CARRY_OVER`);
- while its content is there, a carried-over record can be compared, to the letter, with the one in the older chain.

A broken older chain is carried over with all its records; the first record says for ever that it was broken.
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

REQUEST: Final = "chain"  # the request id of the first record, which belongs to no session


class CarriedOver(NamedTuple):
    """The older chain, as the first record of the new chain describes it.

    The older chain had `records` records; the links of the first `held` were sound. Its last record stood at `place` and had
    the hash `head`. `hashes` is the SHA-256 of all its hashes, each followed by a newline. `fault` and `at_seq` are the first
    fault that its verification found, and the place of it.
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
    """The running digest of a chain's hashes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, own: str) -> None:
        """Add the hash of the next link."""
        self._digest.update(f"{own}\n".encode())

    @property
    def text(self) -> str:
        """The digest so far, as lower-case hex."""
        return self._digest.hexdigest()


def carried_over(record: dict[str, Any]) -> CarriedOver | None:
    """The older chain that a chain's first record describes; None if it describes none.

    Raises `ValueError` if the description can't be read.
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
    """The record of an older link, still to be sealed; if the record can't be read, a record that quotes its text."""
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
    """The older chain's hashes, walked together with the records that were carried over from it.

    `heads` are noted heads to look for among the hashes.
    """

    def __init__(self, links: Iterable[Head], heads: Collection[Head]) -> None:
        self._links = iter(links)
        self._asked = frozenset(heads)
        self._found: set[Head] = set()
        self._last = Head()
        self._count = 0
        self._hashes = Hashes()

    def step(self, was: str | None, carried: CarriedOver) -> str | None:
        """Check the next link and return its fault, or None. `was` is the record's text in the older chain, None if unknown."""
        before = self._last.hash
        if not self._take():
            return "its hash from before the carry-over is not there"
        if was is not None and self._count <= carried.held and link(before, was) != self._last.hash:
            return "it is not the record that was carried over"
        return None

    def fault(self, carried: CarriedOver) -> str | None:
        """The fault of the older chain as a whole, or None; to be asked after the walk."""
        if self._take() or self._last != (carried.place, carried.head) or self._hashes.text != carried.hashes:
            return "the hashes from before the carry-over are not those that it names"
        if carried.fault is not None:
            return f"the chain that this one was made from was broken at its record {carried.at_seq}: {carried.fault}"
        return None

    def has(self, head: Head) -> bool:
        """Whether a head, one of `heads`, was a head of the older chain."""
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
