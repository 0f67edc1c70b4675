"""The bounds of a client's next WebSocket frame, from its first bytes (RFC 6455, 5.2), and the budget of frames in one turn.

Only plainly valid frames are recognized here. Any other frame, most likely a violation, is `STRANGE`, and left to the WebSocket
library.
"""

from typing import Final

MORE: Final = -1  # bytes are missing
STRANGE: Final = -2
BINARY: Final = 0x82  # a whole binary message
TEXT: Final = 0x81
CLOSE: Final = 0x88
BINARY_BEGINS: Final = 0x02
TEXT_BEGINS: Final = 0x01
CONTINUES: Final = 0x00
CONTINUATION_ENDS: Final = 0x80

UNITS: Final = 64  # of work for one connection in a turn of the loop
UNITS_OF_OTHERS: Final = 8  # cost of a frame that is no whole binary message: the library parses it in Python
BEFORE_HELLO: Final = 16  # frames: one is enough, and a client that sends many is an attacker
TOO_MUCH: Final = "too many frames before the hello"
PENALTY_SECONDS: Final = (
    1.0  # that such a connection stays open, unread: a new handshake costs the server more than the client
)
AFTER_CLOSE: Final = 4_096  # ignored behind the end, until the client has seen the close

_PARTS: Final = frozenset({CONTINUES, CONTINUATION_ENDS, BINARY_BEGINS, TEXT_BEGINS})
_WHOLE: Final = frozenset({BINARY, TEXT, CLOSE, 0x89, 0x8A})
_MASKED: Final = 0x80
_LONGEST_CONTROL: Final = 125


def is_counted(kind: int) -> bool:
    """Whether the app does not see a frame of this kind as a message: control frames, and parts of messages."""
    return kind in _PARTS or kind >= CLOSE


def frame_at(data: bytes, at: int, most: int) -> tuple[int, int, int]:
    """The frame that begins at `at`: its first byte, and where its payload begins and ends.

    A first value of `MORE` says that the frame is not whole; then the last value is the number of bytes needed at least.
    `STRANGE` says that it is no plain frame of a client, or has a payload of more than `most` bytes.
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
