"""The evidence journal of one simulated process: the ledger's rule on a simulated disk, with a spill file beside it.

The journal is a file of frames, each one link of the chain; the spill file is one of frames that are records without a place in
it yet. What is read back at the start of a process is every whole frame whose link holds, and what is behind them is written
over.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from actors.simulation.disk import SimulatedDisk
from actors.voice import messages as m
from actors.voice.recorder import NOTHING_YET
from actors.voice_lab.parts import Record
from machines.evidence import ChainRow, canonical_json, link, record_id, secret_of
from machines.framing import framed, whole_frames
from machines.heads import Head
from machines.ledger import Written, links
from machines.operations import SESSION_DENIED, SESSION_RESUMED
from machines.recovery import end_of_dead_session
from machines.session import EndReason, VoiceSessionState
from machines.verification import Verification, verify

JOURNAL: Final = "journal"
SPILL: Final = "spill"
GENERATION: Final = 1
HEADER: Final = 8  # bytes before the frames of the spill file: its generation


class Left(NamedTuple):
    """What the records of a session say of it that has no final one: its secret, where it stands, the number of its next
    record, whether its caller may come back, the last account of its audio, and the id of the record that says whose it is."""

    secret: str
    state: VoiceSessionState
    number: int
    resumable: bool
    account: m.Account
    owned_by: str


class Journal:
    """What one process knows of the files. Made anew by each process, it reads what an earlier one left."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.rows: list[ChainRow] = []
        self.ids: set[str] = set()
        self.head = Head()
        self._disk = disk
        self._end = 0
        for row, end in self._whole_links():
            self._add([row])
            self._end = end
        self._generation = int.from_bytes(disk.read(SPILL, HEADER, 0), "big")
        self.spilled: list[Written] = []
        self._spill_end = HEADER
        for payload, end in whole_frames(self._reads(SPILL), HEADER, disk.size(SPILL), self._generation):
            self.spilled.append(_written(payload.decode()))
            self._spill_end = end

    def append(self, records: Sequence[Written]) -> list[ChainRow]:
        """Make records durable, in order: all of them or none; the links that were made. Raises `DiskFailed`.

        What was spilled goes in before them.
        """
        rows = [row for row in links((*self.spilled, *records), self.ids, self.head) if row is not None]
        data = b"".join([framed(f"{row.hash}\n{row.record}".encode(), GENERATION) for row in rows])
        if rows:
            self._disk.write(JOURNAL, data, self._end)
            self._disk.sync(JOURNAL)
        self._end += len(data)
        self._add(rows)
        self._clear_spill()
        return rows

    def spill(self, records: Sequence[Written]) -> None:
        """Put records into the spill file, whose room is allocated. Raises `DiskFailed`."""
        disk = self._disk
        if self._spill_end == HEADER:
            disk.write(SPILL, self._generation.to_bytes(HEADER, "big"), 0, allocated=True)
        data = b"".join([framed(record.text.encode(), self._generation) for record in records])
        disk.write(SPILL, data, self._spill_end, allocated=True)
        disk.sync(SPILL)
        self._spill_end += len(data)
        self.spilled.extend(records)

    def verify(self) -> Verification:
        """Walk the chain as it stands in the file."""
        return verify(row for row, _ in self._whole_links())

    def left(self) -> dict[str, Left]:
        """Every session that has records and no final one."""
        found: dict[str, Left | None] = {}
        for text in (*[row.record for row in self.rows], *[record.text for record in self.spilled]):
            record = json.loads(text)
            session_id, operation, summary = record["request_id"], record["operation"], record["response_summary"]
            if record["metadata"]["final"] or operation == SESSION_DENIED:
                found[session_id] = None
            elif session_id not in found or found[session_id] is not None:
                before = found.get(session_id)
                account = NOTHING_YET if before is None else before.account
                found[session_id] = Left(
                    secret_of(record["id"]) or "",
                    VoiceSessionState(summary["state"]),
                    record["metadata"]["number"] + 1,
                    record["metadata"]["resumable"],
                    _account(summary["account"]) if "account" in summary else account,
                    record["id"] if before is None or operation == SESSION_RESUMED else before.owned_by,
                )
        return {session_id: left for session_id, left in found.items() if left is not None}

    def ends_of_the_dead(self, living: Collection[str] = ()) -> list[Written]:
        """The records that end every session of earlier processes that has no final one; `living` are not to be ended."""
        ended: list[Written] = []
        for session_id, left in self.left().items():
            moves = () if session_id in living else end_of_dead_session(left.state)
            for number, move in enumerate(moves, left.number):
                detail = {"reason": EndReason.RECOVERED.value}
                ended.append(
                    _record(session_id, left.secret, None if move.final else number, move.operation, move.state, detail)
                )
        return ended

    def shown(self, row: ChainRow) -> Record:
        """A link as promises look at it."""
        record = json.loads(row.record)
        state = record["response_summary"]["state"]
        return Record(
            row.request_id,
            row.id,
            record["operation"],
            None if state is None else VoiceSessionState(state),
            record["metadata"]["final"],
        )

    def _clear_spill(self) -> None:
        if self.spilled:
            self._generation += 1
            self._disk.write(SPILL, self._generation.to_bytes(HEADER, "big"), 0, allocated=True)
            self._disk.sync(SPILL)
            self.spilled = []
            self._spill_end = HEADER

    def _add(self, rows: Sequence[ChainRow]) -> None:
        if rows:
            self.rows.extend(rows)
            self.ids.update([row.id for row in rows])
            self.head = Head(rows[-1].seq, rows[-1].hash)

    def _whole_links(self) -> Iterable[tuple[ChainRow, int]]:
        head = Head()
        for payload, end in whole_frames(self._reads(JOURNAL), 0, self._disk.size(JOURNAL), GENERATION):
            digest, _, text = payload.decode().partition("\n")
            if link(head.hash, text) != digest:
                return  # a frame that an earlier write, which failed, had left behind the end
            record = _written(text)
            yield ChainRow(head.seq + 1, record.id, record.request_id, text, head.hash, digest), end
            head = Head(head.seq + 1, digest)

    def _reads(self, name: str) -> Callable[[int, int], bytes]:
        return lambda n, at: self._disk.read(name, n, at)


def written(draft: m.Draft) -> Written:
    """A draft as the record of it."""
    facts = draft.facts
    number = None if draft.result is not None else draft.number
    detail: dict[str, Any] = {"status": draft.status.value}
    told = dict(draft.detail)
    if "upto_frame" in told and "accounted" in told:
        names = ("upto_frame", "accounted", "bytes", "digest")
        detail["account"] = [*[told[name] for name in names], sorted(dict(told["dropped"]).items())]
    return _record(
        facts.session_id, facts.secret, number, draft.operation, draft.state, detail, resumable=facts.resumable
    )


def _record(
    session_id: str,
    secret: str,
    number: int | None,
    operation: str,
    state: VoiceSessionState | None,
    detail: dict[str, Any],
    *,
    resumable: bool = False,
) -> Written:
    known = record_id(secret, number)
    record = {
        "id": known,
        "request_id": session_id,
        "operation": operation,
        "response_summary": {"state": None if state is None else state.value, **detail},
        "metadata": {"number": number or 0, "final": number is None, "resumable": resumable},
    }
    return Written(known, session_id, canonical_json(record))


def _written(text: str) -> Written:
    record = json.loads(text)
    return Written(record["id"], record["request_id"], text)


def _account(fields: list[Any]) -> m.Account:
    upto, kept, n_bytes, digest, lost = fields
    return m.Account(upto, kept, n_bytes, digest, tuple([(reason, frames) for reason, frames in lost]))
