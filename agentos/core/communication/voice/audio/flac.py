"""Joining FLAC files by their frames (RFC 9639), so that no audio is encoded a second time.

A frame's header has its number among frames of one size, or the number of its first sample; a CRC of all its bytes ends the
frame. Joined frames differ in size at the end of each file, so each gets a new header with the number of its first sample.
Since a CRC is linear, the new CRC is computed from the headers alone:

    new CRC = old CRC + (CRC of the new header + CRC of the old one) * x^(8 * bytes behind the header),   over GF(2)
"""

from collections.abc import Iterator
from functools import lru_cache
from mmap import mmap
from struct import pack, unpack_from
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Data: TypeAlias = bytes | mmap

MAGIC: Final = b"fLaC"
STREAM_INFO_BYTES: Final = 34
HEAD_BYTES: Final = len(MAGIC) + 4 + STREAM_INFO_BYTES
SMALLEST_BLOCK: Final = 16  # sample instants; only the last frame of a file may have fewer
SILENT_BLOCK: Final = 4096  # sample instants, as libFLAC's own frames have
_FIXED, _VARIABLE = b"\xff\xf8", b"\xff\xf9"
_LAST: Final = 0x80
_SIZES: Final = {
    1: 192,
    **{code: 576 << code - 2 for code in range(2, 6)},
    **{code: 256 << code - 8 for code in range(8, 16)},
}
_LONG_RATE: Final = {12: 1, 13: 2, 14: 2}  # bytes by the code of the sample rate
_SIZE_FOLLOWS: Final = 7 << 4
_SAMPLE_SIZE_16: Final = 4 << 1
_VERBATIM: Final = b"\x02"
_CONSTANT_ZERO: Final = b"\0\0\0"


class NotFlac(ValueError):
    """The bytes are not a FLAC file with frames of one size, or the file is not whole."""


class StreamInfo(NamedTuple):
    """The stream information of a FLAC file: sample instants in a frame and bytes of a frame, fewest and most (0: not
    known), the sample rate, channels, bits of a sample, sample instants in all, and the MD5 of the samples (zeros: not
    known)."""

    smallest_block: int
    largest_block: int
    smallest_frame: int
    largest_frame: int
    sample_rate: int
    channels: int
    bits: int
    samples: int
    md5: bytes = bytes(16)

    def head(self) -> bytes:
        """The beginning of a file with no other metadata."""
        packed = self.sample_rate << 44 | self.channels - 1 << 41 | self.bits - 1 << 36 | self.samples
        frames = self.smallest_frame << 24 | self.largest_frame
        body = pack(">HH6sQ", self.smallest_block, self.largest_block, frames.to_bytes(6, "big"), packed) + self.md5
        return MAGIC + bytes([_LAST]) + STREAM_INFO_BYTES.to_bytes(3, "big") + body


class Frame(NamedTuple):
    """A frame: its bytes from `begin` to `end`, the header in the first `header` of them, and its sample instants."""

    begin: int
    end: int
    header: int
    samples: int


def stream_info(data: Data) -> tuple[StreamInfo, int]:
    """The stream information of a FLAC file, and where its frames begin. Raises `NotFlac`."""
    if data[:4] != MAGIC or len(data) < HEAD_BYTES or data[4] & ~_LAST:
        raise NotFlac("it does not begin as a FLAC file")
    smallest, largest, frames, packed = unpack_from(">HH6sQ", data, 8)
    sizes = int.from_bytes(frames, "big")
    found = StreamInfo(
        smallest,
        largest,
        sizes >> 24,
        sizes & 0xFF_FFFF,
        packed >> 44,
        (packed >> 41 & 7) + 1,
        (packed >> 36 & 31) + 1,
        packed & 0xF_FFFF_FFFF,
        data[26:HEAD_BYTES],
    )
    at, last = 4, False
    while not last:
        if at + 4 > len(data):
            raise NotFlac("its metadata has no end")
        last = bool(data[at] & _LAST)
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return found, at


def frames_of(data: Data, info: StreamInfo, begin: int) -> Iterator[Frame]:
    """The frames of a file, in order; `begin` is where they begin. Raises `NotFlac`.

    Only the beginning of the next frame shows where a frame ends: a header with the expected number and a correct CRC. If
    samples happen to look like such a header, the CRC of the whole frame decides.
    """
    at, number, samples = begin, 0, 0
    found = _header(data, at, number)
    while found is not None:
        header, size = found
        samples += size
        if samples >= info.samples:
            if samples > info.samples:
                break
            yield Frame(at, len(data), header, size)
            return
        number += 1
        most = min(len(data), at + info.largest_frame) if info.largest_frame else len(data)
        ends = list(_ends(data, at + max(info.smallest_frame, header + 2), most, number))
        if len(ends) > 1:
            ends = [end for end in ends if crc16(data[at : end - 2]) == int.from_bytes(data[end - 2 : end], "big")]
        if len(ends) != 1:
            break
        yield Frame(at, ends[0], header, size)
        at = ends[0]
        found = _header(data, at, number)
    raise NotFlac(f"its frame {number} can't be found: {samples} of {info.samples} samples are there")


def _ends(data: Data, first: int, most: int, number: int) -> Iterator[int]:
    at = data.find(_FIXED, first, most + 2)
    while at >= 0:
        if _header(data, at, number) is not None:
            yield at
        at = data.find(_FIXED, at + 1, most + 2)


def _header(data: Data, at: int, number: int) -> tuple[int, int] | None:
    """The length of the header at `at`, and the sample instants of its frame; None if it is not the header of frame
    `number`."""
    coded = _coded(number)
    end = at + 4 + len(coded)
    if data[at : at + 2] != _FIXED or data[at + 4 : end] != coded:
        return None
    code, rate = data[at + 2] >> 4, data[at + 2] & 15
    extra = code - 5 if code in (6, 7) else 0
    samples = int.from_bytes(data[end : end + extra], "big") + 1 if extra else _SIZES.get(code, 0)
    end += extra + _LONG_RATE.get(rate, 0)
    if not samples or end >= len(data) or _crc8(data[at:end]) != data[end]:
        return None
    return end + 1 - at, samples


def renumbered(data: Data, frame: Frame, first_sample: int) -> bytes:
    """The frame with a new header, for a file whose frames differ in size, in which it begins with sample `first_sample`."""
    old = data[frame.begin : frame.begin + frame.header]
    behind = 4 + _coded_length(old[4])
    head = _VARIABLE + old[2:4] + _coded(first_sample) + old[behind:-1]
    head += bytes([_crc8(head)])
    body = data[frame.begin + frame.header : frame.end - 2]
    crc = int.from_bytes(data[frame.end - 2 : frame.end], "big") ^ _times(crc16(head) ^ crc16(old), _power(len(body)))
    return head + body + crc.to_bytes(2, "big")


def verbatim(samples: NDArray[np.int16], first_sample: int) -> bytes:
    """An uncompressed frame of samples, of shape (n, channels), for a file whose frames differ in size."""
    size, channels = samples.shape
    body = b"".join(_VERBATIM + channel.astype(">i2").tobytes() for channel in samples.T)
    return _framed(body, size, channels, first_sample)


def silent(size: int, channels: int, first_sample: int) -> bytes:
    """A frame of `size` sample instants of silence, for a file whose frames differ in size; some bytes, however long."""
    return _framed(_CONSTANT_ZERO * channels, size, channels, first_sample)


def _framed(body: bytes, size: int, channels: int, first_sample: int) -> bytes:
    head = _VARIABLE + bytes([_SIZE_FOLLOWS, channels - 1 << 4 | _SAMPLE_SIZE_16]) + _coded(first_sample)
    head += (size - 1).to_bytes(2, "big")
    frame = head + bytes([_crc8(head)]) + body
    return frame + crc16(frame).to_bytes(2, "big")


def _coded(number: int) -> bytes:
    """A number as FLAC codes it: UTF-8, extended to 36 bits."""
    if number < 0x80:
        return bytes([number])
    more = next(more for more in range(1, 7) if number < 1 << 6 * more + max(0, 6 - more))
    first = 0xFF00 >> more + 1 & 0xFF | number >> 6 * more
    return bytes([first, *(0x80 | number >> 6 * at & 0x3F for at in reversed(range(more)))])


def _coded_length(first: int) -> int:
    return 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()


def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = crc << 1 ^ (polynomial if crc >> bits - 1 else 0)
        table.append(crc & (1 << bits) - 1)
    return table


_CRC8: Final = _table(0x107, 8)
_CRC16: Final = _table(0x18005, 16)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def crc16(data: bytes) -> int:
    """The CRC of a frame."""
    crc = 0
    for byte in data:
        crc = (crc << 8 ^ _CRC16[crc >> 8 ^ byte]) & 0xFFFF
    return crc


def _times(one: int, other: int) -> int:
    """The product of two polynomials, modulo that of the CRC."""
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        if one >> 16:
            one ^= 0x18005
        other >>= 1
    return product


@lru_cache(maxsize=16_384)
def _power(n_bytes: int) -> int:
    """x^(8 * n_bytes), modulo the polynomial of the CRC."""
    power, square = 1, 1 << 8
    while n_bytes:
        if n_bytes & 1:
            power = _times(power, square)
        square = _times(square, square)
        n_bytes >>= 1
    return power
