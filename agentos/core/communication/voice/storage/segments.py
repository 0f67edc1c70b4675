"""The files that a recording is made of, and how they reach the disk for good.

Audio that is still coming in lies as plain samples behind a WAV header: what was written is there, to the byte, when
the process dies or the disk fills up, and silence is a hole that costs no space. FLAC is made from that once it is
complete.
"""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

RecordingKind = Literal["flac", "wav"]

WAV_HEADER_BYTES = 44
BLOCK_SAMPLES = 32_768  # sample instants read, encoded and written at a time
LARGEST_WAV_BYTES = 0xFFFF_FFFF - 64  # of samples, with room for the header; beyond it RF64 is needed
_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class RecordingError(OSError):
    """The disk refused a part of a recording. `errno` and `filename` say what and where."""


def recording_error(error: Exception, path: Path) -> RecordingError:
    """What the system or libsndfile reported about `path`, as a `RecordingError`."""
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
    """`folder` with its parents, only for its owner. It may exist."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise recording_error(error, folder) from error


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Put `content` in the place of `path` all at once: readers and crashes see the old file or the new, whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            _write_all(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise recording_error(error, path) from error


def append_line(path: Path, line: str) -> None:
    """Append a line to `path`, which is made when missing; whole, or not at all where the disk refuses."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        try:
            _write_all(descriptor, f"{line}\n".encode(), end)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


class Plain(NamedTuple):
    """What a segment of plain samples holds: how many sample instants, at which rate, of how many channels."""

    sample_rate: int
    channels: int
    samples: int


def mend_segment(path: Path, samples: int = 0) -> Plain | None:
    """Make a segment that was never closed a file that plays, durably: its header says how much is there.

    A part of a sample at its end goes; when it has less than `samples`, silence fills it up. None, and no file any more,
    when there is nothing in it.
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


def cut_segment(path: Path, plain: Plain) -> None:
    """Take away what a segment of plain samples has beyond `plain.samples`, durably; the file, when nothing is left."""
    if not plain.samples:
        path.unlink()
        return
    data_bytes = plain.samples * 2 * plain.channels
    with path.open("r+b") as file:
        file.truncate(WAV_HEADER_BYTES + data_bytes)
        file.write(wav_header(plain.sample_rate, plain.channels, data_bytes))
        file.flush()
        os.fsync(file.fileno())


class LiveSegment:
    """A segment that is being filled: a WAV file whose header says its length only once it is closed."""

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self.path = path
        self._sample_rate, self._channels = sample_rate, channels
        self._length = 0
        try:
            self._descriptor = os.open(path, _CREATE, 0o600)
        except OSError as error:
            raise recording_error(error, path) from error
        try:
            _write_all(self._descriptor, wav_header(sample_rate, channels, 0), 0)
        except OSError as error:
            os.close(self._descriptor)
            with suppress(OSError):
                path.unlink()
            raise recording_error(error, path) from error

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put samples at byte `offset` of the samples, behind all that was written. All or nothing."""
        try:
            _write_all(self._descriptor, data, WAV_HEADER_BYTES + offset)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, WAV_HEADER_BYTES + self._length)
            raise recording_error(error, self.path) from error
        self._length = offset + len(data)

    def extend(self, length: int) -> None:
        """Fill up with silence to `length` bytes of samples."""
        try:
            os.ftruncate(self._descriptor, WAV_HEADER_BYTES + length)
        except OSError as error:
            raise recording_error(error, self.path) from error
        self._length = length

    def close(self) -> None:
        """Write the header's final sizes, and close. The header's room is already there, so a full disk is no
        matter.
        """
        try:
            _write_all(self._descriptor, wav_header(self._sample_rate, self._channels, self._length), 0)
        except OSError as error:
            raise recording_error(error, self.path) from error
        finally:
            os.close(self._descriptor)


class _Sink:
    """What libsndfile writes into. It keeps the first error, which libsndfile would only call a failure."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._length = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                _write_all(self._descriptor, data, self._position)
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


class PcmFile:
    """A FLAC or WAV file of 16 bit samples, written from beginning to end; `samples` is how many there will be.

    `finish` makes it durable. An error is a `RecordingError`, after which the file is gone, as it is after `discard`.
    """

    def __init__(self, path: Path, kind: RecordingKind, sample_rate: int, channels: int, samples: int) -> None:
        self._path = path
        self._channels = channels
        self._position = 0
        self._encoder: soundfile.SoundFile | None = None
        try:
            path.unlink(missing_ok=True)
            self._descriptor = os.open(path, _CREATE, 0o600)
        except OSError as error:
            raise recording_error(error, path) from error
        self._open = True
        self._sink = _Sink(self._descriptor)
        try:
            if kind == "flac":
                self._encoder = soundfile.SoundFile(
                    self._sink, "w", sample_rate, channels, format="FLAC", subtype="PCM_16"
                )
            else:
                self._append(wav_header(sample_rate, channels, samples * channels * 2))
            self._raise_sink_error()
        except (OSError, RuntimeError, AssertionError) as error:
            raise self._failure(error) from error

    def write(self, samples: NDArray[np.int16]) -> None:
        """Append int16 samples of shape (n, channels)."""
        try:
            if self._encoder is not None:
                self._encoder.write(samples)
                self._raise_sink_error()
            else:
                self._append(samples.astype("<i2", copy=False).tobytes())
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

    def _append(self, data: bytes) -> None:
        _write_all(self._descriptor, data, self._position)
        self._position += len(data)

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


def copy_samples(source: Path, samples: int, target: PcmFile) -> Iterator[None]:
    """Append the `samples` that `source` must hold to `target`, yielding after every block.

    Raises `RecordingError` when `source` can't be read or holds another number.
    """
    count = 0
    try:
        with soundfile.SoundFile(source) as reader:
            while len(block := reader.read(BLOCK_SAMPLES, dtype="int16", always_2d=True)):
                count += len(block)
                target.write(block)
                yield
    except RuntimeError as error:  # libsndfile's own errors are RuntimeErrors
        raise recording_error(error, source) from error
    if count != samples:
        raise RecordingError(errno.EIO, f"holds {count} samples, not the {samples} that were written", str(source))
