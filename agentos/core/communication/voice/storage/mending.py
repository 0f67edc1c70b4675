"""What stands in the store for an entry that can't be written: the same one, without what can't be.

Text that UTF-8 can't hold gets replacement characters; numbers that JSON does not have, and what is no JSON at all, become
null. The record says so under `unwritable`. When even that can't be written, a bare record remains with the same id, so that
the chain has something in its place.
"""

import math
from typing import Any, Final

from pydantic import ValidationError

from agentos.core.communication.voice.storage.chain import chained
from agentos.core.communication.voice.storage.store import BadEntry, Entry, event_row
from machines.communication import RequestStatus
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.session import SessionResult, VoiceSession

DEEPEST: Final = 50  # levels of a value that are kept; JSON itself gives up at about a thousand
LARGEST: Final = 1 << 256  # Python refuses to write integers of thousands of digits
LONGEST: Final = 300  # characters of a problem that are kept
UNWRITABLE: Final = "unwritable"  # where a record says why it is not whole
BARE: Final = ("audit_trace_id", "risk_tier", "number")  # what a record's metadata always has


def flaw(entry: Entry) -> str:
    """Why an entry can't be written; empty if it can. Its events are left aside."""
    return plain(_flaw(entry.record) or ("" if entry.session is None else _flaw(entry.session)))


def mended(entry: Entry, problem: str) -> Entry:
    """An entry that can be written, in the place of one that can't, for `problem`."""
    record = entry.record
    said = {**_object(record.response_summary), UNWRITABLE: plain(problem)}
    whole = record.model_copy(
        update={
            "request_summary": _object(record.request_summary),
            "response_summary": said,
            "metadata": _object(record.metadata),
            "status": RequestStatus.FAILED,
        }
    )
    if _flaw(whole):
        metadata = {name: _object(record.metadata).get(name) for name in BARE}
        bare = {"request_summary": {}, "response_summary": {UNWRITABLE: plain(problem)}, "metadata": metadata}
        whole = whole.model_copy(update=bare)
    session = None if entry.session is None else _session(entry.session)
    return Entry(whole, session, tuple(filter(_is_told, entry.events)), entry.takes_over)


def plain(problem: str) -> str:
    """What is wrong with an entry, as text that can be written anywhere."""
    return problem.encode("ascii", "backslashreplace").decode()[:LONGEST]


def said_of(error: Exception) -> str:
    """What is wrong, without the values that are: they may be what somebody said."""
    if isinstance(error, BadEntry):
        return error.problem
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join([f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found])
    return str(error)


def writable(value: Any, depth: int = 0) -> Any:
    """`value` as the chain can hold it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):  # a truth value too
        return value if abs(value) < LARGEST else None
    if depth < DEEPEST and isinstance(value, dict):
        return {writable(str(key)): writable(item, depth + 1) for key, item in value.items()}
    if depth < DEEPEST and isinstance(value, list | tuple):
        return [writable(item, depth + 1) for item in value]
    return None


def _object(value: Any) -> dict[str, Any]:
    kept = writable(value)
    return kept if isinstance(kept, dict) else {}


def _session(session: VoiceSession) -> VoiceSession | None:
    """The snapshot as it can be written: without its metadata and with the counts of its result alone, if it has to be."""
    result = session.result
    counts = None if result is None else SessionResult(result.reason, result.drained, result.frames)
    bare = session.model_copy(update={"metadata": {}, "result": counts})
    try:
        kept = VoiceSession.model_validate(writable(session.model_dump(mode="json")))
    except (ValidationError, ValueError, TypeError, RecursionError):
        kept = bare
    return next((one for one in (kept, bare) if not _flaw(one)), None)


def _flaw(what: EvidenceRecord | VoiceSession) -> str:
    try:
        if isinstance(what, EvidenceRecord):
            chained(what)
        else:
            what.model_dump_json()
    except (TypeError, ValueError, RecursionError) as error:
        return said_of(error)
    return ""


def _is_told(event: VoiceEvent) -> bool:
    try:
        event_row(event)
    except BadEntry:
        return False
    return True
