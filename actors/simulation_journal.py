"""The evidence journal of one simulated process: the ledger's rule on a simulated disk, with a spill file beside it.

The journal is a file of frames, each one link of the chain; the spill file is one of frames that are records without a place in
it yet. What is read back at the start of a process is every whole frame whose link holds, and what is behind them is written
over.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from actors import messages as m
from actors.simulation_disk import SimulatedDisk
from actors.voice_parts import Record
from machines.evidence import ChainRow, Verification, canonical_json, link, record_id, secret_of, verify
from machines.framing import framed, whole_frames
from machines.ledger import Head, Written, links
from machines.recovery import end_of_dead_session
from machines.session import EndReason, VoiceSessionState

JOURNAL: Final = "journal"
SPILL: Final = "spill"
GENERATION: Final = 1
HEADER: Final = 8  # bytes before the frames of the spill file: its generation


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

    def ends_of_the_dead(self, living: Iterable[str] = ()) -> list[Written]:
        """The records that end every session of earlier processes that has no final one; `living` are this process's."""
        states: dict[str, tuple[str, VoiceSessionState | None, int]] = {}
        for text in (*[row.record for row in self.rows], *[record.text for record in self.spilled]):
            record = json.loads(text)
            session_id, secret = record["request_id"], secret_of(record["id"]) or ""
            if record["metadata"]["final"] or record["operation"] == "session_denied":
                states[session_id] = (secret, None, 0)
            elif session_id not in states or states[session_id][1] is not None:
                told = VoiceSessionState(record["response_summary"]["state"])
                states[session_id] = (secret, told, record["metadata"]["number"])
        ended: list[Written] = []
        for session_id, (secret, state, number) in states.items():
            open_state = VoiceSessionState.STOPPED if state is None or session_id in living else state
            for after, move in enumerate(end_of_dead_session(open_state), number + 1):
                detail = {"reason": EndReason.RECOVERED.value}
                ended.append(
                    _record(session_id, secret, None if move.final else after, move.operation, move.state, detail)
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

    def _reads(self, name: str) -> Any:
        return lambda n, at: self._disk.read(name, n, at)


def written(draft: m.Draft) -> Written:
    """A draft as the record of it."""
    facts = draft.facts
    number = None if draft.result is not None else draft.number
    detail = {"status": draft.status.value}
    return _record(facts.session_id, facts.secret, number, draft.operation, draft.state, detail)


def _record(
    session_id: str,
    secret: str,
    number: int | None,
    operation: str,
    state: VoiceSessionState | None,
    detail: dict[str, str],
) -> Written:
    known = record_id(secret, number)
    record = {
        "id": known,
        "request_id": session_id,
        "operation": operation,
        "response_summary": {"state": None if state is None else state.value, **detail},
        "metadata": {"number": number or 0, "final": number is None},
    }
    return Written(known, session_id, canonical_json(record))


def _written(text: str) -> Written:
    record = json.loads(text)
    return Written(record["id"], record["request_id"], text)
