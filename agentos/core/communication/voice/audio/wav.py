"""The layout of a WAV file: the place of its samples, also if its header does not know their number.

A program that writes a WAV into a pipe, or that died while it recorded, leaves a placeholder as the size: zero, or one of a few
values far above the file's length. Such a file is read to its end; any other size that does not fit means that the file was
truncated.
"""

import io
import struct
from os import SEEK_CUR, SEEK_END, SEEK_SET
from typing import BinaryIO, Final, NamedTuple

UNKNOWN_SIZES: Final = frozenset({0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF, 0x7FFF_F000})
"""The placeholders of ffmpeg, arecord, Oboe and SoX for a size that they don't know."""

_LARGEST_HEADER: Final = 1 << 20  # of the format chunk, which has some tens of bytes in real files
_BEHIND_AUDIO: Final = frozenset(
    {b"LIST", b"id3 ", b"ID3 ", b"fact", b"cue ", b"bext", b"smpl", b"PEAK", b"iXML", b"_PMX"}
)


class WavLayout(NamedTuple):
    """The bytes of the format chunk, and the place of the samples. With `size_unknown` the header has no size, and the samples
    reach to the file's end. With `cut` the file has fewer samples than its header says."""

    format_chunk: bytes
    start: int
    n_bytes: int
    size_unknown: bool
    cut: bool


def wav_layout(file: BinaryIO, size: int) -> WavLayout | None:
    """The layout of the WAV in `file`, of `size` bytes (RIFF; EBU Tech 3306 for RF64); None if it ends before its samples
    begin."""
    long_size: int | None = None
    format_chunk = b""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, length = header[:4], struct.unpack("<I", header[4:])[0]
        start = file.tell()
        if name == b"ds64" and length >= 16:
            long_size = struct.unpack("<QQ", file.read(16))[1]
        elif name == b"fmt " and length <= _LARGEST_HEADER:
            format_chunk = file.read(length)
        elif name == b"data":
            return _samples(file, size, format_chunk, start, length, long_size)
        file.seek(start + length + length % 2)
    return None


def _samples(
    file: BinaryIO, size: int, format_chunk: bytes, start: int, length: int, long_size: int | None
) -> WavLayout:
    if length == 0xFFFF_FFFF and long_size is not None:
        length = long_size
    elif (length in UNKNOWN_SIZES and start + length > size) or (not length and _is_audio(file, start, size)):
        return WavLayout(format_chunk, start, size - start, size_unknown=True, cut=False)
    return WavLayout(format_chunk, start, length, size_unknown=False, cut=start + length > size)


def _is_audio(file: BinaryIO, start: int, size: int) -> bool:
    """Whether samples, and no other chunk, follow a data chunk that claims to have none."""
    file.seek(start)
    return size > start and file.read(4) not in _BEHIND_AUDIO


class StreamedWav(io.RawIOBase):
    """A WAV file of unknown size, read with a header that has the size (as RF64, which has room for any). It owns `file`."""

    def __init__(self, file: BinaryIO, layout: WavLayout) -> None:
        super().__init__()
        self._file = file
        self._start = layout.start
        block = struct.unpack("<H", layout.format_chunk[12:14])[0] if len(layout.format_chunk) >= 14 else 0
        n_bytes = layout.n_bytes - layout.n_bytes % max(block, 1)
        self._header = _header(layout.format_chunk, n_bytes, n_bytes // max(block, 1))
        self._size = len(self._header) + n_bytes
        self._at = 0

    def readable(self) -> bool:
        """True: the file can be read."""
        return True

    def seekable(self) -> bool:
        """True: the file can be read from any place."""
        return True

    def tell(self) -> int:
        """The position, in bytes from the beginning."""
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Go to a position; return it in bytes from the beginning."""
        self._at = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        """Fill `buffer` from the new header, then from the file."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        head = self._header[self._at : self._at + wanted]
        buffer[: len(head)] = head
        if len(head) < wanted:
            self._file.seek(self._start + self._at + len(head) - len(self._header))
            body = self._file.read(wanted - len(head))
            buffer[len(head) : len(head) + len(body)] = body
            wanted = len(head) + len(body)
        self._at += wanted
        return wanted

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _header(format_chunk: bytes, n_bytes: int, n_samples: int) -> bytes:
    """An RF64 header for `n_bytes` of samples."""
    fmt = struct.pack("<4sI", b"fmt ", len(format_chunk)) + format_chunk + b"\0" * (len(format_chunk) % 2)
    behind_riff = 4 + 36 + len(fmt) + 8 + n_bytes
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, behind_riff, n_bytes, n_samples, 0)
    return struct.pack("<4sI4s", b"RF64", 0xFFFF_FFFF, b"WAVE") + ds64 + fmt + struct.pack("<4sI", b"data", 0xFFFF_FFFF)
