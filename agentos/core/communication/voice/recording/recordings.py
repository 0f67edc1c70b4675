"""The recording of one session while its call runs: segments that survive the death of the process.

Every step is one rename after an fsync, so a crash at any point leaves all written samples. Silence in the unfinished segment
is noted in `gaps` before it is written, since afterwards it looks like recorded silence. At the end the segments stay as they
are: closing costs a few files to sync, whatever the length of the call. `left_segments.py` closes a recording after a crash,
and `packing.py` makes it one file.
"""

import hashlib
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from agentos.core.communication.voice.audio.convert import to_pcm16
from agentos.core.communication.voice.recording.left_segments import in_whole_frames, tidy, united, with_the_rest
from agentos.core.communication.voice.recording.manifest import (
    GAPS,
    MANIFEST,
    Manifest,
    Segment,
    gaps_below,
    new_recording_id,
    read_manifest,
    silence_behind,
)
from agentos.core.communication.voice.recording.segments import (
    LARGEST_WAV_BYTES,
    NONE_OPEN,
    LiveSegment,
    Plain,
    RecordingError,
    RecordingKind,
    append_line,
    encode_steps,
    make_private_folder,
    recording_error,
    sync_file,
)
from machines.audio import AudioEncoding, AudioFormat
from machines.recording import RecordingInfo, RecordingState

__all__ = ["RecordingError", "RecordingKind", "RecordingWriter"]


class RecordingWriter:
    """Writes a session's audio, in `audio_format`, into `folder` (made if missing, 0700; files are 0600).

    For one thread. Memory is bounded whatever the length of the call. mu-law is recorded as decoded 16 bit samples. With
    `defer_sealing` a full segment stays plain samples until `seal_steps` or packing; otherwise the write that fills a segment
    seals it. The first write makes the folder. Errors of the disk are `RecordingError`s, an `OSError` with its errno.
    """

    def __init__(
        self,
        folder: Path,
        audio_format: AudioFormat,
        *,
        kind: RecordingKind,
        segment_seconds: int,
        defer_sealing: bool = False,
    ) -> None:
        bytes_a_sample = audio_format.channels * 2
        if segment_seconds < 1 or segment_seconds * audio_format.sample_rate * bytes_a_sample > LARGEST_WAV_BYTES:
            raise ValueError(f"segment_seconds must be at least 1 and make less than 4 GB, got {segment_seconds}")
        if kind not in ("flac", "wav"):
            raise ValueError(f"kind must be flac or wav, got {kind!r}")
        self._folder = folder
        self._format = audio_format
        self._kind: RecordingKind = kind
        self._defer_sealing = defer_sealing
        self._sample_bytes = bytes_a_sample
        self._segment_samples = segment_seconds * audio_format.sample_rate
        self._live: LiveSegment | None = None
        self._segments: list[Segment] = []
        self._gaps: list[tuple[int, int]] = []
        self._older = 0  # number of segments of earlier processes, which may have any length
        self._begin = 0  # the sample behind these
        self._sealed = 0  # number of durable segments, from the first on
        self._samples = 0
        self._silent_until = 0  # the sample up to which `gaps` notes silence
        self._manifest_due = False
        self._closed = False
        self._silence = 0  # samples of silence at the end, once the recording is closed
        self._fresh = True
        self._recording_id = new_recording_id()
        self.files = NONE_OPEN
        """Keeps the unfinished segment open between writes; set by a caller that writes often."""
        self.digest = hashlib.sha256()
        """The SHA-256 of all written samples, without the gaps, as signed 16 bit; set by a caller that reopens a recording."""
        self.segment_failures = 0
        """How often a complete segment could not be encoded or entered in the manifest; its samples are kept as WAV."""

    @classmethod
    def reopen(
        cls,
        folder: Path,
        audio_format: AudioFormat,
        *,
        kind: RecordingKind,
        segment_seconds: int,
        first_frame: int = 0,
    ) -> Self | None:
        """Continue the recording that a crash left in `folder`, with sealing deferred. Returns None if there is no recording
        and no gap to note.

        The recording is cut to its last whole frame. If `first_frame` is beyond that, the frames between become a durable gap.
        Raises `RecordingError` as `mended` does, and if the recording is finished.
        """
        try:
            manifest = read_manifest(folder)
            if manifest is not None and (folder / manifest.file).exists():
                raise FileExistsError(17, "the recording is finished", str(folder))
            tidy(folder, manifest)
            manifest = with_the_rest(folder, manifest, kind)
            manifest = None if manifest is None else in_whole_frames(folder, manifest, audio_format)
            if manifest is None and not first_frame:
                return None
            if manifest is None:
                rate, channels = audio_format.sample_rate, audio_format.channels
                manifest = Manifest(kind=kind, sample_rate=rate, channels=channels)
            make_private_folder(folder)
        except OSError as error:
            raise recording_error(error, folder) from error
        writer = cls(folder, audio_format, kind=manifest.kind, segment_seconds=segment_seconds, defer_sealing=True)
        writer._go_on_behind(manifest, first_frame * audio_format.frame_samples)
        return writer

    def _go_on_behind(self, manifest: Manifest, start: int) -> None:
        self._segments = list(manifest.segments)
        # A gap past the end was written by a resume that never recorded; drop it.
        self._gaps = list(gaps_below(manifest.samples, manifest.gaps))
        self._older = self._sealed = len(manifest.segments)
        self._begin = self._samples = manifest.samples
        self._recording_id = manifest.recording_id or self._recording_id
        if start > self._samples:
            self._gaps = united([*self._gaps, (self._samples, start - self._samples)])
        self._fresh = False
        self._write_manifest()  # from now on segments have this process's length
        (self._folder / GAPS).unlink(missing_ok=True)  # the manifest has its gaps now

    @property
    def segments(self) -> list[Path]:
        """The files with the written samples, in order, without the unfinished segment."""
        return [self._folder / segment.file for segment in self._segments]

    @property
    def next_frame(self) -> int:
        """The lowest number of a 20 ms frame that may be written next; all lower frames are in the recording or in a gap."""
        return -(-self._samples // self._format.frame_samples)

    @property
    def info(self) -> RecordingInfo:
        """The recording so far, described as it will be once it is packed."""
        samples = self._samples + self._silence
        return replace(
            self._manifest().info(self._folder, RecordingState.FINISHING),
            samples=samples,
            seconds=samples / self._format.sample_rate,
            segments=len(self._segments) + (self._live is not None),
            gaps=gaps_below(samples, self._gaps),
            digest=self.digest.hexdigest(),
        )

    def write(self, first_frame: int, pcm: bytes) -> None:
        """Write whole samples from 20 ms frame `first_frame` on; `pcm` may be many frames, the very last one short.

        A hole before `first_frame` becomes silence of the right length and a gap. Raises `ValueError`, and changes nothing,
        for a frame that was written already, for half a sample, and after the end. Raises `RecordingError` if the disk
        refuses: then frames below `next_frame` are written, the others are not, and a later write may succeed.
        """
        if self._closed:
            raise ValueError(f"the recording in {self._folder.name} is closed")
        start = first_frame * self._format.frame_samples
        if start < self._samples:
            raise ValueError(f"frame {first_frame} is already written; the next one is {self.next_frame}")
        samples = to_pcm16(pcm, self._format)
        plain = self._format.encoding is AudioEncoding.PCM_S16LE
        data = memoryview(pcm if plain else samples.astype("<i2", copy=False).tobytes())
        if data and start != max(self._samples, self._silent_until):
            self._note_gap(start)
        while data:
            live = self._live_segment(start)
            offset = (start - self._begin) % self._segment_samples
            part = data[: (self._segment_samples - offset) * self._sample_bytes]
            live.write(offset * self._sample_bytes, part)
            self.digest.update(part)
            self._skip_to(start)
            self._samples = start = start + len(part) // self._sample_bytes
            data = data[len(part) :]
            if (start - self._begin) % self._segment_samples == 0:
                self._complete_segment()

    def close(self, upto_frame: int = 0) -> RecordingInfo | None:
        """End the recording; see `close_steps`."""
        for _ in self.close_steps(upto_frame):
            pass
        return self.info if self._segments else None

    def close_steps(self, upto_frame: int = 0) -> Generator[None, None, None]:
        """End the recording, in steps of one file sync each; its samples stay in their segments. Then `info` is final, and
        durable in the manifest.

        The call ends at frame `upto_frame`: missing frames at the end become a gap, of any length, which only the manifest has.
        Sealed segments are not touched, so a long call takes no longer than a short one. Raises `RecordingError` if the disk
        refuses. That, or breaking off half-way, loses nothing: `mended` repairs the recording later.
        """
        self._closed = True
        self._end_live_segment()
        if self._segments:
            end = upto_frame * self._format.frame_samples
            self._silence = silence_behind(self._samples, end, self._format.sample_rate)
            self._gaps = list(gaps_below(self._samples, self._gaps))
            if self._silence:
                self._gaps = united([*self._gaps, (self._samples, self._silence)])
        for segment in self._segments[self._sealed :]:
            sync_file(self._folder / segment.file)
            yield
        self._sealed = len(self._segments)
        if self._segments:
            closed = {"digest": self.digest.hexdigest(), "silence": self._silence}
            manifest = self._manifest().model_copy(update=closed)
            manifest.write(self._folder)

    @property
    def has_unsealed(self) -> bool:
        """Whether `seal_steps` has a segment to seal."""
        return self._sealed < len(self._segments)

    def seal_steps(self) -> Generator[None, None, None]:
        """Encode the complete segments, make them durable and enter them in the manifest, in steps of about a millisecond.

        Only needed between writes if sealing is deferred. The samples are safe already, so a failure doesn't raise: it is
        counted, and the segment stays WAV. One such iterator at a time.
        """
        while self.has_unsealed:
            segment = self._segments[self._sealed]
            plain = self._folder / segment.file
            try:
                if self._kind == "flac":
                    holds = Plain(self._format.sample_rate, self._format.channels, segment.samples)
                    file = yield from encode_steps(plain, holds)
                    segment = Segment(file=file, samples=segment.samples)
            except RecordingError:
                self.segment_failures += 1
            finally:  # also if the steps are broken off: the plain samples are a complete segment
                self._enter(segment, plain)
            yield

    def _manifest(self) -> Manifest:
        sealed = self._segments[: self._sealed]
        return Manifest(
            kind=self._kind,
            sample_rate=self._format.sample_rate,
            channels=self._format.channels,
            segments=tuple(sealed),
            gaps=tuple(self._gaps),
            full=self._segment_samples if self._older else None,
            recording_id=self._recording_id,
        )

    def _live_segment(self, start: int) -> LiveSegment:
        """The segment of sample `start`; earlier segments are filled up with silence and sealed."""
        index = self._older + (start - self._begin) // self._segment_samples
        while True:
            if self._live is None:
                self._live = self._new_segment()
            if len(self._segments) == index:
                return self._live
            self._live.extend(self._segment_samples * self._sample_bytes)
            self._skip_to(self._begin_of(len(self._segments) + 1))
            self._complete_segment()

    def _make_folder(self) -> None:
        if self._fresh:
            make_private_folder(self._folder)
            if (self._folder / MANIFEST).exists():
                raise recording_error(FileExistsError(17, "a recording is already there"), self._folder)
            self._fresh = False

    def _note_gap(self, start: int) -> None:
        """Note silence up to sample `start`, or correct an earlier note. Like the samples, the note survives the process; after
        a power cut its end may be missing."""
        self._make_folder()
        try:
            append_line(self._folder / GAPS, f"{self._samples} {start - self._samples}")
        except OSError as error:
            raise recording_error(error, self._folder / GAPS) from error
        self._silent_until = start

    def _new_segment(self) -> LiveSegment:
        self._make_folder()
        path = self._folder / f"{len(self._segments):06d}.wav"
        return LiveSegment(path, self._format.sample_rate, self._format.channels, self.files)

    def _begin_of(self, index: int) -> int:
        return self._begin + (index - self._older) * self._segment_samples

    def _skip_to(self, start: int) -> None:
        """Make the unwritten samples before `start` silence and a gap."""
        if start > self._samples:
            self._gaps = united([*self._gaps, (self._samples, start - self._samples)])
            self._samples = start

    def _complete_segment(self) -> None:
        self._end_live_segment()
        if not self._defer_sealing:
            for _ in self.seal_steps():
                pass

    def _end_live_segment(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        samples = self._samples - self._begin_of(len(self._segments))
        if not samples:  # the disk had room for its header, and for no audio
            live.discard()
            return
        try:
            live.close()
        except RecordingError:
            self.segment_failures += 1
        self._segments.append(Segment(file=live.path.name, samples=samples))

    def _enter(self, segment: Segment, plain: Path) -> None:
        """Make the next segment durable; remove `plain` if the segment is another file."""
        self._segments[self._sealed] = segment
        self._sealed += 1
        self._manifest_due = True
        with suppress(OSError):
            if segment.file == plain.name:
                sync_file(plain)
            self._write_manifest()
            if segment.file != plain.name:
                plain.unlink(missing_ok=True)

    def _write_manifest(self) -> None:
        try:
            self._manifest().write(self._folder)
        except RecordingError:
            self.segment_failures += 1
            raise
        self._manifest_due = False
