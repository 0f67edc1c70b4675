"""One connection of a browser stream: what comes goes into the session's door, what the session tells goes out.

What runs for every frame is short, and nothing in it waits as long as there is room: the message, its header, the rules. The
frames of a tenth of a second go through the door together, which costs what one of them would. Whatever is sent besides is
begun by `visit`, which the server calls for each connection now and then.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import anyio
from starlette.types import Receive, Send

from actors.runtime.loop import thread_waker
from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import ChunkTooLarge, InvalidState, StoreError, VoiceError
from agentos.core.communication.voice.gateway.access.tickets import OpenedStream
from agentos.core.communication.voice.gateway.streams.marks import KeptMarks
from agentos.core.communication.voice.gateway.streams.opus import OpusStream
from agentos.core.communication.voice.gateway.streams.seats import Seat
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.running.fates import Fate
from agentos.core.communication.voice.sessions.door import Door
from agentos.core.time import monotonic_ms
from machines.audio import FRAMES_PER_SECOND
from machines.events import VoiceEventType
from machines.reasons import CAPTURE
from machines.session import VoiceSession, VoiceSessionState
from machines.stream.ends import GREETING, ServerStream
from machines.stream.media_time import StreamTime
from machines.stream.messages import (
    Audio,
    Bye,
    End,
    Event,
    FromServer,
    Gap,
    Hello,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
    encode,
    read_audio,
    read_from_client,
)

log = logger(__name__)

AT_ONCE: Final = "agentos_voice.at_once"  # a server's extension of ASGI, see `uvicorn_websocket.py`
TOGETHER: Final = 5  # frames: what speech engines are fed at once; the visit lets in what is less
ACK_MS: Final = 500  # then the next frame is acknowledged, and without one the visit after the next does it
LEVEL_MS: Final = 1000  # between two levels
MAX_MESSAGE_BYTES: Final = 65_536  # a second and more in every format but studio sound in many channels
MESSAGES_A_SECOND: Final = 2_000  # forty times real time with a frame in each
MESSAGES_A_PAUSE: Final = 40  # so many cost about what it does
SEND_MS: Final = 10_000  # a client that takes nothing for so long is gone
STOPPED: Final = "stopped"
CLOSE_SECONDS: Final = 1.0  # for the close frame of a connection that may be dead


class Gone(Exception):
    """The client is not there any more."""


class StreamConnection:
    """A connection that was accepted. `receive` and `send` are those of ASGI, `stop` has a session stopped. For one loop."""

    def __init__(
        self,
        service: AsyncVoiceService,
        receive: Receive,
        send: Send,
        *,
        heartbeat_ms: int,
        stop: Callable[[str], None],
    ) -> None:
        self.stream = ServerStream()
        self._service = service
        self._receive = receive
        self._send_message = send
        self._heartbeat_ms = heartbeat_ms
        self._stop = stop
        self._sent = anyio.Event()  # a new one for each message that is waited for; `anyio.Lock` takes twice as long
        self._waits = 0
        self._group = anyio.create_task_group()
        self.scope = anyio.CancelScope()  # of all that is done for it, from the hello on
        self.ending: tuple[int, str] | None = None
        self._begun_ms: int | None = None  # when a message began to be sent
        self._told_ms = monotonic_ms()  # when frames were acknowledged
        self._beat_ms = self._told_ms + heartbeat_ms
        self._visited_ms = self._told_ms
        self._messages = 0  # a bucket of a second's, which runs dry at the rate that is allowed
        self._gathered: list[bytes] = []  # what is to go through the door together
        self._gathered_frames = 0
        self._stale = False  # nothing was let in since the last visit
        self._together = TOGETHER if service.settings.max_chunk_bytes >= 2 * MAX_MESSAGE_BYTES else 1
        self._ack_at = 0
        self._ack_asked = self._tells = False
        self._reads = False  # the next message is its turn
        self._level_ms = 0
        self._fresh = True  # no audio has come yet, or none behind a gap
        self._longest = int(service.settings.max_session_seconds * FRAMES_PER_SECOND)
        self._seat: Seat
        self._door: Door
        self._time: StreamTime
        self._marks: KeptMarks | None

    # --- the beginning and the end -----------------------------------------------------------------------------------

    async def hello(self, seconds: float) -> Hello:
        """The first message. Raises `StreamViolation`, `Gone`."""
        with anyio.move_on_after(seconds):
            return self.stream.greeted(read_from_client(await self._text()))
        raise StreamViolation(StreamCode.TOO_SLOW, f"no hello came within {seconds:g} s")

    async def _text(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = message.get("text")
        if text is None:
            raise StreamViolation(StreamCode.MALFORMED, "the first message is hello, as text")
        if len(text) > MAX_MESSAGE_BYTES:
            raise _too_large()
        return text

    async def run(
        self, hello: Hello, opened: OpenedStream, seat: Seat, session: VoiceSession, chosen: StreamFormat
    ) -> None:
        """Serve a client whose `hello` was good, until it has gone, or the stream or the connection has ended.

        From here to the welcome nothing is awaited but its sending: what the older connection brought until now is in, and
        nothing that comes of it later. Raises `StreamViolation`, `Gone`.
        """
        door = self._service.door(session.session_id)
        if door is None:
            raise StreamViolation(StreamCode.UNAVAILABLE, "the session has just ended")
        self._door, self._seat = door, seat
        if seat.connection is not None:
            seat.connection.let_in()
        self._time = seat.time or self._time_again(opened)
        self._fate_of = self._service.fates(session, door)
        expected, limit = self._time.number(door.accepted), self._time.number(door.room_below)
        durable, lost = self._fate(0)
        said = self.stream.open(hello, seat.attempt, expected, durable, limit, lost)
        if seat.time is None:
            seat.time = self._time
            if self._service.can_be_resumed(session):
                seat.marks = KeptMarks(self._service.voice_store(), seat.digest.hex())
        self._marks = seat.marks
        seat.taken(self, hello.attempt, chosen)
        if chosen.encoding == "opus" and seat.decoder is None:
            seat.decoder = OpusStream(session.audio_format)
        self._ack_at = (said.received + said.limit) // 2
        self._frame_bytes, self._sample_bytes = session.audio_format.frame_bytes, session.audio_format.sample_bytes
        verdict = session.policy_verdict.model_dump(mode="json")
        welcome = Welcome(
            session.session_id,
            opened.token,
            chosen,
            said.received,
            said.durable,
            said.limit,
            session.state,
            verdict,
            self._heartbeat_ms,
            MAX_MESSAGE_BYTES,
            said.lost,
        )
        try:
            async with self._group:
                try:
                    await self._send(welcome)
                except Gone:  # raised here it would come out in a group
                    self.scope.cancel()
                self._group.start_soon(self._tell_events, hello.events)
                # In a task of its own nothing stands between the loop and what runs for every frame: each `await` of the app's
                # layers would be passed through.
                self._group.start_soon(self._read)
        finally:
            self.let_in()
            seat.left(self, monotonic_ms())

    def _time_again(self, opened: OpenedStream) -> StreamTime:
        """Where the client's frames lie, as another process knew it."""
        time, skip = StreamTime.again(opened.marks, self._door.accepted)
        if skip:
            with suppress(InvalidState):
                self._door.skip(skip, CAPTURE)
        return time

    def end(self, code: int, reason: str) -> None:
        """End the connection, whatever is done for it now; the first reason counts. Whoever serves it says it, see `ending`."""
        if self.ending is None:
            self.ending = (code, reason)
        self.scope.cancel()

    def fence(self) -> None:
        """A newer connection of the session is live: this one takes nothing more, and ends."""
        self.stream.fence()
        self.end(StreamCode.FENCED, "a newer connection has this session")

    async def last_words(self, session: VoiceSession, after: int) -> None:
        """What a client has not heard yet of a session that has stopped. Raises `Gone`, and what `service.events` raises."""
        await tell_events(self._service, session.session_id, after, self._send)
        await self._send(Bye(session.state, reason_of(session)))

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, as well as can be."""
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            with suppress(OSError, RuntimeError):  # it is closed already
                await self._send_message({"type": "websocket.close", "code": code, "reason": reason})

    # --- what comes --------------------------------------------------------------------------------------------------

    def take(self, data: bytes) -> bool:
        """Take a binary message as it comes, for a server that can give it without a task in between; False when it has to wait
        its turn, and come by `receive`."""
        if not self._reads or self._gathered_frames >= self._together:
            return False
        try:
            audio = self._checked(data)
            if audio.last or audio.first + audio.count >= self._ack_at:
                return False  # more is to be done than to take it
            if not self._follows(audio):
                return False
            self._messages += 1
            self._gather(audio)
            if self._gathered_frames >= self._together:
                self.let_in()
        except Exception as error:  # noqa: BLE001 - each has its close code
            self._reads = False  # of what the server has besides nothing may get in
            self._failed(error)
        return True

    def count(self) -> None:
        """Count a frame that is no message of its own, control frames and parts, as one: all of them cost time."""
        self._messages += 1

    async def _read(self) -> None:
        try:
            await self._read_messages()
        except InvalidState:
            await self._discard()  # the session ends: the events will say so
        except Exception as error:  # noqa: BLE001 - each has its close code
            self._failed(error)
        finally:
            self._reads = False

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Gone):
            self.scope.cancel()
        elif isinstance(error, StreamViolation):
            self.end(error.code, error.reason)
        elif isinstance(error, ChunkTooLarge):
            self.end(StreamCode.TOO_LARGE, str(error))
        else:
            log.error("stream_failed", session_id=self._seat.session_id, exc_info=error)
            self.end(StreamCode.FAULT, "a fault of the server")

    async def _read_messages(self) -> None:
        while True:
            self._reads = True
            message = await self._receive()
            self._reads = False
            if self.ending is not None:
                return  # what came behind a violation
            self._messages += 1
            if self._gathered_frames >= self._together:
                await self._all_in()
            data = message.get("bytes")
            if data is None:
                await self._control(message)
                continue
            audio = self._checked(data)
            if not self._follows(audio):
                await self._change(audio)
            self._gather(audio)
            if self._gathered_frames >= self._together or audio.last:
                await self._all_in()
            if audio.last:
                self._door.finish()
            if self.stream.expected >= self._ack_at:
                await self._acknowledge()

    def _checked(self, data: bytes) -> Audio:
        if len(data) > MAX_MESSAGE_BYTES:
            raise _too_large()
        audio = read_audio(data)
        self._check_size(audio)
        self.stream.check_audio(audio.first, audio.count, audio.media_ms)
        return audio

    def _follows(self, audio: Audio) -> bool:
        """Whether it is one more of what came before: nothing is to be done than to gather it."""
        if self._fresh or (self._marks is not None and self._marks.waiting):
            return False
        return self._time.follows(audio.first, audio.count, audio.media_ms)

    async def _change(self, audio: Audio) -> None:
        """Do what comes before audio that does not follow on: a pause in the media time is a gap of that length, and what is to
        outlive this process is stored. Raises `StreamViolation` for too long a pause, and when the store can't be used."""
        await self._all_in()
        door, session_id = self._door, self._seat.session_id
        change = self._time.change(audio.first, audio.media_ms, door.accepted, longest=self._longest, fresh=self._fresh)
        self._fresh = False
        if change.pause:
            self._messages += MESSAGES_A_PAUSE
            door.skip(change.pause, CAPTURE)
        if change.mismatch is not None:
            log.warning("audio_mismatched", session_id=session_id, **change.mismatch._asdict())
            door.mismatched(*change.mismatch)
        if self._marks is None:
            return
        if change.mark is not None:
            self._marks.waiting.append(change.mark)
        if self._marks.waiting:
            try:
                await self._marks.keep()
            except StoreError as error:
                log.warning("stream_unavailable", session_id=session_id, problem=str(error))
                raise StreamViolation(StreamCode.UNAVAILABLE, "the store can't be used now") from None

    def _check_size(self, audio: Audio) -> None:
        if self._seat.decoder is None and len(audio.payload) != audio.count * self._frame_bytes:
            self._check_short(audio.payload, audio.count, last=audio.last)

    def _gather(self, audio: Audio) -> None:
        """Keep what came, when it is what comes next, to go through the door."""
        payload, decoder = audio.payload, self._seat.decoder
        self.stream.audio(audio.first, audio.count, audio.media_ms, last=audio.last)
        if decoder is not None:
            payload = decoder.decode(payload, audio.count)
        self._gathered.append(payload)
        self._gathered_frames += audio.count

    async def _discard(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass
        self.scope.cancel()

    def _check_short(self, payload: bytes, count: int, *, last: bool) -> None:
        """Whether it is the last message, whose last frame may be short."""
        least, most = (count - 1) * self._frame_bytes, count * self._frame_bytes
        if not last or not least < len(payload) <= most or len(payload) % self._sample_bytes:
            raise StreamViolation(
                StreamCode.WRONG_SIZE, f"{len(payload)} bytes came as {count} frames of {self._frame_bytes}"
            )

    def let_in(self) -> None:
        """Let in what was gathered, as far as there is room and the session takes audio; what is not let in was not
        received."""
        with suppress(InvalidState):
            self._offer()

    def _offer(self) -> bool:
        """Put what was gathered through the door: whether there was room. Raises `InvalidState`."""
        if self._gathered:
            if not self._door.offer(b"".join(self._gathered)):
                return False
            self._gathered.clear()
            self._gathered_frames = 0
            self._stale = False
        return True

    async def _all_in(self) -> None:
        """Let in what was gathered. Nothing is read until there is room, which somebody else may have used."""
        while not self._offer():
            changed = anyio.Event()
            self._door.on_room(thread_waker(changed.set))
            if self._offer():
                return
            await changed.wait()

    async def _control(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            raise Gone
        text = message.get("text")
        if text is None or len(text) > MAX_MESSAGE_BYTES:
            raise _too_large()
        found = self.stream.heard_of(read_from_client(text))
        await self._all_in()
        if isinstance(found, Gap):
            self._skip(found)
            await self._acknowledge()
        elif isinstance(found, End):
            self._stop(self._seat.session_id)

    def _skip(self, gap: Gap) -> None:
        if self._door.accepted + gap.count > self._longest:
            problem = f"a gap beyond the longest session, of {self._longest:,} frames"
            raise StreamViolation(StreamCode.MALFORMED, problem)
        self._door.skip(gap.count, gap.reason)
        self._fresh = True

    # --- what goes out -----------------------------------------------------------------------------------------------

    async def _acknowledge(self) -> None:
        stream = self.stream
        if self._time.number(self._door.accepted) < stream.expected:
            return  # what came last waits for room, or never gets in
        stream.grant(self._time.number(self._door.room_below))
        ack = stream.ack(*self._fate(stream.known))
        self._ack_at = (stream.expected + stream.limit) // 2 + 1
        self._ack_asked = False
        self._told_ms = monotonic_ms()
        if ack is not None:
            await self._send(ack)

    async def _send(self, message: FromServer) -> None:
        while self._begun_ms is not None:
            self._waits += 1
            try:
                await self._sent.wait()
            finally:
                self._waits -= 1
        self._begun_ms = monotonic_ms()
        try:
            await self._send_message({"type": "websocket.send", "text": encode(message).decode()})
        except (OSError, RuntimeError):  # which of them, the servers disagree about
            raise Gone from None
        finally:
            self._begun_ms = None
            if self._waits:
                self._sent.set()
                self._sent = anyio.Event()

    async def _tell(self, beat: FromServer | None) -> None:
        try:
            if beat is not None:
                await self._send(beat)
            await self._acknowledge()
        except Gone:
            self.scope.cancel()
        finally:
            self._tells = False

    def visit(self, now_ms: int) -> None:
        """Begin what is due: an acknowledgement, a heartbeat, the end of a connection that is dead or asks too much; and let
        in what was gathered."""
        if self._begun_ms is not None and now_ms - self._begun_ms > SEND_MS:
            self.end(StreamCode.TOO_SLOW, f"nothing was taken for {SEND_MS // 1000} s")
            return
        self._messages -= MESSAGES_A_SECOND * (now_ms - self._visited_ms) // 1000
        self._visited_ms = now_ms
        if self._messages > MESSAGES_A_SECOND:
            self.end(
                StreamCode.TOO_MANY, f"more than {MESSAGES_A_SECOND:,} messages a second: put more frames into each"
            )
            return
        self._messages = max(0, self._messages)
        if self.stream.phase == GREETING:
            return  # it waits for its session
        if self._stale:
            self.let_in()
        self._stale = True
        beat = None
        if now_ms >= self._beat_ms:
            self._beat_ms = now_ms + self._heartbeat_ms
            try:
                beat = self.stream.beat()
            except StreamViolation as violation:
                self.end(violation.code, violation.reason)
                return
        due = beat is not None
        if not due and now_ms - self._told_ms >= ACK_MS and self._has_news():
            due, self._ack_asked, self._ack_at = self._ack_asked, True, 0
        if due and not self._tells:
            self._tells = True
            self._group.start_soon(self._tell, beat)

    def _has_news(self) -> bool:
        stream = self.stream
        room_below = self._time.number(self._door.room_below)
        return stream.limit < room_below or stream.has_news(*self._fate(stream.known))

    def _fate(self, known: int) -> Fate:
        """The fate of the client's frames, in the client's own numbers; losses below frame `known` are left out."""
        durable, lost = self._fate_of(self._time.session_frame(known))
        return Fate(None if durable is None else self._time.number(durable), self._time.losses(lost))

    async def _tell_event(self, event: Event) -> None:
        if event.event == VoiceEventType.AUDIO_RECEIVED.value:
            now_ms = monotonic_ms()
            if now_ms - self._level_ms < LEVEL_MS:
                return
            self._level_ms = now_ms
        await self._send(event)

    async def _tell_events(self, after: int) -> None:
        try:
            reason = await tell_events(self._service, self._seat.session_id, after, self._tell_event)
            await self._send(Bye(VoiceSessionState.STOPPED, reason))
            self.end(StreamCode.DONE, reason)
        except Gone:
            self.scope.cancel()
        except VoiceError as error:
            log.warning("stream_events_failed", session_id=self._seat.session_id, problem=str(error))
            self.end(StreamCode.UNAVAILABLE, "the events can't be told now")
        except Exception:
            log.exception("stream_failed", session_id=self._seat.session_id)
            self.end(StreamCode.FAULT, "a fault of the server")


async def tell_events(
    service: AsyncVoiceService, session_id: str, after: int, send: Callable[[Event], Awaitable[None]]
) -> str:
    """Send the events of a session with a number above `after`, until it has stopped; why it has."""
    reason = STOPPED
    async with aclosing(service.events(session_id, after)) as events:
        async for event in events:
            if event.event_type is VoiceEventType.SESSION_STOPPED:
                reason = str(event.payload.get("reason", STOPPED))
            await send(Event(event.number, event.event_type.value, event.timestamp_ms, event.payload))
    return reason


def reason_of(session: VoiceSession) -> str:
    """Why a session has stopped."""
    return STOPPED if session.result is None else session.result.reason.value


def _too_large() -> StreamViolation:
    return StreamViolation(StreamCode.TOO_LARGE, f"a message has at most {MAX_MESSAGE_BYTES:,} bytes")
