"""`agentos-voice evidence`: whether the chain holds, and what is in it."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from agentos.core.communication.voice.cli.exits import EVIDENCE, InputError
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import Outcome, fields, table, whole
from agentos.core.communication.voice.cli.stores import database_of
from agentos.core.communication.voice.errors import SessionNotFound
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
    path = _stored(home) if database is None else database.absolute()
    if not path.is_file():
        raise InputError(f"there is no such file: {path}")
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
    rows: list[tuple[str, RenderableType]] = [
        ("database", whole(str(path))),
        ("records", f"{found.records} hold"),
        ("head", whole(found.head)),
    ]
    if found.ok:
        return Outcome(data, (fields([*rows, ("verified", "yes, every link holds")]),))
    problem = f"the evidence chain is broken at record {found.at_seq}: {found.fault}"
    return Outcome(data, (fields([*rows, ("verified", f"no, broken at record {found.at_seq}")]),), EVIDENCE, problem)


def records(
    session_id: Annotated[str | None, Parameter(help="The session; the newest records of all, if none.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="Without a session: how many records at most.")] = 20,
    home: Home = None,
    json_output: Json = False,
) -> Outcome:
    """The evidence records of one session in the chain's order, or the newest of all, newest first.

    A refused request has a record, too; the session of that id never was.
    """
    del json_output
    if limit < 1:
        raise InputError(f"--limit must be 1 or more, got {limit}")
    with VoiceStore.open_read_only(_stored(home)) as store:
        found = store.newest_evidence(limit) if session_id is None else store.evidence(session_id)
    if session_id is not None and not found:
        raise SessionNotFound(session_id)
    rows = (
        (
            record.created_at.isoformat(timespec="milliseconds"),
            record.request_id,
            record.operation,
            record.status.value,
            record.id,
        )
        for record in found
    )
    data = {"session_id": session_id, "records": [record.model_dump(mode="json") for record in found]}
    return Outcome(data, (table(("at", "session", "operation", "status", "id"), rows),))


def _stored(home: Path | None) -> Path:
    """The home's database. Raises `InputError` when nothing was stored yet."""
    path = database_of(home).absolute()
    if not path.is_file():
        raise InputError(f"there is no database at {path}; a first call makes one")
    return path
