"""Heads of the evidence chain, noted outside the database by the service itself.

The file that the setting `heads` names gets a line, `PLACE:HASH`, soon after records became durable: at most one a second, and
one at the end. It is appended and synced by a thread of its own, so that a file that hangs or fails costs no call anything, and
no record; what is not noted is said, and tried again with the next head. Several processes of one home may share the file.

Before a service takes the first call, the chain must go on from every head in the file. While it runs, each new head is noted
only if the chain goes on from the last one: a head of another chain would bury that this one was cut.

The other way round the chain says up to where heads were noted, in records under `REQUEST`: at the start, each hour and at the
end. A file that was removed, or that an older copy stands for, ends before that. It is said in the log and has a record; calls
go on, as with a file that can't be read.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.core.communication.voice.errors import ChainNotContinued, StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.storage.folders import sync_folder
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from agentos.core.time import monotonic_ms, utc_now
from machines.communication import ConnectorType, RequestStatus, RiskLevel
from machines.evidence import EvidenceRecord, record_id
from machines.heads import Head, HeadCheck, HeadState, read_heads
from machines.operations import HEADS_NOTED

INTERVAL_SECONDS: Final = (
    1.0  # between two heads: what came later than the last one has no head if all is lost just then
)
LOOK_SECONDS: Final = 30.0  # without news: records of other processes, and a chain that was exchanged
MAX_BYTES: Final = (
    1 << 20
)  # some 13,000 heads; beyond it the older half goes, since a newer head covers what is before it
RECORD_SECONDS: Final = 3600.0  # between two records that say up to where heads were noted
TAIL_BYTES: Final = 4096  # of the file, in which the newest head stands
REQUEST: Final = "heads"  # the request id of those records
SPARE_INTERVAL_SECONDS: Final = 3600.0  # where the file may only be appended to: a year is less than a megabyte

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class HeadStatistics:
    """How noting goes: `noted` heads so far, the `place` of the last one, how often it `failed`, and the `problem` that there
    is now, if any."""

    noted: int
    place: int
    failed: int
    problem: str | None


def check_heads(store: VoiceStore, path: Path) -> None:
    """Hold the chain against the heads in a file. Raises `ChainNotContinued`, or `StoreError` for the database.

    A file that can't be read, or is older than the chain says, is logged: that is no reason to take no calls.
    """
    try:
        heads, others = HeadFile(path).read()
    except OSError as error:
        log.exception("heads_unreadable", path=str(path), problem=error.strerror)
        return
    if others:
        log.warning("heads_with_other_lines", path=str(path), lines=len(others))
    checks = store.states_of(heads)
    wrong = next((check for check in checks if check.state not in _GOES_ON), None)
    if wrong is not None:
        raise ChainNotContinued(store.place, path, wrong.head.text, wrong.state.meaning)
    older = file_older(store, path)
    if older is not None:
        log.error("heads_file_older", path=str(path), problem=older)
    held = [check for check in checks if check.state is HeadState.HOLDS]
    if not held and (place := store.head().seq):
        log.warning("no_head_noted_before", path=str(path), place=place, of_an_older_chain=len(checks))


def file_older(store: VoiceStore, path: Path) -> str | None:
    """What is wrong when the file of heads ends before the last head that, as the chain says, was noted in it; None if it does
    not. Raises `StoreError` for the database and `OSError` for the file."""
    return _older(HeadFile(path), _recorded_place(store))


def noted_before(store: VoiceStore) -> bool:
    """Whether the chain says that a service noted its heads. Raises `StoreError`."""
    return store.last_evidence(REQUEST) is not None


def _recorded_place(store: VoiceStore) -> int:
    record = store.last_evidence(REQUEST)
    place = None if record is None else record.request_summary.get("place")
    return place if isinstance(place, int) else 0


def _older(file: "HeadFile", place: int) -> str | None:
    newest = file.newest()
    if newest >= place:
        return None
    ends = f"ends at record {newest}" if newest else "has no head, or is not there"
    return f"it {ends}, and heads up to record {place} had been noted: it was removed, or an older copy stands for it"


class HeadNotes:
    """Notes heads of `store` in the file `path`, from a daemon thread that `start` begins."""

    def __init__(self, store: VoiceStore, path: Path, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._store = store
        self._file = HeadFile(path)
        self._interval_seconds = interval_seconds
        self._stored = threading.Event()
        self._closing = threading.Event()
        self._last: Head | None = None
        self._noted = self._failed = 0
        self._recorded_place = 0
        self._record_due_ms = 0
        self._fault: str | None = None  # that the file was older, until it is on record
        self._failing: str | None = None
        self._thread = threading.Thread(target=self._run, name="voice-heads", daemon=True)
        self.cut: str | None = None
        """Why the chain does not go on from what was noted; None when it does. Once set, nothing is noted any more."""

    def start(self) -> None:
        """Begin to note, with the head as it is."""
        self._stored.set()
        self._thread.start()

    def stored(self) -> None:
        """Records became durable. From any thread; returns at once."""
        self._stored.set()

    def close(self, timeout_seconds: float) -> bool:
        """Note the last head, while the store is open still; True when that was done in time."""
        self._closing.set()
        self._stored.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def statistics(self) -> HeadStatistics:
        """How it goes."""
        place = 0 if self._last is None else self._last.seq
        return HeadStatistics(self._noted, place, self._failed, self.cut or self._failing)

    def _run(self) -> None:
        while self.cut is None:
            self._stored.wait(LOOK_SECONDS)
            self._stored.clear()
            ending = self._closing.is_set()
            try:
                self._note()
                if ending and self.cut is None and self._last is not None:
                    if self._last.seq > self._recorded_place + 1:
                        self._record(self._last)
                    self._note()
            except StoreError as error:
                log.warning("head_not_read", problem=str(error))  # the writer says what is wrong with the store
            except Exception:  # the thread must not end, and nobody waits for it
                log.exception("heads_failed", path=str(self._file.path))
            if ending:
                return
            self._closing.wait(SPARE_INTERVAL_SECONDS if self._file.spare else self._interval_seconds)

    def _note(self) -> None:
        head = self._store.head()
        if head == self._last:
            return
        if self._last is not None:
            (check,) = self._store.states_of([self._last])
            if check.state not in _GOES_ON:
                self._cut(check)
                return
        try:
            older = _older(self._file, _recorded_place(self._store) if self._last is None else self._last.seq)
            self._file.append(head)
        except OSError as error:
            self._failed += 1
            self._stored.set()
            if self._failing is None:
                log.exception("head_not_noted", path=str(self._file.path), problem=error.strerror)
            self._failing = f"heads can't be noted in {self._file.path}: {error.strerror or error}"
            return
        if self._failing is not None:
            log.info("heads_noted_again", path=str(self._file.path))
        self._failing = None
        self._last = head
        self._noted += 1
        if older is not None:
            log.error("heads_file_older", path=str(self._file.path), problem=older)
            self._fault = older
        if self._fault is not None or (head.seq and monotonic_ms() >= self._record_due_ms):
            self._record(head)
            self._stored.set()

    def _record(self, head: Head) -> None:
        """Put on record up to where heads are noted, and that the file was older than it should have been, if it was."""
        older = self._fault
        record = EvidenceRecord(
            id=record_id(secrets.token_hex(12), 1),
            request_id=REQUEST,
            connector_type=ConnectorType.CUSTOM,
            operation=HEADS_NOTED,
            request_summary={"place": head.seq, "head": head.hash, "fault": older},
            status=RequestStatus.SUCCESS if older is None else RequestStatus.FAILED,
            metadata={"audit_trace_id": f"audit-{secrets.token_hex(8)}", "risk_tier": RiskLevel.LOW.value},
            created_at=utc_now(),
        )
        self._store.append([Entry(record)])
        self._fault = None
        self._recorded_place = head.seq
        self._record_due_ms = monotonic_ms() + int(RECORD_SECONDS * 1000)

    def _cut(self, check: HeadCheck) -> None:
        error = ChainNotContinued(self._store.place, self._file.path, check.head.text, check.state.meaning)
        log.error("evidence_cut", problem=str(error))
        self.cut = str(error)


_GOES_ON: Final = frozenset({HeadState.HOLDS, HeadState.BEFORE_CARRY_OVER})


class HeadFile:
    """A file of heads. Its methods block, and raise `OSError`. `spare` is set once it turned out that it can only grow."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.spare = False
        self._max_bytes = max_bytes

    def read(self) -> tuple[list[Head], list[str]]:
        """The heads in the file, and the lines that are none; empty when there is no file.

        What stands behind the last line break is no line: it was torn off by a crash.
        """
        try:
            text = self.path.read_bytes().decode("ascii", "replace")
        except FileNotFoundError:
            return [], []
        found = list(read_heads(text.split("\n")[:-1]))
        return [head for head in found if isinstance(head, Head)], [line for line in found if isinstance(line, str)]

    def newest(self) -> int:
        """The place of the newest head at the end of the file; 0 when there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = file.read().decode("ascii", "replace")
        except FileNotFoundError:
            return 0
        return max((head.seq for head in read_heads(text.split("\n")[:-1]) if isinstance(head, Head)), default=0)

    def append(self, head: Head) -> None:
        """Add a head, and sync it."""
        line = f"{head.text}\n".encode()
        with self._locked() as descriptor:
            size = os.fstat(descriptor).st_size
            if size > self._max_bytes and not self.spare and self._halved(descriptor, size, line):
                self._sync_folder()
                return
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # what a crash tore off stays a line of its own
            if os.write(descriptor, line) < len(line):
                with contextlib.suppress(OSError):  # where it may only be appended to, the part of a line stays
                    os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, "the line was not written whole")
            os.fsync(descriptor)
            if not size:
                self._sync_folder()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, made if it is missing, open to be appended to, and locked against others that make it smaller."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _sync_folder(self) -> None:
        """Make the file's name survive a power cut, where its folder can do that."""
        with contextlib.suppress(OSError):
            sync_folder(self.path.parent)

    def _halved(self, descriptor: int, size: int, line: bytes) -> bool:
        """Put a file with the newer half of the lines, and `line`, in the place of this one; False where that can't be done."""
        lines = os.pread(descriptor, size, 0).split(b"\n")
        kept = b"".join([old + b"\n" for old in lines[len(lines) // 2 :] if old]) + line
        name = None
        try:
            made, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
            with os.fdopen(made, "wb") as file:
                os.fchmod(file.fileno(), os.fstat(descriptor).st_mode & 0o777)
                file.write(kept)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError as error:
            log.warning("heads_only_appended", path=str(self.path), problem=str(error))
            self.spare = True
            if name is not None:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
            return False
        return True
