"""Repairing a recording after a crash: the segments that its manifest names, and those that it does not name yet."""

import re
from collections.abc import Generator, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from agentos.core.communication.voice.recording.manifest import (
    GAPS,
    SEGMENT_FILE,
    Manifest,
    Segment,
    gaps_below,
    new_recording_id,
    read_manifest,
    silence_behind,
)
from agentos.core.communication.voice.recording.segments import (
    LiveSegment,
    Plain,
    RecordingKind,
    cut_segment,
    mend_header,
    mend_segment,
    recording_error,
    sounding,
)
from machines.audio import AudioFormat

_GAP_LINE: Final = re.compile(rb"^(\d{1,18}) (\d{1,18})\n", re.MULTILINE)


def mended(folder: Path, kind: RecordingKind) -> Manifest | None:
    """Complete the manifest of the recording in `folder`, so that it names all samples on the disk, including those of the
    unfinished segment; None if nothing was written. Its `digest` is empty unless the recording had been closed.

    `kind` is for a recording without a complete segment. Doing it again, or on a packed recording, loses nothing. Raises
    `RecordingDamaged` for a manifest that can't be read, `RecordingError` if the disk refuses.
    """
    try:
        manifest = read_manifest(folder)
        if manifest is not None and (manifest.digest or (folder / manifest.file).exists()):
            _mend_headers(folder, manifest)
            return manifest
        tidy(folder, manifest)
        manifest = with_the_rest(folder, manifest, kind)
        if manifest is None or not manifest.segments:
            (folder / GAPS).unlink(missing_ok=True)
            return None
    except OSError as error:
        raise recording_error(error, folder) from error
    return manifest


def closed_steps(folder: Path, kind: RecordingKind, end: int = 0) -> Generator[None, None, Manifest | None]:
    """Complete the manifest as `mended` does, and make it durable with the digest of the samples. Samples without a digest are
    read for it, a block a step. A recording that had not been closed is extended to sample `end`. Raises the errors of
    `mended`."""
    manifest = mended(folder, kind)
    if manifest is None or (manifest.digest and manifest.recording_id):
        return manifest
    digest = sha256()
    for samples in sounding(files_of(folder, manifest), manifest.gaps):
        digest.update(samples)
        yield
    return closed(folder, manifest, digest.hexdigest(), end)


def closed(folder: Path, manifest: Manifest, digest: str, end: int = 0) -> Manifest:
    """Make the manifest of a recording durable, with this digest of its samples, and extended to sample `end`, the end of the
    call; a closed or packed recording keeps its length. Raises `RecordingError`."""
    if not manifest.digest and not (folder / manifest.file).exists():
        manifest = with_silence(manifest, silence_behind(manifest.samples, end, manifest.sample_rate))
    manifest = manifest.model_copy(
        update={"digest": digest, "recording_id": manifest.recording_id or new_recording_id()}
    )
    manifest.write(folder)
    return manifest


def with_silence(manifest: Manifest, silence: int) -> Manifest:
    """The manifest with `silence` sample instants behind its segments, as a gap."""
    gaps = gaps_below(manifest.samples, manifest.gaps)
    if silence:
        gaps = tuple(united([*gaps, (manifest.samples, silence)]))
    return manifest.model_copy(update={"gaps": gaps, "silence": silence})


def files_of(folder: Path, manifest: Manifest) -> list[Path]:
    """The files with the samples of a recording, in order."""
    packed = folder / manifest.file
    return [packed] if packed.exists() else [folder / segment.file for segment in manifest.segments]


def tidy(folder: Path, manifest: Manifest | None) -> None:
    """Remove duplicates: unfinished copies, and the plain samples of encoded segments."""
    named = {segment.file for segment in manifest.segments} if manifest else set()
    complete = {Path(file).stem for file in named}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix == ".tmp":
            file.unlink()
        elif SEGMENT_FILE.fullmatch(file.name) and file.name not in named:
            plain = file.with_suffix(".wav")
            if file.stem in complete or (file != plain and plain.exists()):
                file.unlink()


def with_the_rest(folder: Path, manifest: Manifest | None, kind: RecordingKind) -> Manifest | None:
    """Add the segments that the manifest does not name, and make it durable."""
    if manifest is not None:
        _mend_headers(folder, manifest)
    left = _left_segments(folder, manifest)
    if not left:
        return manifest
    last = max(left)
    if manifest is None:
        manifest = Manifest(kind=kind, sample_rate=left[last].sample_rate, channels=left[last].channels)
    segments, gaps = list(manifest.segments), [*manifest.gaps, *_noted_gaps(folder)]
    full = manifest.full or max([segment.samples for segment in segments] + [plain.samples for plain in left.values()])
    start = manifest.samples
    for number in range(len(segments), last + 1):
        file = folder / f"{number:06d}.wav"
        samples = left[number].samples if number in left else 0
        if samples < full and number < last:  # a power cut took its end, or all of it, but not the segments behind it
            _fill_up(file, manifest, samples, full)
            gaps.append((start + samples, full - samples))
            samples = full
        start += samples
        segments.append(Segment(file=file.name, samples=samples))
    manifest = manifest.model_copy(update={"segments": tuple(segments), "gaps": tuple(united(gaps))})
    manifest.write(folder)
    return manifest


def _mend_headers(folder: Path, manifest: Manifest) -> None:
    for segment in manifest.segments:
        if segment.file.endswith(".wav"):
            mend_header(folder / segment.file, Plain(manifest.sample_rate, manifest.channels, segment.samples))


def _noted_gaps(folder: Path) -> list[tuple[int, int]]:
    """The silence that was noted before it was written; of two notes on one sample the later counts."""
    try:
        noted = (folder / GAPS).read_bytes()
    except FileNotFoundError:
        return []
    found = {int(first): int(count) for first, count in _GAP_LINE.findall(noted)}
    return [(first, count) for first, count in found.items() if count]


def in_whole_frames(folder: Path, manifest: Manifest, audio_format: AudioFormat) -> Manifest:
    """Cut an unfinished frame off the end, and make the manifest durable: the resuming client sends that frame again."""
    if not manifest.segments:
        return manifest
    last = manifest.segments[-1]
    beyond = min(last.samples, manifest.samples % audio_format.frame_samples)
    if not beyond or not last.file.endswith(".wav"):
        return manifest
    there = last.samples - beyond
    rest = (Segment(file=last.file, samples=there),) if there else ()
    end = manifest.samples - beyond
    gaps = gaps_below(end, manifest.gaps)
    manifest = manifest.model_copy(update={"segments": (*manifest.segments[:-1], *rest), "gaps": gaps})
    cut_segment(folder / last.file, Plain(manifest.sample_rate, manifest.channels, there))
    manifest.write(folder)
    return manifest


def _left_segments(folder: Path, manifest: Manifest | None) -> dict[int, Plain]:
    """Mend the segments that the manifest does not name; return their contents by number."""
    named = {segment.file for segment in manifest.segments} if manifest else set()
    left: dict[int, Plain] = {}
    for file in sorted(folder.glob("*.wav")) if folder.is_dir() else ():
        if SEGMENT_FILE.fullmatch(file.name) and file.name not in named:
            plain = mend_segment(file)
            if plain is not None:
                left[int(file.stem)] = plain
    return left


def united(gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The gaps, merged and in order."""
    found: list[tuple[int, int]] = []
    for gap in sorted(gaps):
        if found and gap[0] <= sum(found[-1]):
            first = found[-1][0]
            found[-1] = (first, max(sum(found[-1]), sum(gap)) - first)
        else:
            found.append(gap)
    return found


def _fill_up(file: Path, manifest: Manifest, there: int, samples: int) -> None:
    """Fill a short or missing segment with silence up to `samples`."""
    if there:
        mend_segment(file, samples)
        return
    silent = LiveSegment(file, manifest.sample_rate, manifest.channels)
    silent.extend(samples * manifest.channels * 2)
    silent.close()
