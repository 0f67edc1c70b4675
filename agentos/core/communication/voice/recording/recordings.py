"""The recording of one session while its call runs: segments, of which nothing is lost when the process dies.

Every step is one rename after an fsync, so that a crash anywhere leaves what was written, whole. What will be silence in a
segment that is being filled is noted in `gaps` first, since afterwards nobody could tell it from what was recorded. At the end
the segments stay as they are: closing costs a few files to sync, whatever the length of the call. `left_segments.py` closes
what a crash left, and `packing.py` makes one file of it.
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
    """Writes a session's audio, in `audio_format`, into `folder` (made when missing, 0700; files are 0600).

    For one thread. Memory is bounded whatever the length of the call. mu-law is recorded as the 16 bit samples that it
    stands for. With `defer_sealing` a full segment waits, as plain samples, until `seal_steps` or the end; otherwise
    the write that fills it seals it. The first write makes the folder. Errors of the disk are `RecordingError`s, an
    `OSError` with its errno.
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
        self._older = 0  # so many segments are of other processes, and have any length
        self._begin = 0  # the sample behind them
        self._sealed = 0  # so many segments, from the first on, are durable
        self._samples = 0
        self._silent_until = 0  # the sample up to which `gaps` says that nothing comes
        self._manifest_due = False
        self._closed = False
        self._silence = 0  # so many samples of it at the end, once it is closed
        self._fresh = True
        self._recording_id = new_recording_id()
        self.files = NONE_OPEN
        """Which keeps the segment that is being filled open; whoever writes again and again puts it in."""
        self.digest = hashlib.sha256()
        """Of all that was written, without the gaps, as signed 16 bit samples; whoever reopens a recording puts it in."""
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
        """Go on with the recording that a crash left in `folder`, with sealing deferred; None when nothing is there, and
        nothing is to be said of it.

        What there is ends with its last whole frame. When `first_frame` is beyond it, what is between them is a gap from now
        on, which a crash does not undo. Raises `RecordingError` as `mended` does, and when the recording is finished.
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
        # What lies behind the end was the gap of somebody who did not come to go on.
        self._gaps = list(gaps_below(manifest.samples, manifest.gaps))
        self._older = self._sealed = len(manifest.segments)
        self._begin = self._samples = manifest.samples
        self._recording_id = manifest.recording_id or self._recording_id
        if start > self._samples:
            self._gaps = united([*self._gaps, (self._samples, start - self._samples)])
        self._fresh = False
        self._write_manifest()  # from now on segments have this process's length
        (self._folder / GAPS).unlink(missing_ok=True)  # what it said is in the manifest

    @property
    def segments(self) -> list[Path]:
        """The files that hold what was written, in order, but the one that is being filled."""
        return [self._folder / segment.file for segment in self._segments]

    @property
    def next_frame(self) -> int:
        """The first 20 ms frame number that may be written next; all below are in the recording or in a gap."""
        return -(-self._samples // self._format.frame_samples)

    @property
    def info(self) -> RecordingInfo:
        """What has been written so far, as it will be once it is packed."""
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
        """Place whole samples from 20 ms frame `first_frame` on; `pcm` may be many frames, the very last one short.

        A hole before `first_frame` becomes silence of the right length and a gap. Raises `ValueError` for a frame that
        was written already, for half a sample, and after the end; then nothing changes. Raises `RecordingError` when
        the disk refuses: frames below `next_frame` are in, the others are not, and a later write may be tried.
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
        """End the recording, whose samples stay in their segments, in steps of one file to sync each: then `info` is all that
        is to be said of it, and the disk knows the same.

        The call goes on to frame `upto_frame`: what is behind the last one written is a gap, however long, of which only the
        manifest tells. What is sealed is not touched, so this takes as long for a long call as for a short one. Raises
        `RecordingError` when the disk refuses; nothing is lost by that, or by giving the steps up half-way: `mended` closes it
        later.
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
        """Whether `seal_steps` has something to do."""
        return self._sealed < len(self._segments)

    def seal_steps(self) -> Generator[None, None, None]:
        """Encode the complete segments, make them durable and enter them in the manifest, in pieces of about a
        millisecond.

        Only needed between writes when sealing is deferred. The samples are safe already, so a failure doesn't raise:
        it is counted, and the segment stays WAV. One such iterator at a time.
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
            finally:  # also when the steps are given up half-way: the plain samples are a complete segment
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
        """The segment that sample `start` belongs to; those before it are filled up with silence and sealed."""
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
        """Note that nothing comes before sample `start`, or that something does after all. As the samples, it outlives the
        process; after a power cut its end may be missing."""
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
        """What lies before `start` and was not written is silence, and a gap."""
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
        """Make the next segment durable; `plain` goes when something better has come in its place."""
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
