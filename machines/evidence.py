"""Evidence: one record for each operation, chained by SHA-256 so that an outsider can verify the chain.

A record is written as canonical JSON (sorted keys, no spaces, UTF-8, no NaN), and

    hash(n) = SHA-256(hash(n-1) as lower-case hex, a newline, the canonical JSON of record n)

with sixty-four zeros before the first. Changing, inserting or removing a record anywhere but at the very end breaks every
link behind it. Only a head that was noted elsewhere shows that the end was not cut off and the chain not rewritten
(`heads.py`). `verification.py` walks a chain; `sealing.py` says which parts of a record the chain holds.
"""

import hashlib
import json
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from machines.communication import ConnectorType, RequestStatus

FINAL = "final"  # in the place of a number, in the id of a session's last record


def record_id(secret: str, number: int | None) -> str:
    """The id of a session's record `number`, or of its final record (None).

    The same record always has the same id, so it is stored once. All ids of a session share its `secret`.
    """
    return f"ev-{secret}-{FINAL if number is None else number}"


def secret_of(known_id: str) -> str | None:
    """The secret in the id of any record of a session; None for an id of another form."""
    kind, _, rest = known_id.partition("-")
    secret, _, number = rest.rpartition("-")
    return secret if kind == "ev" and secret and (number == FINAL or number.isdecimal()) else None


class EvidenceRecord(BaseModel):
    """One operation: its request, its outcome and the policy's verdict.

    `request_id` is the session's id; `metadata` has at least `audit_trace_id` and `risk_tier`. `created_at` is aware UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", cache_strings="keys")

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
    """One stored link: its place, counted from 1, the columns for id and session, the record's text, and both hashes."""

    seq: int
    id: str
    request_id: str
    record: str
    previous: str
    hash: str


def canonical_json(value: EvidenceRecord | dict[str, Any]) -> str:
    """The record's only valid text. Raises `ValueError` for NaN or infinity, `TypeError` for values that JSON can't hold."""
    plain = value.model_dump(mode="json") if isinstance(value, EvidenceRecord) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def link(previous: str, record: str) -> str:
    """The hash of the link that holds `record` behind the link with hash `previous`."""
    return hashlib.sha256(f"{previous}\n{record}".encode()).hexdigest()
