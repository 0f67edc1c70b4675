"""Where the next frame of a client ends, told from its first bytes (RFC 6455, 5.2), and how many may be dealt with in one go.

Only what is plainly good is told apart here. Whatever else there may be, a violation most likely, is `STRANGE`: the library
that knows WebSocket decides what becomes of it.
"""

from typing import Final

MORE: Final = -1  # bytes are missing
STRANGE: Final = -2
BINARY: Final = 0x82  # whole
TEXT: Final = 0x81
CLOSE: Final = 0x88
BINARY_BEGINS: Final = 0x02
TEXT_BEGINS: Final = 0x01
CONTINUES: Final = 0x00
CONTINUATION_ENDS: Final = 0x80

UNITS: Final = 64  # of work for one connection in a turn of the loop
UNITS_OF_OTHERS: Final = 8  # that a frame costs which is no whole binary message: the library takes it apart in Python
BEFORE_HELLO: Final = 16  # frames: one is enough, and whoever sends more means no good
TOO_MUCH: Final = "too many frames before the hello"
PENALTY_SECONDS: Final = (
    1.0  # that such a connection is kept, unread: a new handshake costs the server more than the client
)
AFTER_CLOSE: Final = 4_096  # that are let pass behind the end, until the client has seen it

_PARTS: Final = frozenset({CONTINUES, CONTINUATION_ENDS, BINARY_BEGINS, TEXT_BEGINS})
_WHOLE: Final = frozenset({BINARY, TEXT, CLOSE, 0x89, 0x8A})
_MASKED: Final = 0x80
_LONGEST_CONTROL: Final = 125


def is_counted(kind: int) -> bool:
    """Whether the app does not see a frame of this kind as a message: control frames, and parts of messages."""
    return kind in _PARTS or kind >= CLOSE


def frame_at(data: bytes, at: int, most: int) -> tuple[int, int, int]:
    """The frame that begins at `at`: its first byte, where its payload begins and where it ends.

    `MORE` in the first place says that it is not there whole, and the last one how many bytes it takes at least; `STRANGE`
    that it is no plain frame of a client, or has a payload of more than `most` bytes.
    """
    left = len(data) - at
    if left < 2:
        return MORE, 0, 2
    kind, size = data[at], data[at + 1]
    if size < _MASKED or (kind not in _WHOLE and kind not in _PARTS):
        return STRANGE, 0, 0
    size -= _MASKED
    head = 6
    if size > _LONGEST_CONTROL:
        if kind >= CLOSE:
            return STRANGE, 0, 0
        head = 8 if size == 126 else 14
        if left < head - 4:
            return MORE, 0, head
        size = int.from_bytes(data[at + 2 : at + head - 4], "big")
    if size > most:
        return STRANGE, 0, 0
    if left < head + size:
        return MORE, 0, head + size
    return kind, at + head, at + head + size
