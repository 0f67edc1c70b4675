"""Recovery: the sessions that a process left when it died are ended by another one.

Only what nobody owns is touched: the dead owner's lock is held while its sessions are ended, and they are read only then. What
it had spilled goes in first, so that a session that really ended is not ended again. Should two recover one session
nevertheless, their records have the same ids, and the store takes the first.
"""

import errno
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.failures import failed
from agentos.core.communication.voice.storage.ownership import Ownership, owners, sessions_of_the_living
from agentos.core.communication.voice.storage.recordings import RecordingError, RecordingKind, recover_steps
from agentos.core.communication.voice.storage.remains import Kept, Remains, kept_steps
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.spill_files import SpillFiles
from agentos.core.communication.voice.storage.store import BadEntry, VoiceStore
from machines.session import VoiceSession

T = TypeVar("T")

log = structlog.get_logger(__name__)


class _GivenUp(Exception):
    """Nobody waits for the recovery any more."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What came of a recovery.

    `recovered` are the sessions that were ended, as they are now; `owned` is the number of those that run in living
    processes; `problems` say what could not be done, and is tried again by the next recovery.
    """

    recovered: tuple[VoiceSession, ...]
    owned: int
    problems: tuple[str, ...]


class Recovery:
    """Ends the sessions of dead owners in one home.

    `recordings` is the folder of the home's recordings, `recording_kind` the format of those that had no complete segment.
    """

    def __init__(self, store: VoiceStore, recordings: Path, recording_kind: RecordingKind) -> None:
        self._store = store
        self._home = store.path.parent
        self._recordings = recordings
        self._recording_kind = recording_kind

    def run(self, wanted: Callable[[], bool] = lambda: True) -> RecoveryReport:
        """Move every session that nobody owns to STOPPED; blocks. Each is durable before the next is begun.

        When `wanted` turns false it is given up within some milliseconds, and nothing is lost: the next one goes on. Raises
        `StoreError` when the store can't be read, `LocksUnavailable` when the file system has no locks.
        """
        recovered: list[VoiceSession] = []
        problems: list[str] = []
        try:
            for owner in sorted({*self._store.unfinished(), *owners(self._home)}):
                ownership = Ownership.of_dead(self._home, owner)
                if ownership is None:
                    continue
                try:
                    recovered.extend(self._ended(owner, wanted, problems))  # keeps those before one that fails
                finally:
                    ownership.release()
        except _GivenUp:
            pass
        return RecoveryReport(tuple(recovered), len(sessions_of_the_living(self._store)), tuple(problems))

    def _ended(self, owner: str, wanted: Callable[[], bool], problems: list[str]) -> Iterator[VoiceSession]:
        """End the sessions of an owner whose lock is held, one by one."""
        try:
            self._take_in_spilled(owner)
            for session in self._store.unfinished().get(owner, ()):
                try:
                    yield self._end(session, owner, wanted)
                except (StoreError, BadEntry) as error:
                    if isinstance(error, StoreError) and error.kind != "corrupt":
                        raise  # the store, and not this session
                    problems.append(f"session {session.session_id!r} can't be ended: {error}")
        except StoreError as error:
            problems.append(f"the sessions of {owner!r} can't be ended yet: {error}")

    def _take_in_spilled(self, owner: str) -> None:
        try:
            spill = SpillFile.orphan(self._home, owner)
        except StoreError as error:
            if error.kind != "corrupt":
                raise
            log.warning("a spill file can't be read and is left as it is", path=str(self._home), owner=owner)
            return
        if spill is None:
            return
        files = SpillFiles(spill, self._store, lambda _: None)
        files.look_for_orphans = False
        try:
            failure = files.take_in()
        finally:
            files.close()
        if failure is not None:
            raise failure

    def _end(self, session: VoiceSession, owner: str, wanted: Callable[[], bool]) -> VoiceSession:
        session_id = session.session_id
        remains = Remains(session, owner, self._store.evidence(session_id), self._store.events(session_id))
        entries = remains.end(self._kept(remains, wanted))
        self._store.append(entries)
        ended = entries[-1].session
        assert ended is not None  # noqa: S101 - narrows the type
        return ended

    def _kept(self, remains: Remains, wanted: Callable[[], bool]) -> Kept:
        session = remains.session
        if not session.recording_enabled:
            return Kept("none")
        folder = self._recordings / session.session_id
        try:
            info = _result(recover_steps(folder, self._recording_kind), wanted)
            return Kept("none") if info is None else _result(kept_steps(remains, info), wanted)
        except RecordingError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise failed(folder, error) from error  # it can be joined when there is room again
            log.warning("a recording can't be finished", session_id=session.session_id, error=str(error))
            return Kept("unreadable")


class RecurringRecovery:
    """Runs a recovery now and every `interval_seconds`, in a thread of its own, from `start` to `close`.

    `before` is called in that thread before each; it may block, for a bounded time.
    """

    def __init__(self, recovery: Recovery, interval_seconds: float, before: Callable[[], object]) -> None:
        self._recovery = recovery
        self._interval_seconds = interval_seconds
        self._before = before
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="voice-recovery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_seconds: float) -> bool:
        """Give up what is under way and end the thread; True when that was done in time. Nothing to do if never started."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._before()
            try:
                report = self._recovery.run(lambda: not self._closing.is_set())
            except StoreError as error:
                problems: tuple[str, ...] = (str(error),)
            except Exception:
                log.exception("the recovery failed")
                problems = ()
            else:
                problems = report.problems
                if report.recovered:
                    log.warning("sessions of dead processes were ended", sessions=len(report.recovered))
            for problem in problems if not self._closing.is_set() else ():
                log.warning("not everything that a dead process left could be recovered", problem=problem)
            self._closing.wait(self._interval_seconds)


def _result(steps: Generator[None, None, T], wanted: Callable[[], bool]) -> T:
    """Take the steps and give what they return. Raises `_GivenUp` between two of them when nobody wants it any more."""
    with closing(steps):
        while wanted():
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
    raise _GivenUp
