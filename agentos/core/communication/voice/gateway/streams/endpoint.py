"""The browser stream: `GET /v1/stream`, a WebSocket of the sub-protocol `agentos-voice.v1`.

The endpoint admits clients: by origin and address, number of connections, ticket or token, and session. `connection.py` then
serves the connection, by the rules of `machines/stream/ends.py`.
"""

from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from msgspec import UNSET
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import (
    EvidenceNotDurable,
    EvidenceUnavailable,
    InvalidRequest,
    InvalidTicket,
    NotResumable,
    RateLimited,
    ServiceClosed,
    SessionNotFound,
    StoreError,
    VoiceError,
)
from agentos.core.communication.voice.gateway.access.connections import known
from agentos.core.communication.voice.gateway.access.control import AccessControl
from agentos.core.communication.voice.gateway.access.limits import ConnectionLimit
from agentos.core.communication.voice.gateway.access.tickets import OpenedStream, StreamCredentials
from agentos.core.communication.voice.gateway.access.token_watch import TokenWatch
from agentos.core.communication.voice.gateway.problems import kind_of, reply_to_error
from agentos.core.communication.voice.gateway.streams.connection import (
    AT_ONCE,
    MAX_MESSAGE_BYTES,
    ClientGone,
    StreamConnection,
)
from agentos.core.communication.voice.gateway.streams.session_streams import SessionStream, SessionStreams, formats_of
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.time import monotonic_ms
from machines.session import VoiceSession, VoiceSessionState
from machines.stream.ends import common_format
from machines.stream.media_time import Mark, StreamTime
from machines.stream.messages import SUBPROTOCOL, Hello, StreamCode, StreamViolation

log = logger(__name__)

PATH: Final = "/v1/stream"
LARGEST_MESSAGE_BYTES: Final = 2 * MAX_MESSAGE_BYTES  # the server at the socket refuses larger messages
STREAMS_PER_CLIENT: Final = 200  # an office behind one address
TOTAL: Final = 20_000
HELLO_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 10.0
ABSENCE_SECONDS: Final = 60.0  # if `resume_window_seconds` is 0
NO_LONGER: Final = "the access token behind it was revoked or has expired"
VISIT_SECONDS: Final = 0.2  # between two visits to a connection
VISITS: Final = 8  # groups of connections, so that not all are visited, and send something, at once


class BrowserStreams:
    """The streams of one server; an ASGI app for its route. `run` must be running: the app's lifespan runs it.

    If a client stays away for the service's `resume_window_seconds`, or a minute if that is 0, its session is stopped.
    `per_client` and `total` bound the connections at once.
    """

    def __init__(
        self,
        service: AsyncVoiceService,
        credentials: StreamCredentials,
        access: AccessControl,
        watch: TokenWatch,
        *,
        hello_seconds: float = HELLO_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        per_client: int = STREAMS_PER_CLIENT,
        total: int = TOTAL,
    ) -> None:
        self._service = service
        self._credentials = credentials
        self._access = access
        self._watch = watch
        self._hello_seconds = hello_seconds
        self._heartbeat_ms = int(heartbeat_seconds * 1000)
        self._absence_ms = int((service.settings.resume_window_seconds or ABSENCE_SECONDS) * 1000)
        self._limit = ConnectionLimit(per_client, total)
        self._session_streams = SessionStreams()
        self._parts: tuple[set[StreamConnection], ...] = tuple(set() for _ in range(VISITS))  # the connections, by turn
        self._group: TaskGroup | None = None
        self._absent = Look("clients that do not come back")

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._limit)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look after the connections until cancelled, and then close them, so that their clients come back."""
        async with anyio.create_task_group() as group:
            self._group = group
            task_status.started()
            try:
                await self._visit()
            finally:
                self._group = None
                for part in self._parts:
                    for connection in part:
                        connection.end(StreamCode.GOING_AWAY, "the server goes away")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a connection."""
        connection = HTTPConnection(scope)
        try:
            self._access.check_connection(connection)
            offered = scope["subprotocols"]
            if offered and SUBPROTOCOL not in offered:
                raise InvalidRequest(
                    f"a stream is of the WebSocket sub-protocol {SUBPROTOCOL}", field="Sec-WebSocket-Protocol"
                )
            if self._group is None:
                raise ServiceClosed("the app's lifespan does not run")
            with self._limit.counted(self._access.client(connection)):
                await receive()
                # A client that offers no sub-protocol gets none (RFC 6455, 4.2.2), and uses this one all the same.
                await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if offered else None})
                await self._serve(connection, receive, send)
        except VoiceError as error:
            await reply_to_error(error, scope["path"])(scope, receive, send)

    # --- a connection ------------------------------------------------------------------------------------------------

    async def _serve(self, came: HTTPConnection, receive: Receive, send: Send) -> None:
        connection = StreamConnection(
            self._service, receive, send, heartbeat_ms=self._heartbeat_ms, stop=self._stop_soon
        )
        code, reason = StreamCode.FAULT, "a fault of the server"
        part = min(self._parts, key=len)
        try:
            with connection.scope:
                hello = await connection.hello(self._hello_seconds)
                part.add(connection)
                if AT_ONCE in came.scope.get("extensions", {}):
                    came.scope["extensions"][AT_ONCE](connection.take, connection.count)
                await self._welcome(came, connection, hello)
        except ClientGone:
            return
        except StreamViolation as violation:
            code, reason = violation.code, violation.reason
        except Exception:
            log.exception("stream_failed")
        finally:
            part.discard(connection)
        await connection.close(*(connection.ending or (code, reason)))

    async def _welcome(self, came: HTTPConnection, connection: StreamConnection, hello: Hello) -> None:
        """Let a client in and serve it. Raises `StreamViolation`, `ClientGone`."""
        try:
            opened, session_stream, session = await self._admitted(came, hello)
        except InvalidTicket as error:
            refused = self._access.unknown(error, came)
            code = StreamCode.TOO_MANY if isinstance(refused, RateLimited) else StreamCode.UNAUTHENTICATED
            raise StreamViolation(code, str(refused)) from None
        except SessionNotFound as error:
            raise StreamViolation(StreamCode.ENDED, kind_of(error).title) from None
        except InvalidRequest as error:
            log.info("stream_refused", problem=str(error))
            raise StreamViolation(StreamCode.MALFORMED, "the session can't go on from that first frame") from None
        except (StoreError, EvidenceUnavailable) as error:
            log.warning("stream_unavailable", problem=str(error))
            raise StreamViolation(StreamCode.UNAVAILABLE, "the store can't be used now") from None
        except VoiceError as error:
            log.info("stream_refused", problem=str(error))
            raise StreamViolation(StreamCode.UNAVAILABLE, kind_of(error).title) from None
        if session.state is VoiceSessionState.STOPPED:
            try:
                await connection.send_last_events(session, hello.events)
            except VoiceError as error:
                log.warning("stream_events_failed", session_id=session.session_id, problem=str(error))
                raise StreamViolation(StreamCode.UNAVAILABLE, "the events can't be told now") from None
            raise StreamViolation(StreamCode.DONE, "the session has ended")
        chosen = common_format(hello.formats, formats_of(session.audio_format))
        end = partial(connection.end, StreamCode.UNAUTHENTICATED, NO_LONGER)
        with self._watch.open_for(opened.token_id, end):
            await connection.run(hello, opened, session_stream, session, chosen)

    async def _admitted(self, came: HTTPConnection, hello: Hello) -> tuple[OpenedStream, SessionStream, VoiceSession]:
        """The stream that a client opens or resumes, and its session, which runs here or has stopped.

        A ticket replaces the session's earlier client only once the session is known to be here: it may run in another process
        of the home, which serves that client.
        """
        found: list[VoiceSession] = []

        async def check(session_id: str, marks: tuple[Mark, ...] = ()) -> None:
            known(came.scope)
            found.append(await self._session(session_id, StreamTime(marks).bound(hello.first)))

        if hello.ticket is not UNSET:
            opened = await self._credentials.open(hello.ticket, check)
            session_stream = self._session_streams.opened(opened.session_id, opened.token, monotonic_ms())
        else:
            assert hello.resume is not UNSET  # noqa: S101 - a hello has a ticket or a token
            opened = await self._credentials.resume(hello.resume)
            await check(opened.session_id, opened.marks)
            session_stream = self._session_streams.resumed(opened.session_id, opened.token, monotonic_ms())
        return opened, session_stream, found[0]

    async def _session(self, session_id: str, first_frame: int) -> VoiceSession:
        """The session, running here or stopped. A dead process's session is resumed here; its client can send frames from
        `first_frame` on again."""
        session = await self._service.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        if session.state is VoiceSessionState.STOPPED or self._service.door(session_id) is not None:
            return session
        try:
            return (await self._service.resume(session_id, first_frame=first_frame)).session
        except NotResumable:
            session = await self._service.get_session(session_id)
            if session is None or session.state is not VoiceSessionState.STOPPED:
                raise
            return session

    # --- all connections ---------------------------------------------------------------------------------------------

    async def _visit(self) -> None:
        turn = 0
        while True:
            await anyio.sleep(VISIT_SECONDS / VISITS)
            turn = (turn + 1) % VISITS
            now_ms = monotonic_ms()
            for connection in tuple(self._parts[turn]):
                try:
                    connection.visit(now_ms)
                except Exception as error:
                    log.exception("stream_failed", exc_info=error)
                    connection.end(StreamCode.FAULT, "a fault of the server")
            if not turn:
                with self._absent:
                    self._look_for_the_absent(now_ms)

    def _look_for_the_absent(self, now_ms: int) -> None:
        for session_stream in self._session_streams.detached():
            if now_ms - session_stream.gone_ms > self._absence_ms:
                self._session_streams.drop(session_stream.session_id)
                if self._service.door(session_stream.session_id) is not None:
                    log.info(
                        "stream_abandoned",
                        session_id=session_stream.session_id,
                        after_ms=now_ms - session_stream.gone_ms,
                    )
                    self._stop_soon(session_stream.session_id, caller_gone=True)

    def _stop_soon(self, session_id: str, *, caller_gone: bool = False) -> None:
        """Stop a session in a task of the server, which goes on after the connection has ended."""
        if self._group is not None:
            self._group.start_soon(self._stop, session_id, caller_gone)

    async def _stop(self, session_id: str, caller_gone: bool) -> None:  # noqa: FBT001 - as a task is started
        try:
            await self._service.stop_session(session_id, caller_gone=caller_gone)
        except EvidenceNotDurable as error:
            log.warning("stream_stopped_without_evidence", session_id=session_id, problem=str(error))
        except VoiceError as error:
            log.warning("stream_not_stopped", session_id=session_id, problem=str(error))
        except Exception:
            log.exception("stream_not_stopped", session_id=session_id)


def stream_route(streams: BrowserStreams) -> WebSocketRoute:
    """The route of the streams, for an app that runs `streams.run` in its lifespan."""
    return WebSocketRoute(PATH, streams, name="stream")
