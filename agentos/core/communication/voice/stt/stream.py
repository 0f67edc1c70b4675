"""The account of one session's audio on its way through a worker: queued, sent, taken, settled or lost.

Pure bookkeeping. Every frame that is handed over is in exactly one place: in the queue, under way (sent, and its outcome
still open), settled, or lost. Nothing leaves a place without being in the next.
"""

from collections import deque
from typing import Any, Final, NamedTuple

from actors.voice.messages import Listen
from agentos.core.communication.voice.stt.breaker import Breaker
from machines.names import text_of

_FEED_FRAMES: Final = 25  # in one packet; half a second, decoded in a tenth of one
_WINDOW_FRAMES: Final = 2 * _FEED_FRAMES  # sent ahead of the worker's answers, so that it never waits


class Run(NamedTuple):
    """`frames` successive frames from `first` on."""

    first: int
    frames: int


class Audio(NamedTuple):
    """Successive frames with their bytes; the last frame perhaps short."""

    first: int
    frames: int
    data: bytes


class Stream:
    """One session. `number` is its name at `worker` while it has one."""

    __slots__ = (
        "_came",
        "_queue",
        "_unanswered",
        "_under_way",
        "_untold",
        "audio_format",
        "breaker",
        "decoded_came_ms",
        "end_sent",
        "engine",
        "expected",
        "finishing",
        "frame_bytes",
        "number",
        "opened",
        "options",
        "queued",
        "reply_to",
        "session_id",
        "settled",
        "told",
        "told_silent",
        "under_way",
        "worker",
    )  # fmt: skip

    def __init__(self, work: Listen, breaker: Breaker) -> None:
        self.session_id = work.session_id
        self.engine = text_of(work.engine)
        self.options = work.options
        self.audio_format = work.audio_format
        self.frame_bytes = work.audio_format.frame_bytes
        self.reply_to: Any = work.reply_to
        self.breaker = breaker
        self.worker: Any = None
        self.number = 0
        self.opened = False
        self.finishing = False
        self.end_sent = False
        self.expected = 0  # the frame behind the last one that was handed over
        self.settled = 0  # every frame below is settled or lost
        self.told = 0  # up to which that was told
        self.told_silent = False
        self._untold = 0  # settled frames that were not told
        self.queued = 0
        self.under_way = 0
        self._queue: deque[Audio] = deque()
        self._under_way: deque[Run] = deque()
        self._unanswered: deque[Run] = deque()
        self._came: deque[tuple[int, int]] = deque()  # up to which frame, and when
        self.decoded_came_ms = 0  # when the newest frame that was decoded had come

    @property
    def undecoded(self) -> int:
        """The frames that a worker has still to decode: those that wait, and those that it has and did not answer for."""
        return self.queued + sum([run.frames for run in self._unanswered])

    def hand_over(self, audio: Audio, at_ms: int) -> None:
        """Put frames at the end of the queue, which came at that moment."""
        self._came.append((audio.first + audio.frames, at_ms))
        self._queue.append(audio)
        self.queued += audio.frames
        self.expected = audio.first + audio.frames

    def give_up_oldest(self, keep: int) -> list[Run]:
        """Take the oldest frames out of the queue until `keep` are left; they are lost."""
        lost: list[Run] = []
        while self.queued > keep:
            audio = self._cut(self.queued - keep)
            _append(lost, Run(audio.first, audio.frames))
        if lost:
            self._forget_came(lost[-1].first + lost[-1].frames + 1)
        return lost

    def next_feed(self) -> Audio | None:
        """The next frames to send, if the worker is not too far behind; they are under way then."""
        room = min(_FEED_FRAMES, _WINDOW_FRAMES - sum(run.frames for run in self._unanswered))
        if not self._queue or room <= 0:
            return None
        pieces = [self._cut(room)]
        room -= pieces[0].frames
        while room and self._queue and self._follows(pieces[-1]):
            pieces.append(self._cut(room))
            room -= pieces[-1].frames
        first, count = pieces[0].first, sum(piece.frames for piece in pieces)
        self._unanswered.append(Run(first, count))
        _append(self._under_way, Run(first, count))
        self.under_way += count
        return Audio(first, count, b"".join(piece.data for piece in pieces))

    def taken(self, upto: int) -> int:
        """The worker has decoded all below `upto`: how many frames that is since the last time."""
        count = 0
        while self._unanswered and self._unanswered[0].first < upto:
            count += self._unanswered.popleft().frames
        if count:
            self._forget_came(upto)
            self.decoded_came_ms = self._came[0][1]
        return count

    def settle(self, upto: int) -> int:
        """The outcome of all frames under way below `upto` is known: how many that is."""
        count = 0
        while self._under_way and self._under_way[0].first < upto:
            run = self._under_way.popleft()
            done = min(run.frames, upto - run.first)
            count += done
            self.settled = run.first + done
            if done < run.frames:
                self._under_way.appendleft(Run(run.first + done, run.frames - done))
        self.under_way -= count
        self._untold += count
        return count

    def take_untold(self) -> int:
        """How many frames were settled since this was asked last."""
        count, self._untold = self._untold, 0
        return count

    def lose_worker(self) -> tuple[list[Run], int]:
        """The worker is gone: what was under way is lost, and how many of those frames it had not even taken."""
        lost = list(self._under_way)
        untaken = sum(run.frames for run in self._unanswered)
        self._under_way.clear()
        self._unanswered.clear()
        self.under_way = 0
        self.worker = None
        self.opened = self.end_sent = False
        return lost, untaken

    def _forget_came(self, upto: int) -> None:
        """Forget when the frames came that are older than the last one below `upto`."""
        while len(self._came) > 1 and self._came[0][0] < upto:
            self._came.popleft()

    def _follows(self, audio: Audio) -> bool:
        whole = len(audio.data) == audio.frames * self.frame_bytes
        return whole and self._queue[0].first == audio.first + audio.frames

    def _cut(self, most: int) -> Audio:
        """The oldest frames of the queue, at most `most`, of one run."""
        audio = self._queue.popleft()
        if audio.frames > most:
            at = most * self.frame_bytes
            self._queue.appendleft(Audio(audio.first + most, audio.frames - most, audio.data[at:]))
            audio = Audio(audio.first, most, audio.data[:at])
        self.queued -= audio.frames
        return audio


def _append(runs: list[Run] | deque[Run], run: Run) -> None:
    """Add `run`, as a part of the last one where it follows it."""
    if runs and runs[-1].first + runs[-1].frames == run.first:
        run = Run(runs[-1].first, runs[-1].frames + run.frames)
        runs.pop()
    runs.append(run)
