"""The parts that need no process: packets, the account of a stream, media time, the pause after a crash."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.voice.messages import Listen, Word
from agentos.core.communication.voice.stt.breaker import Breaker
from agentos.core.communication.voice.stt.process import search_path
from agentos.core.communication.voice.stt.protocol import (
    Answer,
    Drop,
    FinishedUtterance,
    Open,
    PacketReader,
    ProtocolError,
    Ready,
    Request,
    StreamAudio,
    StreamBroken,
    StreamEnd,
    StreamOpened,
    StreamProgress,
    packet,
)
from agentos.core.communication.voice.stt.stream import Audio, Stream
from agentos.core.communication.voice.stt.worker import MediaTime
from machines.audio import AudioEncoding, AudioFormat
from machines.restart import Intensity
from machines.session import STTProvider

REQUESTS = [
    Open(1, "voice-1", "module:Engine", {"model": "small"}, {"hints": ["yes"]}, AudioEncoding.MULAW, 8_000, 2),
    StreamAudio(1, 0, 2, b"\x00\xff" * 320),
    StreamEnd(1),
    Drop(2),
]
ANSWERS = [
    Ready(),
    StreamOpened(1),
    StreamProgress(1, 10, 5, (FinishedUtterance("a", 0, 20, (Word("a", 0, 20, 0.5),)),), "b"),
    StreamProgress(1, 10, 10, ended=True),
    StreamBroken(1, "why"),
]


@pytest.mark.parametrize(("kind", "messages"), [(Request, REQUESTS), (Answer, ANSWERS)], ids=["requests", "answers"])
@given(data=st.data())
def test_packets_arrive_whole_however_they_are_cut(kind: object, messages: list[object], data: st.DataObject) -> None:
    sent = b"".join(packet(message) for message in messages)  # type: ignore[arg-type]
    reader: PacketReader[object] = PacketReader(kind)
    got: list[object] = []
    while sent:
        n = data.draw(st.integers(1, len(sent)))
        got += reader.feed(sent[:n])
        sent = sent[n:]
    assert got == messages


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xffhello", b"\x00\x00\x00\x01\xc1", packet(StreamEnd(1))])
def test_what_is_no_packet_is_an_error(nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(PacketReader[Answer](Answer).feed(nonsense))


def a_stream() -> Stream:
    work = Listen("voice-1", STTProvider.POCKETSPHINX, AudioFormat(), None)
    return Stream(work, Breaker(Intensity(5, 60)))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("hand over"), st.integers(0, 3), st.integers(1, 80)),
            st.tuples(st.just("feed")),
            st.tuples(st.just("take")),
            st.tuples(st.just("settle"), st.integers(0, 60)),
            st.tuples(st.just("give up"), st.integers(0, 100)),
            st.tuples(st.just("lose")),
        ),
        max_size=60,
    )
)
def test_every_frame_is_in_exactly_one_place(steps: list[tuple[object, ...]]) -> None:
    stream = a_stream()
    handed: list[int] = []
    sent: list[int] = []
    settled = taken = answered = 0
    lost: list[int] = []
    room = 0
    for kind, *numbers in steps:
        if kind == "hand over":
            gap, count = numbers
            assert isinstance(gap, int)
            assert isinstance(count, int)
            first = stream.expected + gap
            data = b"".join(number.to_bytes(4, "big") * 160 for number in range(first, first + count))
            stream.hand_over(Audio(first, count, data), 0)
            handed += range(first, first + count)
        elif kind == "feed":
            audio = stream.next_feed()
            if audio is not None:
                got = [int.from_bytes(audio.data[at : at + 4], "big") for at in range(0, len(audio.data), 640)]
                assert got == list(range(audio.first, audio.first + audio.frames)), "the bytes are those of the frames"
                sent += got
        elif kind == "take" and len(sent) > answered:
            room += stream.taken(sent[-1] + 1)
            answered = len(sent)
            taken = sent[-1] + 1
        elif kind == "settle":
            upto = min(taken, stream.settled + int(str(numbers[0])))
            settled += stream.settle(upto)
        elif kind == "give up":
            runs = stream.give_up_oldest(int(str(numbers[0])))
            lost += [number for run in runs for number in range(run.first, run.first + run.frames)]
        elif kind == "lose":
            runs, untaken = stream.lose_worker()
            lost += [number for run in runs for number in range(run.first, run.first + run.frames)]
            room += untaken
            answered = len(sent)
    assert len(handed) == stream.queued + stream.under_way + settled + len(lost)
    assert len(set(lost)) == len(lost)
    assert stream.under_way + stream.queued >= 0
    assert set(lost) <= set(handed)
    assert room <= len(sent)


def test_at_most_a_window_is_sent_ahead() -> None:
    stream = a_stream()
    stream.hand_over(Audio(0, 200, bytes(640 * 200)), 0)
    sent = 0
    while (audio := stream.next_feed()) is not None:
        sent += audio.frames
    assert sent == stream.under_way == 50
    assert stream.taken(25) == 25
    audio = stream.next_feed()
    assert audio is not None
    assert (audio.first, audio.frames) == (50, 25)


def test_it_is_known_when_what_was_decoded_had_come() -> None:
    stream = a_stream()
    for at, came_ms in enumerate((100, 200, 300)):
        stream.hand_over(Audio(20 * at, 20, bytes(640 * 20)), came_ms)
    assert stream.next_feed() is not None  # frames 0 to 24
    assert stream.taken(25) == 25
    assert stream.decoded_came_ms == 200
    stream.give_up_oldest(keep=15)
    assert stream.next_feed() == Audio(45, 15, bytes(640 * 15))
    assert stream.taken(60) == 15
    assert stream.decoded_came_ms == 300


def test_what_waits_without_a_worker_is_not_remembered_when_it_is_given_up() -> None:
    stream = a_stream()
    for at in range(1000):
        stream.hand_over(Audio(at, 1, bytes(640)), at)
        stream.give_up_oldest(keep=10)
    assert len(stream._came) <= 11


def test_a_short_last_frame_ends_a_packet() -> None:
    stream = a_stream()
    stream.hand_over(Audio(0, 2, bytes(640 + 100)), 0)
    stream.hand_over(Audio(2, 1, bytes(640)), 0)
    assert stream.next_feed() == Audio(0, 2, bytes(740))
    assert stream.next_feed() == Audio(2, 1, bytes(640))


def test_media_time_jumps_over_what_was_lost() -> None:
    clock = MediaTime()
    clock.fed(10, 5, 100.0)
    clock.fed(15, 5, 100.0)
    clock.fed(50, 5, 100.0)
    assert [clock.of(at) for at in (0, 99, 199)] == [200, 299, 399]
    assert clock.of(200) == 1_000  # a beginning there is behind the hole
    assert clock.end_of(200) == 400  # an end is before it
    assert clock.of(250) == 1_050
    assert clock.settled_frame(90) == 14
    assert clock.settled_frame(200) == 50
    assert clock.settled_frame(300) == clock.next_frame == 55


def test_pauses_grow_until_it_counts_as_failed_and_a_window_forgives() -> None:
    breaker = Breaker(Intensity(2, 60.0))
    assert not breaker.failed(0.0)
    breaker.crashed(100.0)
    assert breaker.not_before == pytest.approx(100.1)
    breaker.crashed(101.0)
    assert breaker.not_before == pytest.approx(101.2)
    assert not breaker.failed(101.0)
    breaker.crashed(102.0)
    assert breaker.failed(161.0)
    assert not breaker.failed(162.0)
    breaker.crashed(163.0)
    assert not breaker.failed(163.0)


def test_a_worker_looks_for_modules_where_its_parent_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend("")
    path = search_path()
    assert path[0] == str(tmp_path)
    assert all(Path(entry).is_absolute() for entry in path)
