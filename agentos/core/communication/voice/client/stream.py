"""A stream of audio to a session, through as many connections as it takes, by the rules of
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
from agentos.core.communication.voice.client.socket import BUSY, SocketClosed, StreamSocket, opened
from agentos.core.communication.voice.errors import RequestRefused, StreamClosed
from agentos.core.time import monotonic_ms
from machines.audio import FRAMES_PER_SECOND
from machines.restart import Backoff
from machines.session import VoiceSessionState
from machines.stream.ends import ENDED, FAILED, OPEN, ClientStream, FrameRun
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

RING_SECONDS: Final = 60.0  # enough even if frames become durable only with the accounts in evidence, every ten seconds
PATIENCE_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 10.0
EVENTS_KEPT: Final = 10_000  # for a program that does not fetch its events
FRAMES_A_MESSAGE: Final = 50  # one second: a message that was cut off is sent again whole
WAITS: Final = Backoff(first=0.1, factor=2.0, most=5.0, jitter=0.75)

TicketSource = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """The statistics of a stream since its start; counts are of 20 ms frames, unless stated otherwise."""

    captured: int
    """Frames that the program has handed over, without pauses in its media time."""
    durable: int | None
    """Frames of these that the server has on its disk for good, or has declared as `missed`. None if the session keeps no
    audio."""
    waiting: int
    """Frames that are kept here."""
    lost: int
    """Frames that fell off the ring before they were sent, and were declared as a gap."""
    missed: int
    """Frames that the server has declared lost: its disk refused them, or its process died with them."""
    connections: int
    """Connections so far that the server welcomed."""
    events_dropped: int
    """Events that the program did not fetch in time."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a session: its state, and the reason."""

    state: VoiceSessionState
    reason: str


class VoiceStream:
    """A stream to one session, made by `connect_stream`. `session_id`, `format` and `verdict` come from the server's welcome.

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
        self._shown = False  # whether a server has seen the ticket, which may be used up then
        self._stream = ClientStream(ring_frames, "")
        self._waits = Backoff(WAITS.first, WAITS.factor, WAITS.most, WAITS.jitter, seed=secrets.randbits(32))
        self._ring: AudioRing
        self._received = 0  # frames below it are in the session
        self._keeps = True  # whether the session keeps audio
        self._base = 0
        self._welcomes = 0
        self._heartbeat_seconds = CONNECT_SECONDS
        self._most = 1
        self._to_send = anyio.Event()
        self._changed = anyio.Event()
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._lasted = False  # whether the connection lasted for a heartbeat
        self._end: StreamEnd | None = None
        self._failure: Exception | None = None
        self.session_id = ""
        self.format = self._formats[0]
        self.verdict: dict[str, Any] = {}

    # --- for the program ---------------------------------------------------------------------------------------------

    async def send(self, data: bytes, media_ms: float | None = None) -> None:
        """Hand audio over, any number of bytes in `format`; for Opus one packet of 20 ms. The stream keeps it until the server
        has it.

        `media_ms` is the capture time of the first sample, in milliseconds on a clock of the program that never falls: a pause
        of more than 40 ms is declared as a gap of its length, so that the recording keeps the time of the call. Without
        `media_ms` the audio follows on the audio before.

        Waits while the ring is full of audio that the server has not taken: for audio that can wait, such as a file's. If
        cancelled, it has taken nothing. Raises `StreamClosed` if the stream can't go on or its session has ended, `ValueError`
        after `finish` and for more audio than the ring can hold.
        """
        await self._until_room_for(self._ring.frames_in(data))
        self.send_nowait(data, media_ms)

    def send_nowait(self, data: bytes, media_ms: float | None = None) -> int:
        """Hand audio over without waiting, as it comes from a microphone; for `media_ms` see `send`.

        Returns how many of the oldest frames fell off the ring; those that the server has not taken are declared as a gap.
        Raises the errors of `send`."""
        if self._stream.finished:
            raise ValueError("the stream was finished: no more audio")
        self._check()
        fell = self._ring.put(data, media_ms)
        self._to_send.set()
        return fell

    async def finish(self, media_ms: float | None = None) -> StreamEnd:
        """End the audio, and wait until the server has all of it, the session has stopped, and all events have come.
        `media_ms` is the end on the clock of `send`; a pause before it is declared.

        If cancelled, it can be called again; the audio goes out meanwhile. A session that ended for another reason may lack the
        last audio. Raises `StreamClosed` if the stream can't go on.
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
        """The events of the session, each once and in order, until it has ended. A program that does not fetch them loses the
        oldest. Raises `StreamClosed` after the last event if the stream can't go on."""
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
        """Whether there is a connection that the server has welcomed."""
        return self._stream.phase == OPEN

    def statistics(self) -> ClientStatistics:
        """The stream's statistics so far."""
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
        """Wait for the first welcome. Raises `StreamClosed`, and the errors of the source of tickets."""
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
        except Exception as error:  # noqa: BLE001 - raised by the methods that the program calls, not in a group
            self._failure = error
        finally:
            self._tell_change()

    async def _connection(self) -> SocketClosed:
        """Run one connection to its end; return how it was closed."""
        try:
            if not self._stream.resuming and (not self._stream.credential or self._shown):
                self._stream.credential, self._shown = await self._ticket(), False
            async with opened(self._http, self._url, CONNECT_SECONDS) as socket:
                close = await self._served(socket)  # its errors, if raised, would come in a group with the socket's own
        except SocketClosed as closed:
            return closed
        except RequestRefused as error:
            if error.status not in BUSY:
                raise
            return SocketClosed(StreamCode.UNAVAILABLE, str(error))
        except httpx2.TransportError as error:  # from the source of tickets
            return SocketClosed(StreamCode.LOST, str(error) or type(error).__name__)
        return close

    async def _served(self, socket: StreamSocket) -> SocketClosed:
        try:
            self._shown = True
            await socket.send(self._stream.hello(self._formats))
            with anyio.fail_after(CONNECT_SECONDS):
                while self._stream.phase not in {OPEN, ENDED}:
                    await self._hear(socket)
        except (SocketClosed, StreamViolation) as error:
            return SocketClosed(error.code, error.reason)
        except TimeoutError:
            return SocketClosed(StreamCode.LOST, "the server did not answer")
        closed: list[SocketClosed] = []
        async with anyio.create_task_group() as group:

            async def until_closed(part: Callable[[StreamSocket], Awaitable[None]]) -> None:
                try:
                    await part(socket)
                except (SocketClosed, StreamViolation) as error:
                    closed.append(SocketClosed(error.code, error.reason))
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
                if isinstance(out, FrameRun):
                    await socket.send_audio(self._ring.message(out))
                else:
                    await socket.send(out)
            await self._to_send.wait()

    async def _beat(self, _: StreamSocket) -> None:
        while True:
            await anyio.sleep(self._heartbeat_seconds)
            self._lasted = True
            if not self._stream.beat():
                raise SocketClosed(StreamCode.LOST, "the server has fallen silent")

    async def _hear(self, socket: StreamSocket) -> None:
        """Take one message of the server."""
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
    """A context in which a stream is open to the ticket's session, at the `ws:` or `wss:` address `url`.

    `formats` are the formats that the program can send, best first; `VoiceStream.format` is the chosen one. `ticket_source`
    gives a new ticket at each call, so that even a cut before the first welcome does not matter. The stream reconnects after a
    cut, for up to `patience_seconds` in a row, and sends frames that the server does not have again, from a ring of
    `ring_seconds`. If the context is left without `finish`, or cancelled, the stream closes its connection; the session goes on
    until the server gives its client up. `http` makes the connections, and stays open.

    Raises `StreamClosed` if the server does not admit the stream, and the errors of `ticket_source`; after
    `httpx2.TransportError`, and a `RequestRefused` that may pass, `ticket_source` is called again.
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
            group.start_soon(stream._run)  # noqa: SLF001 - part of making the stream
            try:
                await stream._opened()  # noqa: SLF001
                yield stream
            except Exception as error:  # noqa: BLE001 - the task group would wrap it
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Once:
    """A source with a single ticket."""

    def __init__(self, ticket: str) -> None:
        self._ticket: str | None = ticket

    async def __call__(self) -> str:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise StreamClosed(StreamCode.UNAUTHENTICATED, "the ticket was used, and there is no source of another")
        return ticket
