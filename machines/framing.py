"""Frames: the layout of records in a file whose end a crash may tear.

    frame   4 bytes length (above 0), 4 bytes CRC-32 of generation and payload, payload; big-endian

A reader stops at the first frame that is not whole: a torn record was never acknowledged. Frames of another generation count
as not whole, so raising the generation forgets all frames of a file at once.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

FRAME: Final = struct.Struct(">II")


def framed(payload: bytes, generation: int) -> bytes:
    """The payload as a frame."""
    return FRAME.pack(len(payload), _crc(payload, generation)) + payload


def whole_frames(read: Callable[[int, int], bytes], at: int, size: int, generation: int) -> Iterator[tuple[bytes, int]]:
    """The payloads of the whole frames from `at` on, each with the position behind its frame.

    `read(n, at)` reads `n` bytes of the file, fewer at its end; `size` is the file's length in bytes.
    """
    while len(head := read(FRAME.size, at)) == FRAME.size:
        length, crc = FRAME.unpack(head)
        end = at + FRAME.size + length
        if length == 0 or end > size:
            return
        payload = read(length, at + FRAME.size)
        if len(payload) != length or _crc(payload, generation) != crc:
            return
        yield payload, end
        at = end


def _crc(payload: bytes, generation: int) -> int:
    return zlib.crc32(payload, generation & 0xFFFFFFFF)
