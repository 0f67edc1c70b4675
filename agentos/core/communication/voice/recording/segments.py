"""The segment files of a recording, and writing them durably.

Incoming audio is written as plain samples behind a WAV header: all written bytes survive the death of the process and a full
disk, and silence is a hole in the file that costs no space. A complete segment is encoded as FLAC.
"""

import errno
import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from agentos.core.communication.voice.storage.folders import ensure_private_folder, sync_folder
from agentos.core.time import monotonic_ms

RecordingKind = Literal["flac", "wav"]

WAV_HEADER_BYTES = 44
OPEN_MS: Final = 1_000  # that a live segment stays open
BLOCK_SAMPLES = 32_768  # sample instants read, encoded and written at a time
LARGEST_WAV_BYTES = 0xFFFF_FFFF - 64  # of samples, with room for the header; more need RF64
_AGAIN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_CREATE = os.O_CREAT | os.O_EXCL | _AGAIN


class RecordingError(OSError):
    """The disk refused a part of a recording. `errno` and `filename` say what and where."""


class RecordingDamaged(RecordingError):
    """The samples on the disk are not the written ones: trying again won't help."""


def recording_error(error: Exception, path: Path) -> RecordingError:
    """An error of the system or of libsndfile at `path`, as a `RecordingError`."""
    if isinstance(error, RecordingError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return RecordingError(error.errno, error.strerror or os.strerror(error.errno), str(path))
    return RecordingError(errno.EIO, f"{type(error).__name__}: {error}", str(path))


def wav_header(sample_rate: int, channels: int, data_bytes: int) -> bytes:
    """The header before `data_bytes` of 16 bit samples: RIFF, or RF64 (EBU Tech 3306) for more than 4 GB."""
    block = channels * 2
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, sample_rate * block, block, 16)
    if data_bytes <= LARGEST_WAV_BYTES:
        riff = struct.pack("<4sI4s", b"RIFF", data_bytes + WAV_HEADER_BYTES - 8, b"WAVE")
        return riff + fmt + struct.pack("<4sI", b"data", data_bytes)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, data_bytes + 72, data_bytes, data_bytes // block, 0)
    return struct.pack("<4sI4s", b"RF64", 0xFFFF_FFFF, b"WAVE") + ds64 + fmt + struct.pack("<4sI", b"data", 0xFFFF_FFFF)


def make_private_folder(folder: Path) -> None:
    """Make `folder` and its parents, readable by the owner alone. It may exist."""
    try:
        ensure_private_folder(folder)
    except OSError as error:
        raise recording_error(error, folder) from error


def sync_file(path: Path) -> None:
    """Make the content of `path` survive a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise recording_error(error, path) from error


def replace_durably(path: Path, content: bytes) -> None:
    """Replace the file at `path` atomically: readers, and crashes, see the old or the new content, whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        descriptor = open_new(temporary)
        try:
            write_all(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise recording_error(error, path) from error


def open_new(path: Path) -> int:
    """The descriptor of a new file, readable by the owner alone, which replaces any file at `path`."""
    path.unlink(missing_ok=True)
    return os.open(path, _CREATE, 0o600)


def append_line(path: Path, line: str) -> None:
    """Append a line to `path`, which is made if missing; the whole line, or nothing if the disk refuses."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        try:
            write_all(descriptor, f"{line}\n".encode(), end)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at a place of a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


class Plain(NamedTuple):
    """The content of a segment of plain samples: sample instants, sample rate, channels."""

    sample_rate: int
    channels: int
    samples: int


def mend_segment(path: Path, samples: int = 0) -> Plain | None:
    """Make a segment that was never closed playable, durably: write its length into the header.

    Cuts half a sample off its end, and fills it up with silence to `samples`. Removes an empty segment, and returns None.
    """
    with path.open("r+b") as file:
        header = file.read(WAV_HEADER_BYTES)
        channels, sample_rate = struct.unpack("<HI", header[22:28]) if len(header) == WAV_HEADER_BYTES else (0, 0)
        there = (file.seek(0, os.SEEK_END) - WAV_HEADER_BYTES) // (2 * channels) if channels else 0
        if there > 0:
            samples = max(samples, there)
            file.truncate(WAV_HEADER_BYTES + samples * 2 * channels)
            file.seek(0)
            file.write(wav_header(sample_rate, channels, samples * 2 * channels))
            file.flush()
            os.fsync(file.fileno())
            return Plain(sample_rate, channels, samples)
    path.unlink()
    return None


def mend_header(path: Path, plain: Plain) -> None:
    """Write the length into the header of a complete segment, durably, if the disk refused that when the segment was closed: a
    full disk with copy-on-write does. A segment with fewer samples stays unchanged."""
    n_bytes = plain.samples * 2 * plain.channels
    header = wav_header(plain.sample_rate, plain.channels, n_bytes)
    with suppress(FileNotFoundError), path.open("rb") as file:
        if file.read(WAV_HEADER_BYTES) == header or os.fstat(file.fileno()).st_size < WAV_HEADER_BYTES + n_bytes:
            return
        with path.open("r+b") as written:
            written.write(header)
            written.flush()
            os.fsync(written.fileno())


def cut_segment(path: Path, plain: Plain) -> None:
    """Cut a segment of plain samples to `plain.samples`, durably; remove the file if no sample is left."""
    if not plain.samples:
        path.unlink()
        return
    data_bytes = plain.samples * 2 * plain.channels
    with path.open("r+b") as file:
        file.truncate(WAV_HEADER_BYTES + data_bytes)
        file.write(wav_header(plain.sample_rate, plain.channels, data_bytes))
        file.flush()
        os.fsync(file.fileno())


class OpenSegments:
    """Live segments that stay open between two writes, for one thread: those with descriptors below `below`, and for at most a
    second, so that a quiet call has no file open, and a removed or replaced folder is noticed. If the process may open no more
    files, all of them are closed first."""

    def __init__(self, below: Callable[[], int] = lambda: 0) -> None:
        self._below = below
        self._open: dict[Path, tuple[int, int]] = {}  # the descriptor, and when it was opened; oldest first

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        """The open file's descriptor for the length of the block. Raises `OSError`."""
        found = self._open.get(path)
        if found is not None and monotonic_ms() - found[1] < OPEN_MS:
            yield found[0]
            return
        self.close(path)
        try:
            descriptor = os.open(path, _AGAIN)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            self.close_all()
            descriptor = os.open(path, _AGAIN)
        if descriptor < self._below():
            self._open[path] = descriptor, monotonic_ms()
            yield descriptor
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self, path: Path) -> None:
        """Close the file, if it is open."""
        found = self._open.pop(path, None)
        if found is not None:
            os.close(found[0])

    def close_old(self) -> None:
        """Close the files that were opened a second ago."""
        before = monotonic_ms() - OPEN_MS
        while self._open and next(iter(self._open.values()))[1] <= before:
            self.close(next(iter(self._open)))

    def close_all(self) -> None:
        """Close all files."""
        while self._open:
            self.close(next(iter(self._open)))


NONE_OPEN: Final = OpenSegments()
"""Keeps no file open, for any thread."""


class LiveSegment:
    """An unfinished segment: a WAV file whose header gets its length when it is closed.

    The file is open only during a write, or as long as `files` keeps it open. Opening costs 10 us for each write; but one open
    file for every recorded call could exceed the process's limit.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int, files: OpenSegments = NONE_OPEN) -> None:
        self.path = path
        self._files = files
        self._sample_rate, self._channels = sample_rate, channels
        self._length = 0
        try:
            with _opened(path, _CREATE) as descriptor:
                write_all(descriptor, wav_header(sample_rate, channels, 0), 0)
        except OSError as error:
            if error.errno != errno.EEXIST:
                with suppress(OSError):
                    path.unlink()
            raise recording_error(error, path) from error

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write samples at byte `offset` of the samples, behind all written ones; all of them or none."""
        try:
            with self._files.opened(self.path) as descriptor:
                try:
                    write_all(descriptor, data, WAV_HEADER_BYTES + offset)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(descriptor, WAV_HEADER_BYTES + self._length)
                    raise
        except OSError as error:
            raise recording_error(error, self.path) from error
        self._length = offset + len(data)

    def extend(self, length: int) -> None:
        """Fill up with silence to `length` bytes of samples."""
        try:
            with _opened(self.path) as descriptor:
                os.ftruncate(descriptor, WAV_HEADER_BYTES + length)
        except OSError as error:
            raise recording_error(error, self.path) from error
        self._length = length

    def close(self) -> None:
        """Write the final sizes into the header. Most file systems can do that on a full disk; for others, `mend_header` does
        it later."""
        self._files.close(self.path)
        try:
            with _opened(self.path) as descriptor:
                write_all(descriptor, wav_header(self._sample_rate, self._channels, self._length), 0)
        except OSError as error:
            raise recording_error(error, self.path) from error

    def discard(self) -> None:
        """Remove the empty segment. If that fails, `mend_segment` removes it later, or it stays unnamed."""
        self._files.close(self.path)
        with suppress(OSError):
            self.path.unlink()


@contextmanager
def _opened(path: Path, flags: int = _AGAIN) -> Iterator[int]:
    """The open file's descriptor for the length of the block."""
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Sink:
    """The file object that libsndfile writes into. It keeps the first error, since libsndfile only reports a failure."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._length = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                write_all(self._descriptor, data, self._position)
            except OSError as error:
                self.error = error
        if self.error is not None:
            return 0
        self._position += len(data)
        self._length = max(self._length, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def tell(self) -> int:
        return self._position


class FlacFile:
    """A FLAC file of 16 bit samples, written from beginning to end.

    `finish` makes it durable. After an error, a `RecordingError`, the file is removed, as by `discard`.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self._path = path
        self._encoder: soundfile.SoundFile | None = None
        try:
            self._descriptor = open_new(path)
        except OSError as error:
            raise recording_error(error, path) from error
        self._open = True
        self._sink = _Sink(self._descriptor)
        try:
            self._encoder = soundfile.SoundFile(self._sink, "w", sample_rate, channels, format="FLAC", subtype="PCM_16")
            self._raise_sink_error()
        except (OSError, RuntimeError, AssertionError) as error:
            raise self._failure(error) from error

    def write(self, samples: NDArray[np.int16]) -> None:
        """Append int16 samples of shape (n, channels)."""
        assert self._encoder is not None  # noqa: S101 - narrows the type
        try:
            self._encoder.write(samples)
            self._raise_sink_error()
        except (OSError, RuntimeError, AssertionError) as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Close the file and make its content durable."""
        try:
            self._close_encoder()
            self._raise_sink_error()
            os.fsync(self._descriptor)
        except (OSError, RuntimeError, AssertionError) as error:
            raise self._failure(error) from error
        self._open = False
        os.close(self._descriptor)

    def discard(self) -> None:
        """Close and remove the file, unless it is finished."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError, RuntimeError):
            self._close_encoder()
        os.close(self._descriptor)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _close_encoder(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()

    def _raise_sink_error(self) -> None:
        if self._sink.error is not None:
            raise self._sink.error

    def _failure(self, error: Exception) -> RecordingError:
        cause = self._sink.error or error
        self.discard()
        return recording_error(cause, self._path)


def blocks_of(path: Path) -> Iterator[NDArray[np.int16]]:
    """The samples of a segment, or of a whole recording, as int16 of shape (n, channels), a block at a time.

    Raises `RecordingDamaged` if it is missing or no sound file, `RecordingError` if the disk refuses.
    """
    try:
        with path.open("rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as reader:
            while len(block := reader.read(BLOCK_SAMPLES, dtype="int16", always_2d=True)):
                yield block
    except FileNotFoundError as error:
        raise RecordingDamaged(errno.ENOENT, "it is gone", str(path)) from error
    except RuntimeError as error:  # libsndfile's own errors are RuntimeErrors
        raise RecordingDamaged(errno.EIO, f"it can't be read: {error}", str(path)) from error
    except OSError as error:
        raise recording_error(error, path) from error


def sounding(files: Sequence[Path], gaps: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The samples of these files in order, without the gaps, a block at a time. Raises the errors of `blocks_of`."""
    at = 0
    for path in files:
        for block in blocks_of(path):
            yield heard(block, at, gaps)
            at += len(block)


def heard(block: NDArray[np.int16], at: int, gaps: Iterable[tuple[int, int]]) -> bytes:
    """A block of samples that begins with sample `at`, without the gaps, as little-endian bytes."""
    silent = [(first, count) for first, count in gaps if first < at + len(block) and first + count > at]
    if silent:
        kept = np.ones(len(block), bool)
        for first, count in silent:
            kept[max(0, first - at) : first + count - at] = False
        block = block[kept]
    return block.astype("<i2", copy=False).tobytes()


def sound_in_gaps(block: NDArray[np.int16], at: int, gaps: Iterable[tuple[int, int]]) -> bool:
    """Whether a block of samples that begins with sample `at` has any sound in the gaps. The digest does not cover the gaps,
    since no audio was written there."""
    end = at + len(block)
    inside = [(first, count) for first, count in gaps if first < end and first + count > at]
    return any(block[max(0, first - at) : first + count - at].any() for first, count in inside)


def encode_steps(source: Path, plain: Plain) -> Generator[None, None, str]:
    """Encode a segment of plain samples as a durable FLAC file beside it, a block a step; return the file's name.

    Raises `RecordingDamaged` if `source` can't be read or has another number of samples, and `RecordingError`.
    """
    path = source.with_suffix(".flac")
    target = FlacFile(path, plain.sample_rate, plain.channels)
    count = 0
    try:
        for block in blocks_of(source):
            count += len(block)
            target.write(block)
            yield
        if count != plain.samples:
            problem = f"holds {count} samples, not the {plain.samples} that were written"
            raise RecordingDamaged(errno.EIO, problem, str(source))
        target.finish()
    finally:
        target.discard()
    return path.name
