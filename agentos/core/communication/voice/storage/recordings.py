"""The recording of one session: segments while it runs, one playable file at the end.

A folder holds one recording. The segment that is being filled is `000003.wav`; complete it becomes `000003.flac` (or
stays WAV), durable, and `recording.json`, the manifest, names it. At the end the segments are joined into
`recording.flac`, and only then removed. Every step is one rename after an fsync, so that a crash anywhere leaves either
the segments that the manifest names or the joined file, whole. What will be silence in a segment that is being filled is noted
in `gaps` first, since afterwards nobody could tell it from what was recorded. `recover` finishes what a crash left.
"""

import re
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, ValidationError

from agentos.core.communication.voice.audio.convert import to_pcm16
from agentos.core.communication.voice.storage.segments import (
    LARGEST_WAV_BYTES,
    LiveSegment,
    PcmFile,
    Plain,
    RecordingError,
    RecordingKind,
    append_line,
    copy_samples,
    cut_segment,
    make_private_folder,
    mend_segment,
    recording_error,
    replace_durably,
    sync_file,
    sync_folder,
)
from machines.audio import AudioEncoding, AudioFormat
from machines.session import RecordingInfo

__all__ = ["RecordingError", "RecordingKind", "RecordingWriter", "recover", "recover_steps"]

T = TypeVar("T")

_MANIFEST = "recording.json"
_GAPS = "gaps"
_GAP_LINE = re.compile(rb"^(\d{1,18}) (\d{1,18})\n", re.MULTILINE)
_SEGMENT_FILE = re.compile(r"\d{6,}\.(wav|flac)")


class _Segment(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    samples: int


class _Manifest(BaseModel):
    """The complete segments of a recording, in order, and the silence in it, of which a part may lie behind them.

    `full` is how many samples a segment has that was filled up to its end, of those that follow the last ones here; None in a
    recording of one process, whose segments say it themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    kind: RecordingKind
    sample_rate: int
    channels: int
    segments: tuple[_Segment, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    full: int | None = None

    @property
    def samples(self) -> int:
        return sum(segment.samples for segment in self.segments)

    def info(self, path: Path) -> RecordingInfo:
        return RecordingInfo(
            path=str(path),
            sample_rate=self.sample_rate,
            channels=self.channels,
            samples=self.samples,
            seconds=self.samples / self.sample_rate,
            segments=len(self.segments),
            gaps=_gaps_below(self.samples, self.gaps),
        )


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
        self._segments: list[_Segment] = []
        self._gaps: list[tuple[int, int]] = []
        self._older = 0  # so many segments are of other processes, and have any length
        self._begin = 0  # the sample behind them
        self._sealed = 0  # so many segments, from the first on, are durable
        self._samples = 0
        self._silent_until = 0  # the sample up to which `gaps` says that nothing comes
        self._manifest_due = False
        self._closed = False
        self._fresh = True
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
        on, which a crash does not undo. Raises `RecordingError` as `recover` does, and when the recording is finished.
        """
        try:
            manifest = _read_manifest(folder / _MANIFEST)
            if manifest is not None and (folder / f"recording.{manifest.kind}").exists():
                raise FileExistsError(17, "the recording is finished", str(folder))
            _tidy(folder, manifest)
            manifest = _with_the_rest(folder, manifest, kind)
            manifest = None if manifest is None else _in_whole_frames(folder, manifest, audio_format)
            if manifest is None and not first_frame:
                return None
            if manifest is None:
                rate, channels = audio_format.sample_rate, audio_format.channels
                manifest = _Manifest(kind=kind, sample_rate=rate, channels=channels)
            make_private_folder(folder)
        except OSError as error:
            raise recording_error(error, folder) from error
        writer = cls(folder, audio_format, kind=manifest.kind, segment_seconds=segment_seconds, defer_sealing=True)
        writer._go_on_behind(manifest, first_frame * audio_format.frame_samples)
        return writer

    def _go_on_behind(self, manifest: _Manifest, start: int) -> None:
        self._segments = list(manifest.segments)
        # What lies behind the end was the gap of somebody who did not come to go on.
        self._gaps = list(_gaps_below(manifest.samples, manifest.gaps))
        self._older = self._sealed = len(manifest.segments)
        self._begin = self._samples = manifest.samples
        if start > self._samples:
            self._gaps = _united([*self._gaps, (self._samples, start - self._samples)])
        self._fresh = False
        self._write_manifest()  # from now on segments have this process's length
        (self._folder / _GAPS).unlink(missing_ok=True)  # what it said is in the manifest

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
        """What has been written so far, with the folder for its path: what is left of it when `close` fails."""
        manifest = self._manifest()
        samples = self._samples
        return replace(
            manifest.info(self._folder),
            samples=samples,
            seconds=samples / self._format.sample_rate,
            segments=len(self._segments) + (self._live is not None),
            gaps=_gaps_below(samples, self._gaps),
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
            self._skip_to(start)
            self._samples = start = start + len(part) // self._sample_bytes
            data = data[len(part) :]
            if (start - self._begin) % self._segment_samples == 0:
                self._complete_segment()

    def close(self) -> RecordingInfo | None:
        """Close the last segment and join all into one file; see `close_steps`."""
        return _result(self.close_steps())

    def close_steps(self) -> Generator[None, None, RecordingInfo | None]:
        """`close` in pieces of about a millisecond: yields after each, returns where the recording is.

        None when nothing was ever written. Raises `RecordingError` when the disk refuses; the segments then stay,
        `info` tells of them, and `recover` can join them later. Giving the steps up half-way loses nothing either.
        """
        self._closed = True
        self._end_live_segment()
        yield from self.seal_steps()
        if not self._segments:
            return None
        if self._manifest_due:
            self._write_manifest()
        manifest = self._manifest()
        path = yield from _join_steps(self._folder, manifest)
        return manifest.info(path)

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
                    file = yield from self._encode_steps(plain, segment.samples)
                    segment = _Segment(file=file, samples=segment.samples)
            except RecordingError:
                self.segment_failures += 1
            finally:  # also when the steps are given up half-way: the plain samples are a complete segment
                self._enter(segment, plain)
            yield

    def abort(self) -> None:
        """End at once. What was written stays as segments, for `recover` to join."""
        self._closed = True
        self._end_live_segment()
        while self.has_unsealed:
            segment = self._segments[self._sealed]
            self._enter(segment, self._folder / segment.file)

    def _manifest(self) -> _Manifest:
        sealed = self._segments[: self._sealed]
        return _Manifest(
            kind=self._kind,
            sample_rate=self._format.sample_rate,
            channels=self._format.channels,
            segments=tuple(sealed),
            gaps=tuple(self._gaps),
            full=self._segment_samples if self._older else None,
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
            if (self._folder / _MANIFEST).exists():
                raise recording_error(FileExistsError(17, "a recording is already there"), self._folder)
            self._fresh = False

    def _note_gap(self, start: int) -> None:
        """Note that nothing comes before sample `start`, or that something does after all. As the samples, it outlives the
        process; after a power cut its end may be missing."""
        self._make_folder()
        try:
            append_line(self._folder / _GAPS, f"{self._samples} {start - self._samples}")
        except OSError as error:
            raise recording_error(error, self._folder / _GAPS) from error
        self._silent_until = start

    def _new_segment(self) -> LiveSegment:
        self._make_folder()
        path = self._folder / f"{len(self._segments):06d}.wav"
        return LiveSegment(path, self._format.sample_rate, self._format.channels)

    def _begin_of(self, index: int) -> int:
        return self._begin + (index - self._older) * self._segment_samples

    def _skip_to(self, start: int) -> None:
        """What lies before `start` and was not written is silence, and a gap."""
        if start > self._samples:
            self._gaps = _united([*self._gaps, (self._samples, start - self._samples)])
            self._samples = start

    def _complete_segment(self) -> None:
        self._end_live_segment()
        if not self._defer_sealing:
            for _ in self.seal_steps():
                pass

    def _end_live_segment(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.close()
            except RecordingError:
                self.segment_failures += 1
            samples = self._samples - self._begin_of(len(self._segments))
            self._segments.append(_Segment(file=live.path.name, samples=samples))

    def _enter(self, segment: _Segment, plain: Path) -> None:
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

    def _encode_steps(self, source: Path, samples: int) -> Generator[None, None, str]:
        path = source.with_suffix(".flac")
        target = PcmFile(path, "flac", self._format.sample_rate, self._format.channels, samples)
        try:
            yield from copy_samples(source, samples, target)
            target.finish()
        finally:
            target.discard()
        return path.name

    def _write_manifest(self) -> None:
        try:
            replace_durably(self._folder / _MANIFEST, self._manifest().model_dump_json(indent=1).encode())
        except RecordingError:
            self.segment_failures += 1
            raise
        self._manifest_due = False


def _join_steps(folder: Path, manifest: _Manifest) -> Generator[None, None, Path]:
    """Make one file of the segments, then remove them; gives its path."""
    path = folder / f"recording.{manifest.kind}"
    files = [folder / segment.file for segment in manifest.segments]
    try:
        if len(files) == 1 and files[0].suffix == path.suffix:
            files[0].replace(path)
        else:
            temporary = path.with_name(path.name + ".tmp")
            target = PcmFile(temporary, manifest.kind, manifest.sample_rate, manifest.channels, manifest.samples)
            try:
                for file, segment in zip(files, manifest.segments, strict=True):
                    yield from copy_samples(file, segment.samples, target)
                target.finish()
            finally:
                target.discard()
            temporary.replace(path)
        sync_folder(folder)
        _remove([*files, folder / _GAPS])
    except OSError as error:
        raise recording_error(error, path) from error
    return path


def recover(folder: Path, kind: RecordingKind = "flac") -> RecordingInfo | None:
    """Finish the recording that a crash left in `folder`; see `recover_steps`."""
    return _result(recover_steps(folder, kind))


def recover_steps(folder: Path, kind: RecordingKind) -> Generator[None, None, RecordingInfo | None]:
    """Finish the recording that a crash left in `folder`, in pieces of about a millisecond; None when nothing was written.

    All samples that are on the disk are joined as `RecordingWriter.close` would have, also those of the segment that was
    being filled; `kind` is for a recording of which no segment was complete. Doing it again, giving it up half-way, or doing
    it on a finished recording loses nothing. Raises `RecordingError` when the disk refuses, or the folder doesn't hold what
    its manifest says.
    """
    try:
        manifest = _read_manifest(folder / _MANIFEST)
        path = None if manifest is None else folder / f"recording.{manifest.kind}"
        if manifest is not None and path is not None and path.exists():  # it has its name only when it is complete
            _remove([*(folder / segment.file for segment in manifest.segments), folder / _GAPS])
            return manifest.info(path)
        _tidy(folder, manifest)
        manifest = _with_the_rest(folder, manifest, kind)
        if manifest is None or not manifest.segments:
            _remove([folder / _GAPS])
            return None
        path = yield from _join_steps(folder, manifest)
        return manifest.info(path)
    except OSError as error:
        raise recording_error(error, folder) from error


def _tidy(folder: Path, manifest: _Manifest | None) -> None:
    """Remove what is there a second time: copies that were being made, and the samples of segments that were encoded."""
    named = {segment.file for segment in manifest.segments} if manifest else set()
    complete = {Path(file).stem for file in named}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix == ".tmp":
            file.unlink()
        elif _SEGMENT_FILE.fullmatch(file.name) and file.name not in named:
            plain = file.with_suffix(".wav")
            if file.stem in complete or (file != plain and plain.exists()):
                file.unlink()


def _with_the_rest(folder: Path, manifest: _Manifest | None, kind: RecordingKind) -> _Manifest | None:
    """The manifest, durable, with the segments that did not come into it any more."""
    left = _left_segments(folder, manifest)
    if not left:
        return manifest
    last = max(left)
    if manifest is None:
        manifest = _Manifest(kind=kind, sample_rate=left[last].sample_rate, channels=left[last].channels)
    segments, gaps = list(manifest.segments), [*manifest.gaps, *_noted_gaps(folder)]
    full = manifest.full or max([segment.samples for segment in segments] + [plain.samples for plain in left.values()])
    start = manifest.samples
    for number in range(len(segments), last + 1):
        file = folder / f"{number:06d}.wav"
        samples = left[number].samples if number in left else 0
        if samples < full and number < last:  # a power cut took its end, or all of it, but not what came behind
            _fill_up(file, manifest, samples, full)
            gaps.append((start + samples, full - samples))
            samples = full
        start += samples
        segments.append(_Segment(file=file.name, samples=samples))
    manifest = manifest.model_copy(update={"segments": tuple(segments), "gaps": tuple(_united(gaps))})
    replace_durably(folder / _MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def _noted_gaps(folder: Path) -> list[tuple[int, int]]:
    """The silence that was noted before it was written; of two notes on what follows a sample the later one counts."""
    try:
        noted = (folder / _GAPS).read_bytes()
    except FileNotFoundError:
        return []
    found = {int(first): int(count) for first, count in _GAP_LINE.findall(noted)}
    return [(first, count) for first, count in found.items() if count]


def _in_whole_frames(folder: Path, manifest: _Manifest, audio_format: AudioFormat) -> _Manifest:
    """The manifest, durable, without the part of a frame at the end: whoever goes on sends that frame again."""
    if not manifest.segments:
        return manifest
    last = manifest.segments[-1]
    beyond = min(last.samples, manifest.samples % audio_format.frame_samples)
    if not beyond or not last.file.endswith(".wav"):
        return manifest
    there = last.samples - beyond
    rest = (_Segment(file=last.file, samples=there),) if there else ()
    end = manifest.samples - beyond
    gaps = _gaps_below(end, manifest.gaps)
    manifest = manifest.model_copy(update={"segments": (*manifest.segments[:-1], *rest), "gaps": gaps})
    cut_segment(folder / last.file, Plain(manifest.sample_rate, manifest.channels, there))
    replace_durably(folder / _MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def _left_segments(folder: Path, manifest: _Manifest | None) -> dict[int, Plain]:
    """What the segments hold that the manifest does not name, by their number, now mended."""
    named = {segment.file for segment in manifest.segments} if manifest else set()
    left: dict[int, Plain] = {}
    for file in sorted(folder.glob("*.wav")) if folder.is_dir() else ():
        if _SEGMENT_FILE.fullmatch(file.name) and file.name not in named:
            plain = mend_segment(file)
            if plain is not None:
                left[int(file.stem)] = plain
    return left


def _united(gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same silence in as few gaps as can be, in order."""
    found: list[tuple[int, int]] = []
    for gap in sorted(gaps):
        if found and gap[0] <= sum(found[-1]):
            first = found[-1][0]
            found[-1] = (first, max(sum(found[-1]), sum(gap)) - first)
        else:
            found.append(gap)
    return found


def _gaps_below(end: int, gaps: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple([(first, min(count, end - first)) for first, count in gaps if first < end])


def _fill_up(file: Path, manifest: _Manifest, there: int, samples: int) -> None:
    """Silence up to `samples`, in a segment that has the first of them, or that is missing."""
    if there:
        mend_segment(file, samples)
        return
    silent = LiveSegment(file, manifest.sample_rate, manifest.channels)
    silent.extend(samples * manifest.channels * 2)
    silent.close()


def _result(steps: Generator[None, None, T]) -> T:
    """Run all the steps; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _read_manifest(path: Path) -> _Manifest | None:
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise recording_error(OSError(22, f"the manifest is damaged: {error.error_count()} errors"), path) from error


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
