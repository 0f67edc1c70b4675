"""Sound files as a stream of a session's audio.

WAV, FLAC and OGG are read through libsndfile, block by block, so memory doesn't grow with the file. A truncated file is refused
before any of it is played. libsndfile reads a truncated WAV or OGG as if it were whole, and only the first of several chained
OGG streams; so this module checks the structure of these files itself.
"""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.convert import channels_cancel, mix_to_mono
from agentos.core.communication.voice.audio.resample import HIGHEST_RATE, LOWEST_RATE, Resampler
from agentos.core.communication.voice.audio.wav import StreamedWav, wav_layout
from machines.audio import FRAME_MS, AudioEncoding, AudioFormat

_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG")
_EXACT_AS_INT16 = (
    "PCM_16",
    "PCM_S8",
    "PCM_U8",
    "ULAW",
    "ALAW",
)  # other formats are read as float and rounded, not truncated
_BLOCK = 16_384  # samples read at a time
_OGG_PAGE_BYTES = 65_307  # the longest possible page
_OGG_FIRST_PAGE = 0x02
_OGG_LAST_PAGE = 0x04


class AudioFileError(ValueError):
    """A sound file can't be played. The message is one line: the file, the fault, and what to do."""


class SoundFile:
    """The sound file at `path`, to be played as a session in `target` format.

    Opening reads the header: raises `AudioFileError` if the file is missing, not readable, no WAV, FLAC or OGG, empty, or
    visibly truncated. `sample_rate`, `channels` and `duration_seconds` are the file's own. The file is not kept open between
    calls.
    """

    def __init__(self, path: Path, target: AudioFormat) -> None:
        self._path = path
        self._target = target
        _check_structure(path)
        with self._open() as source:
            if source.format not in _FORMATS:
                raise AudioFileError(f"{path.name} is {source.format}: convert it to WAV, FLAC or OGG")
            if source.frames <= 0:
                raise AudioFileError(f"{path.name} is empty: it holds no samples")
            if not LOWEST_RATE <= source.samplerate <= HIGHEST_RATE:
                raise AudioFileError(
                    f"{path.name} has {source.samplerate} Hz: convert it to {LOWEST_RATE} to {HIGHEST_RATE} Hz"
                )
            self._frames: int = source.frames
            self._read_type = "int16" if source.subtype in _EXACT_AS_INT16 else "float64"
            self.sample_rate: int = source.samplerate
            self.channels: int = source.channels
        self.duration_seconds = self._frames / self.sample_rate

    def check(self) -> str:
        """Read the whole file once, in bounded memory. Raises `AudioFileError` if it is truncated or damaged.

        Returns a warning if channels cancel each other in the file, so that a mix would be silent and the loudest channel is
        played there; else an empty text.
        """
        cancelled = 0
        for samples in self._samples():
            if self.channels != self._target.channels and channels_cancel(samples):
                cancelled += len(samples)
        if not cancelled:
            return ""
        return (
            f"the channels of {self._path.name} cancel each other in {cancelled / self._frames:.0%} of it (opposite phase): "
            "there the loudest one is taken, not their mean"
        )

    def blocks(self, frames_per_block: int) -> Iterator[bytes]:
        """The audio in the target's format, `frames_per_block` 20 ms frames at a time; the last block may be shorter.

        A PCM file in the target's rate and channels passes bit for bit. Otherwise channels are mixed (to mono by their mean, or
        the loudest one if they cancel each other; from mono by repetition), the rate is changed, and the length is within one
        sample of the exact one.
        Raises `AudioFileError` at the point at which the file is truncated or damaged; `check` finds that before playing.
        """
        if frames_per_block < 1:
            raise ValueError(f"frames_per_block must be at least 1 ({FRAME_MS} ms), got {frames_per_block}")
        block_bytes = frames_per_block * self._target.frame_bytes
        pending = bytearray()
        for samples in self._resampled():
            pending += self._encoded(samples)
            while len(pending) >= block_bytes:
                yield bytes(pending[:block_bytes])
                del pending[:block_bytes]
        if pending:
            yield bytes(pending)

    def _resampled(self) -> Iterator[NDArray[np.int16]]:
        resampler = Resampler(self.sample_rate, self._target.sample_rate, self._target.channels)
        for samples in self._samples():
            yield resampler.process(self._mixed(samples))
        yield resampler.finish()

    def _mixed(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        if self.channels == self._target.channels:
            return samples
        return np.repeat(mix_to_mono(samples), self._target.channels, axis=1)

    def _encoded(self, samples: NDArray[np.int16]) -> bytes:
        if self._target.encoding is AudioEncoding.MULAW:
            return mulaw.encode(samples)
        return samples.astype("<i2", copy=False).tobytes()

    def _samples(self) -> Iterator[NDArray[np.int16]]:
        """All samples as int16 (n, channels). Raises `AudioFileError` unless there are as many as the header says."""
        count = 0
        with self._open() as source:
            while True:
                try:
                    block = source.read(_BLOCK, dtype=self._read_type, always_2d=True)
                except (soundfile.SoundFileError, RuntimeError, OSError) as error:
                    raise _cut(self._path) from error
                if not len(block):
                    break
                count += len(block)
                yield block if block.dtype == np.int16 else _to_int16(block)
        if count != self._frames:
            raise _cut(self._path)

    @contextmanager
    def _open(self) -> Iterator[soundfile.SoundFile]:
        with ExitStack() as stack:
            yield stack.enter_context(self._opened(stack))

    def _opened(self, stack: ExitStack) -> soundfile.SoundFile:
        try:
            streamed = _streamed(self._path)
            return soundfile.SoundFile(self._path if streamed is None else stack.enter_context(streamed))
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise AudioFileError(
                f"{self._path.name} can't be read as sound; it is damaged, cut off or of an unknown kind: "
                "take a whole WAV, FLAC or OGG file"
            ) from error


def _streamed(path: Path) -> StreamedWav | None:
    """The file with a corrected header, if it is a WAV of unknown size; None for every other file."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        layout = None
        if file.read(4) in (b"RIFF", b"RF64"):
            layout = wav_layout(file, file.seek(0, SEEK_END))
        if layout is None or not layout.size_unknown:
            return None
        stack.pop_all()
        return StreamedWav(file, layout)


def _to_int16(block: NDArray[np.float64]) -> NDArray[np.int16]:
    """Floats with full scale 1.0, rounded to 16 bit; louder values are limited, NaN becomes silence."""
    scaled = np.rint(np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0) * 32_768.0)
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)


def _cut(path: Path) -> AudioFileError:
    return AudioFileError(f"{path.name} is cut off or damaged: it holds less audio than it says; get a whole copy")


def _check_structure(path: Path) -> None:
    """Raise `AudioFileError` for faults that show without decoding: no file, no audio, or a truncated WAV, FLAC or OGG."""
    if not path.exists():
        raise AudioFileError(f"{path.name} was not found in {path.parent.absolute()}: check the path")
    if not path.is_file():
        raise AudioFileError(f"{path} is not a file: give a WAV, FLAC or OGG file")
    try:
        with path.open("rb") as file:
            size = file.seek(0, SEEK_END)
            file.seek(0)
            magic = file.read(12)
            if not size:
                raise AudioFileError(f"{path.name} is empty: the file has no bytes")
            if magic[:4] in (b"RIFF", b"RF64") and magic[8:] == b"WAVE":
                _check_wav(path, file, size)
            elif magic[:4] == b"OggS":
                _check_ogg(path, file, size)
            elif magic[:4] == b"fLaC":
                _check_flac(path, file)
            elif magic[:3] == b"ID3" and len(magic) == 12 and _behind_id3(file, magic) == b"fLaC":
                raise AudioFileError(f"{path.name} has an ID3 tag before its FLAC data: remove the tag")
            else:
                raise AudioFileError(f"{path.name} is no WAV, FLAC or OGG file: convert it to one of these")
    except OSError as error:
        raise AudioFileError(f"{path.name} can't be read ({error.strerror}): check its permissions") from error


def _check_wav(path: Path, file: BinaryIO, size: int) -> None:
    """Check that the file has as many samples as its header says, unless the header says that it does not know."""
    layout = wav_layout(file, size)
    if layout is None or layout.cut:
        raise _cut(path)
    if not layout.n_bytes:
        raise AudioFileError(f"{path.name} is empty: it holds no samples")


def _check_ogg(path: Path, file: BinaryIO, size: int) -> None:
    """Check that the file ends with a whole page that is marked as its stream's last (RFC 3533)."""
    file.seek(max(0, size - _OGG_PAGE_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27 or not page[5] & _OGG_LAST_PAGE:
        raise _cut(path)
    segments = page[27 : 27 + page[26]]
    if len(page) < 27 + page[26] + sum(segments):
        raise _cut(path)
    _check_ogg_is_not_chained(path, file)


def _check_ogg_is_not_chained(path: Path, file: BinaryIO) -> None:
    """Check that all streams begin before any of them goes on; a later stream is a chained file (RFC 3533, 4)."""
    streams: set[bytes] = set()
    beginning = True
    for first, stream in _ogg_pages(file):
        beginning = beginning and first
        if beginning:
            streams.add(stream)
        elif first or stream not in streams:
            raise AudioFileError(
                f"{path.name} holds several OGG streams one behind the other, and only the first could be played: "
                "give each as a file of its own, or convert the whole to WAV or FLAC"
            )


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[bool, bytes]]:
    """For each page, whether it begins a stream, and its stream's number. Reads only the headers of pages."""
    at = 0
    while True:
        file.seek(at)
        header = file.read(27 + 255)
        if len(header) < 27:
            return
        if header[:4] == b"OggS":
            yield bool(header[5] & _OGG_FIRST_PAGE), header[14:18]
            at += 27 + header[26] + sum(header[27 : 27 + header[26]])
            continue
        found = (header + file.read(_OGG_PAGE_BYTES)).find(b"OggS")  # other bytes stand between two pages
        at += found if found >= 0 else _OGG_PAGE_BYTES


def _behind_id3(file: BinaryIO, header: bytes) -> bytes:
    """The four bytes behind an ID3v2 tag, whose size is written with seven bits a byte."""
    footer = 10 if header[5] & 0x10 else 0
    file.seek(
        10 + sum((byte & 0x7F) << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True)) + footer
    )
    return file.read(4)


def _check_flac(path: Path, file: BinaryIO) -> None:
    """Check that STREAMINFO has the number of samples (RFC 9639, 8.2): without it, missing samples would go unnoticed."""
    file.seek(4)
    header = file.read(38)
    if len(header) < 38:
        raise _cut(path)
    if not struct.unpack(">Q", header[14:22])[0] & (1 << 36) - 1:
        raise AudioFileError(
            f"{path.name} doesn't say how many samples it holds (it is empty, or was written into a pipe): "
            "convert it to a whole FLAC or WAV file"
        )
