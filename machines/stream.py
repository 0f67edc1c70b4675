"""The browser stream's rules, for both ends and without I/O: who may say what when, and which frames go where.

`ServerStream` is one connection as the server sees it, `ClientStream` a stream as the client sees it, through all its
connections. Both take messages in and say what to do; sockets, clocks and bytes belong to whoever runs them.
`stream_messages.py` says what the messages look like, `stream_model.py` explores the two against each other.

What they keep together, whatever is cut when: every frame is taken exactly once and in order, or declared as lost.

- The server takes only the frame that it expects. One below was taken already, one beyond leaves a hole: both are violations.
- The client keeps a frame until it is durable at the server, so that even a server that died and began again can have it. Its
  ring is bounded; what falls off before it was sent is declared as a gap as soon as the stream gets there.
- Credit: the client sends nothing at or beyond the server's limit, and a limit never falls within a connection.
- One connection of a session is live. A newer one fences the older, which takes nothing more.
"""

from typing import Any, Final, Self, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import astuple

from machines.stream_messages import (
    COME_BACK,
    MAX_FRAME,
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

SILENT_BEATS: Final = 2  # heartbeats without a word from the other side, then the connection counts as half-open

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
    raise StreamViolation(StreamCode.NO_COMMON_FORMAT, f"none of your formats; taken is {possible[0]}")


class _Frozen(Struct):
    """What the explorer needs of the two: their state as a value, and back."""

    def freeze(self) -> tuple[Any, ...]:
        """All of its state, as a value."""
        return astuple(self)

    @classmethod
    def thaw(cls, frozen: tuple[Any, ...]) -> Self:
        """One in this state."""
        return cls(*frozen)


class ServerStream(_Frozen):
    """One connection at the server.

    `expected` is the next frame to come and `limit` the one that must not come yet; `acked` is what the client was last told:
    received, durable, limit. `heard` says whether it said anything since the last beat, `silent` counts beats without a word.
    """

    phase: str = GREETING
    expected: int = 0
    limit: int = 0
    media_ms: int = 0
    acked: tuple[int, int, int] = (0, 0, 0)
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

    def open(self, hello: Hello, newest: int, expected: int, durable: int, limit: int) -> tuple[int, int, int]:
        """The client is who it says, and its `newest` attempt so far was that one: the session expects this frame next.
        Returned is what its welcome says of frames.

        Raises `StreamViolation` when a newer connection was there before, or the session has frames that a client who goes
        on says it never had.
        """
        if hello.attempt <= newest:
            raise StreamViolation(StreamCode.FENCED, "a newer connection of this client has the session")
        if hello.resume is not UNSET and expected > hello.next:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {expected} is expected, your next is {hello.next}")
        self.phase = OPEN
        self.expected, self.limit = expected, max(expected, limit)
        self.acked = (expected, min(durable, expected), self.limit)
        return self.acked

    def fence(self) -> None:
        """A newer connection has the session now: this one takes nothing more."""
        self.phase = OVER

    def audio(self, first: int, count: int, media_ms: int, *, last: bool) -> None:
        """Frames have come; the caller takes all of them. Raises `StreamViolation`: it takes none of them."""
        if self.phase != OPEN or self.upto is not None:
            self._not_open("audio")
        if first != self.expected:
            if first < self.expected:
                raise StreamViolation(StreamCode.REPLAYED, f"frame {first} came again, expected is {self.expected}")
            raise StreamViolation(StreamCode.OUT_OF_ORDER, f"frame {first} came, expected is {self.expected}")
        if first + count > self.limit:
            raise StreamViolation(StreamCode.BEYOND_LIMIT, f"frames up to {first + count}, the limit is {self.limit}")
        if media_ms < self.media_ms:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the media time went back")
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

    def ack(self, durable: int) -> Ack | None:
        """What to tell the client; None when it knows."""
        now = (self.expected, max(self.acked[1], min(durable, self.expected)), self.limit)
        if now == self.acked:
            return None
        self.acked = now
        return Ack(*now)

    def beat(self) -> Ping:
        """A heartbeat has passed: what to send. Raises `StreamViolation` when the client has been silent for too long."""
        self.silent = 0 if self.heard else self.silent + 1
        self.heard = False
        if self.silent >= SILENT_BEATS:
            self.phase = OVER
            raise StreamViolation(StreamCode.TOO_SLOW, f"nothing came for {SILENT_BEATS} heartbeats")
        self.pings += 1
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

    It has captured the frames below `next` and keeps those from `kept` on, at most `capacity`; those below `sent` went out
    on this connection, those below `durable` are safe at the server, `lost` fell off the ring before they were sent.
    `credential` is what the next hello carries: a ticket, and a resume token as soon as the stream is `resuming`. Until then
    frames are numbered from 0; a session that had audio before from somebody else gives them the numbers behind it. `events`
    is the number of the last event that was handed on.
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

    # --- what the program does -----------------------------------------------------------------------------------------

    def capture(self, count: int) -> int:
        """So many more frames were captured; how many of the oldest fell off the ring for it.

        Raises `ValueError` after the end.
        """
        if self.finished:
            raise ValueError("the stream was finished: no more audio")
        self.next += count
        fell = self.next - self.kept - self.capacity
        if fell <= 0:
            return 0
        self.kept += fell
        return fell

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
        )

    def closed(self, code: int) -> None:
        """The connection is gone, with this close code: the stream is away and comes back, or has failed for good.

        One that is not `resuming` yet needs a new ticket, as a `credential`, to come back.
        """
        if self.phase not in {ENDED, FAILED}:
            self.phase = AWAY if code in COME_BACK else FAILED

    # --- messages ------------------------------------------------------------------------------------------------------

    def receive(self, message: FromServer) -> Pong | Event | None:
        """A message of the server: a pong is to be sent, an event to be handed on. Raises `StreamViolation`."""
        self.heard = True
        if isinstance(message, Ack):
            self._know(message.received, message.durable, message.limit)
            return None
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
        elif message.expected > self.next:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the server expects a frame that was never captured")
        self.phase, self.resuming, self.credential = OPEN, True, message.resume
        self.sent, self.limit, self.end_sent = message.expected, message.limit, False
        self.durable = max(self.durable, message.durable)
        self._release()
        return None

    def to_send(self, most: int) -> Run | Gap | End | None:
        """What goes out next, at most `most` frames of it; None when nothing may. What is given counts as sent."""
        if self.phase != OPEN or self.end_sent:
            return None
        if self.sent < self.kept:
            gap = Gap(self.sent, self.kept - self.sent, "ring")
            self.lost += gap.count
            self.sent = self.kept
            return gap
        upto = min(self.next, self.limit, self.sent + most)
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

    def _know(self, received: int, durable: int, limit: int) -> None:
        if received > self.sent:
            raise StreamViolation(StreamCode.OUT_OF_ORDER, "the server has frames that were not sent")
        self.durable = max(self.durable, durable)
        self.limit = max(self.limit, limit)
        self._release()

    def _release(self) -> None:
        self.kept = max(self.kept, min(self.durable, self.sent))
