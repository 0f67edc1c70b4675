"""Packing: the segments of a closed recording become one file.

Sealed segments are not encoded again: packing copies the frames of FLAC segments. Segments that are still plain are sealed
first, one after the other, as during the call. The new file is read back before it is renamed to its final name, so a file of
that name has the written samples. Until then the segments stay. Each step is one rename after an fsync, so a crash at any point
leaves the segments or the file, and packing again goes on from there.
"""

import errno
import hashlib
import os
from collections.abc import Generator, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentos.core.communication.voice.audio.flac import (
    HEAD_BYTES,
    SILENT_BLOCK,
    SMALLEST_BLOCK,
    NotFlac,
    StreamInfo,
    frames_of,
    renumbered,
    silent,
    stream_info,
    verbatim,
)
from agentos.core.communication.voice.recording.left_segments import closed_steps, tidy
from agentos.core.communication.voice.recording.manifest import GAPS, Manifest
from agentos.core.communication.voice.recording.segments import (
    Plain,
    RecordingDamaged,
    RecordingKind,
    blocks_of,
    encode_steps,
    heard,
    open_new,
    recording_error,
    sound_in_gaps,
    wav_header,
    write_all,
)
from agentos.core.communication.voice.storage.folders import sync_folder
from machines.recording import RecordingInfo, RecordingState

_FRAMES_A_STEP: Final = 32


def finished_steps(
    folder: Path, kind: RecordingKind, said: RecordingInfo | None = None
) -> Generator[None, None, RecordingInfo | None]:
    """Make the recording in `folder` one file, repairing it first if need be, in steps of some milliseconds; None if nothing
    was written.

    `kind` is for a recording without a complete segment. The result must equal `said`, if given. Doing it again, breaking it
    off half-way, or doing it on a packed recording loses nothing. Raises the errors of `pack_steps`.
    """
    manifest = yield from closed_steps(folder, kind, 0 if said is None else said.samples)
    if manifest is None:
        return None
    info = manifest.info(folder, RecordingState.READY)
    if said is not None and said.digest and said.digest != info.digest:
        raise RecordingDamaged(errno.EIO, "it holds other samples than were written", str(folder))
    if said is not None and (said.samples, said.gaps) != (info.samples, info.gaps):
        raise RecordingDamaged(errno.EIO, "it has another length or other gaps than were said", str(folder))
    yield from pack_steps(folder, manifest)
    return info


def pack_steps(folder: Path, manifest: Manifest) -> Generator[None, None, None]:
    """Make the file of a closed recording and remove its segments, in steps of some milliseconds.

    Raises `RecordingDamaged` if the file can't be made, `RecordingError` if the disk refuses; then the segments stay.
    """
    path = folder / manifest.file
    try:
        if not path.exists():
            tidy(folder, manifest)
            if manifest.kind == "flac":
                manifest = yield from _sealed_steps(folder, manifest)
            yield from _joined_steps(path, manifest)
        for segment in manifest.segments:
            (folder / segment.file).unlink(missing_ok=True)
        (folder / GAPS).unlink(missing_ok=True)
    except OSError as error:
        raise recording_error(error, path) from error


def _sealed_steps(folder: Path, manifest: Manifest) -> Generator[None, None, Manifest]:
    """Seal the plain segments; the manifest has only FLAC segments then."""
    for at, segment in enumerate(manifest.segments):
        plain = folder / segment.file
        if plain.suffix == ".wav":
            holds = Plain(manifest.sample_rate, manifest.channels, segment.samples)
            file = yield from encode_steps(plain, holds)
            sealed = segment.model_copy(update={"file": file})
            segments = (*manifest.segments[:at], sealed, *manifest.segments[at + 1 :])
            manifest = manifest.model_copy(update={"segments": segments})
            manifest.write(folder)
            plain.unlink()
    return manifest


def _joined_steps(path: Path, manifest: Manifest) -> Generator[None, None, None]:
    temporary = path.with_name(path.name + ".tmp")
    descriptor = open_new(temporary)
    try:
        if manifest.kind == "flac":
            yield from _flac_steps(path.parent, manifest, temporary, descriptor)
        else:
            yield from _wav_steps(path.parent, manifest, descriptor)
            for _ in _checked(temporary, manifest):
                yield
        os.fsync(descriptor)
        temporary.replace(path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _wav_steps(folder: Path, manifest: Manifest, descriptor: int) -> Generator[None, None, None]:
    n_bytes = manifest.length * manifest.channels * 2
    at = _written(descriptor, wav_header(manifest.sample_rate, manifest.channels, n_bytes), 0)
    for segment in manifest.segments:
        for block in blocks_of(folder / segment.file):
            at = _written(descriptor, block.astype("<i2", copy=False).tobytes(), at)
            yield
    os.ftruncate(descriptor, at + manifest.silence * manifest.channels * 2)


def _flac_steps(folder: Path, manifest: Manifest, temporary: Path, descriptor: int) -> Generator[None, None, None]:
    at, samples, size = HEAD_BYTES, 0, 0
    blocks: set[int] = set()  # the sizes of all blocks but the last, which may have any length
    fewest, most = 0, 0
    some: list[bytes] = []
    for frame, next_size in _all_frames(folder, manifest):
        some.append(frame)
        if size:
            blocks.add(size)
        size = next_size
        fewest, most = min(fewest or len(frame), len(frame)), max(most, len(frame))
        samples += size
        if len(some) == _FRAMES_A_STEP:
            at = _written(descriptor, b"".join(some), at)
            some.clear()
            yield
    _written(descriptor, b"".join(some), at)
    info = StreamInfo(
        min(blocks, default=max(size, SMALLEST_BLOCK)),
        max({*blocks, size, SMALLEST_BLOCK}),
        fewest,
        most,
        manifest.sample_rate,
        manifest.channels,
        16,
        samples,
    )
    _written(descriptor, info.head(), 0)
    md5 = hashlib.md5(usedforsecurity=False)
    for block in _checked(temporary, manifest):
        md5.update(block)
        yield
    _written(descriptor, info._replace(md5=md5.digest()).head(), 0)


def _checked(path: Path, manifest: Manifest) -> Iterator[bytes]:
    """The samples of the new file, a block at a time. Raises `RecordingDamaged` at the end if they differ from the written
    ones."""
    digest, at, clean = hashlib.sha256(), 0, True
    for block in blocks_of(path):
        digest.update(heard(block, at, manifest.gaps))
        clean = clean and not sound_in_gaps(block, at, manifest.gaps)
        at += len(block)
        yield block.astype("<i2", copy=False).tobytes()
    if at != manifest.length or digest.hexdigest() != manifest.digest or not clean:
        raise RecordingDamaged(errno.EIO, "its segments don't hold the samples that were written", str(path.parent))


def _all_frames(folder: Path, manifest: Manifest) -> Iterator[tuple[bytes, int]]:
    """The frames of the file, with their lengths in sample instants: the segments' frames, and the silence behind them."""
    first = 0
    for number, segment in enumerate(manifest.segments):
        last = number == len(manifest.segments) - 1 and not manifest.silence
        yield from _frames(folder / segment.file, manifest, first, last=last)
        first += segment.samples
    while first < manifest.length:
        size = min(SILENT_BLOCK, manifest.length - first)
        yield silent(size, manifest.channels, first), size
        first += size


def _frames(path: Path, manifest: Manifest, first: int, *, last: bool) -> Iterator[tuple[bytes, int]]:
    """The frames of a segment, numbered from sample `first` on, with their lengths in sample instants.

    If another segment follows, a last frame that is too short for the inside of a file is merged with the frame before it.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            info, begin = stream_info(data)
            if (info.sample_rate, info.channels, info.bits) != (manifest.sample_rate, manifest.channels, 16):
                raise NotFlac("it has another format than its manifest says")
            short = 0 if last else info.samples % info.largest_block
            whole = info.samples - (short + info.largest_block if 0 < short < SMALLEST_BLOCK else 0)
            done = 0
            for frame in frames_of(data, info, begin):
                if done >= whole:
                    break
                yield renumbered(data, frame, first + done), frame.samples
                done += frame.samples
    except FileNotFoundError as error:
        raise RecordingDamaged(errno.ENOENT, "it is gone", str(path)) from error
    except ValueError as error:  # `NotFlac`, or a file without a byte, which can't be mapped
        raise RecordingDamaged(errno.EIO, str(error), str(path)) from error
    if done < info.samples:
        yield verbatim(_behind(path, done), first + done), info.samples - done


def _behind(path: Path, first: int) -> NDArray[np.int16]:
    """The samples of a segment from `first` on."""
    kept, at = [], 0
    for block in blocks_of(path):
        kept.append(block[max(0, first - at) :].copy())
        at += len(block)
    return np.concatenate(kept)


def _written(descriptor: int, data: bytes, at: int) -> int:
    write_all(descriptor, data, at)
    return at + len(data)
