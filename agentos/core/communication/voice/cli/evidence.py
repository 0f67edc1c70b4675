"""`agentos-voice evidence`: verify the chain, also against noted heads, and show its records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import RenderableType

from agentos.core.communication.voice.cli.exits import EVIDENCE, OK, OLDER_HEAD, InputError
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, fields, table, whole
from agentos.core.communication.voice.cli.stores import database_of, settings_of
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.recording.checks import RecordingsChecked, check_recordings
from agentos.core.communication.voice.storage.head_notes import file_older
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.cross_checks import Mismatch
from machines.heads import Head, HeadState, is_torn, read_head, read_heads
from machines.verification import Examination

BEHIND: Final = "that no record was cut off or inserted behind record {}, the newest noted head"
NOT_SHOWN: Final = "an attacker who can write the database and the place where heads are noted can rewrite both"
SHOWN: Final = 20  # disagreements, one a line
WITHOUT_HEADS: Final = (
    "that the end was not cut off, and that the chain was not rewritten: note `evidence head`, give it as --head"
)


def verify(
    database: Annotated[Path | None, Parameter(help="The database; the home's, if none.")] = None,
    /,
    *,
    head: Annotated[
        list[str] | None,
        Parameter(negative=(), help="A noted head, PLACE:HASH, from which the chain must go on; may be repeated."),
    ] = None,
    heads: Annotated[Path | None, Parameter(help="A file of noted heads, one a line.")] = None,
    recordings: Annotated[
        bool, Parameter(help="Read the recordings too, those beside the database. It takes the time of decoding them.")
    ] = True,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """Walk the whole evidence chain, say whether it holds, and compare sessions, events and recordings with it.

    The database is only read. Only a head that was noted somewhere else (`evidence head`) shows that no records were cut off
    and that the chain was not rewritten.
    """
    del json_output
    noted, torn = _noted(head or (), heads)
    settings = settings_of(home)
    path = _stored(home) if database is None else database.absolute()
    if not path.is_file():
        raise InputError(f"there is no such file: {path}")
    folder = path.with_name("recordings")
    with open_to_read(path) as store:
        found = store.examine(noted)
        if not found.chain.ok:  # the records of a broken chain prove nothing
            return _outcome(path, found, None, None, torn)
        beside = store.cross_check()
        if heads is not None and settings.heads is not None and heads.absolute() == settings.heads.absolute():
            older = file_older(store, heads)
            beside += [] if older is None else [Mismatch("heads-file-older", str(heads), older)]
        read = check_recordings(store, folder) if recordings and (database is None or folder.is_dir()) else None
    return _outcome(path, found, beside, read, torn)


def _outcome(
    path: Path, found: Examination, beside: Sequence[Mismatch] | None, read: RecordingsChecked | None, torn: int
) -> CommandOutcome:
    mismatches = [*(beside or ()), *(() if read is None else read.mismatches)]
    code, problem = _judged(found, mismatches)
    chain = found.chain
    data: dict[str, Any] = {
        "database": str(path),
        "records": chain.records,
        "verified": code == OK,
        "head": chain.head,
        "fault": chain.fault,
        "at_seq": chain.at_seq,
        "sealed": found.sealed,
        "erased": found.erased,
        "heads": [
            {"place": check.head.seq, "hash": check.head.hash, "state": check.state.value} for check in found.heads
        ],
        "torn_lines": torn,
        "mismatches": None if beside is None else [mismatch._asdict() for mismatch in mismatches],
        "recordings": None if read is None else {"whole": read.whole, "unfinished": read.unfinished},
        "not_shown": _not_shown(found),
    }
    rows: list[tuple[str, RenderableType]] = [
        ("database", whole(str(path))),
        ("records", f"{chain.records} hold"),
        ("contents", f"{found.sealed} fit their seals, {found.erased} are erased"),
        ("head", whole(Head(chain.records, chain.head).text)),
        *(("noted", whole(f"{check.head.text} {check.state.value}: {check.state.meaning}")) for check in found.heads),
        *(
            (("torn", f"{torn} of the lines: a crash or a full disk took their ends, and they say nothing"),)
            if torn
            else ()
        ),
        *(() if beside is None else (("sessions", _agreeing(beside)),)),
        ("recordings", "not looked at" if read is None else _recorded(read)),
        *(("disagrees", f"{one.about}: {one.text} ({one.kind})") for one in mismatches[:SHOWN]),
        *((("", f"and {len(mismatches) - SHOWN} more, with --json"),) if len(mismatches) > SHOWN else ()),
        ("verified", _verdict(found, problem)),
        ("not shown", _not_shown(found)),
    ]
    return CommandOutcome(data, (fields(rows),), code, problem)


def _agreeing(beside: Sequence[Mismatch]) -> str:
    return f"disagree with the chain: {len(beside)}" if beside else "agree with the chain, and so do their events"


def _recorded(read: RecordingsChecked) -> str:
    rest = f", {read.unfinished} not finished" if read.unfinished else ""
    wrong = f", {len(read.mismatches)} disagree" if read.mismatches else ""
    return f"{read.whole} fit their digests{rest}{wrong}"


def _judged(found: Examination, mismatches: Sequence[Mismatch]) -> tuple[int, str]:
    """The exit code, and the worst problem."""
    chain = found.chain
    if not chain.ok:
        return EVIDENCE, f"the evidence chain is broken at record {chain.at_seq}: {chain.fault}"
    bad = [check for check in found.heads if check.state is not HeadState.HOLDS]
    wrong = next((check for check in bad if check.state is not HeadState.BEFORE_CARRY_OVER), None)
    if wrong is not None:
        return EVIDENCE, f"the evidence chain does not go on from the head {wrong.head.text}: {wrong.state.meaning}"
    if mismatches:
        first = mismatches[0]
        return (
            EVIDENCE,
            f"stored data disagrees with the chain, in {len(mismatches)} points: {first.about}: {first.text}",
        )
    if bad:
        return OLDER_HEAD, f"{bad[0].state.value}: {bad[0].head.text}: {bad[0].state.meaning}"
    return OK, ""


def _verdict(found: Examination, problem: str) -> str:
    if not found.chain.ok:
        return f"no, broken at record {found.chain.at_seq}"
    return f"no: {problem}" if problem else "yes, every link holds"


def _not_shown(found: Examination) -> str:
    held = max((check.head.seq for check in found.heads if check.state is HeadState.HOLDS), default=0)
    return f"{BEHIND.format(held)}; and {NOT_SHOWN}" if held else f"{WITHOUT_HEADS}; and {NOT_SHOWN}"


def head(*, home: Home = None, json_output: Json = False) -> CommandOutcome:
    """Print the head of the chain, as PLACE:HASH.

    Note it where nobody who can write the database can change it: it covers every record up to its place.
    """
    del json_output
    with open_to_read(_stored(home)) as store:
        found = store.head()
    return CommandOutcome({"place": found.seq, "hash": found.hash}, (whole(found.text),))


def records(
    session_id: Annotated[str | None, Parameter(help="The session; the newest records of all, if none.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="Without a session: how many records at most.")] = 20,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """The evidence records of one session in the chain's order, or the newest of all, newest first.

    A refused request has a record too, under an id that no session has.
    """
    del json_output
    if limit < 1:
        raise InputError(f"--limit must be 1 or more, got {limit}")
    with open_to_read(_stored(home)) as store:
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
    return CommandOutcome(data, (table(("at", "session", "operation", "status", "id"), rows),))


def _noted(given: Sequence[str], file: Path | None) -> tuple[list[Head], int]:
    """The noted heads from `given` and `file`, and the number of torn lines in the file. Raises `InputError` for a malformed
    head."""
    try:
        noted = [read_head(text) for text in given]
    except ValueError as error:
        raise InputError(str(error)) from None
    if file is None:
        return noted, 0
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the heads in {file} can't be read: {error}") from None
    torn = 0
    for found in read_heads(lines):
        if isinstance(found, Head):
            noted.append(found)
        elif is_torn(found):
            torn += 1
        else:
            raise InputError(f"{file} has a line that is no head: {found[:100]!r}")
    if not noted:
        raise InputError(f"{file} has no head")
    return list(dict.fromkeys(noted)), torn


def _stored(home: Path | None) -> Path:
    """The path of the home's database. Raises `InputError` if there is none yet."""
    path = database_of(home).absolute()
    if not path.is_file():
        raise InputError(f"there is no database at {path}; a first call makes one")
    return path
