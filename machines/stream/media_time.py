"""Where a client's frames lie in its session, by the media time that comes with them.

A session's frames are the time of the call, 20 ms each. A client that captured nothing for a while says so with a gap; one that
does not gives its next frame the next number, and only the media time shows the pause. Then the server declares the gap: from
there on the session's numbers are ahead of the client's, and a `Mark` says by how many. Whatever is told to the client goes
through the marks, so that it hears of its own numbers only. Where another process may go on with the session, a mark is stored
before the frames behind it get in: without it nobody could tell the client any more where the session stands.

- Media time says when the first sample of a message was captured. What counts is where the client's own count of frames should
  have it: frames that are sent again, and gaps that the client has declared, are no pause, and jitter never adds up.
- Two frames of that are jitter. A sound card's clock and the client's may differ by as much as `SLEW`: that is no pause either.
- Media time is 32 bits of milliseconds and may wrap. Within a connection it never falls (`ServerStream`); a client that comes
  back with a clock that began anew is followed from there on.
- More or less audio than the clock has time for, by far, is told once: most likely the session has another sample rate. A clock
  that stands still is none.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from msgspec import Struct

from machines.audio import FRAME_MS
from machines.losses import Lost
from machines.stream.messages import StreamCode, StreamViolation

TOO_MUCH, TOO_LITTLE = "too_much_audio", "too_little_audio"

MOST_MARKS: Final = 1_000  # that are kept; what was lost so many pauses ago was declared long since
JITTER_US: Final = 2 * FRAME_MS * 1_000
SLEW: Final = 0.001  # of the audio's time; sound cards are ten times as exact
RESTORED: Final = (
    0.0005  # the same, of the time from a mark that another process has made: it may have slewed meanwhile
)
AHEAD_US: Final = 1_000_000  # so much audio more than the clock has time for, or less, is worth a word
SHARE: Final = 0.04  # if it is this part of the whole, too: 48 kHz that are called 44.1 kHz are 9 per cent
SHORT_FRAMES: Final = 25  # a pause of half a second is one that somebody made

FRAME_US: Final = FRAME_MS * 1_000
_SLEW_US = int(FRAME_US * SLEW)
_WRAP_US = 2**32 * 1_000
_HALF_US = _WRAP_US // 2


class Mark(NamedTuple):
    """From its frame `number` on, the client's frames are the session's from `frame` on; the first of them was captured at
    `media_ms` of the client's clock."""

    number: int
    frame: int
    media_ms: int


class Mismatch(NamedTuple):
    """So much audio came in so much time, in milliseconds, by the clock of its capture; `reason` is `TOO_MUCH` or
    `TOO_LITTLE`."""

    reason: str
    audio_ms: int
    media_ms: int


class Change(NamedTuple):
    """What is to be done before a client's next frames: `pause` frames are to be skipped in the session, and `mark` is to
    outlive the process before they get in; `mismatch` is to be told."""

    pause: int = 0
    mark: Mark | None = None
    mismatch: Mismatch | None = None


class StreamTime(Struct):
    """The marks of one client, and its clock.

    `begin_us` is the media time at which the client's frame 0 would have been captured, in microseconds; audio follows on that
    is ahead of it by `least_us` or more (behind it, where that is negative) and by no more than jitter. `restored` is set
    until the first audio is seen here. `short` counts the frames of short pauses since frame `since`; None when they were
    told.
    """

    marks: tuple[Mark, ...] = ()
    begin_us: int = 0
    least_us: int = _HALF_US  # nothing follows on before the first audio
    restored: bool = False
    since: int = 0
    short: int | None = 0

    @classmethod
    def again(cls, marks: Sequence[Mark], frame: int) -> tuple[Self, int]:
        """What another process knew of the client, when the session expects `frame`; and how many frames are to be skipped,
        where it stands within a pause.

        Of a pause that it does not have the mark is forgotten: audio that comes again shows it again.
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
        """The limit of the session's frames that has the client's frames below `number`, and no pause behind them."""
        return self.session_frame(number - 1) + 1 if number else 0

    def number(self, frame: int) -> int:
        """The client's limit that has its frames below the session's `frame`."""
        most = None
        for mark in reversed(self.marks):
            if mark.frame <= frame:
                number = mark.number + frame - mark.frame
                return number if most is None else min(number, most)
            most = mark.number
        return frame if most is None else min(frame, most)

    def losses(self, lost: Sequence[Lost]) -> tuple[Lost, ...]:
        """Of losses in the session those that are frames of the client."""
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
        """Whether these frames of the client follow on what came before them, as nearly all do; else ask `change` first."""
        ahead = (media_ms * 1_000 - self.begin_us - number * FRAME_US + _HALF_US) % _WRAP_US - _HALF_US
        if ahead > JITTER_US or ahead < self.least_us:
            return False
        if ahead:
            self.begin_us += count * _SLEW_US if ahead > 0 else -count * _SLEW_US
        return True

    def change(self, number: int, media_ms: int, frame: int, *, longest: int, fresh: bool) -> Change:
        """What the frames of the client from `number` on change, when the session expects `frame` and has at most `longest`;
        `fresh` says that they are the first of a connection, or behind a gap that it has declared.

        Raises `StreamViolation` for a pause beyond the longest session: nothing has changed.
        """
        ahead = _wrapped(media_ms * 1_000 - self.begin_us - number * FRAME_US)
        if not self.marks:
            return self._begins(number, media_ms, frame)
        if self.restored:
            self.restored, self.least_us = False, -AHEAD_US
            allowed = JITTER_US + RESTORED * FRAME_US * max(0, number - self.marks[-1].number)
            if 0 < ahead <= allowed:
                self.begin_us += ahead
                return Change()
        if ahead > JITTER_US:
            pause = ahead // FRAME_US
            if frame + pause > longest:
                problem = f"the media time jumps beyond the longest session, of {longest:,} frames"
                raise StreamViolation(StreamCode.MALFORMED, problem)
            return self._pauses(number, media_ms, frame, pause)
        if fresh and ahead < -AHEAD_US:  # its clock began anew
            return self._begins(number, media_ms, frame)
        if ahead < self.least_us:
            return Change(mismatch=self._too_much(number, media_ms, -ahead))
        return Change()

    def _begins(self, number: int, media_ms: int, frame: int) -> Change:
        if not self.marks:
            self.since = number
        mark = self._mark(Mark(number, frame, media_ms))
        self.begin_us = _begin(mark)
        if self.least_us != -_HALF_US:
            self.least_us = -AHEAD_US
        return Change(mark=mark)

    def _pauses(self, number: int, media_ms: int, frame: int, pause: int) -> Change:
        mark = self._mark(Mark(number, frame + pause, media_ms))
        self.begin_us += pause * FRAME_US
        mismatch = None
        if self.short is not None and pause < SHORT_FRAMES:
            self.short += pause
            watched = number - self.since + self.short
            if self.short * FRAME_US >= max(AHEAD_US, SHARE * FRAME_US * watched):
                mismatch = Mismatch(TOO_LITTLE, (watched - self.short) * FRAME_MS, watched * FRAME_MS)
                self.short = None
        return Change(pause, mark, mismatch)

    def _too_much(self, number: int, media_ms: int, behind: int) -> Mismatch | None:
        last = self.marks[-1]
        elapsed = _wrapped((media_ms - last.media_ms) * 1_000)
        if elapsed <= 0:
            self.least_us = -_HALF_US
            return None
        if behind < SHARE * elapsed:
            self.least_us = -behind - AHEAD_US
            return None
        self.least_us = -_HALF_US
        return Mismatch(TOO_MUCH, (number - last.number) * FRAME_MS, elapsed // 1_000)

    def _mark(self, mark: Mark) -> Mark:
        before = [one for one in self.marks if one.number < mark.number]
        self.marks = (*before[1 - MOST_MARKS :], mark)
        return mark


def _begin(mark: Mark) -> int:
    return mark.media_ms * 1_000 - mark.number * FRAME_US


def _wrapped(difference_us: int) -> int:
    return (difference_us + _HALF_US) % _WRAP_US - _HALF_US
