"""Where a client's frame ends: what is no plain frame is seen as soon as its head is there."""

import pytest

from agentos.core.communication.voice.gateway.websocket_frames import BINARY, MORE, STRANGE, frame_at, is_counted

MOST = 70_000
MASK = bytes(4)


@pytest.mark.parametrize("control", [0x88, 0x89, 0x8A])
def test_a_control_frame_beyond_its_limit_is_not_waited_for(control: int) -> None:
    assert frame_at(bytes([control, 0x80 | 125]), 0, MOST) == (MORE, 0, 131)
    for size in (126, 127):
        assert frame_at(bytes([control, 0x80 | size]), 0, MOST)[0] == STRANGE


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, b"\x80"),
        (125, b"\xfd"),
        (126, b"\xfe\x00\x7e"),
        (65_535, b"\xfe\xff\xff"),
        (65_536, b"\xff" + (65_536).to_bytes(8, "big")),
        (MOST, b"\xff" + MOST.to_bytes(8, "big")),
    ],
)
def test_a_frame_is_told_from_its_first_bytes(size: int, shown: bytes) -> None:
    begin = b"before" + bytes([BINARY]) + shown
    whole = begin + MASK + bytes(size)
    assert frame_at(whole, 6, MOST) == (BINARY, len(begin) + 4, len(whole))
    assert frame_at(whole[:-1], 6, MOST) == (MORE, 0, len(whole) - 6)
    assert frame_at(begin[:7], 6, MOST) == (MORE, 0, 2)
    if len(shown) > 1:
        assert frame_at(begin[:-1], 6, MOST) == (MORE, 0, len(begin) - 6 + 4)


def test_a_payload_that_is_too_long_is_not_waited_for() -> None:
    begin = bytes([BINARY]) + b"\xff" + (MOST + 1).to_bytes(8, "big")
    assert frame_at(begin, 0, MOST)[0] == STRANGE


def test_what_the_app_does_not_see_as_a_message_is_counted_here() -> None:
    whole, parts, control = (0x81, 0x82), (0x00, 0x01, 0x02, 0x80), (0x88, 0x89, 0x8A)
    assert [is_counted(kind) for kind in whole] == [False] * 2
    assert [is_counted(kind) for kind in (*parts, *control)] == [True] * 7
