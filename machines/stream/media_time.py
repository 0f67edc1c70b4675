"""A client's frame numbers translated to those of its session; pauses that were not declared are found by the media time.

A session's frames are the time of the call, 20 ms each. A client that captured nothing for a while should declare a gap. If it
gives its next frame the next number instead, only the media time shows the pause, and the server declares the gap: from there
on the session's numbers are ahead of the client's. A `Mark` says by how many. By the marks the server translates all numbers
for the client, so the client sees only its own. If another process may resume the session, the server stores a mark before it
lets the frames behind the mark in: without the mark that process could not give the client its numbers.

- Media time is the capture time of a message's first sample. It is compared with the time that the client's own count of
  frames predicts. So frames that are sent again, and gaps that the client declared, are no pause, and jitter never adds up.
- Audio up to two frames ahead of the predicted time is jitter. The clocks of sound card and client may drift apart by up to
  `SLEW`: that is no pause either. Audio behind the predicted time is never a pause; a second or more behind may be a mismatch.
- Media time is 32 bits of milliseconds and may wrap. Within a connection it never falls (`ServerStream`). If a client
  reconnects with a clock that is more than a second behind, the clock began anew: a mark is added there, and the others stay.
- If far more or far less audio comes than the clock has time for, the session is told, at most once for each reason: most
  likely the audio has another sample rate. While a clock stands still, too much audio is not looked for.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from msgspec import Struct

from machines.audio import FRAME_MS
from machines.losses import Lost
from machines.stream.messages import StreamCode, StreamViolation

TOO_MUCH, TOO_LITTLE = "too_much_audio", "too_little_audio"

MOST_MARKS: Final = 1_000  # newest marks kept; losses before so many pauses were declared long ago
JITTER_US: Final = 2 * FRAME_MS * 1_000
SLEW: Final = 0.001  # of the audio's time; sound cards are ten times as exact
RESTORED: Final = (
    0.0005  # the same, of the time from a mark that another process has made: it may have slewed meanwhile
)
AHEAD_US: Final = 1_000_000  # a mismatch is at least this much audio more, or less, than the clock has time for
SHARE: Final = 0.04  # and at least this share of the whole: 48 kHz declared as 44.1 kHz differ by 9 per cent
SHORT_FRAMES: Final = 25  # a pause of half a second or more is a real pause, not drift

FRAME_US: Final = FRAME_MS * 1_000
_SLEW_US = int(FRAME_US * SLEW)
_WRAP_US = 2**32 * 1_000
_HALF_US = _WRAP_US // 2


class Mark(NamedTuple):
    """The client's frame `number` is the session's `frame`, and so on behind it; the client captured that frame at `media_ms`
    of its clock."""

    number: int
    frame: int
    media_ms: int


class ClockMismatch(NamedTuple):
    """`audio_ms` of audio came in `media_ms` of the capture clock; `reason` is `TOO_MUCH` or `TOO_LITTLE`."""

    reason: str
    audio_ms: int
    media_ms: int


class TimeChange(NamedTuple):
    """What the server does before it lets a client's next frames in: skip `pause` frames in the session, store `mark` so that
    it outlives the process, and tell the session of `mismatch`."""

    pause: int = 0
    mark: Mark | None = None
    mismatch: ClockMismatch | None = None


class StreamTime(Struct):
    """The marks of one client, and its clock.

    `begin_us` is the media time of the client's frame 0, in microseconds, as its later frames imply it. Audio follows on if it
    is ahead of that clock by at least `least_us` (negative: behind it) and at most the jitter. `restored` says that the marks
    come from another process and no audio was seen here yet. `short` counts the frames of short pauses since frame `since`;
    None once `TOO_LITTLE` was told.
    """

    marks: tuple[Mark, ...] = ()
    begin_us: int = 0
    least_us: int = _HALF_US  # nothing follows on before the first audio
    restored: bool = False
    since: int = 0
    short: int | None = 0

    @classmethod
    def from_marks(cls, marks: Sequence[Mark], frame: int) -> tuple[Self, int]:
        """The time of a client whose `marks` another process stored, if the session expects `frame`; and how many frames to
        skip, if the session stands within a pause.

        A mark whose pause the session never reached is dropped: the client sends the audio behind it again, which shows the
        pause again.
        """
        known = [mark for mark in marks if mark.frame <= frame]
        skip = 0
        if known and len(known) < len(marks):
            last, following = known[-1], marks[len(known)]
            if last.number + frame - last.frame > following.number:
                skip = following.frame - frame
                known.append(following)
        if not known:
            return cls(), 0
        last = known[-1]
        return cls(tuple(known[-MOST_MARKS:]), _begin(last), restored=True, since=last.number), skip

    # --- numbers -------------------------------------------------------------------------------------------------------

    def session_frame(self, number: int) -> int:
        """The session's frame that is the client's frame `number`."""
        for mark in reversed(self.marks):
            if mark.number <= number:
                return mark.frame + number - mark.number
        return number

    def bound(self, number: int) -> int:
        """The session's limit that takes in the client's frames below `number`, and no pause behind them."""
        return self.session_frame(number - 1) + 1 if number else 0

    def number(self, frame: int) -> int:
        """The client's limit that takes in its frames below the session's `frame`."""
        most = None
        for mark in reversed(self.marks):
            if mark.frame <= frame:
                number = mark.number + frame - mark.frame
                return number if most is None else min(number, most)
            most = mark.number
        return frame if most is None else min(frame, most)

    def losses(self, lost: Sequence[Lost]) -> tuple[Lost, ...]:
        """The session's losses in the client's numbers, without pauses."""
        if not self.marks or not lost:
            return tuple(lost)
        found = []
        for run in lost:
            first, upto = self.number(run.first), self.number(run.upto)
            if first < upto:
                found.append(Lost(first, upto - first, run.reason))
        return tuple(found)

    # --- the clock -----------------------------------------------------------------------------------------------------

    def follows(self, number: int, count: int, media_ms: int) -> bool:
        """Whether these frames follow on the earlier ones without a pause, as nearly all do; if not, ask `change`."""
        ahead = (media_ms * 1_000 - self.begin_us - number * FRAME_US + _HALF_US) % _WRAP_US - _HALF_US
        if ahead > JITTER_US or ahead < self.least_us:
            return False
        if ahead:
            self.begin_us += count * _SLEW_US if ahead > 0 else -count * _SLEW_US
        return True

    def change(self, number: int, media_ms: int, frame: int, *, longest: int, fresh: bool) -> TimeChange:
        """What to do before the client's frames from `number` on, if the session expects `frame` and may have `longest` frames.

        `fresh` says that the frames are the first of a connection, or stand behind a declared gap. Raises `StreamViolation`,
        and changes nothing, for a pause beyond the longest session.
        """
        ahead = _wrapped(media_ms * 1_000 - self.begin_us - number * FRAME_US)
        if not self.marks:
            return self._begins(number, media_ms, frame)
        if self.restored:
            self.restored, self.least_us = False, -AHEAD_US
            allowed = JITTER_US + RESTORED * FRAME_US * max(0, number - self.marks[-1].number)
            if 0 < ahead <= allowed:
                self.begin_us += ahead
                return TimeChange()
        if ahead > JITTER_US:
            pause = ahead // FRAME_US
            if frame + pause > longest:
                problem = f"the media time jumps beyond the longest session, of {longest:,} frames"
                raise StreamViolation(StreamCode.MALFORMED, problem)
            return self._pauses(number, media_ms, frame, pause)
        if fresh and ahead < -AHEAD_US:  # the client's clock began anew
            return self._begins(number, media_ms, frame)
        if ahead < self.least_us:
            return TimeChange(mismatch=self._too_much(number, media_ms, -ahead))
        return TimeChange()

    def _begins(self, number: int, media_ms: int, frame: int) -> TimeChange:
        if not self.marks:
            self.since = number
        mark = self._mark(Mark(number, frame, media_ms))
        self.begin_us = _begin(mark)
        if self.least_us != -_HALF_US:
            self.least_us = -AHEAD_US
        return TimeChange(mark=mark)

    def _pauses(self, number: int, media_ms: int, frame: int, pause: int) -> TimeChange:
        mark = self._mark(Mark(number, frame + pause, media_ms))
        self.begin_us += pause * FRAME_US
        mismatch = None
        if self.short is not None and pause < SHORT_FRAMES:
            self.short += pause
            watched = number - self.since + self.short
            if self.short * FRAME_US >= max(AHEAD_US, SHARE * FRAME_US * watched):
                mismatch = ClockMismatch(TOO_LITTLE, (watched - self.short) * FRAME_MS, watched * FRAME_MS)
                self.short = None
        return TimeChange(pause, mark, mismatch)

    def _too_much(self, number: int, media_ms: int, behind: int) -> ClockMismatch | None:
        last = self.marks[-1]
        elapsed = _wrapped((media_ms - last.media_ms) * 1_000)
        if elapsed <= 0:
            self.least_us = -_HALF_US
            return None
        if behind < SHARE * elapsed:
            self.least_us = -behind - AHEAD_US
            return None
        self.least_us = -_HALF_US
        return ClockMismatch(TOO_MUCH, (number - last.number) * FRAME_MS, elapsed // 1_000)

    def _mark(self, mark: Mark) -> Mark:
        before = [one for one in self.marks if one.number < mark.number]
        self.marks = (*before[1 - MOST_MARKS :], mark)
        return mark


def _begin(mark: Mark) -> int:
    return mark.media_ms * 1_000 - mark.number * FRAME_US


def _wrapped(difference_us: int) -> int:
    return (difference_us + _HALF_US) % _WRAP_US - _HALF_US
