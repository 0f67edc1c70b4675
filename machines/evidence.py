"""Evidence: one record an operation, chained by SHA-256 so that an outsider can verify it.

A record is written as canonical JSON (sorted keys, no spaces, UTF-8, no NaN), and

    hash(n) = SHA-256(hash(n-1) as lower-case hex, a newline, the canonical JSON of record n)

with sixty-four zeros before the first. Changing, inserting or removing a record anywhere but at the very end breaks every
link behind it. That the end itself was not cut off needs a head that was noted elsewhere: `Verification.head`.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from machines.communication import ConnectorType, RequestStatus

GENESIS = "0" * 64
FINAL = "final"  # in the place of a number, in the id of a session's last record


def record_id(secret: str, number: int | None) -> str:
    """The id of a session's record `number`, or of its final one (None): the same for the same record, so it is stored once.

    `secret` is what the ids of one session have in common.
    """
    return f"ev-{secret}-{FINAL if number is None else number}"


def secret_of(known_id: str) -> str | None:
    """The secret in the id of any record of a session; None for an id of another form."""
    kind, _, rest = known_id.partition("-")
    secret, _, number = rest.rpartition("-")
    return secret if kind == "ev" and secret and (number == FINAL or number.isdecimal()) else None


class EvidenceRecord(BaseModel):
    """What was asked, what came of it, and under which verdict.

    `request_id` is the session; `metadata` carries at least `audit_trace_id` and `risk_tier`. `created_at` is aware UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    id: str
    request_id: str
    connector_type: ConnectorType
    operation: str
    request_summary: dict[str, Any] = Field(default_factory=dict)
    response_summary: dict[str, Any] | None = None
    status: RequestStatus = RequestStatus.SUCCESS
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime


class ChainRow(NamedTuple):
    """One stored link: its place from 1, the id and session columns, the record as it is stored, and both hashes."""

    seq: int
    id: str
    request_id: str
    record: str
    previous: str
    hash: str


class Verification(NamedTuple):
    """What a walk along the chain found: how many links hold, the last good hash, and the first fault, if any."""

    records: int
    head: str
    fault: str | None
    at_seq: int | None

    @property
    def ok(self) -> bool:
        """True when every link holds."""
        return self.fault is None


def canonical_json(value: EvidenceRecord | dict[str, Any]) -> str:
    """The one text that a record has. Raises `ValueError` for NaN or infinity, `TypeError` for what JSON can't say."""
    plain = value.model_dump(mode="json") if isinstance(value, EvidenceRecord) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def link(previous: str, record: str) -> str:
    """The hash of the link that holds `record` behind the link with hash `previous`."""
    return hashlib.sha256(f"{previous}\n{record}".encode()).hexdigest()


def verify(rows: Iterable[ChainRow]) -> Verification:
    """Walk the chain from its beginning; stop at the first fault and say what it is."""
    previous, count = GENESIS, 0
    seen: set[str] = set()
    for row in rows:
        fault = _fault(row, expected_seq=count + 1, previous=previous)
        if fault is None and row.id in seen:
            fault = f"the id {row.id} is there twice"
        if fault is not None:
            return Verification(count, previous, fault, row.seq)
        seen.add(row.id)
        previous, count = row.hash, count + 1
    return Verification(count, previous, None, None)


def _fault(row: ChainRow, *, expected_seq: int, previous: str) -> str | None:
    if row.seq != expected_seq:
        return f"record {expected_seq} is missing"
    if row.previous != previous:
        return "its link to the record before it is wrong"
    try:
        if link(previous, row.record) != row.hash:
            return "its text does not give its hash"
        record = json.loads(row.record)
        canonical = canonical_json(record)
    except (RecursionError, TypeError, ValueError):
        return "its text is not JSON"
    if canonical != row.record:
        return "its text is not canonical"
    if not isinstance(record, dict):
        return "its text is no record"
    if record.get("id") != row.id or record.get("request_id") != row.request_id:
        return "its columns are not those of its text"
    return None
