"""The evidence store in a simulation: one journal on a simulated disk, and answers that come when the disk has done its work.

As the real one it gathers what comes while it writes, answers in order, takes what was spilled in before anything newer, takes
the earlier records of a session along with its spilled ones, and keeps in memory what neither journal nor spill file would
take. A new process reads what is on the disk, and ends the sessions of the one that died.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from actors.simulation.disk import FSYNC_LOST, TORN_WRITE, DiskFailed, SimulatedDisk
from actors.simulation.parts import SimulatedPort
from actors.simulation.plan import Fault, FaultKind
from actors.simulation.world import Broken, World
from actors.voice import messages as m
from actors.voice_lab.journal import Journal, Left, written
from actors.voice_lab.parts import Record, Records, record_of
from machines.ledger import Written
from machines.operations import SESSION_DENIED
from machines.recovery import AwaitingResume, ms_to_resume
from machines.verification import Verification

BATCH: Final = 512
RETRY_MS: Final = 1000
RESUME_WINDOW_MS: Final = 30_000

DISK_FULL, DISK_SLOW, DISK_HANG = "disk full", "disk slow", "disk hang"
SPILL_FAILS = "spill fails"
UNWRITABLE = "record"
OF_THE_DISK: Final = {
    DISK_FULL: FaultKind(smallest=1000, largest=120_000),
    DISK_SLOW: FaultKind(smallest=5000, largest=120_000),
    DISK_HANG: FaultKind(smallest=1000, largest=60_000),
    FSYNC_LOST: FaultKind(smallest=1, largest=20),
    TORN_WRITE: FaultKind(),
    SPILL_FAILS: FaultKind(),
    UNWRITABLE: FaultKind(),
}


class JournalStore(SimulatedPort):
    """The store of a simulated voice service.

    `records` are what promises look at, by session. `acknowledged` are the ids of those that somebody was told are durable;
    that none of them is lost is watched here, where the disk is read back. `awaited` are the sessions of dead processes whose
    callers may come back.
    """

    kinds = tuple(OF_THE_DISK)

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.disk = SimulatedDisk(world.chance, lambda: world.now_ms, self._comes)
        self.records: dict[str, Records] = {}
        self.acknowledged: dict[str, None] = {}
        self.forgotten: set[str] = set()  # sessions with records that a disk which lied has lost
        self._seen: dict[str, Record] = {}  # every record that came, by id: what a journal's lines are shown as
        self.awaited = AwaitingResume()
        self._written_by: dict[str, int] = {}  # which process a record is of, by its id
        self._died_ms: dict[int, int] = {}  # when each process died
        self._journal = Journal(self.disk)
        self._work: deque[m.Append | m.Probe] = deque()
        self._in_flight: list[m.Append | m.Probe] = []
        self._to_spill: deque[m.SpillWork] = deque()
        self._homeless: list[Written] = []
        self._writing = self._spilling = self._failing = False
        self._coming: list[Fault] = []  # faults that wait for the next write, sync or spill

    def begin(self) -> None:
        """Read the disk, look whether it has what it must, and end what an earlier process had open."""
        self._journal = Journal(self.disk)
        kept = {*self._journal.ids, *[record.id for record in self._journal.spilled]}
        lost = [known for known in self.acknowledged if known not in kept]
        if lost and not self.disk.lied:
            raise Broken("P4 nothing that is durable is lost", f"{lost[0]} was acknowledged, and is not on the disk")
        for known in lost:
            del self.acknowledged[known]
            self.forgotten.add(self._seen[known].session_id)
        self.disk.lied = False
        self._show()
        if self.world.processes > 1:
            self._await()
            self._end_the_dead()

    def died(self, *, power: bool) -> None:
        """What was in memory is gone; with `power`, so is what was not synced."""
        if power:
            self.disk.crash()
        self._died_ms[self.world.processes] = self.world.now_ms
        self.awaited = AwaitingResume()
        self._work.clear()
        self._in_flight = []
        self._to_spill.clear()
        self._homeless = []
        self._writing = self._spilling = self._failing = False

    def submit(self, work: Any) -> None:
        """Behind what waits; a spill beside it."""
        if isinstance(work, m.SpillWork):
            self._to_spill.append(work)
            for draft in work.drafts:
                self._seen[draft.record_id] = record_of(draft)
            self._touch(work.drafts[0].facts.session_id if work.drafts else "")
            self._spill_on()
            return
        self._work.append(work)
        if isinstance(work, m.Append):
            self._seen[work.draft.record_id] = record_of(work.draft)
            self._written_by[work.draft.record_id] = self.world.processes
        self._go_on()

    def suffer(self, fault: Fault) -> bool:
        """The disk's faults, and a spill file that fails: those that last at once, the others with what they spoil."""
        disk, now = self.disk, self.world.now_ms
        if fault.kind == DISK_FULL:
            disk.full_until = now + fault.size
        elif fault.kind == DISK_SLOW:
            disk.slow_until = now + fault.size
        elif fault.kind == DISK_HANG:
            disk.hangs_until = now + fault.size
        else:
            self._coming.append(fault)
            if fault.kind == FSYNC_LOST:
                disk.lies += fault.size
            elif fault.kind == TORN_WRITE:
                disk.tears = True
            return False
        return True

    def _comes(self, kind: str) -> None:
        fault = next((one for one in self._coming if one.kind == kind), None)
        if fault is not None:
            self._coming.remove(fault)
            self.world.has_fired(fault, self.name)

    def spilling(self, session_id: str) -> tuple[m.SpillWork, ...]:
        """The work of spilling that waits, of one session."""
        return tuple([work for work in self._to_spill if work.owner.name == session_id])

    def verify(self) -> Verification:
        """Walk the chain on the disk."""
        return self._journal.verify()

    def has_all(self) -> str:
        """Why not everything is in its place at the end; empty if it is."""
        ids = self._journal.ids
        lost = next((known for known in self.acknowledged if known not in ids), None)
        if lost is not None:
            return f"{lost} was told to be safe and is not in the journal"
        if self._journal.spilled or self._homeless:
            return f"{len(self._journal.spilled)} records are still spilled, {len(self._homeless)} in memory"
        for session_id, records in self.records.items():
            last = records.durable[-1:]
            if last and not (last[0].final or last[0].operation == SESSION_DENIED):
                return f"{session_id} has no final record: it is {last[0].operation} for ever"
        return ""

    # --- the journal ------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if not self._writing and (self._work or self._journal.spilled or self._homeless):
            self._writing = True
            retry = RETRY_MS if self._failing and not self._work else 0
            self.world.later(retry + self.disk.latency_ms(), self._write)

    def _write(self) -> None:
        late = self.disk.hangs_until - self.world.now_ms
        if late > 0:  # it began to hang meanwhile
            self.world.later(late, self._write)
            return
        self._writing = False
        batch = self._in_flight = [self._work.popleft() for _ in range(min(BATCH, len(self._work)))]
        bad = [work for work in batch if isinstance(work, m.Append) and self._is_unwritable(work.draft)]
        if bad:
            self._answer(bad, "not JSON", down=False)
            batch = self._in_flight = [work for work in batch if work not in bad]
        puts = [work for work in batch if isinstance(work, m.Append)]
        try:
            rows = self._journal.append([*self._homeless, *[written(work.draft) for work in puts]])
            if not rows:
                self.disk.write("probe", b"1", 0)
        except DiskFailed as error:
            self._failing = True
            self._answer(batch, str(error))
        else:
            self._failing = False
            self._homeless = []
            self._shown([row.id for row in rows])
            self.acknowledged.update(dict.fromkeys([work.draft.record_id for work in puts]))
            self._answer(batch, "")
        self._in_flight = []
        self._go_on()

    def _is_unwritable(self, draft: m.Draft) -> bool:
        """Whether it is the record of which the plan says so. What stands for it can be written, and so can what is stored."""
        record = record_of(draft)
        if draft.refusal or record.record_id in self._journal.ids:
            return False
        mine = self.records.get(record.session_id, Records())
        if record not in mine.refused:
            fault = next((one for one in self._coming if one.kind == UNWRITABLE), None)
            if fault is None:
                return False
            self._coming.remove(fault)
            self.world.has_fired(fault, record.session_id)
            self.records[record.session_id] = mine._replace(refused=(*mine.refused, record))
            self._touch(record.session_id)
        return True

    def _answer(self, batch: Sequence[m.Append | m.Probe], error: str, *, down: bool = True) -> None:
        by_actor: dict[Any, list[m.Ticket]] = {}
        for work in batch:
            if isinstance(work, m.Probe):
                self.world.tell(work.reply_to, m.Probed(not error))
            else:
                by_actor.setdefault(work.reply_to, []).append((work.owner, work.draft.number))
        for actor, tickets in by_actor.items():
            if error:
                self.world.tell(actor, m.NotStored(tuple(tickets), error, store_down=down))
            else:
                self.world.carry(actor, m.Stored(tuple(tickets)))

    # --- the spill file ---------------------------------------------------------------------------------------------

    def _spill_on(self) -> None:
        if not self._spilling and self._to_spill:
            self._spilling = True
            self.world.later(self.world.chance.between(1, 20), self._spill)

    def _spill(self) -> None:
        self._spilling = False
        work = self._to_spill.popleft()
        session_id = work.drafts[0].facts.session_id if work.drafts else ""
        waiting = [one.draft for one in (*self._in_flight, *self._work) if isinstance(one, m.Append)]
        drafts = [*[draft for draft in waiting if draft.facts.session_id == session_id], *work.drafts]
        records = [written(draft) for draft in drafts]
        ok = True
        try:
            self._put_aside(records)
        except DiskFailed:
            ok = False
            self._homeless.extend(records)
        mine = self.records.get(session_id, Records())
        if ok:
            self.acknowledged.update(dict.fromkeys([draft.record_id for draft in work.drafts]))
            known = {record.record_id for record in mine.spilled}
            new = tuple([record_of(draft) for draft in drafts if draft.record_id not in known])
            self.records[session_id] = mine._replace(spilled=(*mine.spilled, *new))
        else:
            self.records[session_id] = mine._replace(unspilled=(*mine.unspilled, session_id))
        self._touch(session_id)
        self.world.tell(work.reply_to, m.SpillDone(work.owner, ok))
        self._spill_on()
        self._go_on()

    def _put_aside(self, records: list[Written]) -> None:
        if any(fault.kind == SPILL_FAILS for fault in self._coming):
            self._comes(SPILL_FAILS)
            raise DiskFailed("the spill file can't be written")
        self._journal.spill(records)

    # --- after a death ----------------------------------------------------------------------------------------------

    def _end_the_dead(self) -> None:
        """As the real recovery: what nobody owns is ended, once the disk lets it; later what nobody came back for."""
        now, awaited = self.world.now_ms, self.awaited
        due = awaited.due_at(now)
        waiting = [session_id for session_id, _ in awaited.sessions.items() if session_id not in due]
        ends = self._journal.ends_of_the_dead([*self._own(), *waiting])
        if not ends and not self._journal.spilled:
            return
        try:
            rows = self._journal.append(ends)
        except DiskFailed:
            self.world.later(RETRY_MS, self._end_the_dead)
            return
        for session_id in sorted(due):
            self.awaited = self.awaited.without(session_id)
        self._shown([row.id for row in rows])
        self.acknowledged.update(dict.fromkeys([end.id for end in ends]))

    def _await(self) -> None:
        """Wait for the callers of dead processes that may come back."""
        now = self.world.now_ms
        for session_id, left in self._journal.left().items():
            owner = self._written_by[left.owned_by]
            silent = now - self._died_ms[owner]
            ms = ms_to_resume(left.state, wished=left.resumable, window_ms=RESUME_WINDOW_MS, silent_ms=silent)
            if ms:
                self.awaited = self.awaited.with_session(session_id, str(owner), now + ms)
                self.world.later(ms, self._end_the_dead)

    def claim(self, session_id: str) -> Left | None:
        """What is left of a session whose caller has come back, which is its own from now on; None when it is too late."""
        claimed = self.awaited.claimed(session_id) if session_id in self.awaited.open_at(self.world.now_ms) else None
        if claimed is None:
            return None
        self.awaited = claimed
        return self._journal.left()[session_id]

    def settle(self, session_id: str, *, goes_on: bool) -> None:
        """What became of a claim: the session goes on, or waits again."""
        awaited = self.awaited
        self.awaited = awaited.without(session_id) if goes_on else awaited.given_back(session_id)
        if not goes_on:
            self.world.later(RESUME_WINDOW_MS, self._end_the_dead)

    def _own(self) -> list[str]:
        """The open sessions of this process."""
        left = self._journal.left().items()
        mine = [session_id for session_id, one in left if self._written_by[one.owned_by] == self.world.processes]
        return [session_id for session_id in mine if session_id not in self.awaited.sessions]

    # --- what promises see ------------------------------------------------------------------------------------------

    def _show(self) -> None:
        """All of the journal, as a new process finds it."""
        self.records = {}
        self._shown([row.id for row in self._journal.rows])
        for record in self._journal.spilled:
            mine = self.records.get(record.request_id, Records())
            shown = self._seen[record.id]
            self.records[record.request_id] = mine._replace(spilled=(*mine.spilled, shown))

    def _shown(self, ids: list[str]) -> None:
        for known in ids:
            record = self._seen.get(known) or self._read(known)
            mine = self.records.get(record.session_id, Records())
            self.records[record.session_id] = mine._replace(durable=(*mine.durable, record))
            self._touch(record.session_id)

    def _read(self, known: str) -> Record:
        """A record that no actor has sent: one that ends a dead session."""
        row = next(row for row in reversed(self._journal.rows) if row.id == known)
        record = self._seen[known] = self._journal.shown(row)
        return record

    def _touch(self, session_id: str) -> None:
        self.world.touched(self.name, session_id)
