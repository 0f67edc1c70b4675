"""Finishing: packing the recordings of ended calls into files, in any process of the home, however long that takes.

The service does this work, not a session: a session's final record describes its recording already, and never changes. The
database lists the recordings to pack, so any process of the home packs them, also after a restart. One recording is packed at a
time, with rests between, since running calls go first. The outcome is a record of its own, whose `request_id` is the
recording's id.

If the disk refuses, the recording is put off, and the log says so once; a damaged recording has failed. In both cases the
samples stay. Finishing also looks for samples that no result names: a service of an older version, or one that died while its
disk hung, may have left them in the call's folder. If a session did not wait for a hanging disk at its end, its samples are
named once the media port has closed them.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Final

from msgspec.structs import replace

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.recording.left_segments import closed_steps
from agentos.core.communication.voice.recording.manifest import has_samples
from agentos.core.communication.voice.recording.packing import finished_steps
from agentos.core.communication.voice.recording.segments import RecordingDamaged, RecordingKind
from agentos.core.communication.voice.recording.steps import NoLongerWanted, taken
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from agentos.core.time import monotonic_ms, utc_now
from machines.communication import ConnectorType, RequestStatus
from machines.evidence import EvidenceRecord, record_id
from machines.operations import RECORDING_FAILED, RECORDING_READY
from machines.recording import RECORDING, RecordingInfo, RecordingState
from machines.session import VoiceSession, VoiceSessionState

_REST_SHARE: Final = 2  # times the work: recordings get a third of a processor, unless somebody waits for one
_REST_MS: Final = 2  # of work, after which a rest is worth it
_LONGEST_REST_MS: Final = 100  # so that the end of the service does not wait
_LOOK_MS: Final = 500  # between two looks at recordings that are still being written
_OPERATIONS: Final = {RecordingState.READY: RECORDING_READY, RecordingState.FAILED: RECORDING_FAILED}

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class FinishingReport:
    """The outcome for the recordings of a home: the ready ones, the failed ones, and, by session, the problems of others, which
    are tried again."""

    ready: tuple[RecordingInfo, ...]
    failed: tuple[RecordingInfo, ...]
    problems: dict[str, str]


class Finishing:
    """Packs the recordings of one home. `recordings` is their folder, `kind` the format of recordings without a manifest.

    All methods block, and may be called from any thread. A file lock keeps two from working on one recording.
    """

    def __init__(self, store: VoiceStore, recordings: Path, kind: RecordingKind) -> None:
        self._store = store
        self._recordings = recordings
        self._kind: RecordingKind = kind

    def unnamed(self) -> dict[str, str | None]:
        """The sessions whose samples no result names, by the names of their folders: each with its owner if it has stopped, and
        None if it is unknown. A folder that can't be read counts as one with samples. Raises `StoreError`, and `OSError` if the
        folder of all recordings can't be read."""
        folders = [path.name for path in self._recordings.iterdir()] if self._recordings.is_dir() else []
        unnamed = self._store.unnamed_recordings(folders)
        return {name: owner for name, owner in unnamed.items() if self._may_have_samples(name)}

    def _may_have_samples(self, name: str) -> bool:
        try:
            return has_samples(self._recordings / name)
        except OSError:
            return True

    def take_in(self, wanted: Callable[[], bool] = lambda: True) -> dict[str, str]:
        """Name the unnamed samples of dead processes' stopped sessions, so that they are finished; return the problems by
        session. Raises `StoreError`."""
        problems: dict[str, str] = {}
        for session_id, owner in self.unnamed().items():
            if owner is None or not self._store.owners.is_dead(owner):
                continue
            try:
                self._name(session_id, wanted)
            except OSError as error:
                problems[session_id] = str(error)
        return problems

    def take_up(self, session_id: str, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Name the samples of a session of this process, once nobody writes there any more. Returns whether no samples are left
        to be named. Raises `StoreError`, `OSError`."""
        session = self._store.session(session_id)
        if session is None or session.state is not VoiceSessionState.STOPPED:
            return False  # the session's final record is not in the store yet
        if not self._store.unnamed_recordings([session_id]) or not has_samples(self._recordings / session_id):
            return True
        return self._name(session_id, wanted)

    def _name(self, session_id: str, wanted: Callable[[], bool]) -> bool:
        """Name samples, unless another process works on them."""
        folder = self._recordings / session_id
        with _alone(folder) as alone:
            manifest = taken(closed_steps(folder, self._kind, self._end(session_id)), wanted) if alone else None
        if manifest is not None:
            self._store.add_recording(session_id, manifest.info(folder, RecordingState.FINISHING))
        return alone

    def _end(self, session_id: str) -> int:
        """The sample at which a call ended, by its result; 0 if that is unknown."""
        session = self._store.session(session_id)
        if session is None or session.result is None:
            return 0
        return session.result.frames.accepted * session.audio_format.frame_samples

    def run(
        self,
        wanted: Callable[[], bool] = lambda: True,
        on_end: Callable[[str], None] = lambda _: None,
        but: Container[str] = (),
    ) -> FinishingReport:
        """Finish all unfinished recordings, except of the sessions in `but`; each is durable before the next, and `on_end` is
        called with its session's id.

        When `wanted` turns false, the work stops within some milliseconds, and nothing is lost. Raises `StoreError` if the
        store can't be read.
        """
        ready: list[RecordingInfo] = []
        failed: list[RecordingInfo] = []
        problems: dict[str, str] = {}
        with suppress(NoLongerWanted):
            for session_id, recording in self._store.unfinished_recordings():
                if session_id in but:
                    continue
                try:
                    became = self._finish(session_id, recording, wanted)
                except OSError as error:
                    problems[session_id] = str(error)
                    continue
                if became is not None:
                    (ready if became.state is RecordingState.READY else failed).append(became)
                    on_end(session_id)
        return FinishingReport(tuple(ready), tuple(failed), problems)

    def _finish(self, session_id: str, recording: RecordingInfo, wanted: Callable[[], bool]) -> RecordingInfo | None:
        """Finish one recording, and return it; None if another process works on it."""
        folder = self._recordings / session_id
        reason = ""
        with _alone(folder) as alone:
            if not alone:
                return None
            try:
                if taken(finished_steps(folder, self._kind, recording), wanted) is None:
                    reason = "gone"
            except RecordingDamaged as error:
                log.error("recording_failed", session_id=session_id, error=str(error))  # noqa: TRY400 - no fault of the program
                reason = "damaged"
            trigger = "damaged" if reason else "packed"
            became = replace(recording, state=RECORDING.fire(recording.state, trigger))
            session = self._store.session(session_id)
            if session is None:
                raise StoreError(f"there is no session {session_id!r}", kind="corrupt")
            self._store.append([Entry(_record(session, became, reason), recording=became)])
        return became


class RecordingFinisher:
    """Does the work of `Finishing` in a thread of its own, from `start` to `close`: at the start, when `nudge` says that a call
    has ended, and every `interval_seconds`, when recordings that were put off are tried again too. It looks for unnamed samples
    at the start, and again while a problem keeps them from being named.

    `writing(session_id)`, called from the thread, says whether the media port of this process still has the session's audio.
    """

    def __init__(
        self, finishing: Finishing, interval_seconds: float, writing: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._finishing = finishing
        self._writing = writing
        self._late: dict[str, None] = {}
        self._interval_seconds = interval_seconds
        self._closing = False
        self._nudged = threading.Event()
        self._lock = threading.Lock()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._said: set[str] = set()
        self._put_off: set[str] = set()
        self._unnamed = True  # there may be unnamed samples
        self._worked_since_ms = 0
        self._thread = threading.Thread(target=self._run, name="voice-finishing", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def nudge(self) -> None:
        """Have the thread look for unfinished recordings; from any thread."""
        self._nudged.set()

    def expect(self, session_id: str) -> None:
        """Finish a recording that its session's end did not wait for, once the media port has closed it; from any thread."""
        self._late[session_id] = None
        self._nudged.set()

    def expects(self, session_id: str) -> bool:
        """Whether a recording of this session, which its result does not name, may still come; from any thread."""
        return session_id in self._late

    @contextmanager
    def told(self, session_id: str, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, call `callback`, from the thread, when the recording of this session is finished, and at the end of
        the thread. Meanwhile the work does not rest."""
        with self._lock:
            self._listeners.setdefault(session_id, []).append(callback)
        self._nudged.set()
        try:
            yield
        finally:
            with self._lock:
                waiting = self._listeners[session_id]
                waiting.remove(callback)
                if not waiting:
                    del self._listeners[session_id]

    def close(self, timeout_seconds: float) -> bool:
        """Break off the current work, which the next process continues, and end the thread; return whether that was done in
        time. Does nothing if the thread was never started."""
        self._closing = True
        self._nudged.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        due_ms = monotonic_ms()
        while not self._closing:
            self._nudged.clear()
            if monotonic_ms() >= due_ms:
                self._put_off.clear()
                due_ms = monotonic_ms() + int(self._interval_seconds * 1000)
                if self._unnamed:
                    self._attempt(self._take_in)
            self._attempt(self._take_up)
            self._attempt(self._finish)
            left_ms = max(0, due_ms - monotonic_ms())
            self._nudged.wait((min(left_ms, _LOOK_MS) if self._expected() else left_ms) / 1000)
        for session_id in list(self._listeners):
            self._tell(session_id)

    def _attempt(self, work: Callable[[], None]) -> None:
        self._worked_since_ms = monotonic_ms()
        try:
            work()
        except NoLongerWanted:
            pass
        except StoreError as error:
            self._say("", str(error))
        except Exception:
            log.exception("recordings_not_finished")

    def _take_in(self) -> None:
        problems = self._finishing.take_in(self._wanted)
        self._unnamed = bool(problems)
        for session_id, problem in problems.items():
            self._say(session_id, problem)

    def _expected(self) -> list[str]:
        return [session_id for session_id in list(self._late) if session_id not in self._put_off]

    def _take_up(self) -> None:
        for session_id in self._expected():
            if self._writing(session_id):
                continue
            try:
                if not self._finishing.take_up(session_id, self._wanted):
                    continue
            except OSError as error:
                self._put_off.add(session_id)
                self._say(session_id, str(error))
                continue
            del self._late[session_id]
            self._tell(session_id)

    def _finish(self) -> None:
        report = self._finishing.run(self._wanted, self._tell, self._put_off)
        for session_id, problem in report.problems.items():
            self._put_off.add(session_id)
            self._say(session_id, problem)

    def _say(self, session_id: str, problem: str) -> None:
        if session_id not in self._said and not self._closing:
            self._said.add(session_id)
            log.warning("recording_put_off", session_id=session_id, problem=problem)

    def _wanted(self) -> bool:
        """Whether the work is to go on. Called between two steps; it also rests here."""
        worked_ms = monotonic_ms() - self._worked_since_ms
        if worked_ms >= _REST_MS:
            if not self._listeners and not self._closing:
                sleep(min(worked_ms * _REST_SHARE, _LONGEST_REST_MS) / 1000)
            self._worked_since_ms = monotonic_ms()
        return not self._closing

    def _tell(self, session_id: str) -> None:
        with self._lock:
            listeners = list(self._listeners.get(session_id, ()))
        for callback in listeners:
            with suppress(Exception):  # the event loop of the waiting caller is over
                callback()


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Lock a recording for the length of the block; whether that succeeded. The lock dies with the process."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        folder.parent.stat()  # a home that is gone for a moment fails no recording
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _record(session: VoiceSession, became: RecordingInfo, reason: str) -> EvidenceRecord:
    """The only record of a recording's end."""
    ready = became.state is RecordingState.READY
    return EvidenceRecord(
        id=record_id(became.recording_id, None),
        request_id=became.recording_id,
        connector_type=ConnectorType.CUSTOM,
        operation=_OPERATIONS[became.state],
        request_summary={"recording_id": became.recording_id, "session_id": session.session_id},
        response_summary={
            "state": became.state.value,
            "sample_rate": became.sample_rate,
            "channels": became.channels,
            "samples": became.samples,
            "gaps": [list(gap) for gap in became.gaps],
            "digest": became.digest,
            **({"reason": reason} if reason else {}),
        },
        status=RequestStatus.SUCCESS if ready else RequestStatus.FAILED,
        metadata={
            "audit_trace_id": session.audit_trace_id,
            "risk_tier": session.risk_tier.value,
            "verdict": session.policy_verdict.reason_code,
            "number": 1,
        },
        created_at=utc_now(),
    )
