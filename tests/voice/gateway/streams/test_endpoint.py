"""The browser stream on a real server: what goes well, and each thing that goes wrong with its close code; the session
stays whole."""

import json
from typing import Any

import anyio
import pytest

from actors.voice.messages import Metered
from agentos.core.communication.voice.gateway.streams import connection
from agentos.core.communication.voice.sessions.directory import Directory
from machines.audio import AudioEncoding, AudioFormat
from machines.session import EndReason, VoiceSessionState
from machines.stream.messages import (
    Ack,
    Bye,
    End,
    Event,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamCode,
    StreamFormat,
    Welcome,
)
from tests.voice.gateway.streaming import (
    FRAME,
    PCM,
    TEXT,
    Closed,
    RawSocket,
    Refused,
    Server,
    audio,
    framed,
    message,
    recorded,
    server,
)

pytestmark = pytest.mark.anyio


async def opened(at: Server, session: Any, **hello: Any) -> tuple[RawSocket, Welcome]:
    """A stream with a new ticket, or with what `hello` says."""
    socket = await RawSocket.open(at.port)
    if "resume" not in hello:
        hello["ticket"] = at.ticket(session)
    await socket.send(Hello(**{"formats": (PCM,), "attempt": 1, **hello}))
    return socket, await socket.until(Welcome)


async def test_a_stream_from_hello_to_bye(anyio_backend: Any) -> None:
    said = audio(60) + b"\1\2" * 100
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        assert welcome.session_id == session.session_id
        assert welcome.format == PCM
        assert (welcome.expected, welcome.durable) == (0, 0)
        assert welcome.limit == 1500
        assert welcome.verdict["status"] == "approved"
        await socket.send(message(0, said[: 40 * FRAME]))
        await socket.send(message(40, said[40 * FRAME :], flags=1))
        await socket.send(End(61))
        told = []
        while not isinstance(found := await socket.receive(), Bye):
            told.append(found)
        assert (await socket.closed()).code == StreamCode.DONE
        assert found == Bye(VoiceSessionState.STOPPED, "stopped")
        events = [one for one in told if isinstance(one, Event)]
        assert [one.number for one in events] == sorted({one.number for one in events})
        kinds = [one.event for one in events]
        assert kinds[0] == "session_started"
        assert kinds[-2:] == ["transcript_ready", "session_stopped"]
        session = await at.stopped(session.session_id)
        assert recorded(session) == said
        assert session.result is not None
        assert session.result.frames.accepted == 61


async def test_what_was_taken_is_acknowledged_soon_though_nothing_follows(anyio_backend: Any) -> None:
    async with server(anyio_backend, resume_window_seconds=30) as at:
        socket, _ = await opened(at, await at.session(resumable=True))
        await socket.send(message(0, audio(25)))
        with anyio.fail_after(10):
            while (ack := await socket.until(Ack)).durable < 25:
                assert ack.received == 25
        assert ack.limit == 1525


async def test_nothing_is_called_durable_before_the_session_has_it_in_its_account(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Directory.submit
    monkeypatch.setattr(Directory, "submit", lambda self, work: None if type(work) is Metered else submit(self, work))
    async with server(anyio_backend) as at:
        socket, _ = await opened(at, await at.session())
        await socket.send(message(0, audio(50)))
        with anyio.fail_after(10):
            while at.service.statistics().media.frames < 50:
                await anyio.sleep(0.01)
        await socket.send(message(50, audio(25)))
        with anyio.fail_after(10):
            while (ack := await socket.until(Ack)).received < 75:
                pass
        assert ack.durable == 0


async def test_a_session_that_dies_with_its_process_has_for_good_what_it_has_taken(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        socket, _ = await opened(at, await at.session())
        await socket.send(message(0, audio(25)))
        ack = await socket.until(Ack)
        assert ack.durable == ack.received == 25


async def test_of_what_is_not_recorded_that_is_durable_which_evidence_accounts_for(anyio_backend: Any) -> None:
    async with server(anyio_backend, resume_window_seconds=30, account_seconds=1) as at:
        session = await at.session(resumable=True, recording=False)
        socket, _ = await opened(at, session)
        await socket.send(message(0, audio(40)))
        assert (await socket.until(Ack)).durable == 0
        await socket.send(message(40, audio(30)))
        with anyio.fail_after(10):
            while (await socket.until(Ack)).durable < 50:
                pass


async def test_who_comes_back_learns_what_arrived_and_goes_on(anyio_backend: Any) -> None:
    said = audio(50)
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        await socket.send(message(0, said[: 20 * FRAME]))
        seen = (await socket.until(Event)).number
        await socket.until(Ack)
        await socket.abort()
        socket, again = await opened(at, session, resume=welcome.resume, attempt=2, first=0, next=30, events=seen)
        assert again.resume == welcome.resume
        assert again.expected == 20
        assert (await socket.until(Event)).number == seen + 1
        await socket.send(message(20, said[20 * FRAME :]))
        await socket.send(End(50))
        await socket.until(Bye)
        assert recorded(await at.stopped(session.session_id)) == said


async def test_a_gap_that_is_declared_is_silence_and_in_the_account(anyio_backend: Any) -> None:
    said = audio(50)
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, _ = await opened(at, session)
        await socket.send(Gap(0, 5, "capture"))
        assert (await socket.until(Ack)).received == 5
        await socket.send(message(5, said[5 * FRAME : 20 * FRAME]))
        await socket.send(Gap(20, 10, "ring"))
        await socket.send(message(30, said[30 * FRAME :]))
        await socket.send(End(50))
        await socket.until(Bye)
        session = await at.stopped(session.session_id)
        gap = bytes(10 * FRAME)
        assert recorded(session) == bytes(5 * FRAME) + said[5 * FRAME : 20 * FRAME] + gap + said[30 * FRAME :]
        assert session.result is not None
        assert dict(session.result.frames.dropped) == {"capture": 5, "ring": 10}
        assert session.result.frames.accounted == 35


async def test_a_gap_gives_no_room_away(anyio_backend: Any) -> None:
    async with server(anyio_backend, backlog_seconds=1) as at:
        socket, welcome = await opened(at, await at.session())
        assert welcome.limit == 50
        await socket.send(Gap(0, 40, "capture"))
        assert (await socket.until(Ack)).limit == 90


async def test_a_call_whose_last_frames_are_a_gap_ends_at_once(anyio_backend: Any) -> None:
    said = audio(10)
    async with server(anyio_backend) as at:
        for came in (0, 10):
            session = await at.session()
            socket, _ = await opened(at, session)
            if came:
                await socket.send(message(0, said))
            await socket.send(Gap(came, 40, "capture"))
            await socket.send(End(came + 40))
            with anyio.fail_after(3):  # half the time to drain is five seconds
                await socket.until(Bye)
            result = (await at.stopped(session.session_id)).result
            assert result is not None
            assert result.drained
            assert (result.frames.accepted, dict(result.frames.dropped)) == (came + 40, {"capture": 40})


async def test_a_newer_connection_fences_the_older(anyio_backend: Any) -> None:
    said = audio(30)
    async with server(anyio_backend) as at:
        session = await at.session()
        older, welcome = await opened(at, session)
        await older.send(message(0, said[: 10 * FRAME]))
        newer, again = await opened(at, session, resume=welcome.resume, attempt=2, next=30)
        assert (await older.closed()).code == StreamCode.FENCED
        await newer.send(message(again.expected, said[again.expected * FRAME :]))
        await newer.send(End(30))
        await newer.until(Bye)
        assert recorded(await at.stopped(session.session_id)) == said


async def test_a_hello_that_was_long_under_way_fences_nobody(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        first, welcome = await opened(at, session)
        await first.abort()
        newer, _ = await opened(at, session, resume=welcome.resume, attempt=3)
        late = await RawSocket.open(at.port)
        await late.send(Hello((PCM,), 2, resume=welcome.resume))
        assert (await late.closed()).code == StreamCode.FENCED
        await newer.send(message(0, audio(10)))
        assert (await newer.until(Ack)).received == 10


async def test_a_new_ticket_replaces_the_client(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        older, welcome = await opened(at, session)
        await older.send(message(0, audio(10)))
        await older.until(Ack)
        newer, again = await opened(at, session)
        assert again.expected == 10
        assert again.resume != welcome.resume
        assert (await older.closed()).code == StreamCode.FENCED
        back = await RawSocket.open(at.port)
        await back.send(Hello((PCM,), 2, resume=welcome.resume, next=10))
        assert (await back.closed()).code == StreamCode.UNAUTHENTICATED
        await newer.send(message(10, audio(10)))
        assert (await newer.until(Ack)).received == 20


async def until_ends(at: Any, session_id: str) -> None:
    """Wait until a session has begun to end, or has ended."""
    ending = (VoiceSessionState.STOPPING, VoiceSessionState.STOPPED)
    while (await at.service.get_session(session_id)).state not in ending:
        await anyio.sleep(0.01)


async def test_the_end_is_told_to_who_missed_it(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        await socket.send(message(0, audio(10)))
        await socket.send(End(10))
        await until_ends(at, session.session_id)  # a reset takes along what was not read
        await socket.abort()
        await at.stopped(session.session_id)
        back = await RawSocket.open(at.port)
        await back.send(Hello((PCM,), 2, resume=welcome.resume, next=10, events=3))
        assert (await back.until(Event)).number > 3
        assert (await back.until(Bye)).reason == "stopped"
        assert (await back.closed()).code == StreamCode.DONE


async def test_a_session_that_is_stopped_elsewhere_says_so(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, _ = await opened(at, session)
        await socket.send(message(0, audio(10)))
        async with anyio.create_task_group() as group:
            group.start_soon(at.service.stop_session, session.session_id)
            assert (await socket.until(Bye)).state is VoiceSessionState.STOPPED
            assert (await socket.closed()).code == StreamCode.DONE


async def test_who_does_not_come_back_has_the_session_stopped(anyio_backend: Any) -> None:
    async with server(anyio_backend, resume_window_seconds=1) as at:
        session = await at.session()
        socket, _ = await opened(at, session)
        await socket.send(message(0, audio(10)))
        await socket.until(Ack)
        await socket.abort()
        session = await at.stopped(session.session_id)
        assert recorded(session) == audio(10)


async def test_heartbeats_are_answered(anyio_backend: Any) -> None:
    def fast(app: Any) -> None:
        app.state.streams._heartbeat_ms = 300

    async with server(anyio_backend, change=fast) as at:
        socket, welcome = await opened(at, await at.session())
        assert welcome.heartbeat_ms == 300
        with anyio.fail_after(20):
            for number in range(1, 6):
                ping = await socket.until(Ping)
                assert ping.id == number
                await socket.send(Pong(ping.id))
        assert (await socket.closed()).code == StreamCode.TOO_SLOW  # now that nothing is answered


async def test_mulaw_is_taken_as_it_is(anyio_backend: Any) -> None:
    said = bytes(at * 7 % 256 for at in range(160 * 20))
    async with server(anyio_backend) as at:
        session = await at.session(audio_format=AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8000))
        mulaw = StreamFormat("mulaw", 8000)
        socket, welcome = await opened(at, session, formats=(PCM, mulaw))
        assert welcome.format == mulaw
        await socket.send(message(0, said, count=20))
        await socket.send(End(20))
        await socket.until(Bye)
        result = (await at.stopped(session.session_id)).result
        assert result is not None
        assert result.frames.bytes == len(said)


async def test_who_offers_no_sub_protocol_speaks_the_same(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        socket = await RawSocket.open(at.port, protocol=None)
        await socket.send(Hello((PCM,), 1, ticket=at.ticket(session)))
        assert (await socket.until(Welcome)).expected == 0


# --- what is refused before a WebSocket is there ---------------------------------------------------------------------


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"protocol": "graphql-ws"}, 422, "invalid-request"),
    ({"Origin": "https://elsewhere.example"}, 403, "forbidden"),
    ({"X_Forwarded_For": "10.0.0.1"}, 403, "forbidden"),
    ({"path": "/v1/stream?ticket=avs_" + "x" * 43}, 401, "unauthenticated"),
)


async def test_the_handshake_is_refused(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        for options, status, name in REFUSED:
            with pytest.raises(Refused) as raised:
                await RawSocket.open(at.port, **options)
            assert raised.value.status == status
            assert json.loads(raised.value.body)["type"] == f"urn:agentos-voice:problem:{name}"


# --- close codes -----------------------------------------------------------------------------------------------------


async def refused_hello(at: Server, *first: Any, opcode: int | None = None) -> int | None:
    socket = await RawSocket.open(at.port)
    for one in first:
        await socket.send(one, opcode=opcode)
    return (await socket.closed()).code


async def test_a_bad_hello_has_a_code(anyio_backend: Any) -> None:
    def hasty(app: Any) -> None:
        app.state.streams._hello_seconds = 0.2

    async with server(anyio_backend, change=hasty) as at:
        session = await at.session()
        good = Hello((PCM,), 1, ticket=at.ticket(session))
        assert await refused_hello(at) == StreamCode.TOO_SLOW
        assert await refused_hello(at, "{}") == StreamCode.MALFORMED
        assert await refused_hello(at, b"\0" * 20) == StreamCode.MALFORMED
        assert await refused_hello(at, End(0)) == StreamCode.MALFORMED
        assert await refused_hello(at, " " * 70_000) == StreamCode.TOO_LARGE
        assert await refused_hello(at, Hello((PCM,), 1, ticket="avs_nobody")) == StreamCode.UNAUTHENTICATED
        assert await refused_hello(at, Hello((PCM,), 1, resume="avr_nobody")) == StreamCode.UNAUTHENTICATED
        other = StreamFormat("pcm_s16le", 44_100)
        assert await refused_hello(at, Hello((other,), 1, ticket=good.ticket)) == StreamCode.NO_COMMON_FORMAT
        assert await refused_hello(at, good) == StreamCode.UNAUTHENTICATED  # the ticket was used
        socket, welcome = await opened(at, session)
        await socket.abort()
        far = Hello((PCM,), 2, resume=welcome.resume, first=2**31, next=2**31)
        socket = await RawSocket.open(at.port)
        await socket.send(far)  # it lost what is before, as it may declare
        assert (await socket.until(Welcome)).expected == 0
        assert at.app.state.access.refusals.counts == {"unknown_ticket": 1, "unknown_resume": 1, "used_ticket": 1}


WRONG = {
    "no JSON": ("{", StreamCode.MALFORMED),
    "an unknown type": ('{"type":"shout"}', StreamCode.MALFORMED),
    "an unknown field": ('{"type":"pong","id":1,"more":2}', StreamCode.MALFORMED),
    "a field of another type": ('{"type":"end","upto":"10"}', StreamCode.MALFORMED),
    "a number out of range": ('{"type":"end","upto":-1}', StreamCode.MALFORMED),
    "a second hello": (Hello((PCM,), 2, ticket="avs_x"), StreamCode.MALFORMED),
    "what a server says": (Ack(1, 1, 1), StreamCode.MALFORMED),
    "an empty binary message": (b"", StreamCode.MALFORMED),
    "a header alone": (message(10, b"", count=1), StreamCode.MALFORMED),
    "another kind": (b"\2" + message(10, audio(1))[1:], StreamCode.MALFORMED),
    "unknown flags": (message(10, audio(1), flags=2), StreamCode.MALFORMED),
    "no frames": (message(10, audio(1), count=0), StreamCode.MALFORMED),
    "a gap longer than any session": (Gap(10, 10**9, "ring"), StreamCode.MALFORMED),
    "a frame again": (message(9, audio(1)), StreamCode.REPLAYED),
    "an end before": (End(9), StreamCode.REPLAYED),
    "a gap before": (Gap(9, 1, "ring"), StreamCode.REPLAYED),
    "a frame beyond": (message(11, audio(1)), StreamCode.OUT_OF_ORDER),
    "an end beyond": (End(11), StreamCode.OUT_OF_ORDER),
    "a gap beyond": (Gap(11, 1, "ring"), StreamCode.OUT_OF_ORDER),
    "media time that goes back": (message(10, audio(1), media_ms=0), StreamCode.OUT_OF_ORDER),
    "too little": (message(10, audio(1)[:-2], count=1), StreamCode.WRONG_SIZE),
    "too much": (message(10, audio(2), count=1), StreamCode.WRONG_SIZE),
    "a last frame that is none": (message(10, audio(1), count=2, flags=1), StreamCode.WRONG_SIZE),
    "half a sample at last": (message(10, audio(1)[:99], flags=1), StreamCode.WRONG_SIZE),
    "too large a message": (message(10, audio(110)), StreamCode.TOO_LARGE),
    "too long a text": (json.dumps({"type": "pong", "id": 1, "x": "y" * 70_000}), StreamCode.TOO_LARGE),
}


async def test_what_breaks_the_protocol_has_a_code_and_the_session_stays_whole(anyio_backend: Any) -> None:
    said = audio(20)
    async with server(anyio_backend) as at:
        for wrong, (sent, code) in WRONG.items():
            session = await at.session()
            socket, welcome = await opened(at, session)
            await socket.send(message(0, said[: 5 * FRAME]))
            await socket.send(message(5, said[5 * FRAME : 10 * FRAME]))
            await socket.send(sent)
            closed = await socket.closed()
            assert (wrong, closed.code) == (wrong, code)
            assert closed.reason
            socket, again = await opened(at, session, resume=welcome.resume, attempt=2, next=20)
            assert again.expected == 10
            await socket.send(message(10, said[10 * FRAME :]))
            await socket.send(End(20))
            await socket.until(Bye)
            assert recorded(await at.stopped(session.session_id)) == said


async def test_beyond_the_limit(anyio_backend: Any) -> None:
    async with server(anyio_backend, backlog_seconds=0.2) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        assert welcome.limit == 10
        await socket.send(message(0, audio(11)))
        assert (await socket.closed()).code == StreamCode.BEYOND_LIMIT


async def test_audio_after_the_end(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, _ = await opened(at, session)
        await socket.send(message(0, audio(1)[:100], flags=1))
        await socket.send(message(1, audio(1)))
        assert (await socket.closed()).code == StreamCode.MALFORMED


async def test_a_message_that_no_server_would_read_is_cut_off_by_it(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        await socket.send(bytes(200_000))
        assert (await socket.closed()).code in {1009, None}
        socket, again = await opened(at, session, resume=welcome.resume, attempt=2)
        assert again.expected == 0


@pytest.mark.parametrize("a_second", [3_000, None])
async def test_too_many_messages(anyio_backend: Any, a_second: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is low, so that a busy machine takes more than it in a second, too."""
    monkeypatch.setattr(connection, "MESSAGES_A_SECOND", 200)
    async with server(anyio_backend) as at:
        socket, _ = await opened(at, await at.session())
        async with anyio.create_task_group() as group:

            async def flood() -> None:
                pong = b'{"type":"pong","id":1}'
                many = framed(TEXT, pong) * ((a_second or 50_000) * 20 // 1000)
                try:
                    while True:
                        await socket.send_raw(many)
                        await anyio.sleep(0.02 if a_second else 0)
                except Closed:
                    pass

            group.start_soon(flood)
            with anyio.fail_after(20):
                assert (await socket.closed()).code == StreamCode.TOO_MANY
            await socket.abort()
            group.cancel_scope.cancel()


async def test_too_many_connections_of_a_client(anyio_backend: Any) -> None:
    def few(app: Any) -> None:
        app.state.streams._limit._per_client = 3

    async with server(anyio_backend, change=few) as at:
        sockets = [await RawSocket.open(at.port) for _ in range(3)]
        with pytest.raises(Refused) as raised:
            await RawSocket.open(at.port)
        assert raised.value.status == 429
        for socket in sockets:
            await socket.abort()
        with anyio.fail_after(5):
            while at.app.state.streams.open:
                await anyio.sleep(0.01)
        await (await RawSocket.open(at.port)).abort()


async def test_a_caller_that_vanished_is_the_reason_everywhere(anyio_backend: Any) -> None:
    def impatient(app: Any) -> None:
        app.state.streams._absence_ms = 100

    async with server(anyio_backend, change=impatient) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        await socket.send(message(0, audio(10)))
        await socket.until(Ack)
        await socket.abort()
        stopped = await at.stopped(session.session_id)
        assert stopped.result is not None
        assert stopped.result.reason is EndReason.CALLER_GONE
        assert stopped.result.frames.accounted == 10
        events = [event async for event in at.service.events(session.session_id)]
        assert events[-1].payload == {"reason": "caller_gone"}
        final = (await at.service.evidence(session.session_id))[-1].record
        assert final.response_summary is not None
        assert final.response_summary["result"]["reason"] == "caller_gone"
        late = await RawSocket.open(at.port)
        await late.send(Hello((PCM,), 2, resume=welcome.resume, next=10))
        assert (await late.until(Bye)).reason == "caller_gone"
