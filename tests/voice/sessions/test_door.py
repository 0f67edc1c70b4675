"""The door cuts a stream of any chunks into 20 ms frames, keeps the bytes until they are fetched, and holds back."""

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.voice.messages import Frames
from agentos.core.communication.voice.errors import ChunkTooLarge, InvalidRequest, InvalidState
from agentos.core.communication.voice.running.resources import MEDIA, SPEECH
from agentos.core.communication.voice.sessions.door import Door, DoorLock, FramesGivenUp
from machines.audio import AudioEncoding, AudioFormat
from machines.session import VoiceSessionState

FRAME = 640
MULAW = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)


def make_door(
    told: list[Frames],
    *,
    ports: int = 1,
    limit: int = 100,
    audio_format: AudioFormat | None = None,
    can_be_slowed: bool = True,
) -> Door:
    return Door(
        "voice-1",
        audio_format or AudioFormat(),
        ports=ports,
        limit=limit,
        max_chunk=10 * FRAME,
        deliver=lambda _, frames: told.append(frames),
        lock=DoorLock(),
        can_be_slowed=can_be_slowed,
    )


def fetch_all(door: Door, told: list[Frames]) -> bytes:
    return b"".join(door.take(MEDIA, frames.first) for frames in told if frames.count)


@given(st.lists(st.binary(max_size=3 * FRAME), max_size=12))
def test_the_bytes_that_came_in_are_the_bytes_that_are_fetched_however_they_were_cut(chunks: list[bytes]) -> None:
    told: list[Frames] = []
    door = make_door(told)
    for chunk in chunks:
        assert door.offer(chunk)
    upto, _ = door.finish()
    whole = b"".join(chunks)
    assert fetch_all(door, told) == whole[: len(whole) - len(whole) % 2]
    assert door.leftover == len(whole) % 2
    assert upto == -(-(len(whole) - door.leftover) // FRAME)
    counted = [frames for frames in told if frames.count]
    assert [frames.first for frames in counted] == [sum(f.count for f in counted[:at]) for at in range(len(counted))]
    assert sum(frames.n_bytes for frames in counted) == len(whole) - door.leftover


def test_a_first_chunk_without_a_whole_frame_says_that_audio_has_begun() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.offer(b"abc")
    assert [(frames.first, frames.count, frames.n_bytes) for frames in told] == [(0, 0, 0)]


def test_an_empty_chunk_is_no_audio() -> None:
    told: list[Frames] = []
    door = make_door(told)
    assert door.offer(b"")
    assert told == []
    assert door.finish() == (0, ())


def test_half_a_sample_at_the_end_is_left_over_and_declared() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.offer(b"...")
    assert door.finish() == (1, ())
    assert fetch_all(door, told) == b".."
    assert door.leftover == 1


def test_what_no_finish_let_in_is_left_over_too() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.offer(bytes(FRAME + 101))
    door.close()
    assert door.leftover == 101


def test_a_sample_of_all_channels_is_never_split() -> None:
    told: list[Frames] = []
    stereo = AudioFormat(sample_rate=44_100, channels=2)
    door = make_door(told, audio_format=stereo)
    door.offer(bytes(stereo.frame_bytes + 7))
    assert door.finish() == (2, ())
    assert [frames.n_bytes for frames in told] == [stereo.frame_bytes, 4]
    assert door.leftover == 3


def test_one_byte_is_a_whole_sample_in_mulaw() -> None:
    told: list[Frames] = []
    door = make_door(told, audio_format=MULAW)
    for _ in range(161):
        door.offer(b"\xff")
    assert door.finish() == (2, ())
    assert [(frames.count, frames.n_bytes) for frames in told] == [(0, 0), (1, 160), (1, 1)]
    assert door.leftover == 0


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_anything_that_is_bytes_is_taken(data: bytes) -> None:
    told: list[Frames] = []
    door = make_door(told)
    assert door.offer(data)
    door.finish()
    assert fetch_all(door, told) == b"ab"


def test_a_buffer_that_its_owner_goes_on_using_is_copied() -> None:
    told: list[Frames] = []
    door = make_door(told)
    buffer = bytearray(b"x" * FRAME)
    door.offer(buffer)  # type: ignore[arg-type]
    buffer[:] = b"y" * FRAME
    assert fetch_all(door, told) == b"x" * FRAME


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2], object()])
def test_what_is_no_bytes_is_refused_by_name(data: bytes) -> None:
    told: list[Frames] = []
    with pytest.raises(InvalidRequest, match="audio_data must be bytes") as caught:
        make_door(told).offer(data)
    assert caught.value.field == "audio_data"
    assert told == []


def test_an_oversize_chunk_is_refused_whole() -> None:
    told: list[Frames] = []
    door = make_door(told)
    with pytest.raises(ChunkTooLarge) as caught:
        door.offer(bytes(10 * FRAME + 1))
    assert (caught.value.n_bytes, caught.value.limit_bytes) == (10 * FRAME + 1, 10 * FRAME)
    assert door.finish() == (0, ())
    assert door.offer(bytes(10 * FRAME))


@pytest.mark.parametrize("state", [VoiceSessionState.STOPPING, VoiceSessionState.STOPPED])
def test_a_session_that_is_ending_takes_no_audio_and_says_where_it_stands(state: VoiceSessionState) -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.state = state
    with pytest.raises(InvalidState, match=state.name) as caught:
        door.offer(bytes(FRAME))
    assert caught.value.state is state
    assert told == []


def test_a_full_door_takes_nothing_until_the_slowest_port_has_dealt_with_some() -> None:
    told: list[Frames] = []
    door = make_door(told, ports=2, limit=4)
    assert door.offer(bytes(4 * FRAME))
    assert not door.offer(bytes(FRAME))
    door.take(MEDIA, 0)
    door.room(MEDIA, 4)
    assert not door.offer(bytes(FRAME))  # the other one has not even fetched
    door.take(SPEECH, 0)
    assert not door.offer(bytes(FRAME))  # fetched, and not dealt with
    door.room(SPEECH, 1)
    assert door.offer(bytes(FRAME))
    assert not door.offer(bytes(FRAME))
    assert [(frames.first, frames.count) for frames in told] == [(0, 4), (4, 1)]


def test_a_refused_chunk_leaves_the_stream_as_it_was() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=1)
    door.offer(b"a" * (FRAME + 1))
    assert not door.offer(b"b" * (2 * FRAME))
    door.take(MEDIA, 0)
    door.room(MEDIA, 1)
    assert door.offer(b"c" * (FRAME - 1))
    assert door.take(MEDIA, 1) == b"a" + b"c" * (FRAME - 1)


def test_a_chunk_larger_than_the_bound_gets_in_alone() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=2)
    assert door.offer(bytes(5 * FRAME))
    assert not door.offer(bytes(FRAME))


def test_a_session_that_cannot_be_slowed_always_gets_in_and_its_oldest_audio_goes_first() -> None:
    told: list[Frames] = []
    door = make_door(told, ports=2, limit=3, can_be_slowed=False)
    for at in range(3):
        door.offer(bytes([at]) * FRAME)
    assert door.take(SPEECH, 0) == b"\0" * FRAME
    assert door.take(SPEECH, 1) == b"\1" * FRAME
    for at in range(3, 5):
        assert door.offer(bytes([at]) * FRAME)
    for first in (0, 1):
        with pytest.raises(FramesGivenUp):
            door.take(MEDIA, first)
    assert [door.take(MEDIA, first) for first in (2, 3, 4)] == [bytes([at]) * FRAME for at in (2, 3, 4)]
    assert [door.take(SPEECH, first) for first in (2, 3, 4)] == [bytes([at]) * FRAME for at in (2, 3, 4)]
    assert [frames.first for frames in told] == [0, 1, 2, 3, 4], "every frame is told, also those that were given up"
    assert door.accepted == 5


@given(
    st.integers(1, 8),
    st.lists(st.one_of(st.tuples(st.just("speak"), st.integers(1, 6)), st.tuples(st.just("fetch"), st.integers(1, 4)))),
)
def test_of_a_session_that_cannot_be_slowed_every_frame_is_fetched_or_given_up_and_few_wait(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    told: list[Frames] = []
    door = make_door(told, limit=limit, can_be_slowed=False)
    fetched: list[int] = []
    given_up: list[int] = []
    at = largest = 0

    def fetch(frames: Frames) -> None:
        numbers = range(frames.first, frames.first + frames.count)
        try:
            data = door.take(MEDIA, frames.first)
        except FramesGivenUp:
            given_up.extend(numbers)
            return
        assert data == b"".join(bytes([number % 251]) * FRAME for number in numbers)
        fetched.extend(numbers)

    for kind, count in (*steps, ("fetch", len(steps) * 6)):
        if kind == "speak":
            numbers = range(door.accepted, door.accepted + count)
            assert door.offer(b"".join(bytes([number % 251]) * FRAME for number in numbers))
            largest = max(largest, count)
        else:
            before = len(given_up)
            for frames in told[at : at + count]:
                fetch(frames)
            at = min(len(told), at + count)
            assert given_up[before:] == sorted(given_up[before:])
    assert sorted(fetched + given_up) == list(range(door.accepted))
    assert fetched == sorted(fetched)


def test_a_session_that_cannot_be_slowed_keeps_no_more_than_its_bound_and_its_newest_run() -> None:
    told: list[Frames] = []
    door = make_door(told, ports=2, limit=4, can_be_slowed=False)
    for _ in range(1000):
        door.offer(bytes(FRAME))
    door.offer(bytes(7 * FRAME))
    waiting = 0
    for frames in told:
        with suppress(FramesGivenUp):
            waiting += len(door.take(MEDIA, frames.first)) // FRAME
    assert waiting == 7


def test_a_run_can_be_fetched_once() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.offer(bytes(FRAME))
    door.take(MEDIA, 0)
    with pytest.raises(KeyError):
        door.take(MEDIA, 0)


def test_a_run_that_nobody_asked_for_is_let_go_when_a_later_one_is_fetched() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=3)
    for at in range(3):
        door.offer(bytes([at]) * FRAME)
    assert door.take(MEDIA, 2) == b"\2" * FRAME
    door.room(MEDIA, 1)
    with pytest.raises(KeyError):
        door.take(MEDIA, 0)
    assert door.offer(bytes(3 * FRAME))  # what is lost does not take room for ever


def test_a_closed_door_keeps_no_bytes() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.offer(bytes(FRAME))
    door.close()
    with pytest.raises(KeyError):
        door.take(MEDIA, 0)
    with pytest.raises(InvalidState, match="STOPPING"):
        door.offer(b"more")


def test_whoever_waits_for_room_is_called_once() -> None:
    told: list[Frames] = []
    door = make_door(told)
    calls: list[str] = []
    door.on_room(lambda: calls.append("room"))
    door.room(MEDIA, 1)
    door.room(MEDIA, 1)
    assert calls == ["room"]


def within_a_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - it is looked at by the test
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_a_thread_waits_for_room_and_then_gets_in() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=1)
    door.offer(bytes(FRAME))
    thread, results = within_a_thread(lambda: door.offer_within(b"b" * FRAME, 30))
    door.take(MEDIA, 0)
    door.room(MEDIA, 1)
    thread.join(30)
    assert results == [True]
    assert door.take(MEDIA, 1) == b"b" * FRAME


def test_room_that_comes_between_the_look_and_the_wait_is_not_missed() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=1)
    door.offer(bytes(FRAME))
    looked, go_on = threading.Event(), threading.Event()
    offer = Door.offer

    class Slow(Door):
        __slots__ = ()

        def offer(self, data: bytes) -> bool:
            found_room = offer(self, data)
            if not looked.is_set():
                looked.set()
                go_on.wait(0.2)  # the other thread can't get in meanwhile, if the look and the wait are one
            return found_room

    door.__class__ = Slow
    thread, results = within_a_thread(lambda: door.offer_within(bytes(FRAME), 5))
    looked.wait(5)
    door.take(MEDIA, 0)
    door.room(MEDIA, 1)
    go_on.set()
    thread.join(30)
    assert results == [True]


def test_waiting_for_room_ends_in_time_and_nothing_is_in() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=1)
    door.offer(bytes(FRAME))
    assert not door.offer_within(bytes(FRAME), 0)
    assert not door.offer_within(bytes(FRAME), 0.05)
    assert [(frames.first, frames.count) for frames in told] == [(0, 1)]


def test_a_thread_that_waits_for_room_learns_of_the_end() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=1)
    door.offer(bytes(FRAME))
    thread, results = within_a_thread(lambda: door.offer_within(bytes(FRAME), 30))
    door.close()
    thread.join(30)
    assert [type(result) for result in results] == [InvalidState]


def test_many_threads_lose_and_double_nothing() -> None:
    told: list[Frames] = []
    door = make_door(told, limit=10_000)
    threads = [
        threading.Thread(target=lambda mark=mark: [door.offer(bytes([mark]) * FRAME) for _ in range(200)])
        for mark in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [frames.first for frames in told] == list(range(800))
    whole = fetch_all(door, told)
    frames = [whole[at : at + FRAME] for at in range(0, len(whole), FRAME)]
    assert sorted(frames) == sorted(bytes([mark]) * FRAME for mark in range(4) for _ in range(200))


def test_what_was_skipped_last_is_told_at_the_end() -> None:
    told: list[Frames] = []
    door = make_door(told)
    door.skip(2, "ring")
    assert door.finish() == (0, (("ring", 2),))
    door.offer(bytes(FRAME))
    assert door.finish() == (3, ())
    door.skip(3, "ring")
    door.skip(1, "capture")
    door.skip(3, "ring")
    assert door.finish() == (3, (("capture", 1), ("ring", 6)))
    door.offer(b"\0\0")
    assert door.finish() == (11, ())  # a last short frame came behind them
    assert [frames.skipped for frames in told if frames.count] == [(("ring", 2),), (("capture", 1), ("ring", 6))]
    assert [(frames.first, frames.count) for frames in told if frames.count] == [(2, 1), (10, 1)]
