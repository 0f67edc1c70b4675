"""The browser stream's rules, for both ends and without I/O: who may say what when, and which frames go where.

`ServerStream` is one connection as the server sees it, `ClientStream` a stream as the client sees it, through all its
connections. Both take messages in and say what to do; sockets, clocks and bytes belong to whoever runs them.
`messages.py` says what the messages look like, `model.py` explores the two against each other.

What they keep together, whatever is cut when: every frame is taken exactly once and in order, or declared as lost.

- The server takes only the frame that it expects. One below was taken already, one beyond leaves a hole: both are violations.
- The client keeps a frame until it is durable at the server, so that even a server that died and began again can have it. Its
  ring is bounded; what falls off before it was sent is declared as a gap as soon as the stream gets there. So is what was
  never captured: it has numbers as frames have, and no place in the ring. A session that keeps no audio has nothing to be
  durable; then the client keeps a frame until the session has received it.
- Each frame that the server calls durable is kept there, or was declared to the client as lost, in this message or before.
  That is repeated until the answer to a later ping, or the next hello, shows that the client knows.
- Credit: the client sends nothing at or beyond the server's limit, and a limit never falls within a connection.
- One connection of a session is live. A newer one fences the older, which takes nothing more.
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

WRAP_MS: Final = 2**32  # media time begins anew behind it, and is compared as RFC 1982 has it
SILENT_BEATS: Final = 2  # heartbeats without a word from the other side, then the connection counts as half-open
MOST_LOST: Final = (
    64  # runs of lost frames in one message: two kilobytes; what lies behind more of them is not durable yet
)

F = TypeVar("F", bound=StreamFormat)

# Phases of a connection at the server.
GREETING, OPEN, ENDING, OVER = "greeting", "open", "ending", "over"
# Phases of a stream at the client, which also has OPEN.
AWAY, ENDED, FAILED = "away", "ended", "failed"


def common_format(wished: tuple[F, ...], possible: tuple[StreamFormat, ...]) -> F:
    """The first of the formats that a client can send which the server can take. Raises `StreamViolation`."""
    for one in wished:
        if one in possible:
            return one
    raise StreamViolation(StreamCode.NO_COMMON_FORMAT, f"none of your formats; taken is {_in_words(possible[0])}")


class _Frozen(Struct):
    """What the explorer needs of the two: their state as a value, and back."""

    def freeze(self) -> tuple[Any, ...]:
        """All of its state, as a value."""
        return astuple(self)

    @classmethod
    def thaw(cls, frozen: tuple[Any, ...]) -> Self:
        """One in this state."""
        return cls(*frozen)


def _in_words(taken: StreamFormat) -> str:
    return f"{taken.encoding} of {taken.sample_rate} Hz with {taken.channels} channel{'s' * (taken.channels != 1)}"


class ServerStream(_Frozen):
    """One connection at the server.

    `expected` is the next frame to come and `limit` the one that must not come yet; `acked` is what the client was last told:
    received, durable, limit. It was told what is lost below `told`, and is known to know that below `known`; when it answers
    the first ping in `asked`, it knows what is lost below the second. `heard` says whether it said anything since the last
    beat, `silent` counts beats without a word.
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
        """The first message. Raises `StreamViolation` when it is no hello."""
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
        """The client is who it says, and its `newest` attempt so far was that one: the session expects this frame next. Of
        `durable` and `losses` see `ack`. Returned is what its welcome says of frames.

        Raises `StreamViolation` when a newer connection was there before, or the session has frames that a client who goes
        on says it never had.
        """
        if hello.attempt <= newest:
            raise StreamViolation(StreamCode.FENCED, "a newer connection of this client has the session")
        if hello.resume is not UNSET and expected > hello.next:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {expected} is expected, your next is {hello.next}")
        self.phase = OPEN
        self.expected, self.limit = expected, max(expected, limit)
        self.known = expected if hello.resume is UNSET else hello.durable  # what was lost to another client is not told
        return self._say(self._now(durable, losses))

    def fence(self) -> None:
        """A newer connection has the session now: this one takes nothing more."""
        self.phase = OVER

    def check_audio(self, first: int, count: int, media_ms: int) -> None:
        """Frames have come. Raises `StreamViolation` if they may not."""
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
        """Frames have come; the caller takes all of them. Raises `StreamViolation`: it takes none of them."""
        self.check_audio(first, count, media_ms)
        self.media_ms = media_ms
        self.expected = first + count
        if last:
            self.upto = self.expected
        self.heard = True

    def heard_of(self, message: FromClient) -> Gap | End | None:
        """Another message has come; a gap is to be declared to the session, an end to be carried out by the caller.

        Raises `StreamViolation`: nothing is to be done.
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
        """The session has room for frames below `limit`; what was granted before stays granted."""
        self.limit = max(self.limit, limit)

    def ack(self, durable: int | None, losses: Sequence[Lost] = ()) -> Ack | None:
        """What to tell the client; None when it was told.

        Each frame below `durable` outlives this process or is among the `losses`, which are in order; None when the session
        keeps no audio.
        """
        ack = self._now(durable, losses)
        return self._say(ack) if self._is_news(ack) else None

    def has_news(self, durable: int | None, losses: Sequence[Lost] = ()) -> bool:
        """Whether `ack` would have something to tell."""
        return self._is_news(self._now(durable, losses))

    def _now(self, durable: int | None, losses: Sequence[Lost]) -> Ack:
        """Behind more losses than one message declares nothing is called durable yet."""
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
            self.known = max(self.known, ack.durable or 0)  # there is nothing to know
        return ack

    def beat(self) -> Ping:
        """A heartbeat has passed: what to send. Raises `StreamViolation` when the client has been silent for too long."""
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


class Run(Struct, frozen=True):
    """Frames that the client is to send now; `last` when the audio ends with them."""

    first: int
    count: int
    last: bool


class ClientStream(_Frozen):
    """A stream at the client, through all its connections.

    It has numbered the frames below `next`, and keeps those from `kept` on, `held` of them and at most `capacity`. The runs in
    `gaps` were never captured, `skipped` frames in all; those that the server has for good are forgotten, `passed` frames.
    Frames below `sent` went out on this connection. Those below `durable` are safe at the server, or it has declared them lost:
    so many are `missed`, all below `missed_upto`. `lost` fell off the ring before they were sent. `credential` is what the
    next hello carries: a ticket, and a resume token as soon as the stream is `resuming`. Until then frames are numbered from
    0; a session that had audio before from somebody else gives them the numbers behind it. `events` is the number of the
    last event that was handed on.
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
        """So many more frames were captured; how many of the oldest fell off the ring for it.

        Raises `ValueError` after the end.
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
        """So many frames passed by that were not captured. Raises `ValueError` after the end."""
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
        """How many of the frames from `first` on and below `upto` were captured; of those that the server has for good, the
        gaps are forgotten."""
        return upto - first - sum([max(0, min(upto, at + gap) - max(first, at)) for at, gap in self.gaps])

    def _behind(self, number: int, count: int) -> int:
        """The number behind so many captured frames from this one on."""
        for first, gap in self.gaps:
            if number < first:
                passed = min(count, first - number)
                number, count = number + passed, count - passed
            if not count:
                return number
            number = max(number, first + gap)
        return number + count

    def finish(self, *, short: bool = False) -> None:
        """No more frames are captured; `short` says that the last one is less than a whole frame."""
        self.finished = True
        self.short = short

    # --- connections ---------------------------------------------------------------------------------------------------

    def hello(self, formats: tuple[StreamFormat, ...]) -> Hello:
        """A connection is there: the message that it begins with."""
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
        """The connection is gone, with this close code: the stream is away and comes back, or has failed for good.

        One that is not `resuming` yet needs a new ticket, as a `credential`, to come back.
        """
        if self.phase not in {ENDED, FAILED}:
            self.phase = AWAY if code in COME_BACK else FAILED

    # --- messages ------------------------------------------------------------------------------------------------------

    def receive(self, message: FromServer) -> Pong | Event | tuple[Lost, ...] | None:
        """A message of the server: a pong is to be sent, an event to be handed on; frames that are lost there are those that
        were not told before. Raises `StreamViolation`."""
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

    def to_send(self, most: int) -> Run | Gap | End | None:
        """What goes out next, at most `most` frames of it; None when nothing may. What is given counts as sent."""
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
            run = Run(self.sent, upto - self.sent, self.finished and self.short and upto == self.next)
            self.sent = upto
            return run
        if self.finished and self.sent == self.next:
            self.end_sent = True
            return End(self.next)
        return None

    def beat(self) -> bool:
        """A heartbeat of the server has passed: whether the connection is still worth keeping."""
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
