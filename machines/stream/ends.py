"""The rules of the browser stream for both ends, without I/O: which message is allowed when, and what happens to each frame.

`ServerStream` is one connection at the server, `ClientStream` a whole stream at the client, through all its connections. Both
take messages in and say what to send; their callers own sockets, clocks and bytes. `messages.py` has the messages, `model.py`
checks both ends against each other.

The promise, wherever a connection is cut: the server takes every frame exactly once and in order, or it is declared as lost.

- The server takes only the frame that it expects. A lower frame was taken already, a higher one leaves a hole: both are
  violations.
- The client keeps a frame until it is durable at the server, so that even a restarted server can have it again. The client's
  ring is bounded; it declares frames that fell off the ring before they were sent as a gap, as soon as the stream gets there.
  It declares frames that were never captured too: these have numbers, but no place in the ring. If the session keeps no
  audio, nothing becomes durable, and the client keeps a frame until the session has received it.
- The server has stored each frame that it calls durable, or has declared it as lost, in the same message or before. It repeats
  the declaration until the answer to a later ping, or the next hello, shows that the client knows.
- Credit: the client sends no frame at or beyond the server's limit, and a limit never falls within a connection.
- One connection of a session is live. A newer connection fences the older, which takes nothing more.
"""

from collections.abc import Sequence
from typing import Any, Final, Self, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import astuple

from machines.losses import MAX_FRAME, Lost, clipped
from machines.stream.messages import (
    COME_BACK,
    Ack,
    Bye,
    End,
    Event,
    FromClient,
    FromServer,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamCode,
    StreamFormat,
    StreamViolation,
)

WRAP_MS: Final = 2**32  # media time wraps here, and is compared as in RFC 1982
SILENT_BEATS: Final = 2  # heartbeats without a message from the other side, then the connection counts as half-open
MOST_LOST: Final = (
    64  # runs of lost frames in one message, two kilobytes; frames behind further runs are not durable yet
)

F = TypeVar("F", bound=StreamFormat)

# Phases of a connection at the server.
GREETING, OPEN, ENDING, OVER = "greeting", "open", "ending", "over"
# Phases of a stream at the client, which also has OPEN.
AWAY, ENDED, FAILED = "away", "ended", "failed"


def common_format(wished: tuple[F, ...], possible: tuple[StreamFormat, ...]) -> F:
    """The first format in `wished`, the client's, that is in `possible`, the server's. Raises `StreamViolation` if none is."""
    for one in wished:
        if one in possible:
            return one
    raise StreamViolation(StreamCode.NO_COMMON_FORMAT, f"none of your formats; taken is {_in_words(possible[0])}")


class _Frozen(Struct):
    """The state of an end as a value, and back, for the model."""

    def freeze(self) -> tuple[Any, ...]:
        """The whole state, as a value."""
        return astuple(self)

    @classmethod
    def thaw(cls, frozen: tuple[Any, ...]) -> Self:
        """An end in this state."""
        return cls(*frozen)


def _in_words(taken: StreamFormat) -> str:
    return f"{taken.encoding} of {taken.sample_rate} Hz with {taken.channels} channel{'s' * (taken.channels != 1)}"


class ServerStream(_Frozen):
    """One connection at the server.

    `expected` is the next frame, and `limit` the first that may not come yet. `acked` has the numbers last sent to the client:
    received, durable, limit. The client was told of losses below `told`, and has confirmed those below `known`; its answer to
    ping `asked[0]` confirms those below `asked[1]`. `heard` says whether the client sent anything since the last beat,
    `silent` counts beats without a message.
    """

    phase: str = GREETING
    expected: int = 0
    limit: int = 0
    media_ms: int | None = None
    acked: tuple[int, int | None, int] = (0, 0, 0)
    known: int = 0
    told: int = 0
    asked: tuple[int, int] | None = None
    upto: int | None = None
    heard: bool = False
    silent: int = 0
    pings: int = 0

    def greeted(self, message: FromClient) -> Hello:
        """Take the first message. Raises `StreamViolation` if it is no hello."""
        if self.phase != GREETING or not isinstance(message, Hello):
            raise StreamViolation(StreamCode.MALFORMED, "the first message is hello, and only the first")
        self.heard = True
        return message

    def open(
        self,
        hello: Hello,
        newest: int,
        expected: int,
        durable: int | None,
        limit: int,
        losses: Sequence[Lost] = (),
    ) -> Ack:
        """Open the connection, once the caller has authenticated the client; return the numbers for the welcome.

        `newest` is the client's newest attempt so far, `expected` the session's next frame. For `durable` and `losses` see
        `ack`. Raises `StreamViolation` if a newer connection was there before, or if the session has frames that a resuming
        client says it never had.
        """
        if hello.attempt <= newest:
            raise StreamViolation(StreamCode.FENCED, "a newer connection of this client has the session")
        if hello.resume is not UNSET and expected > hello.next:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {expected} is expected, your next is {hello.next}")
        self.phase = OPEN
        self.expected, self.limit = expected, max(expected, limit)
        self.known = expected if hello.resume is UNSET else hello.durable  # losses of another client are not told
        return self._say(self._now(durable, losses))

    def fence(self) -> None:
        """Take nothing more: a newer connection has the session now."""
        self.phase = OVER

    def check_audio(self, first: int, count: int, media_ms: int) -> None:
        """Check frames that have come. Raises `StreamViolation` if they are not allowed."""
        if self.phase != OPEN or self.upto is not None:
            self._not_open("audio")
        if first != self.expected:
            if first < self.expected:
                raise StreamViolation(StreamCode.REPLAYED, f"frame {first} came again, expected is {self.expected}")
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {first} came, expected is {self.expected}")
        if first + count > self.limit:
            raise StreamViolation(StreamCode.BEYOND_LIMIT, f"frames up to {first + count}, the limit is {self.limit}")
        if self.media_ms is not None and (media_ms - self.media_ms) % WRAP_MS >= WRAP_MS // 2:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the media time went back")

    def audio(self, first: int, count: int, media_ms: int, *, last: bool) -> None:
        """Take frames that have come. If this raises `StreamViolation`, the caller takes none of them, else all."""
        self.check_audio(first, count, media_ms)
        self.media_ms = media_ms
        self.expected = first + count
        if last:
            self.upto = self.expected
        self.heard = True

    def receive(self, message: FromClient) -> Gap | End | None:
        """Take any other message. The caller declares a returned gap to the session, and carries a returned end out.

        If this raises `StreamViolation`, the caller does nothing.
        """
        self.heard = True
        if isinstance(message, Pong):
            if self.asked is not None and self.asked[0] <= message.id <= self.pings:
                self.known, self.asked = self.asked[1], None
            return None
        if isinstance(message, Hello):
            raise StreamViolation(StreamCode.MALFORMED, "the first message is hello, and only the first")
        if isinstance(message, End):
            if self.phase == ENDING and message.upto == self.expected:
                return None
            if self.phase != OPEN:
                self._not_open("end")
            self._next_is(message.upto)
            self.phase, self.upto = ENDING, message.upto
            return message
        if self.phase != OPEN:
            self._not_open("gap")
        self._next_is(message.first)
        if message.first + message.count > MAX_FRAME:
            raise StreamViolation(StreamCode.MALFORMED, "a gap beyond the last frame that has a number")
        self.expected = message.first + message.count
        return message

    def grant(self, limit: int) -> None:
        """Allow frames below `limit`, for which the session has room. A limit that was granted before stays granted."""
        self.limit = max(self.limit, limit)

    def ack(self, durable: int | None, losses: Sequence[Lost] = ()) -> Ack | None:
        """The message that tells the client the newest numbers; None if it knows them.

        Each frame below `durable` outlives this process or is among the `losses`, which are in order. `durable` is None if the
        session keeps no audio.
        """
        ack = self._now(durable, losses)
        return self._say(ack) if self._is_news(ack) else None

    def has_news(self, durable: int | None, losses: Sequence[Lost] = ()) -> bool:
        """Whether `ack` would return a message."""
        return self._is_news(self._now(durable, losses))

    def _now(self, durable: int | None, losses: Sequence[Lost]) -> Ack:
        """The newest numbers. Frames behind more losses than fit into one message are not called durable yet."""
        unknown = clipped(losses, self.known, self.expected) if losses else ()
        if durable is not None:
            if len(unknown) > MOST_LOST:
                durable = min(durable, unknown[MOST_LOST].first)
            durable = max(self.acked[1] or 0, min(durable, self.expected))
        return Ack(self.expected, durable, self.limit, unknown[:MOST_LOST])

    def _is_news(self, ack: Ack) -> bool:
        if (ack.received, ack.durable, ack.limit) != self.acked:
            return True
        return bool(ack.lost) and ack.lost[-1].upto > self.told

    def _say(self, ack: Ack) -> Ack:
        self.acked = (ack.received, ack.durable, ack.limit)
        if ack.lost:
            self.told = max(self.told, ack.lost[-1].upto)
        else:
            self.known = max(self.known, ack.durable or 0)  # no losses below: nothing to confirm
        return ack

    def beat(self) -> Ping:
        """Count a heartbeat, and return the ping to send. Raises `StreamViolation` if the client was silent for too long."""
        self.silent = 0 if self.heard else self.silent + 1
        self.heard = False
        if self.silent >= SILENT_BEATS:
            self.phase = OVER
            raise StreamViolation(StreamCode.TOO_SLOW, f"nothing came for {SILENT_BEATS} heartbeats")
        self.pings += 1
        if self.asked is None and self.told > self.known:
            self.asked = (self.pings, self.told)
        return Ping(self.pings)

    def _next_is(self, frame: int) -> None:
        if frame < self.expected:
            raise StreamViolation(StreamCode.REPLAYED, f"frame {frame} was there already, expected is {self.expected}")
        if frame > self.expected:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {frame} is not expected, {self.expected} is")

    def _not_open(self, what: str) -> None:
        if self.phase == OVER:
            raise StreamViolation(StreamCode.FENCED, "a newer connection has this session")
        problem = f"{what} before hello" if self.phase == GREETING else f"{what} after the end"
        raise StreamViolation(StreamCode.MALFORMED, problem)


class FrameRun(Struct, frozen=True):
    """Frames that the client is to send now; `last` says that the audio ends with them."""

    first: int
    count: int
    last: bool


class ClientStream(_Frozen):
    """A stream at the client, through all its connections.

    The client has numbered the frames below `next`, and keeps those from `kept` on: `held` frames, at most `capacity`. The
    frames of the runs in `gaps` were never captured, `skipped` frames in all; `gaps` forgets runs that the server has for
    good, `passed` frames so far. Frames below `sent` went out on this connection. Each frame below `durable` is safe at the
    server, or the server declared it lost: `missed` frames so far, all below `missed_upto`. `lost` frames fell off the ring
    before they were sent.

    The next hello carries the `credential`: a ticket, or a resume token once the stream is `resuming`. Until the first welcome
    frames are numbered from 0; if the session already has audio of another client, the welcome moves all numbers behind it.
    `events` is the number of the last event that was handed on.
    """

    capacity: int
    credential: str
    phase: str = AWAY
    resuming: bool = False
    kept: int = 0
    next: int = 0
    sent: int = 0
    durable: int = 0
    limit: int = 0
    finished: bool = False
    short: bool = False
    end_sent: bool = False
    attempt: int = 0
    events: int = 0
    heard: bool = False
    silent: int = 0
    lost: int = 0
    missed: int = 0
    missed_upto: int = 0
    held: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    skipped: int = 0
    passed: int = 0

    # --- what the program does -----------------------------------------------------------------------------------------

    def capture(self, count: int) -> int:
        """Add `count` captured frames; return how many of the oldest fell off the ring for them.

        Raises `ValueError` after `finish`.
        """
        if self.finished:
            raise ValueError("the stream was finished: no more audio")
        self.next += count
        self.held += count
        fell = self.held - self.capacity
        if fell <= 0:
            return 0
        self.held -= fell
        self.kept = self._behind(self.kept, fell)
        return fell

    def skip(self, count: int) -> None:
        """Add a gap of `count` frames that were not captured. Raises `ValueError` after `finish`."""
        if self.finished:
            raise ValueError("the stream was finished: no more audio")
        *before, last = self.gaps or ((0, 0),)
        if sum(last) == self.next and last[1]:
            self.gaps = (*before, (last[0], last[1] + count))
        else:
            self.gaps = (*self.gaps, (self.next, count))
        self.next += count
        self.skipped += count

    def captured(self, first: int, upto: int) -> int:
        """How many of the frames from `first` on and below `upto` were captured. Counts forgotten gaps as captured."""
        return upto - first - sum([max(0, min(upto, at + gap) - max(first, at)) for at, gap in self.gaps])

    def _behind(self, number: int, count: int) -> int:
        """The number behind `count` captured frames from frame `number` on."""
        for first, gap in self.gaps:
            if number < first:
                passed = min(count, first - number)
                number, count = number + passed, count - passed
            if not count:
                return number
            number = max(number, first + gap)
        return number + count

    def finish(self, *, short: bool = False) -> None:
        """End the audio; `short` says that the last frame is shorter than 20 ms."""
        self.finished = True
        self.short = short

    # --- connections ---------------------------------------------------------------------------------------------------

    def hello(self, formats: tuple[StreamFormat, ...]) -> Hello:
        """Begin a connection, and return its first message."""
        self.phase = GREETING
        self.heard, self.silent = False, 0
        self.attempt += 1
        if not self.resuming:
            return Hello(formats, self.attempt, ticket=self.credential)
        return Hello(
            formats,
            self.attempt,
            resume=self.credential,
            first=self.kept,
            next=self.next,
            events=self.events,
            durable=self.durable,
        )

    def closed(self, code: int) -> None:
        """Note that the connection closed with this code: the stream is away and may come back, or has failed for good.

        A stream that is not `resuming` yet needs a new ticket as `credential` to come back.
        """
        if self.phase not in {ENDED, FAILED}:
            self.phase = AWAY if code in COME_BACK else FAILED

    # --- messages ------------------------------------------------------------------------------------------------------

    def receive(self, message: FromServer) -> Pong | Event | tuple[Lost, ...] | None:
        """Take a message of the server. Returns a pong to send, an event to hand on, newly declared losses, or None.

        Raises `StreamViolation`.
        """
        self.heard = True
        if isinstance(message, Ack):
            if message.received > self.sent:
                raise StreamViolation(StreamCode.OUT_OF_ORDER, "the server has frames that were not sent")
            return self._know(message.received, message.durable, message.limit, message.lost)
        if isinstance(message, Ping):
            return Pong(message.id)
        if isinstance(message, Event):
            if message.number <= self.events:
                return None
            self.events = message.number
            return message
        if isinstance(message, Bye):
            self.phase = ENDED
            return None
        if self.phase != GREETING:
            raise StreamViolation(StreamCode.MALFORMED, "a second welcome")
        if not self.resuming:
            self.kept += message.expected
            self.next += message.expected
            self.gaps = tuple([(first + message.expected, count) for first, count in self.gaps])
            self.missed_upto = message.expected
        elif message.expected > self.next:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the server expects a frame that was never captured")
        self.phase, self.resuming, self.credential = OPEN, True, message.resume
        self.sent, self.limit, self.end_sent = message.expected, message.limit, False
        return self._know(message.expected, message.durable, message.limit, message.lost)

    def to_send(self, most: int) -> FrameRun | Gap | End | None:
        """The next message to send, with at most `most` frames; None if nothing may be sent. It counts as sent then."""
        if self.phase != OPEN or self.end_sent:
            return None
        upto = self.next
        for first, count in self.gaps:
            if self.sent < first:
                upto = first
                break
            if self.sent < first + count:
                gap = Gap(self.sent, first + count - self.sent, "capture")
                self.sent = first + count
                return gap
        if self.sent < self.kept:
            gap = Gap(self.sent, min(upto, self.kept) - self.sent, "ring")
            self.lost += gap.count
            self.sent += gap.count
            return gap
        upto = min(upto, self.limit, self.sent + most)
        if self.sent < upto:
            run = FrameRun(self.sent, upto - self.sent, self.finished and self.short and upto == self.next)
            self.sent = upto
            return run
        if self.finished and self.sent == self.next:
            self.end_sent = True
            return End(self.next)
        return None

    def beat(self) -> bool:
        """Count a heartbeat; return whether the connection still counts as alive."""
        self.silent = 0 if self.heard else self.silent + 1
        self.heard = False
        return self.silent <= SILENT_BEATS

    def _know(self, received: int, durable: int | None, limit: int, lost: tuple[Lost, ...]) -> tuple[Lost, ...] | None:
        new = clipped(lost, self.missed_upto)
        if new and new[-1].upto > received:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the server lost frames that it does not have")
        for run in new:
            self.missed += run.frames
            self.missed_upto = run.upto
        if durable is not None:
            self.durable = max(self.durable, min(durable, received))
        self.limit = max(self.limit, limit)
        safe = min(received if durable is None else self.durable, self.sent)
        if safe > self.kept:
            self.held -= self.captured(self.kept, safe)
            self.kept = safe
        while self.gaps and sum(self.gaps[0]) <= safe:
            self.passed += self.gaps[0][1]
            self.gaps = self.gaps[1:]
        return new or None
