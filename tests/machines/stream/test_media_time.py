"""A client's frames in the time of its call: pauses become gaps, jitter and drift do not, and numbers go there and back."""

import random

import pytest
from msgspec.structs import astuple

from machines.losses import Lost
from machines.stream.media_time import MOST_MARKS, ClockMismatch, Mark, StreamTime, TimeChange
from machines.stream.messages import StreamCode, StreamViolation

LONGEST = 10**6


class Session:
    """What the server does with a client's frames: `frame` is the session's next."""

    def __init__(self, time: StreamTime | None = None, frame: int = 0, number: int = 0) -> None:
        self.time = StreamTime() if time is None else time
        self.frame, self.number = frame, number
        self.pauses: list[tuple[int, int]] = []
        self.told: list[ClockMismatch] = []
        self.marks: list[Mark] = []

    def hear(self, media_ms: int, count: int = 1, *, fresh: bool = False) -> None:
        """A message of so many frames."""
        media_ms %= 2**32
        if fresh or not self.time.follows(self.number, count, media_ms):
            change = self.time.change(self.number, media_ms, self.frame, longest=LONGEST, fresh=fresh)
            if change.pause:
                self.pauses.append((self.frame, change.pause))
            if change.mark is not None:
                self.marks.append(change.mark)
            if change.mismatch is not None:
                self.told.append(change.mismatch)
            self.frame += change.pause
        assert self.time.session_frame(self.number) == self.frame
        self.frame += count
        self.number += count
        assert self.time.number(self.frame) == self.number

    def gap(self, count: int) -> None:
        """The client declares one."""
        self.number += count
        self.frame += count


@pytest.mark.parametrize("begun", [0, 10**9, 2**32 - 3_000], ids=["0", "some clock's", "before the wrap"])
def test_a_pause_is_a_gap_of_its_length(begun: int) -> None:
    session = Session()
    for at in range(0, 2_000, 100):
        session.hear(begun + at, 5, fresh=not at)
    for at in range(7_000, 9_000, 100):
        session.hear(begun + at, 5)
    assert session.pauses == [(100, 250)]
    assert (session.frame, session.number) == (450, 200)
    assert session.time.marks == (Mark(0, 0, begun), Mark(100, 350, (begun + 7_000) % 2**32))
    assert not session.told


def test_two_frames_are_jitter_and_jitter_never_adds_up() -> None:
    session, chance = Session(), random.Random(7)
    for at in range(0, 60_000, 20):
        session.hear(at + chance.randrange(40), fresh=not at)
    assert session.pauses == []
    session.hear(60_000 + 90)
    assert session.pauses == [(3_000, 3)]


@pytest.mark.parametrize("parts_per_million", [-500, 500])
def test_clocks_that_drift_apart_are_no_pause(parts_per_million: int) -> None:
    session = Session()
    for frame in range(0, 30_000, 5):  # ten minutes, 0.3 s apart in the end
        session.hear(round(frame * 20 * (1 + parts_per_million / 1e6)), 5, fresh=not frame)
    assert (session.pauses, session.told) == ([], [])


def test_frames_that_are_missing_here_and_there_are_gaps_in_the_end() -> None:
    session = Session()
    for second in range(60):
        session.hear(second * 1_000, 49, fresh=not second)
    assert 58 - 3 <= sum(count for _, count in session.pauses) <= 59
    assert [one.reason for one in session.told] == []


def test_what_comes_late_and_at_once_is_no_pause() -> None:
    session = Session()
    for at in [*range(0, 2_000, 20), *range(2_000, 5_000, 100)]:
        session.hear(at, 1 if at < 2_000 else 5, fresh=at == 2_000)
    assert (session.pauses, session.told) == ([], [])


def test_a_gap_that_the_client_declares_is_not_counted_twice() -> None:
    session = Session()
    session.hear(0, 50, fresh=True)
    session.gap(250)
    session.hear(6_000, 50, fresh=True)
    assert (session.pauses, session.frame) == ([], 350)
    session.gap(100)
    session.hear(12_000, 50, fresh=True)
    assert session.pauses == [(450, 150)], "it has declared two of five seconds"


def test_a_clock_that_began_anew_is_followed_from_there_on() -> None:
    session = Session()
    session.hear(60_000, 50, fresh=True)
    session.hear(0, 50, fresh=True)
    session.hear(1_000, 50)
    session.hear(7_000, 50)
    assert session.pauses == [(150, 250)]
    assert session.told == []


def test_a_clock_that_stands_still_tells_nothing() -> None:
    session = Session()
    for turn in range(500):
        session.hear(0, 5, fresh=not turn)
    assert (session.pauses, session.told) == ([], [])


@pytest.mark.parametrize(("frames", "at_once"), [(15, True), (6, True), (5, False)])
def test_far_more_audio_than_there_was_time_for_is_told_once(frames: int, at_once: bool) -> None:
    session = Session()
    for turn in range(200):
        session.hear(turn * 100, frames, fresh=not turn)
    assert [one.reason for one in session.told] == ["too_much_audio"] * at_once
    if at_once:
        assert session.told[0].audio_ms - session.told[0].media_ms >= 1_000
        assert session.told[0].audio_ms / session.told[0].media_ms == pytest.approx(frames / 5, rel=0.01)


@pytest.mark.parametrize(
    ("real", "called", "reason"), [(48_000, 44_100, "too_much_audio"), (44_100, 48_000, "too_little_audio")]
)
def test_two_rates_that_are_taken_for_each_other_are_told(real: int, called: int, reason: str) -> None:
    session = Session()
    for turn in range(3_000):
        session.hear(round(turn * 20 * called / real), fresh=not turn)
    assert [one.reason for one in session.told] == [reason]


def test_pauses_that_somebody_makes_are_not_too_little() -> None:
    session = Session()
    for turn in range(100):
        session.hear(turn * 3_000, 50, fresh=not turn)
    assert (len(session.pauses), session.told) == (99, [])


def test_losses_are_told_by_the_client_s_numbers() -> None:
    time = StreamTime((Mark(0, 0, 0), Mark(100, 350, 7_000), Mark(200, 500, 10_000)))
    assert [time.number(frame) for frame in (0, 99, 100, 200, 349, 350, 351, 449, 450, 460, 500, 501)] == [
        0, 99, 100, 100, 100, 100, 101, 199, 200, 200, 200, 201,
    ]  # fmt: skip
    assert [time.session_frame(number) for number in (0, 99, 100, 199, 200, 201)] == [0, 99, 350, 449, 500, 501]
    assert [time.bound(number) for number in (0, 1, 100, 101, 200, 201)] == [0, 1, 100, 351, 450, 501]
    lost = (Lost(10, 5, "disk_full"), Lost(95, 260, "process_died"), Lost(460, 10, "backlog"), Lost(499, 2, "missing"))
    assert time.losses(lost) == (Lost(10, 5, "disk_full"), Lost(95, 10, "process_died"), Lost(200, 1, "missing"))


def test_numbers_go_there_and_back_whatever_the_pauses() -> None:
    chance = random.Random(3)
    session, media_ms = Session(), 0
    seen: list[tuple[int, int]] = []
    for _ in range(300):
        seen.append((session.number, session.frame))
        session.hear(media_ms, 3, fresh=not media_ms)
        media_ms += 60 + chance.choice((0, 0, 100, 3_000))
    for number, before in seen[1:]:
        assert session.time.bound(number) == before
        assert session.time.number(before) == session.time.number(session.time.session_frame(number)) == number


def test_the_newest_marks_are_kept() -> None:
    session = Session()
    for turn in range(MOST_MARKS + 10):
        session.hear(turn * 100, fresh=not turn)
    assert len(session.time.marks) == MOST_MARKS
    assert session.time.number(0) == 0


@pytest.mark.parametrize("taken", [60, 100, 350, 370])
def test_another_process_goes_on_where_the_session_stands(taken: int) -> None:
    first = Session()
    for at in (*range(0, 2_000, 100), *range(7_000, 9_000, 100)):
        first.hear(at, 5, fresh=not at)
    time, skip = StreamTime.from_marks(first.marks, taken)
    assert skip == 0
    again = Session(time, taken, time.number(taken))
    times = [*range(0, 2_000, 20), *range(7_000, 9_000, 20)]
    for at in times[again.number :]:
        again.hear(at, fresh=at == times[again.number])
    assert again.frame == first.frame
    assert again.pauses == ([(100, 250)] if taken <= 100 else [])


def test_a_session_that_stands_within_a_pause_leaves_the_rest_of_it_out() -> None:
    time, skip = StreamTime.from_marks([Mark(0, 0, 0), Mark(100, 350, 7_000)], 200)
    assert (skip, time.number(200 + skip)) == (150, 100)


def test_a_pause_while_the_process_was_dead_is_a_gap_and_what_the_clocks_drifted_is_none() -> None:
    marks = [Mark(0, 0, 5_000)]
    for late, pause in ((1_000, 0), (4_000, 200)):
        time, _ = StreamTime.from_marks(marks, 180_000)
        assert time.change(180_000, 5_000 + 3_600_000 + late, 180_000, longest=LONGEST, fresh=True).pause == pause
        assert time.follows(180_000, 5, 5_000 + 3_600_000 + late)
    assert StreamTime.from_marks([], 5) == (StreamTime(), 0)


def test_a_pause_beyond_the_longest_session_is_refused_and_changes_nothing() -> None:
    session = Session()
    session.hear(0, 5, fresh=True)
    before = astuple(session.time)
    with pytest.raises(StreamViolation, match="longest session") as refused:
        session.time.change(5, 100_000, 5, longest=4_000, fresh=False)
    assert refused.value.code == StreamCode.MALFORMED
    assert astuple(session.time) == before
    assert session.time.change(5, 80_000, 5, longest=4_000, fresh=False).pause == 3_995


def test_the_first_audio_makes_a_mark_and_nothing_else() -> None:
    time = StreamTime()
    assert not time.follows(7, 1, 100)
    assert time.change(7, 100, 7, longest=LONGEST, fresh=True) == TimeChange(mark=Mark(7, 7, 100))


def test_what_the_clocks_may_have_drifted_counts_from_the_last_mark_only() -> None:
    late = 1_000  # in the twenty seconds from the mark on clocks drift apart by no more than jitter
    for mark in (Mark(0, 0, 5_000), Mark(179_000, 180_000, 5_000 + 3_600_000)):
        number = mark.number + 1_000
        time, _ = StreamTime.from_marks([mark], mark.frame + 1_000)
        change = time.change(number, mark.media_ms + 20_000 + late, mark.frame + 1_000, longest=LONGEST, fresh=True)
        assert change.pause == late // 20


@pytest.mark.parametrize("begun", [0, 2**32 - 5_000], ids=["0", "before the wrap"])
def test_far_too_much_audio_is_told_with_the_time_in_which_it_came(begun: int) -> None:
    session = Session()
    for turn in range(200):
        session.hear(begun + turn * 100, 6, fresh=not turn)
    (told,) = session.told
    assert told.media_ms == told.audio_ms * 5 // 6


def test_another_process_looks_for_short_pauses_from_where_it_goes_on() -> None:
    """An hour without one, before it, does not make those that come now few."""
    time, _ = StreamTime.from_marks([Mark(180_000, 180_000, 3_600_000)], 180_000)
    again = Session(time, 180_000, 180_000)
    for turn in range(200):
        again.hear(3_600_000 + turn * 120, 5, fresh=not turn)
    assert [one.reason for one in again.told] == ["too_little_audio"]


def test_a_clock_that_began_anew_tells_nothing_a_second_time() -> None:
    session = Session()
    for _ in range(2):
        for turn in range(200):
            session.hear(turn * 100, 15, fresh=not turn)
    assert [one.reason for one in session.told] == ["too_much_audio"]


def test_a_client_that_begins_behind_a_long_gap_is_looked_at_from_its_first_audio_on() -> None:
    session = Session(None, 180_000, 180_000)
    for turn in range(200):
        session.hear(turn * 120, 5, fresh=not turn)
    assert [one.reason for one in session.told] == ["too_little_audio"]
