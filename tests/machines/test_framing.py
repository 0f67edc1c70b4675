import pytest

from machines.framing import FRAME, framed, whole_frames


def payloads(data: bytes, generation: int = 1) -> list[bytes]:
    return [payload for payload, _ in whole_frames(lambda n, at: data[at : at + n], 0, len(data), generation)]


def test_what_was_framed_is_read_with_where_each_frame_ends() -> None:
    data = framed(b"one", 1) + framed(b"and two", 1)
    found = [*whole_frames(lambda n, at: data[at : at + n], 0, len(data), 1)]
    assert found == [(b"one", FRAME.size + 3), (b"and two", len(data))]


@pytest.mark.parametrize("cut", range(1, FRAME.size + 7))
def test_a_torn_frame_ends_the_file(cut: int) -> None:
    data = framed(b"one", 1) + framed(b"and two", 1)
    assert payloads(data[:-cut]) == [b"one"]


def test_a_changed_byte_and_another_generation_are_not_whole() -> None:
    data = bytearray(framed(b"one", 1))
    assert payloads(bytes(data), generation=2) == []
    data[-1] ^= 1
    assert payloads(bytes(data)) == []
    assert payloads(bytes(32)) == []
