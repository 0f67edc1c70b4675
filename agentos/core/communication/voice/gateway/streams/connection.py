"""One connection of a browser stream: the client's audio goes into the session's door, the session's events go to the client.

The code for every frame is short, and waits for nothing while the door has room: it reads the message and its header, and
checks the rules. The frames of a tenth of a second go through the door together, at the cost of one. `visit`, which the server
calls for each connection now and then, begins all other sending.
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
from agentos.core.communication.voice.gateway.streams.session_streams import SessionStream
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
TOGETHER: Final = 5  # frames: as many as a speech engine is fed at once; a visit lets fewer in
ACK_MS: Final = 500  # after so long the next frame is acknowledged, or, without one, the visit after the next does it
LEVEL_MS: Final = 1000  # between two levels
MAX_MESSAGE_BYTES: Final = 65_536  # a second and more in every format but studio sound in many channels
MESSAGES_A_SECOND: Final = 2_000  # forty times real time with a frame in each
MESSAGES_A_PAUSE: Final = 40  # the cost of a pause, in messages
SEND_MS: Final = 10_000  # a client that reads nothing for so long is gone
STOPPED: Final = "stopped"
CLOSE_SECONDS: Final = 1.0  # for the close frame of a connection that may be dead


class ClientGone(Exception):
    """The client is no longer connected."""


class StreamConnection:
    """An accepted connection. `receive` and `send` are ASGI's; `stop(session_id)` stops a session. For one event loop."""

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
        self._sent = (
            anyio.Event()
        )  # a new event for each message that others wait for; `anyio.Lock` takes twice as long
        self._waits = 0
        self._group = anyio.create_task_group()
        self.scope = anyio.CancelScope()  # of all work for the connection, from the hello on
        self.ending: tuple[int, str] | None = None
        self._begun_ms: int | None = None  # when the message that is being sent was begun
        self._told_ms = monotonic_ms()  # when frames were acknowledged
        self._beat_ms = self._told_ms + heartbeat_ms
        self._visited_ms = self._told_ms
        self._messages = 0  # a leaky bucket of one second, which drains at the allowed rate
        self._gathered: list[bytes] = []  # payloads that go through the door together
        self._gathered_frames = 0
        self._stale = False  # nothing was let in since the last visit
        self._together = TOGETHER if service.settings.max_chunk_bytes >= 2 * MAX_MESSAGE_BYTES else 1
        self._ack_at = 0
        self._ack_asked = self._tells = False
        self._reads = False  # no message is being handled: `take` may take the next
        self._level_ms = 0
        self._fresh = True  # no audio has come yet, or none since a gap
        self._longest = int(service.settings.max_session_seconds * FRAMES_PER_SECOND)
        self._session_stream: SessionStream
        self._door: Door
        self._time: StreamTime
        self._marks: KeptMarks | None

    # --- the beginning and the end -----------------------------------------------------------------------------------

    async def hello(self, seconds: float) -> Hello:
        """The first message. Raises `StreamViolation`, `ClientGone`."""
        with anyio.move_on_after(seconds):
            return self.stream.greeted(read_from_client(await self._text()))
        raise StreamViolation(StreamCode.TOO_SLOW, f"no hello came within {seconds:g} s")

    async def _text(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        text: str | None = message.get("text")
        if text is None:
            raise StreamViolation(StreamCode.MALFORMED, "the first message is hello, as text")
        if len(text) > MAX_MESSAGE_BYTES:
            raise _too_large()
        return text

    async def run(
        self,
        hello: Hello,
        opened: OpenedStream,
        session_stream: SessionStream,
        session: VoiceSession,
        chosen: StreamFormat,
    ) -> None:
        """Serve a client whose `hello` was accepted, until the client has gone, or the stream or the connection has ended.

        Up to the welcome this awaits nothing but its sending, so that audio of the older connection gets in if it came before,
        and none that comes later. Raises `StreamViolation`, `ClientGone`.
        """
        door = self._service.door(session.session_id)
        if door is None:
            raise StreamViolation(StreamCode.UNAVAILABLE, "the session has just ended")
        self._door, self._session_stream = door, session_stream
        if session_stream.connection is not None:
            session_stream.connection.let_in()
        self._time = session_stream.time or self._restored_time(opened)
        self._fate_of = self._service.fates(session, door)
        expected, limit = self._time.number(door.accepted), self._time.number(door.room_below)
        durable, lost = self._fate(0)
        said = self.stream.open(hello, session_stream.attempt, expected, durable, limit, lost)
        if session_stream.time is None:
            session_stream.time = self._time
            if self._service.can_be_resumed(session):
                session_stream.marks = KeptMarks(self._service.voice_store(), session_stream.digest.hex())
        self._marks = session_stream.marks
        session_stream.attach(self, hello.attempt, chosen)
        if chosen.encoding == "opus" and session_stream.decoder is None:
            session_stream.decoder = OpusStream(session.audio_format)
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
                except ClientGone:  # raised from here it would come in an exception group
                    self.scope.cancel()
                self._group.start_soon(self._tell_events, hello.events)
                # A task of its own: here each wake for a frame would pass through the app's layers of `await`.
                self._group.start_soon(self._read)
        finally:
            self.let_in()
            session_stream.detach(self, monotonic_ms())

    def _restored_time(self, opened: OpenedStream) -> StreamTime:
        """The client's time, from the marks that are stored of the stream."""
        time, skip = StreamTime.from_marks(opened.marks, self._door.accepted)
        if skip:
            with suppress(InvalidState):
                self._door.skip(skip, CAPTURE)
        return time

    def end(self, code: int, reason: str) -> None:
        """End the connection, and cancel its work; the first reason counts. `BrowserStreams` closes it with that, by
        `ending`."""
        if self.ending is None:
            self.ending = (code, reason)
        self.scope.cancel()

    def fence(self) -> None:
        """End this connection because a newer one of the session is live; take nothing more."""
        self.stream.fence()
        self.end(StreamCode.FENCED, "a newer connection has this session")

    async def send_last_events(self, session: VoiceSession, after: int) -> None:
        """Send the events behind `after` of a session that has stopped. Raises `ClientGone` and the errors of
        `service.events`."""
        await tell_events(self._service, session.session_id, after, self._send)
        await self._send(Bye(session.state, reason_of(session)))

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, if that works within `CLOSE_SECONDS`."""
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            with suppress(OSError, RuntimeError):  # the connection is closed already
                await self._send_message({"type": "websocket.close", "code": code, "reason": reason})

    # --- from the client ---------------------------------------------------------------------------------------------

    def take(self, data: bytes) -> bool:
        """Take a binary message at once, from a server that needs no task for that. Returns False if the message must come by
        `receive` instead."""
        if not self._reads or self._gathered_frames >= self._together:
            return False
        try:
            audio = self._checked(data)
            if audio.last or audio.first + audio.count >= self._ack_at:
                return False  # the message needs more work, such as an acknowledgement
            if not self._follows(audio):
                return False
            self._messages += 1
            self._gather(audio)
            if self._gathered_frames >= self._together:
                self.let_in()
        except Exception as error:  # noqa: BLE001 - each has its close code
            self._reads = False  # no further message may get in
            self._failed(error)
        return True

    def count(self) -> None:
        """Count a frame that is no message of its own, a control frame or a fragment, as a message: it costs as much."""
        self._messages += 1

    async def _read(self) -> None:
        try:
            await self._read_messages()
        except InvalidState:
            await self._discard()  # the session ends, and its events tell the client
        except Exception as error:  # noqa: BLE001 - each has its close code
            self._failed(error)
        finally:
            self._reads = False

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ClientGone):
            self.scope.cancel()
        elif isinstance(error, StreamViolation):
            self.end(error.code, error.reason)
        elif isinstance(error, ChunkTooLarge):
            self.end(StreamCode.TOO_LARGE, str(error))
        else:
            log.error("stream_failed", session_id=self._session_stream.session_id, exc_info=error)
            self.end(StreamCode.FAULT, "a fault of the server")

    async def _read_messages(self) -> None:
        while True:
            self._reads = True
            message = await self._receive()
            self._reads = False
            if self.ending is not None:
                return  # a message behind a violation
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
        """Whether the audio follows on the earlier audio, so that it only has to be gathered."""
        if self._fresh or (self._marks is not None and self._marks.waiting):
            return False
        return self._time.follows(audio.first, audio.count, audio.media_ms)

    async def _change(self, audio: Audio) -> None:
        """Prepare for audio that does not follow on: declare a pause in the media time as a gap, and store the mark.

        Raises `StreamViolation` for too long a pause, and if the store can't be used."""
        await self._all_in()
        door, session_id = self._door, self._session_stream.session_id
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
        if self._session_stream.decoder is None and len(audio.payload) != audio.count * self._frame_bytes:
            self._check_short(audio.payload, audio.count, last=audio.last)

    def _gather(self, audio: Audio) -> None:
        """Buffer the message for the door if it carries the expected frames. Raises `StreamViolation`."""
        payload, decoder = audio.payload, self._session_stream.decoder
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
        """Allow a short last frame in the last message. Raises `StreamViolation` for any other wrong size."""
        least, most = (count - 1) * self._frame_bytes, count * self._frame_bytes
        if not last or not least < len(payload) <= most or len(payload) % self._sample_bytes:
            raise StreamViolation(
                StreamCode.WRONG_SIZE, f"{len(payload)} bytes came as {count} frames of {self._frame_bytes}"
            )

    def let_in(self) -> None:
        """Put the gathered audio through the door, if there is room and the session takes audio; else it counts as not
        received."""
        with suppress(InvalidState):
            self._offer()

    def _offer(self) -> bool:
        """Put the gathered audio through the door; return whether there was room. Raises `InvalidState`."""
        if self._gathered:
            if not self._door.offer(b"".join(self._gathered)):
                return False
            self._gathered.clear()
            self._gathered_frames = 0
            self._stale = False
        return True

    async def _all_in(self) -> None:
        """Put the gathered audio through the door, waiting for room; nothing is read meanwhile."""
        while not self._offer():
            changed = anyio.Event()
            self._door.on_room(thread_waker(changed.set))
            if self._offer():
                return
            await changed.wait()

    async def _control(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        text = message.get("text")
        if text is None or len(text) > MAX_MESSAGE_BYTES:
            raise _too_large()
        found = self.stream.receive(read_from_client(text))
        await self._all_in()
        if isinstance(found, Gap):
            self._skip(found)
            await self._acknowledge()
        elif isinstance(found, End):
            self._stop(self._session_stream.session_id)

    def _skip(self, gap: Gap) -> None:
        if self._door.accepted + gap.count > self._longest:
            problem = f"a gap beyond the longest session, of {self._longest:,} frames"
            raise StreamViolation(StreamCode.MALFORMED, problem)
        self._door.skip(gap.count, gap.reason)
        self._fresh = True

    # --- to the client -----------------------------------------------------------------------------------------------

    async def _acknowledge(self) -> None:
        stream = self.stream
        if self._time.number(self._door.accepted) < stream.expected:
            return  # the last frames wait for room, or never get in
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
        except (OSError, RuntimeError):  # servers differ in the error that they raise
            raise ClientGone from None
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
        except ClientGone:
            self.scope.cancel()
        finally:
            self._tells = False

    def visit(self, now_ms: int) -> None:
        """Begin an acknowledgement or a heartbeat that is due, or end a connection that is dead or sends too much; and let the
        gathered audio in."""
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
            return  # still waiting for its session
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
            reason = await tell_events(self._service, self._session_stream.session_id, after, self._tell_event)
            await self._send(Bye(VoiceSessionState.STOPPED, reason))
            self.end(StreamCode.DONE, reason)
        except ClientGone:
            self.scope.cancel()
        except VoiceError as error:
            log.warning("stream_events_failed", session_id=self._session_stream.session_id, problem=str(error))
            self.end(StreamCode.UNAVAILABLE, "the events can't be told now")
        except Exception:
            log.exception("stream_failed", session_id=self._session_stream.session_id)
            self.end(StreamCode.FAULT, "a fault of the server")


async def tell_events(
    service: AsyncVoiceService, session_id: str, after: int, send: Callable[[Event], Awaitable[None]]
) -> str:
    """Send the events of a session with numbers above `after`, until it has stopped; return the reason of its end."""
    reason = STOPPED
    async with aclosing(service.events(session_id, after)) as events:
        async for event in events:
            if event.event_type is VoiceEventType.SESSION_STOPPED:
                reason = str(event.payload.get("reason", STOPPED))
            await send(Event(event.number, event.event_type.value, event.timestamp_ms, event.payload))
    return reason


def reason_of(session: VoiceSession) -> str:
    """The reason of a stopped session's end."""
    return STOPPED if session.result is None else session.result.reason.value


def _too_large() -> StreamViolation:
    return StreamViolation(StreamCode.TOO_LARGE, f"a message has at most {MAX_MESSAGE_BYTES:,} bytes")
