"""`agentos-voice evidence`: whether the chain holds, and what is in it."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from agentos.core.communication.voice.cli.exits import EVIDENCE, InputError
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import Outcome, fields, table
from agentos.core.communication.voice.cli.stores import database_of
from agentos.core.communication.voice.storage.store import VoiceStore


def verify(
    database: Annotated[Path | None, Parameter(help="The database; the home's, if none.")] = None,
    /,
    *,
    home: Home = None,
    json_output: Json = False,
) -> Outcome:
    """Walk the whole evidence chain, and say whether it holds. The database is only read.

    Note the head somewhere else: a chain whose last records were cut off still holds, but has another head.
    """
    del json_output
    path = (database_of(home) if database is None else database).absolute()
    if not path.is_file():
        raise InputError(f"there is no database at {path}; a first call makes one")
    with VoiceStore.open_read_only(path) as store:
        found = store.verify()
    data: dict[str, Any] = {
        "database": str(path),
        "records": found.records,
        "verified": found.ok,
        "head": found.head,
        "fault": found.fault,
        "at_seq": found.at_seq,
    }
    rows = [("database", str(path)), ("records", f"{found.records} hold"), ("head", found.head)]
    if found.ok:
        return Outcome(data, (fields([*rows, ("verified", "yes, every link holds")]),))
    problem = f"the evidence chain is broken at record {found.at_seq}: {found.fault}"
    return Outcome(data, (fields([*rows, ("verified", f"no, broken at record {found.at_seq}")]),), EVIDENCE, problem)


def records(
    session_id: Annotated[str, Parameter(help="The session.")], /, *, home: Home = None, json_output: Json = False
) -> Outcome:
    """The evidence records of one session, in the chain's order. A refused request has one, too."""
    del json_output
    path = database_of(home)
    if not path.is_file():
        raise InputError(f"there is no database at {path}; a first call makes one")
    with VoiceStore.open_read_only(path) as store:
        found = store.evidence(session_id)
    if not found:
        raise InputError(f"there is no evidence of a session {session_id!r} in {path}")
    rows = (
        (record.created_at.isoformat(timespec="milliseconds"), record.operation, record.status.value, record.id)
        for record in found
    )
    data = {"session_id": session_id, "records": [record.model_dump(mode="json") for record in found]}
    return Outcome(data, (table(("at", "operation", "status", "id"), rows),))
