"""A stream of audio to a session, through as many connections as it takes; its rules are
`machines.stream.ends.ClientStream`."""

import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx2

from agentos.core.communication.voice.client.audio_ring import AudioRing
from agentos.core.communication.voice.client.socket import BUSY, Closed, StreamSocket, opened
from agentos.core.communication.voice.errors import RequestRefused, StreamClosed
from agentos.core.time import monotonic_ms
from machines.audio import FRAMES_PER_SECOND
from machines.restart import Backoff
from machines.session import VoiceSessionState
from machines.stream.ends import ENDED, FAILED, OPEN, ClientStream, Run
from machines.stream.messages import (
    HEADER,
    Ack,
    Bye,
    Event,
    Pong,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
)

RING_SECONDS: Final = 60.0  # also where only accounts in evidence, every ten seconds, say what is safe
PATIENCE_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 10.0
EVENTS_KEPT: Final = 10_000  # for a program that does not fetch them
FRAMES_A_MESSAGE: Final = 50  # a second: a message that is cut off is sent again whole
WAITS: Final = Backoff(first=0.1, factor=2.0, most=5.0, jitter=0.75)

TicketSource = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """How a stream is doing; counts are since its start, of 20 ms frames where nothing else is said."""

    captured: int
    """Frames that the program has handed over; those that were not captured, by its media time, are none of them."""
    durable: int | None
    """Those among them that the server has dealt with for good: they are on its disk, or among those that it `missed`. None
    when the session keeps no audio."""
    waiting: int
    """Those that are kept here."""
    lost: int
    """Those that fell off the ring before they were sent, and were declared as a gap."""
    missed: int
    """Those that the server has declared lost: its disk refused them, or they died with its process."""
    connections: int
    """Connections so far that the server welcomed."""
    events_dropped: int
    """Events that the program did not fetch in time."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a session ended: its state, and why."""

    state: VoiceSessionState
    reason: str


class VoiceStream:
    """A stream to one session, made by `connect_stream`. `session_id`, `format` and `verdict` are what the server said
    when it was opened.

    For one task that sends and one that fetches events.
    """

    def __init__(
        self,
        url: str,
        ticket: TicketSource,
        formats: Sequence[StreamFormat],
        ring_frames: int,
        http: httpx2.AsyncClient,
        patience_seconds: float,
    ) -> None:
        self._url = url
        self._ticket = ticket
        self._formats = tuple(formats)
        self._http = http
        self._patience_seconds = patience_seconds
        self._shown = False  # a ticket that a server has seen may be used up
        self._stream = ClientStream(ring_frames, "")
        self._waits = Backoff(WAITS.first, WAITS.factor, WAITS.most, WAITS.jitter, seed=secrets.randbits(32))
        self._ring: AudioRing
        self._received = 0  # frames below it are in the session
        self._keeps = True  # the session does, what it gets
        self._base = 0
        self._welcomes = 0
        self._heartbeat_seconds = CONNECT_SECONDS
        self._most = 1
        self._to_send = anyio.Event()
        self._changed = anyio.Event()
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._lasted = False  # whether the connection was there for a heartbeat
        self._end: StreamEnd | None = None
        self._failure: Exception | None = None
        self.session_id = ""
        self.format = self._formats[0]
        self.verdict: dict[str, Any] = {}

    # --- for the program ---------------------------------------------------------------------------------------------

    async def send(self, data: bytes, media_ms: float | None = None) -> None:
        """Hand audio over, any number of bytes in `format`; for Opus one packet of 20 ms. It is kept until the server
        has it.

        `media_ms` says when its first sample was captured, in milliseconds on a clock of the program's that never falls: a
        pause of more than 40 ms is declared as a gap of its length, so that the recording keeps the time of the call. Without
        it the audio follows on what was handed over before.

        Waits while the ring is full of audio that the server has not taken: for audio that can wait, as that of a file.
        Cancelled, it has taken nothing. Raises `StreamClosed` when the stream can't go on or its session has ended,
        `ValueError` after `finish` and for more audio than the ring can hold.
        """
        await self._until_room_for(self._ring.frames_in(data))
        self.send_nowait(data, media_ms)

    def send_nowait(self, data: bytes, media_ms: float | None = None) -> int:
        """Hand audio over without waiting, as it comes from a microphone; of `media_ms` see `send`. How many of the oldest
        frames fell off the ring for it; those that the server has not taken are a gap, which it is told. Raises as `send`
        does."""
        if self._stream.finished:
            raise ValueError("the stream was finished: no more audio")
        self._check()
        fell = self._ring.put(data, media_ms)
        self._to_send.set()
        return fell

    async def finish(self, media_ms: float | None = None) -> StreamEnd:
        """No more audio follows: wait until the server has everything, the session has stopped, and all is told. With
        `media_ms`, when it ended on the clock of `send`, what was not captured before that is declared.

        Cancelled, it can be called again; audio that was handed over goes out meanwhile. A session that ended for
        another reason may lack the last of it. Raises `StreamClosed` when the stream can't go on.
        """
        if not self._stream.finished:
            await self._until_room_for(1)  # a last short frame
            self._ring.finish(media_ms)
            self._to_send.set()
        while self._end is None:
            self._check()
            await self._changed.wait()
        return self._end

    async def events(self) -> AsyncGenerator[Event]:
        """What the session tells, each event once and in order, until it has ended; a program that fetches none loses
        the oldest. Raises `StreamClosed` after the last event when the stream can't go on."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._end is not None:
                return
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now that the server has welcomed."""
        return self._stream.phase == OPEN

    def statistics(self) -> ClientStatistics:
        """How the stream is doing."""
        stream = self._stream
        return ClientStatistics(
            captured=stream.next - self._base - stream.skipped,
            durable=self._durable() if self._keeps else None,
            waiting=stream.held,
            lost=stream.lost,
            missed=stream.missed,
            connections=self._welcomes,
            events_dropped=self._dropped,
        )

    # --- inside ------------------------------------------------------------------------------------------------------

    def _durable(self) -> int:
        stream = self._stream
        if stream.durable <= self._base:
            return 0
        return stream.captured(self._base, stream.durable) - stream.passed

    async def _until_room_for(self, count: int) -> None:
        if count > self._stream.capacity:
            raise ValueError(f"a piece of {count} frames is longer than the ring, of {self._stream.capacity}")
        await anyio.lowlevel.checkpoint()
        stream = self._stream
        while stream.captured(self._received, stream.next) + count > stream.capacity and not self._over():
            await self._changed.wait()

    def _over(self) -> bool:
        return self._end is not None or self._failure is not None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._end is not None:
            raise StreamClosed(StreamCode.ENDED, f"the session has ended: {self._end.reason}")

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _opened(self) -> None:
        """Wait for the first welcome. Raises `StreamClosed`, and what the source of tickets raised."""
        while not self._welcomes and not self._over():
            await self._changed.wait()
        if not self._welcomes:
            self._check()

    async def _run(self) -> None:
        """Connect, again and again, until the session has ended or the stream has failed."""
        tries, gone_ms = 0, monotonic_ms()
        try:
            while self._end is None:
                before = (self._received, self._stream.events)
                self._lasted = False
                close = await self._connection()
                self._stream.closed(close.code)
                if self._lasted or (self._received, self._stream.events) != before:
                    tries, gone_ms = 0, monotonic_ms()
                tries += 1
                out_of_patience = monotonic_ms() - gone_ms > self._patience_seconds * 1000
                if self._end is None and (self._stream.phase == FAILED or out_of_patience):
                    self._failure = StreamClosed(close.code, close.reason)
                    return
                if self._end is None:
                    self._tell_change()
                    await anyio.sleep(self._waits.seconds(self._url, tries))
        except Exception as error:  # noqa: BLE001 - raised where the program uses the stream, not in a group
            self._failure = error
        finally:
            self._tell_change()

    async def _connection(self) -> Closed:
        """One connection, from its beginning to its end: how it was closed."""
        try:
            if not self._stream.resuming and (not self._stream.credential or self._shown):
                self._stream.credential, self._shown = await self._ticket(), False
            async with opened(self._http, self._url, CONNECT_SECONDS) as socket:
                close = await self._served(socket)  # what it raised would come in a group with the socket's own errors
        except Closed as closed:
            return closed
        except RequestRefused as error:
            if error.status not in BUSY:
                raise
            return Closed(StreamCode.UNAVAILABLE, str(error))
        except httpx2.TransportError as error:  # of the source of tickets
            return Closed(StreamCode.LOST, str(error) or type(error).__name__)
        return close

    async def _served(self, socket: StreamSocket) -> Closed:
        try:
            self._shown = True
            await socket.send(self._stream.hello(self._formats))
            with anyio.fail_after(CONNECT_SECONDS):
                while self._stream.phase not in {OPEN, ENDED}:
                    await self._hear(socket)
        except (Closed, StreamViolation) as error:
            return Closed(error.code, error.reason)
        except TimeoutError:
            return Closed(StreamCode.LOST, "the server did not answer")
        closed: list[Closed] = []
        async with anyio.create_task_group() as group:

            async def until_closed(part: Callable[[StreamSocket], Awaitable[None]]) -> None:
                try:
                    await part(socket)
                except (Closed, StreamViolation) as error:
                    closed.append(Closed(error.code, error.reason))
                    group.cancel_scope.cancel()

            for part in (self._listen, self._speak, self._beat):
                group.start_soon(until_closed, part)
        return closed[0]

    async def _listen(self, socket: StreamSocket) -> None:
        while True:
            await self._hear(socket)

    async def _speak(self, socket: StreamSocket) -> None:
        while True:
            self._to_send = anyio.Event()
            while (out := self._stream.to_send(self._most)) is not None:
                if isinstance(out, Run):
                    await socket.send_audio(self._ring.message(out))
                else:
                    await socket.send(out)
            await self._to_send.wait()

    async def _beat(self, _: StreamSocket) -> None:
        while True:
            await anyio.sleep(self._heartbeat_seconds)
            self._lasted = True
            if not self._stream.beat():
                raise Closed(StreamCode.LOST, "the server has fallen silent")

    async def _hear(self, socket: StreamSocket) -> None:
        """Take one message."""
        message = await socket.receive()
        answer = self._stream.receive(message)
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Ack):
            self._received = message.received
            self._keeps = message.durable is not None
            self._ring.tidy()
        elif isinstance(message, Bye):
            self._end = StreamEnd(message.state, message.reason)
        if isinstance(answer, Pong):
            await socket.send(answer)
        elif isinstance(answer, Event):
            if len(self._events) == EVENTS_KEPT:
                self._events.popleft()
                self._dropped += 1
            self._events.append(answer)
        self._to_send.set()
        self._tell_change()

    def _welcomed(self, welcome: Welcome) -> None:
        if not self._welcomes:
            self.session_id, self.verdict, self.format = welcome.session_id, welcome.verdict, welcome.format
            self._formats = (welcome.format,)
            self._ring = AudioRing(self._stream, welcome.format)
            self._base = welcome.expected
        self._welcomes += 1
        self._received = welcome.expected
        self._keeps = welcome.durable is not None
        self._heartbeat_seconds = welcome.heartbeat_ms / 1000
        room = (welcome.max_message_bytes - HEADER.size) // self._ring.frame_bytes
        self._most = 1 if welcome.format.encoding == "opus" else max(1, min(FRAMES_A_MESSAGE, room))
        self._ring.tidy()


@asynccontextmanager
async def connect_stream(
    url: str,
    *,
    ticket: str | None = None,
    ticket_source: TicketSource | None = None,
    formats: Sequence[StreamFormat] = (StreamFormat("pcm_s16le", 16_000),),
    ring_seconds: float = RING_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    http: httpx2.AsyncClient | None = None,
) -> AsyncGenerator[VoiceStream]:
    """A stream to the session that the ticket is for, at the `ws:` or `wss:` address `url`; it is open when this is
    entered.

    `formats` are those that the program can send, best first; `VoiceStream.format` is the one that was chosen.
    `ticket_source` gives a ticket each time it is asked, so that a cut before the first welcome does not matter either.
    A connection that is cut is made again, for up to `patience_seconds` in a row, and what the server does not have is
    sent again from a ring of `ring_seconds`. Left without `finish`, or cancelled, it closes its connection; the session
    goes on until the server gives its client up. `http` is used for the connections, and stays open.

    Raises `StreamClosed` when the server does not let the stream in, and what `ticket_source` raises; after
    `httpx2.TransportError`, and `RequestRefused` that may pass, that is asked again.
    """
    if (ticket is None) is (ticket_source is None):
        raise ValueError("a stream is opened with a ticket, or with a source of tickets")
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        client = http if http is not None else await stack.enter_async_context(httpx2.AsyncClient())
        source = ticket_source if ticket_source is not None else _Once(ticket or "")
        ring_frames = max(1, int(ring_seconds * FRAMES_PER_SECOND))
        stream = VoiceStream(url, source, formats, ring_frames, client, patience_seconds)
        async with anyio.create_task_group() as group:
            group.start_soon(stream._run)  # noqa: SLF001 - the rest of its making
            try:
                await stream._opened()  # noqa: SLF001
                yield stream
            except Exception as error:  # noqa: BLE001 - the task group would wrap it
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Once:
    """The only ticket that there is."""

    def __init__(self, ticket: str) -> None:
        self._ticket: str | None = ticket

    async def __call__(self) -> str:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise StreamClosed(StreamCode.UNAUTHENTICATED, "the ticket was used, and there is no source of another")
        return ticket
