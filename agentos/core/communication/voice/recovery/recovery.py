"""Recovery: the sessions that a process left when it died are ended by another one, or wait until their callers come back.

Only what nobody owns is touched: the dead owner's lock is held while its sessions are ended, and they are read only then. What
it had spilled goes in first, so that a session that really ended is not ended again. Should two recover one session
nevertheless, their records have the same ids, and the store takes the first.

A session that may be resumed waits in `awaited`, with the lock of its owner held, and is ended when its time is over.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Final

from agentos.core.communication.voice.errors import NotResumable, SessionNotFound, StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.recording.left_segments import closed, files_of, mended
from agentos.core.communication.voice.recording.segments import RecordingError, RecordingKind
from agentos.core.communication.voice.recording.steps import GivenUp, taken
from agentos.core.communication.voice.recovery.awaited import AwaitedSessions
from agentos.core.communication.voice.recovery.dead_session import Kept, Remains, frames_of, kept_steps
from agentos.core.communication.voice.recovery.resumption import NotWhole, Restored, restored_steps
from agentos.core.communication.voice.storage.failures import failed
from agentos.core.communication.voice.storage.ownership import Ownership, owners, sessions_of_the_living
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.spill_files import SpillFiles
from agentos.core.communication.voice.storage.store import BadEntry, VoiceStore
from agentos.core.time import monotonic_ms, utc_now_ms
from machines.recording import RecordingState
from machines.recovery import ms_to_resume
from machines.session import VoiceSession, VoiceSessionState

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What came of a recovery.

    `recovered` are the sessions that were ended, as they are now; `owned` is the number of those that run in living
    processes; `resumable` are those that wait to be resumed; `problems` say what could not be done, and is tried again by the
    next recovery.
    """

    recovered: tuple[VoiceSession, ...]
    owned: int
    problems: tuple[str, ...]
    resumable: tuple[VoiceSession, ...] = ()


class Recovery:
    """Ends the sessions of dead owners in one home, or keeps them for `resume_window_seconds` from their owner's last sign of
    life.

    `recordings` is the folder of the home's recordings, `recording_kind` the format of those that had no complete segment. Its
    methods block, and may be called from any thread. `close` leaves what is kept.
    """

    def __init__(
        self,
        store: VoiceStore,
        recordings: Path,
        recording_kind: RecordingKind,
        *,
        resume_window_seconds: float = 0,
    ) -> None:
        self._store = store
        self._home = store.path.parent
        self._recordings = recordings
        self._recording_kind = recording_kind
        self._window_ms = int(resume_window_seconds * 1000)
        self._adopting = Lock()
        self.awaited = AwaitedSessions()

    def run(self, wanted: Callable[[], bool] = lambda: True) -> RecoveryReport:
        """Move every session that nobody owns, and that is not to be resumed, to STOPPED; each is durable before the next is
        begun.

        When `wanted` turns false it is given up within some milliseconds, and nothing is lost: the next one goes on. Raises
        `StoreError` when the store can't be read, `LocksUnavailable` when the file system has no locks.
        """
        recovered: list[VoiceSession] = []
        problems: list[str] = []
        try:
            for owner in sorted({*self._store.unfinished(), *owners(self._home)}):
                ownership = self._dead(owner, problems)
                if ownership is None:
                    continue
                try:
                    recovered.extend(self._ended(owner, wanted, problems))  # keeps those before one that fails
                finally:
                    ownership.release()
            recovered.extend(self._end_awaited(self.awaited.due(), wanted, problems))
        except GivenUp:
            pass
        owned = len(sessions_of_the_living(self._store)) - len(self.awaited.all())
        return RecoveryReport(tuple(recovered), owned, tuple(problems), tuple(self.awaited.resumable()))

    def end_awaited(self, session_id: str) -> bool:
        """End a session that waits to be resumed; False when it does not, or somebody resumes or ends it just now.

        Raises `StoreError`: then it is ended as soon as the store can take it.
        """
        problems: list[str] = []
        ended = list(self._end_awaited([session_id], lambda: True, problems))
        if problems:
            raise StoreError(problems[0], kind="io")
        return bool(ended)

    def close(self, wanted: Callable[[], bool] = lambda: False) -> None:
        """End what waits to be resumed, while `wanted`, and leave the rest for others; nothing is resumed any more."""
        try:
            for _ in self._end_awaited(self.awaited.all(), wanted, []):
                pass
        except GivenUp:
            pass
        finally:
            self.awaited.let_go()

    def restored(self, session_id: str, first_frame: int, segment_seconds: int) -> Restored:
        """Claim a session that may be resumed, and make it ready to go on. It is the caller's to give back, or to call done.

        Raises `SessionNotFound`, `NotResumable`, and `StoreError` when the store or the disk fails, after which it can be
        tried again.
        """
        claimed = self.awaited.claim_to_resume(session_id)
        if claimed is None:
            self._look_for(session_id)
            claimed = self.awaited.claim_to_resume(session_id)
        if claimed is None:
            raise self._refusal(session_id)
        try:
            return self._restored(*claimed, first_frame, segment_seconds)
        except NotResumable:
            self.awaited.give_back(session_id, hopeless=True)
            with suppress(StoreError):  # then the next recovery does it
                self.end_awaited(session_id)
            raise
        except BaseException:
            self.awaited.give_back(session_id)
            raise

    def _restored(self, session: VoiceSession, owner: str, first_frame: int, segment_seconds: int) -> Restored:
        folder = self._recordings / session.session_id
        steps = restored_steps(
            self._remains(session, owner), folder, self._recording_kind, segment_seconds, first_frame
        )
        try:
            return taken(steps, lambda: True)
        except NotWhole as error:
            problem = "its recording is not what evidence says was recorded, so that it was ended"
            raise NotResumable(session.session_id, session.state, problem) from error
        except RecordingError as error:
            if error.errno in _NO_SPACE:
                raise failed(folder, error) from error
            raise NotResumable(session.session_id, session.state, f"it was ended, because {error}") from error

    def _look_for(self, session_id: str) -> None:
        """Take the owner of this session in hand if it is dead, and no recovery has come to it yet."""
        for owner, sessions in self._store.unfinished().items():
            if any(session.session_id == session_id for session in sessions):
                ownership = self._dead(owner, [])
                if ownership is not None:
                    ownership.forget()

    def _refusal(self, session_id: str) -> Exception:
        session = self._store.session(session_id)
        if session is None:
            return SessionNotFound(session_id)
        if session.state is VoiceSessionState.STOPPED:
            return NotResumable(session_id, session.state, "it has ended")
        if session_id in self.awaited.all():
            return NotResumable(session_id, session.state, "it is being resumed or ended just now")
        return NotResumable(session_id, session.state, "another process has it, or it may not be resumed any more")

    def _dead(self, owner: str, problems: list[str]) -> Ownership | None:
        """The lock of a dead owner, to end its sessions; None when it lives, or some of its sessions may be resumed: they are
        in `awaited` then, with all others of this owner."""
        with self._adopting:
            ownership = Ownership.of_dead(self._home, owner)
            if ownership is None or not self._window_ms:
                return ownership
            try:
                self._take_in_spilled(owner)
                sessions = self._store.unfinished().get(owner, [])
                silent_ms = utc_now_ms() - ownership.signed_ms()
            except StoreError as error:
                ownership.forget()
                problems.append(f"the sessions of {owner!r} can't be looked at yet: {error}")
                return None
            except BaseException:
                ownership.forget()
                raise
            now = monotonic_ms()
            left = [
                ms_to_resume(one.state, wished=one.resumable, window_ms=self._window_ms, silent_ms=silent_ms)
                for one in sessions
            ]
            if not any(left):
                return ownership
            self.awaited.hold(ownership, [(one, now + ms) for one, ms in zip(sessions, left, strict=True)])
            return None

    def _ended(self, owner: str, wanted: Callable[[], bool], problems: list[str]) -> Iterator[VoiceSession]:
        """End the sessions of an owner whose lock is held, one by one."""
        try:
            self._take_in_spilled(owner)
            for session in self._store.unfinished().get(owner, ()):
                if session.state is VoiceSessionState.STOPPED:  # a part of the database is older than the rest
                    problems.append(
                        f"session {session.session_id!r} can't be ended: it is stored as stopped and as running at once, "
                        "so the database is damaged"
                    )
                    continue
                try:
                    yield self._end(session, owner, wanted)
                except (StoreError, BadEntry) as error:
                    if isinstance(error, StoreError) and error.kind != "corrupt":
                        raise  # the store, and not this session
                    problems.append(f"session {session.session_id!r} can't be ended: {error}")
        except StoreError as error:
            problems.append(f"the sessions of {owner!r} can't be ended yet: {error}")

    def _end_awaited(
        self, session_ids: list[str], wanted: Callable[[], bool], problems: list[str]
    ) -> Iterator[VoiceSession]:
        """End those of these sessions that are here and not claimed, one by one."""
        for session_id in session_ids:
            if not wanted():
                raise GivenUp
            claimed = self.awaited.claim_to_end(session_id)
            if claimed is None:
                continue
            ended: VoiceSession | None = None
            try:
                stored = self._store.session(session_id)
                if stored is not None and stored.state is not VoiceSessionState.STOPPED:
                    ended = self._end(stored, claimed[1], wanted)
                self.awaited.done(session_id)
            except (StoreError, BadEntry) as error:
                self.awaited.give_back(session_id, hopeless=True)
                problems.append(f"session {session_id!r} can't be ended yet: {error}")
            except BaseException:
                self.awaited.give_back(session_id, hopeless=True)
                raise
            if ended is not None:
                yield ended

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
        remains = self._remains(session, owner)
        entries = remains.end(self._kept(remains, wanted))
        self._store.append(entries)
        ended = entries[-1].session
        assert ended is not None  # noqa: S101 - narrows the type
        return ended

    def _remains(self, session: VoiceSession, owner: str) -> Remains:
        session_id = session.session_id
        return Remains(session, owner, self._store.evidence(session_id), self._store.events(session_id))

    def _kept(self, remains: Remains, wanted: Callable[[], bool]) -> Kept:
        session = remains.session
        if not session.recording_enabled:
            return Kept("none")
        folder = self._recordings / session.session_id
        try:
            manifest = mended(folder, self._recording_kind)
            if manifest is None:
                return Kept("none")
            info = manifest.info(folder, RecordingState.FINISHING)
            kept = taken(kept_steps(remains, info, files_of(folder, manifest)), wanted)
            accepted = frames_of(session, remains.account or {}, kept, remains.spoken, remains.heard_upto).accepted
            end = accepted * session.audio_format.frame_samples
            manifest = closed(folder, manifest, kept.samples_digest, end)
            return replace(kept, info=manifest.info(folder, RecordingState.FINISHING))
        except RecordingError as error:
            if error.errno in _NO_SPACE:
                raise failed(folder, error) from error  # it can be read when there is room again
            log.warning("a recording can't be read", session_id=session.session_id, error=str(error))
            return Kept("unreadable")
