"""The media port behind every recorder: one thread that digests, measures and writes the audio of all sessions.

The work of a frame is small and its overhead large, so the thread gathers frames for a moment and handles them in batches:
one hash update and one write for each session's run, one measurement for all sessions together.
"""

import errno
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Semaphore, Thread, current_thread
from time import sleep
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.runtime.health import Beat, Heartbeat, PortBack, PortSilent
from actors.voice.messages import CloseMedia, Keep, Kept, MediaClosed, MediaLost, MediaSilent, OpenMedia
from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.convert import to_pcm16
from agentos.core.communication.voice.audio.meter import FrameLevels, frame_levels
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.open_files import open_files_limit
from agentos.core.communication.voice.recording.batch import Batch, Handed
from agentos.core.communication.voice.recording.recordings import RecordingError, RecordingKind, RecordingWriter
from agentos.core.communication.voice.recording.segments import OPEN_MS, OpenSegments
from agentos.core.communication.voice.sessions.door import FramesGivenUp
from agentos.core.time import monotonic_ms
from machines.audio import AudioEncoding, AudioFormat
from machines.losses import Losses, Lost
from machines.reasons import BACKLOG, DISK_FULL, MISSING, WRITE_FAILED
from machines.silence import VoiceMeter

log = logger(__name__)

_LARGE_RUN_FRAMES = 10  # the thread does not wait to make a run longer than this
_LARGEST_FORMAT = AudioFormat(sample_rate=48_000, channels=8)
_TOGETHER = 64  # sessions: more would hold the interpreter lock for too long, fewer cost more each
_YIELD_SECONDS = 0.0002
_REPORT_MS = 500  # frames in real time are reported sooner, by their number
_ASLEEP, _PACING, _WORKING = range(3)


@dataclass(frozen=True, slots=True)
class MediaStatistics:
    """The statistics of the port. All counts but the first two are since the start."""

    queued_frames: int
    """Frames handed over and not yet handled."""
    sessions: int
    """Sessions that are open or closing."""
    frames: int
    """Frames handled."""
    batches: int
    """Batches in which they were handled."""
    stray_frames: int
    """Ignored frames: for a session that isn't open, or handled before."""
    given_up_frames: int
    """Frames of sessions that can't be slowed, given up for newer ones while too many waited."""
    errors: int
    """Writes that the disk refused, and callbacks that raised."""


class Carried(NamedTuple):
    """The audio of a resumed session up to frame `upto`, from its earlier process: the `kept` frames, their bytes and `digest`,
    the recording to continue, and the lost frames."""

    upto: int
    kept: int
    n_bytes: int
    digest: "hashlib._Hash"
    writer: RecordingWriter | None
    lost: tuple[Lost, ...] = ()


class _AudioRun(NamedTuple):
    """Successive frames of one session with their bytes; the last of the `frames` may be short."""

    first: int
    frames: int
    data: bytes


class _Account:
    """The account of one session's audio, and the recipient of its facts."""

    __slots__ = (
        "audio_format", "clipped", "digest", "ending", "frame_bytes", "frames", "kept", "kind", "logged", "losses",
        "n_bytes", "peak", "recording", "reply_to", "sample_bytes", "sealing", "session_id", "silent", "since_ms",
        "squares", "told", "upto", "voiced", "voices", "weight", "writer",
    )  # fmt: skip

    def __init__(self, work: OpenMedia) -> None:
        self.session_id = work.session_id
        self.audio_format = work.audio_format
        self.frame_bytes = work.audio_format.frame_bytes
        self.sample_bytes = work.audio_format.sample_bytes
        self.kind = str(work.audio_format)  # hashed for every run, and a model's own hash is slow
        self.recording = work.recording
        self.reply_to = work.reply_to
        self.writer: RecordingWriter | None = None
        self.digest = hashlib.sha256()
        self.ending = False
        self.sealing = False
        self.upto = 0
        self.told = 0
        self.since_ms = 0  # when the first unreported frames came
        self.kept = self.n_bytes = 0
        self.losses = Losses()
        self.logged: set[str] = set()  # reasons
        self.voices = VoiceMeter() if work.voices else None
        self.reset()

    def reset(self) -> None:
        """Begin the next report."""
        self.frames = self.clipped = self.silent = self.voiced = 0
        self.squares = self.weight = self.peak = 0.0

    def report(self) -> Kept:
        """The report on the frames since the last report."""
        mean_square = self.squares / self.weight if self.weight else 0.0
        digest, clipped, silent = self.digest.hexdigest(), self.clipped, self.silent
        kept, n_bytes, voiced = self.kept, self.n_bytes, self.voiced
        return Kept(self.upto, self.frames, mean_square, self.peak, clipped, silent, kept, n_bytes, digest, voiced)


class MediaPort:
    """Digests, measures and, if asked, records the audio of all sessions in one thread of its own.

    `submit` takes `OpenMedia`, `Keep` and `CloseMedia` in the loop's thread; the facts `Kept`, `MediaLost` and
    `MediaClosed` go out through `post(reply_to, fact)`, from the port's thread. So does the `Beat` that answers a `Heartbeat`,
    once all earlier work is done: not while the disk hangs. `submit` calls `take(session_id, first, count)` for the raw bytes
    of frames. The port's thread calls `room(session_id, n_frames)` when it has handled so many frames. `end(session_id)`,
    called from either thread, is the frame at which a closed call ends: frames below it that the recording does not have become
    a gap at its end. A session's recording goes into the folder `recordings`/session_id, as `kind`, in segments of
    `segment_seconds`.

    Every frame is in exactly one fact: in a `Kept`, by its count, or in a `MediaLost`. A `MediaLost` has the reason
    `disk_full` or `write_failed` if the disk refused to record the frame (later frames are tried again), `missing` if its
    bytes were gone, or `backlog` if they were given up for newer ones: the oldest of a session that can't be slowed go while
    more than `backlog_frames` of it wait for the thread. A session's `Kept` comes once in `report_every_frames` frames, half a
    second after the first of fewer frames, and once before `MediaClosed`. The digest is the SHA-256 of all kept bytes in
    order. While there is little to do, the thread gathers frames for `pace_ms`; the end of a session doesn't wait for that.
    """

    def __init__(  # noqa: PLR0913 - independent settings, all named
        self,
        *,
        take: Callable[[str, int, int], bytes],
        post: Callable[[Any, object], None],
        recordings: Path,
        kind: RecordingKind,
        segment_seconds: int,
        room: Callable[[str, int], None],
        end: Callable[[str], int],
        backlog_frames: int,
        report_every_frames: int = 25,
        pace_ms: int = 200,
    ) -> None:
        # Refuse a kind or length of segments with which no session could be recorded, before there is a session.
        RecordingWriter(recordings, _LARGEST_FORMAT, kind=kind, segment_seconds=segment_seconds)
        self._take = take
        self._post = post
        self._room = room
        self._end = end
        self._recordings = recordings
        self._kind: RecordingKind = kind
        self._segment_seconds = segment_seconds
        self._backlog = backlog_frames
        self._report_every_frames = report_every_frames
        self._pace_ms = pace_ms
        self._handover = Lock()
        self._free: list[list[bytes]] = []
        self._batch = Batch(self._free)
        self._wake = Semaphore(0)
        self._yielded_ms = 0
        self._doing = _WORKING
        self._urgent = False
        self._silent = False
        self._unslowed: set[str] = set()  # the open sessions that can't be slowed
        self._recorders: dict[str, Any] = {}  # the recorders of open sessions
        self._carried: dict[str, Carried] = {}  # the audio of sessions that are being resumed here
        self._closing_at_ms: int | None = None
        self._thread = Thread(target=self._run, name="agentos-voice-media", daemon=True)
        self._accounts: dict[str, _Account] = {}
        self._untold: dict[_Account, None] = {}  # accounts with unreported frames, in the order of `since_ms`
        self._endings: deque[tuple[_Account, Generator[None, None, None]]] = deque()
        self._seals: deque[tuple[_Account, Generator[None, None, None]]] = deque()
        self._submitted = 0  # written by the loop's thread only
        self._given_up = 0
        self._dealt_with = 0  # these are written by the port's thread only
        self._batches = 0
        self._stray = 0
        self._errors = 0
        self._files = OpenSegments(lambda: open_files_limit() // 2)

    def start(self) -> None:
        """Start the thread. It also does the work that was submitted before."""
        self._thread.start()

    def submit(self, work: OpenMedia | Keep | CloseMedia | Heartbeat) -> None:
        """Hand work over, without blocking; facts come later. For one thread, the loop's.

        If `take` raises `LookupError`, the frames are reported as lost, with the reason `missing`, or `backlog` for
        `FramesGivenUp`.
        """
        if type(work) is Keep:
            reason = ""
            try:
                data: bytes | None = self._take(work.session_id, work.first, work.count)
            except FramesGivenUp:
                data, reason = None, BACKLOG
                self._given_up += work.count
            except LookupError:
                data, reason = None, MISSING
            self._submitted += work.count
            self._handover.acquire()  # a `with` would take twice as long, for every frame
            try:
                self._batch.keep(work, data, reason)
                if self._unslowed and work.session_id in self._unslowed:
                    self._given_up += self._batch.give_up_oldest(work.session_id, self._backlog)
            finally:
                self._handover.release()
        elif isinstance(work, OpenMedia):
            self._begin(work)
        elif isinstance(work, CloseMedia):
            end = self._end(work.session_id)
            with self._handover:
                self._batch.closes.append((work.session_id, end))
            if self._silent and work.session_id in self._recorders:
                self._post(self._recorders[work.session_id], MediaSilent())
            self._urgent = True
            if self._doing == _PACING:
                self._rouse()
        elif isinstance(work, Heartbeat):
            with self._handover:
                self._batch.heartbeats.append(work)
        else:
            raise TypeError(
                f"the media port takes OpenMedia, Keep, CloseMedia and Heartbeat, not {type(work).__name__}"
            )
        if self._doing == _ASLEEP:
            self._rouse()

    def _begin(self, work: OpenMedia) -> None:
        with self._handover:
            self._batch.opens.append(work)
            self._recorders[work.session_id] = work.reply_to
            if not work.can_be_slowed:
                self._unslowed.add(work.session_id)

    def carry_on(self, session_id: str, carried: Carried) -> None:
        """Begin with this audio when the session is opened; from any thread."""
        with self._handover:
            self._carried[session_id] = carried

    def let_go(self, session_id: str) -> Carried | None:
        """Take the audio given to `carry_on` back, if the session was not opened; from any thread."""
        with self._handover:
            return self._carried.pop(session_id, None)

    def take_news(self, news: PortSilent | PortBack) -> None:
        """Take news of the health watch: whether the thread is alive. For the loop's thread.

        While it is not, the recorder of each session is told `MediaSilent`, now and at its `CloseMedia`: closing sessions must
        not wait for this port. The thread keeps the work that it has, and does it when it goes on.
        """
        self._silent = isinstance(news, PortSilent)
        if self._silent:
            with self._handover:
                recorders = list(self._recorders.values())
            for recorder in recorders:
                self._post(recorder, MediaSilent())

    def holds(self, session_id: str) -> bool:
        """Whether the port still has the session's audio: the session was opened and has not ended. From any thread."""
        return session_id in self._recorders

    def losses(self, session_id: str) -> Losses | None:
        """The frames of a session that this port has lost, among those that a `Kept` has reported; None if the session is not
        open. The object stays valid after the session's end. From any thread."""
        account = self._accounts.get(session_id)
        return None if account is None else account.losses

    def close(self, timeout_seconds: float) -> bool:
        """Do all queued work, close the open recordings, and end the thread; blocks up to `timeout_seconds`.

        Returns True if that was done in time. Else unclosed recordings stay as segments, which `left_segments.mended` repairs.
        A port that was never started has nothing to close.
        """
        if self._thread.ident is None:
            return not self._batch
        self._closing_at_ms = monotonic_ms() + int(timeout_seconds * 1000)
        self._urgent = True
        self._rouse()
        if self._thread is not current_thread():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and not self._accounts

    def statistics(self) -> MediaStatistics:
        """A snapshot; callable from any thread."""
        return MediaStatistics(
            queued_frames=self._submitted - self._dealt_with,
            sessions=len(self._accounts),
            frames=self._dealt_with,
            batches=self._batches,
            stray_frames=self._stray,
            given_up_frames=self._given_up,
            errors=self._errors,
        )

    # --- the thread ------------------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        self._doing = _WORKING
        self._wake.release()

    def _run(self) -> None:
        while True:
            self._urgent = False
            began_ms = monotonic_ms()
            longest_run = self._deal_with_queue()
            self._seal_and_end(until_ms=began_ms + self._pace_ms)
            self._report_overdue()
            self._files.close_old()
            if self._closing_at_ms is not None and not self._batch and self._wind_up(self._closing_at_ms):
                self._files.close_all()
                return
            if not self._endings and not self._seals:
                self._wait(longest_run, began_ms)

    def _wait(self, longest_run: int, began_ms: int) -> None:
        """Wait for work. A spurious wake-up is harmless."""
        if 0 < longest_run < _LARGE_RUN_FRAMES:
            self._doing = _PACING
            if not self._urgent:
                self._wake.acquire(timeout=max(0, began_ms + self._pace_ms - monotonic_ms()) / 1000)
        self._doing = _ASLEEP
        if not self._batch and not self._urgent:
            first = next(iter(self._untold), None)
            left_ms = None if first is None else max(0, first.since_ms + _REPORT_MS - monotonic_ms())
            if self._files:  # open files must not stay open for ever
                left_ms = OPEN_MS if left_ms is None else min(left_ms, OPEN_MS)
            self._wake.acquire(timeout=None if left_ms is None else left_ms / 1000)
        self._doing = _WORKING

    def _wind_up(self, deadline_ms: int) -> bool:
        """End the sessions that were not closed; return True if no work is left, or no time."""
        for account in self._accounts.values():
            if not account.ending:
                self._begin_end(account, self._end(account.session_id))
        if self._endings and monotonic_ms() < deadline_ms:
            return False
        for _, sealing in self._seals:
            sealing.close()
        for _, steps in self._endings:
            steps.close()  # `mended` closes it later
        return True

    def _deal_with_queue(self) -> int:
        """Do all work that is queued now; return the length of the longest run, in frames."""
        with self._handover:
            batch, self._batch = self._batch, Batch(self._free)
        if not batch:
            return 0
        for work in batch.opens:
            self._open(work)
        sessions = iter(batch.runs.items())
        longest = 0
        while some := list(itertools.islice(sessions, _TOGETHER)):
            longest = max(longest, self._deal_with(some))
        self._batches += bool(batch.runs)
        for session_id, end in batch.closes:
            if session_id in self._accounts:
                self._begin_end(self._accounts[session_id], end)
        for heartbeat in batch.heartbeats:
            self._call(self._post, heartbeat.reply_to, Beat(heartbeat.number, heartbeat.port))
        return longest

    def _deal_with(self, sessions: list[tuple[str, Handed]]) -> int:
        """Handle the audio of some sessions; return the length of the longest run, in frames."""
        kept: list[tuple[_Account, _AudioRun]] = []
        dealt: list[tuple[str, int]] = []
        for session_id, handed in sessions:
            self._yield_to_loop()
            runs = (handed, *(handed.more or ()))
            dealt.append((session_id, sum(run.frames for run in runs)))
            account = self._accounts.get(session_id)
            if account is None or account.ending:
                self._stray += dealt[-1][1]
                continue
            pieces = [piece for run in runs if (piece := self._new_part(account, run)) is not None]
            if pieces:
                kept += [(account, run) for run in self._store(account, pieces)]
        self._yield_to_loop()
        self._measure(kept)
        for session_id, count in dealt:
            if session_id in self._accounts:
                self._report_if_due(self._accounts[session_id])
            self._dealt_with += count
            self._call(self._room, session_id, count)
        return max(count for _, count in dealt)

    def _yield_to_loop(self) -> None:
        """Let the loop's thread run for a moment, once in a millisecond.

        Otherwise this thread would hold the interpreter lock for 5 ms whenever the loop needs it, which is after every wait:
        all frames of the batch would be late by the length of the batch.
        """
        now = monotonic_ms()
        if now != self._yielded_ms:
            sleep(_YIELD_SECONDS)
            self._yielded_ms = monotonic_ms()

    def _open(self, work: OpenMedia) -> None:
        account = self._accounts.get(work.session_id)
        if account is None:
            account = self._accounts[work.session_id] = _Account(work)
            carried = self.let_go(work.session_id)
            if carried is not None:
                account.upto = account.told = carried.upto
                account.kept, account.n_bytes = carried.kept, carried.n_bytes
                account.digest, account.writer = carried.digest, carried.writer
                if account.writer is not None:
                    account.writer.files = self._files
                account.losses = Losses(carried.lost)
        else:  # its recorder was restarted: only the recipient of the facts has changed
            account.reply_to = work.reply_to

    def _new_part(self, account: _Account, handed: Handed) -> _AudioRun | None:
        """The part of a run that was not handled before; None if there is none, or its bytes are gone."""
        data = self._bytes_of(handed)
        known = max(0, min(handed.frames, account.upto - handed.first))
        self._stray += known
        if known == handed.frames:
            return None
        first, count = handed.first + known, handed.frames - known
        account.upto = first + count
        rest = data[known * account.frame_bytes :] if data is not None and known else data
        if not rest or len(rest) % account.sample_bytes:
            self._lose(account, first, count, handed.reason or MISSING)
            return None
        return _AudioRun(first, count, rest)

    def _bytes_of(self, handed: Handed) -> bytes | None:
        """All bytes of a run in one object; frees its list of parts."""
        parts = handed.parts
        if parts is None:
            return None
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._free.append(parts)
        return data

    def _store(self, account: _Account, pieces: list[_AudioRun]) -> list[_AudioRun]:
        """Write and digest the runs; return the kept ones."""
        kept = []
        for run in _joined(pieces, account.frame_bytes):
            saved = self._write(account, run) if account.recording else run
            if saved.frames < run.frames:
                self._listen(account, run.data[saved.frames * account.frame_bytes :])
            if saved.frames:
                if account.writer is None or account.digest is not account.writer.digest:
                    account.digest.update(saved.data)
                kept.append(saved)
        return kept

    def _write(self, account: _Account, run: _AudioRun) -> _AudioRun:
        """Record a run, and return the recorded part. Frames that the disk refuses are reported as lost."""
        saved = 0
        try:
            if account.writer is None:
                account.writer = RecordingWriter(
                    self._recordings / account.session_id,
                    account.audio_format,
                    kind=self._kind,
                    segment_seconds=self._segment_seconds,
                    defer_sealing=True,
                )
                account.writer.files = self._files
                if account.audio_format.encoding is AudioEncoding.PCM_S16LE:
                    account.digest = account.writer.digest  # the recorded bytes are the received ones
            account.writer.write(run.first, run.data)
        except (OSError, ValueError) as error:
            self._errors += 1
            if account.writer is not None and isinstance(error, RecordingError):
                saved = max(0, min(run.frames, account.writer.next_frame - run.first))
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._lose(account, run.first + saved, run.frames - saved, DISK_FULL if full else WRITE_FAILED)
            run = _AudioRun(run.first, saved, run.data[: saved * account.frame_bytes])
        if account.writer is not None and account.writer.has_unsealed and not account.sealing:
            account.sealing = True
            self._seals.append((account, account.writer.seal_steps()))
        return run

    def _measure(self, kept: list[tuple[_Account, _AudioRun]]) -> None:
        """Add the levels of the kept runs to their accounts; whole frames of one format are measured together."""
        alike: dict[str, list[tuple[_Account, int, bytes]]] = {}
        for account, run in kept:
            account.frames += run.frames
            account.kept += run.frames
            account.n_bytes += len(run.data)
            whole, rest = divmod(len(run.data), account.frame_bytes)
            if whole:
                several = alike.setdefault(account.kind, [])
                several.append((account, whole, run.data[: len(run.data) - rest] if rest else run.data))
            if rest:
                self._measure_alike(account.audio_format, rest, [(account, 1, run.data[-rest:])])
        for several in alike.values():
            account = several[0][0]
            self._measure_alike(account.audio_format, account.frame_bytes, several)

    def _listen(self, account: _Account, data: bytes) -> None:
        """Look for voice in frames that the disk refused: they are not recorded, but they may keep a call from being silent."""
        whole = len(data) // account.frame_bytes
        if account.voices is not None and whole:
            levels = self._levels(account.audio_format, account.frame_bytes, data[: whole * account.frame_bytes])
            account.voiced += account.voices.voiced(levels.mean_square.tolist())

    def _levels(self, audio_format: AudioFormat, frame_bytes: int, data: bytes) -> FrameLevels:
        samples = to_pcm16(data, audio_format)
        width = frame_bytes // audio_format.sample_bytes
        return frame_levels(
            samples.reshape(-1, width * audio_format.channels),
            audio_format.channels,
            full_scale=mulaw.FULL_SCALE if audio_format.encoding is AudioEncoding.MULAW else 32_767,
        )

    def _measure_alike(
        self, audio_format: AudioFormat, frame_bytes: int, several: list[tuple[_Account, int, bytes]]
    ) -> None:
        levels = self._levels(audio_format, frame_bytes, b"".join([data for _, _, data in several]))
        width = frame_bytes // audio_format.sample_bytes
        starts = np.zeros(len(several), np.intp)
        np.cumsum([count for _, count, _ in several[:-1]], out=starts[1:])
        for (account, count, _), begin in zip(several, starts.tolist(), strict=True):
            if account.voices is not None:
                account.voiced += account.voices.voiced(levels.mean_square[begin : begin + count].tolist())
        for (account, count, _), (squares, peak, clipped, silent) in zip(several, _sums(levels, starts), strict=True):
            account.squares += squares * width
            account.weight += count * width
            account.peak = max(account.peak, peak)
            account.clipped += clipped
            account.silent += silent

    def _report_if_due(self, account: _Account) -> None:
        if account.upto - account.told >= self._report_every_frames:
            self._report(account)
        elif account not in self._untold and account.upto > account.told:
            account.since_ms = monotonic_ms()
            self._untold[account] = None

    def _report_overdue(self) -> None:
        """Report frames that have waited for more frames too long: until then nobody may call them durable."""
        due_ms = monotonic_ms() - _REPORT_MS
        while (account := next(iter(self._untold), None)) is not None and account.since_ms <= due_ms:
            self._report(account)

    def _report(self, account: _Account) -> None:
        self._untold.pop(account, None)
        self._call(self._post, account.reply_to, account.report())
        account.told = account.upto
        account.reset()

    def _lose(self, account: _Account, first: int, count: int, reason: str) -> None:
        account.losses.add(first, count, reason)
        if reason not in account.logged:  # once for each reason; evidence has the counts
            account.logged.add(reason)
            log.warning("audio_lost", session_id=account.session_id, reason=reason, first_frame=first)
        self._call(self._post, account.reply_to, MediaLost(first, count, reason))

    def _begin_end(self, account: _Account, end: int) -> None:
        if account.ending:
            return
        account.ending = True
        if account.sealing:  # packing seals the rest later
            sealing = next(steps for one, steps in self._seals if one is account)
            self._seals.remove((account, sealing))
            sealing.close()
        end = max(end, account.upto)
        steps = account.writer.close_steps(end) if account.writer is not None else _nothing_recorded()
        self._endings.append((account, steps))

    def _seal_and_end(self, until_ms: int) -> None:
        """Close segments and recordings until the next batch is due: segments one after the other, since each needs two open
        files, and a block of each recording in turn."""
        while self._seals or self._endings:
            if self._seals:
                self._seal_one()
            if self._endings:
                self._end_one()
            if monotonic_ms() >= until_ms:
                return

    def _seal_one(self) -> None:
        account, steps = self._seals[0]
        for _ in steps:
            return
        self._seals.popleft()
        account.sealing = False

    def _end_one(self) -> None:
        account, steps = self._endings.popleft()
        try:
            next(steps)
            self._endings.append((account, steps))
        except StopIteration:
            self._ended(account)
        except OSError:
            self._errors += 1
            self._ended(account)

    def _ended(self, account: _Account) -> None:
        recording = None if account.writer is None or not account.writer.next_frame else account.writer.info
        if account.upto > account.told:
            self._report(account)
        self._untold.pop(account, None)
        del self._accounts[account.session_id]
        with self._handover:
            self._recorders.pop(account.session_id, None)
            self._unslowed.discard(account.session_id)
        self._call(self._post, account.reply_to, MediaClosed(recording, account.digest.hexdigest()))

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call a callback of another thread, whose errors must not end the work for other sessions."""
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001 - the loop may have ended, with any error
            self._errors += 1


def _nothing_recorded() -> Generator[None, None, None]:
    yield from ()


def _joined(pieces: list[_AudioRun], frame_bytes: int) -> list[_AudioRun]:
    """The runs, with adjacent ones joined."""
    joined: list[_AudioRun] = []
    group: list[_AudioRun] = []
    for piece in pieces:
        if group and (piece.first != group[-1].first + group[-1].frames or len(group[-1].data) % frame_bytes):
            joined.append(_merged(group))
            group = []
        group.append(piece)
    joined.append(_merged(group))
    return joined


def _merged(group: list[_AudioRun]) -> _AudioRun:
    if len(group) == 1:
        return group[0]
    return _AudioRun(group[0].first, sum(run.frames for run in group), b"".join([run.data for run in group]))


def _sums(levels: FrameLevels, starts: NDArray[np.intp]) -> list[tuple[float, float, int, int]]:
    """For each part that begins at one of `starts`: sum of mean squares, peak, clipped and silent frames."""
    columns = (
        np.add.reduceat(levels.mean_square, starts),
        np.maximum.reduceat(levels.peak, starts),
        np.add.reduceat(levels.clipped, starts, dtype=np.int64),
        np.add.reduceat(levels.silent, starts, dtype=np.int64),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))
