"""Recovery: another process ends the sessions of a dead process, or holds them until their callers come back.

Recovery takes the dead owner's lock before it reads or ends the owner's sessions. The owner's spilled records are stored
first, so that a session that really ended is not ended again. Should two processes end one session nevertheless, their
records have the same ids, and the store takes the first.

A session that may be resumed waits in `orphans`, with its owner's lock held, and is ended when its time is over.
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
from agentos.core.communication.voice.recording.steps import NoLongerWanted, taken
from agentos.core.communication.voice.recovery.dead_session import (
    DeadSession,
    RecordingOnDisk,
    frames_of,
    recording_steps,
)
from agentos.core.communication.voice.recovery.orphans import OrphanedSessions
from agentos.core.communication.voice.recovery.resumption import NotWhole, Restored, restored_steps
from agentos.core.communication.voice.storage.failures import failed
from agentos.core.communication.voice.storage.ownership import Ownership
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
    """What one recovery did.

    `recovered` are the ended sessions, as they are now; `owned` is the number of sessions of living processes; `resumable`
    are the sessions that wait to be resumed; `problems` are the failures, one sentence each: the next recovery tries again.
    """

    recovered: tuple[VoiceSession, ...]
    owned: int
    problems: tuple[str, ...]
    resumable: tuple[VoiceSession, ...] = ()


class Recovery:
    """Ends the sessions of dead owners in one home, or holds those that may be resumed for `resume_window_seconds` from their
    owner's last sign of life.

    `recordings` is the folder of the home's recordings, `recording_kind` the format of recordings without a complete
    segment. All methods block, and may be called from any thread.
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
        self._home = store.home
        self._recordings = recordings
        self._recording_kind = recording_kind
        self._window_ms = int(resume_window_seconds * 1000)
        self._adopting = Lock()
        self.orphans = OrphanedSessions()

    def run(self, wanted: Callable[[], bool] = lambda: True) -> RecoveryReport:
        """Move the sessions of dead owners to STOPPED, except those that may be resumed; each is durable before the next.

        When `wanted` turns false, the recovery stops within some milliseconds; the next one goes on, and nothing is lost.
        Raises `StoreError` if the store can't be read, `LocksUnavailable` if the file system has no locks.
        """
        recovered: list[VoiceSession] = []
        problems: list[str] = []
        try:
            for owner in sorted({*self._store.unfinished(), *self._store.owners.names()}):
                ownership = self._dead(owner, problems)
                if ownership is None:
                    continue
                try:
                    recovered.extend(self._ended(owner, wanted, problems))  # keeps those before one that fails
                finally:
                    ownership.release()
            recovered.extend(self._end_orphans(self.orphans.due(), wanted, problems))
        except NoLongerWanted:
            pass
        owned = len(self._store.sessions_of_the_living()) - len(self.orphans.all())
        return RecoveryReport(tuple(recovered), owned, tuple(problems), tuple(self.orphans.resumable()))

    def end_orphan(self, session_id: str) -> bool:
        """End a session that waits to be resumed; False if it does not wait here, or is being resumed or ended just now.

        Raises `StoreError` if the store can't take the end now; the next recovery ends the session.
        """
        problems: list[str] = []
        ended = list(self._end_orphans([session_id], lambda: True, problems))
        if problems:
            raise StoreError(problems[0], kind="io")
        return bool(ended)

    def close(self, wanted: Callable[[], bool] = lambda: False) -> None:
        """End the sessions that wait to be resumed, while `wanted`, and leave the rest to other processes. Nothing can be
        resumed here afterwards."""
        try:
            for _ in self._end_orphans(self.orphans.all(), wanted, []):
                pass
        except NoLongerWanted:
            pass
        finally:
            self.orphans.let_go()

    def waiting(self, session_id: str) -> VoiceSession | None:
        """A session that waits here to be resumed or ended, as its process left it; None if it does not. The death of its owner
        need not have been noticed before. Raises `StoreError`."""
        if self.orphans.session(session_id) is None:
            self._look_for(session_id)
        return self.orphans.session(session_id)

    def restored(self, session_id: str, first_frame: int, segment_seconds: int) -> Restored:
        """Claim a session that may be resumed, and prepare it. The caller then calls `orphans.give_back` or `orphans.done`.

        Raises `SessionNotFound`, `NotResumable`, and `StoreError` if the store or the disk fails: then try again.
        """
        self.waiting(session_id)
        claimed = self.orphans.claim_to_resume(session_id)
        if claimed is None:
            raise self._refusal(session_id)
        try:
            return self._restored(*claimed, first_frame, segment_seconds)
        except NotResumable:
            self.orphans.give_back(session_id, hopeless=True)
            with suppress(StoreError):  # the next recovery ends it then
                self.end_orphan(session_id)
            raise
        except BaseException:
            self.orphans.give_back(session_id)
            raise

    def _restored(self, session: VoiceSession, owner: str, first_frame: int, segment_seconds: int) -> Restored:
        folder = self._recordings / session.session_id
        steps = restored_steps(
            self._dead_session(session, owner), folder, self._recording_kind, segment_seconds, first_frame
        )
        try:
            return taken(steps, lambda: True)
        except NotWhole as error:
            problem = "it was ended, because its recording differs from the account in evidence"
            raise NotResumable(session.session_id, session.state, problem) from error
        except RecordingError as error:
            if error.errno in _NO_SPACE:
                raise failed(folder, error) from error
            raise NotResumable(session.session_id, session.state, f"it was ended, because {error}") from error

    def _look_for(self, session_id: str) -> None:
        """Hold the sessions of this session's owner if the owner is dead and no recovery has found it yet."""
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
        if session_id in self.orphans.all():
            return NotResumable(session_id, session.state, "it is being resumed or ended just now")
        return NotResumable(session_id, session.state, "another process has it, or it may not be resumed any more")

    def _dead(self, owner: str, problems: list[str]) -> Ownership | None:
        """The lock of a dead owner whose sessions are all to be ended. None if the owner lives, or if one of its sessions may
        be resumed: then `orphans` holds all its sessions."""
        with self._adopting:
            ownership = self._store.owners.take_over(owner)
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
            self.orphans.hold(ownership, [(one, now + ms) for one, ms in zip(sessions, left, strict=True)])
            return None

    def _ended(self, owner: str, wanted: Callable[[], bool], problems: list[str]) -> Iterator[VoiceSession]:
        """End the sessions of an owner whose lock this process holds, one by one."""
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

    def _end_orphans(
        self, session_ids: list[str], wanted: Callable[[], bool], problems: list[str]
    ) -> Iterator[VoiceSession]:
        """End these sessions one by one, except those that are claimed or not in `orphans`."""
        for session_id in session_ids:
            if not wanted():
                raise NoLongerWanted
            claimed = self.orphans.claim_to_end(session_id)
            if claimed is None:
                continue
            ended: VoiceSession | None = None
            try:
                stored = self._store.session(session_id)
                if stored is not None and stored.state is not VoiceSessionState.STOPPED:
                    ended = self._end(stored, claimed[1], wanted)
                self.orphans.done(session_id)
            except (StoreError, BadEntry) as error:
                self.orphans.give_back(session_id, hopeless=True)
                problems.append(f"session {session_id!r} can't be ended yet: {error}")
            except BaseException:
                self.orphans.give_back(session_id, hopeless=True)
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
        dead = self._dead_session(session, owner)
        entries = dead.end(self._recording_on_disk(dead, wanted))
        self._store.append(entries)
        ended = entries[-1].session
        assert ended is not None  # noqa: S101 - narrows the type
        return ended

    def _dead_session(self, session: VoiceSession, owner: str) -> DeadSession:
        session_id = session.session_id
        return DeadSession(session, owner, self._store.evidence(session_id), self._store.events(session_id))

    def _recording_on_disk(self, dead: DeadSession, wanted: Callable[[], bool]) -> RecordingOnDisk:
        session = dead.session
        if not session.recording_enabled:
            return RecordingOnDisk("none")
        folder = self._recordings / session.session_id
        try:
            manifest = mended(folder, self._recording_kind)
            if manifest is None:
                return RecordingOnDisk("none")
            info = manifest.info(folder, RecordingState.FINISHING)
            kept = taken(recording_steps(dead, info, files_of(folder, manifest)), wanted)
            accepted = frames_of(session, dead.account or {}, kept, dead.spoken, dead.heard_upto).accepted
            end = accepted * session.audio_format.frame_samples
            manifest = closed(folder, manifest, kept.samples_digest, end)
            return replace(kept, info=manifest.info(folder, RecordingState.FINISHING))
        except RecordingError as error:
            if error.errno in _NO_SPACE:
                raise failed(folder, error) from error  # the recording can be read when there is room again
            log.warning("a recording can't be read", session_id=session.session_id, error=str(error))
            return RecordingOnDisk("unreadable")
