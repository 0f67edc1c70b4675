"""A client that tells of a pause only by its media time: the pause is a gap of its length, and whatever the client hears is by
its own numbers, also after cuts and after the death of the server."""

from typing import Any

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice.client import VoiceClient
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.gateway.streams.marks import KeptMarks
from agentos.core.communication.voice.storage.tables import STREAM_MARKS
from machines.session import AudioMismatch, VoiceSession
from machines.stream.messages import Ack, Bye, End, Event, Gap, Hello, Ping, Pong, StreamCode, Welcome
from tests.voice.gateway.serving import serving
from tests.voice.gateway.streaming import FRAME, PCM, RawSocket, Server, audio, message, recorded, server

pytestmark = pytest.mark.anyio

SAID = audio(200)
GAP = bytes(250 * FRAME)


class Caller:
    """A client of nobody's make: it numbers what it captures, and says when that was. Its clock begins at `begun`."""

    def __init__(self, port: int, begun: int = 0) -> None:
        self.port = port
        self.begun = begun
        self.times: list[int] = []  # of each frame, since its clock began
        self.attempt = 0
        self.token = ""
        self.socket: RawSocket
        self.welcome: Welcome

    async def open(self, **hello: Any) -> Welcome:
        self.attempt += 1
        self.socket = await RawSocket.open(self.port)
        await self.socket.send(Hello((PCM,), self.attempt, **hello))
        self.welcome = await self.socket.until(Welcome)
        self.token = self.welcome.resume
        return self.welcome

    async def again(self, *, first: int = 0, durable: int = 0) -> Welcome:
        await self.socket.abort()
        return await self.open(resume=self.token, first=first, next=len(self.times), durable=durable)

    def capture(self, frames: int, *, pause_ms: int = 0) -> None:
        """So many frames more, behind a pause in which nothing was captured."""
        start = self.times[-1] + 20 + pause_ms if self.times else pause_ms
        self.times += range(start, start + 20 * frames, 20)

    async def send(self, first: int, upto: int, together: int = 5) -> None:
        for at in range(first, upto, together):
            payload = SAID[at * FRAME : min(upto, at + together) * FRAME]
            await self.socket.send(message(at, payload, media_ms=(self.begun + self.times[at]) % 2**32))

    async def ack(self, received: int) -> Ack:
        """The next acknowledgement that has so many frames; none has more."""
        while (ack := await self.socket.until(Ack)).received < received:
            pass
        assert ack.received == received
        return ack

    async def end(self) -> None:
        await self.socket.send(End(len(self.times)))
        assert (await self.socket.until(Bye)).reason == "stopped"
        assert (await self.socket.closed()).code == StreamCode.DONE
        await self.socket.abort()


async def called(at: Server, **options: Any) -> tuple[VoiceSession, Caller]:
    session = await at.session(**options)
    caller = Caller(at.port)
    await caller.open(ticket=at.ticket(session))
    return session, caller


def dropped(session: VoiceSession) -> dict[str, int]:
    assert session.result is not None
    assert session.result.frames.accepted == session.result.frames.accounted + sum(
        session.result.frames.dropped.values()
    )
    return dict(session.result.frames.dropped)


@pytest.mark.parametrize("begun", [0, 2**32 - 4_000], ids=["from zero", "over the wrap"])
async def test_a_pause_in_the_media_time_is_a_gap_in_the_recording(anyio_backend: Any, begun: int) -> None:
    async with server(anyio_backend) as at:
        session, caller = await called(at)
        caller.begun = begun
        caller.capture(100)
        caller.capture(100, pause_ms=5_000)
        await caller.send(0, 200)
        ack = await caller.ack(200)
        assert (ack.durable or 0) <= 200
        assert ack.limit <= 1_700, "of its own numbers: the gap gives no room away"
        await caller.end()
        session = await at.stopped(session.session_id)
        assert recorded(session) == SAID[: 100 * FRAME] + GAP + SAID[100 * FRAME :]
        assert dropped(session) == {"capture": 250}
        assert session.result is not None
        assert session.result.recording is not None
        assert session.result.recording.gaps == ((100 * 320, 250 * 320),)
        assert session.result.recording.seconds == 9.0


async def test_what_comes_late_and_at_once_is_no_gap(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session, caller = await called(at)
        caller.capture(200)
        await caller.send(0, 100, together=1)
        await caller.send(100, 200, together=50)
        await caller.end()
        session = await at.stopped(session.session_id)
        assert recorded(session) == SAID
        assert dropped(session) == {}


async def test_a_client_that_declares_its_pause_itself_is_not_counted_twice(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session, caller = await called(at)
        caller.capture(100)
        await caller.send(0, 100)
        await caller.socket.send(Gap(100, 250, "capture"))
        await caller.socket.send(message(350, SAID[100 * FRAME :][: 50 * FRAME], media_ms=7_000))
        await caller.socket.send(End(400))
        await caller.socket.until(Bye)
        session = await at.stopped(session.session_id)
        assert recorded(session) == SAID[: 100 * FRAME] + GAP + SAID[100 * FRAME : 150 * FRAME]
        assert dropped(session) == {"capture": 250}


async def test_a_clock_that_stood_still_in_a_declared_gap_is_followed_from_there_on(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session, caller = await called(at)
        caller.capture(100)
        await caller.send(0, 100)
        await caller.socket.send(Gap(100, 150, "capture"))  # three seconds, of which its clock knows nothing
        for number, media_ms in (
            (250, 2_000),
            (300, 5_000),
        ):  # between them a pause of two seconds that nobody declares
            await caller.socket.send(message(number, SAID[: 50 * FRAME], media_ms=media_ms))
        await caller.socket.send(End(350))
        await caller.socket.until(Bye)
        session = await at.stopped(session.session_id)
        half = SAID[: 50 * FRAME]
        assert recorded(session) == SAID[: 100 * FRAME] + bytes(150 * FRAME) + half + bytes(100 * FRAME) + half
        assert session.result is not None
        assert session.result.mismatches == ()


@pytest.mark.parametrize("stops", [True, False], ids=["stop", "idle"])
async def test_a_pause_at_the_end_is_a_gap_in_the_recording_too(anyio_backend: Any, stops: bool) -> None:
    async with server(anyio_backend, idle_timeout_seconds=30 if stops else 0.3) as at:
        session, caller = await called(at)
        caller.capture(100)
        await caller.send(0, 100)
        await caller.socket.send(Gap(100, 250, "capture"))
        if stops:
            await caller.socket.send(End(350))
        await caller.socket.until(Bye)
        session = await at.stopped(session.session_id)
        assert recorded(session) == SAID[: 100 * FRAME] + GAP
        assert dropped(session) == {"capture": 250}
        assert session.result is not None
        assert session.result.recording is not None
        assert session.result.recording.gaps == ((100 * 320, 250 * 320),)
        assert session.result.recording.seconds == 7.0 == session.result.frames.accepted / 50


@pytest.mark.parametrize("resumable", [False, True])
async def test_who_comes_back_behind_a_pause_goes_on_by_its_own_numbers(anyio_backend: Any, resumable: bool) -> None:
    async with server(anyio_backend, resume_window_seconds=30) as at:
        session, caller = await called(at, resumable=resumable)
        caller.capture(60)
        caller.capture(60, pause_ms=3_000)
        await caller.send(0, 120)
        await caller.ack(120)
        caller.capture(80, pause_ms=2_000)  # while it was away
        assert (await caller.again(first=50)).expected == 120
        await caller.send(120, 200)
        await caller.end()
        session = await at.stopped(session.session_id)
        first, second = bytes(150 * FRAME), bytes(100 * FRAME)
        assert (
            recorded(session)
            == SAID[: 60 * FRAME] + first + SAID[60 * FRAME : 120 * FRAME] + second + (SAID[120 * FRAME :])
        )
        assert dropped(session) == {"capture": 250}


async def test_another_client_of_the_session_has_its_numbers(anyio_backend: Any) -> None:
    async with server(anyio_backend, resume_window_seconds=30) as at:
        session, caller = await called(at, resumable=True)
        caller.capture(10)
        caller.capture(10, pause_ms=1_000)
        await caller.send(0, 20)
        await caller.ack(20)
        other = Caller(at.port, begun=77_000)
        assert (await other.open(ticket=at.ticket(session))).expected == 70
        await other.socket.send(message(70, SAID[: 10 * FRAME], media_ms=77_000))
        await other.ack(80)
        with at.service.voice_store().reading() as reading:
            stored = [(mark.number, mark.frame) for mark in reading.select(STREAM_MARKS)]
        assert stored == [(70, 70)], "the marks of the first are gone with it"


async def test_a_media_time_that_jumps_beyond_the_longest_session_is_refused(anyio_backend: Any) -> None:
    async with server(anyio_backend, max_session_seconds=60) as at:
        session, caller = await called(at)
        caller.capture(10)
        caller.capture(10, pause_ms=70_000)
        await caller.send(0, 20)
        assert (await caller.socket.closed()).code == StreamCode.MALFORMED
        assert (await caller.again()).expected == 10
        await at.service.stop_session(session.session_id)
        assert dropped(await at.stopped(session.session_id)) == {}


async def test_audio_behind_a_pause_waits_until_that_is_stored(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = KeptMarks._keep
    down = False

    def perhaps(marks: KeptMarks, news: Any) -> None:
        if down:
            raise StoreError("the disk is away", kind="io")
        keep(marks, news)

    monkeypatch.setattr(KeptMarks, "_keep", perhaps)
    async with server(anyio_backend, resume_window_seconds=30) as at:
        session, caller = await called(at, resumable=True)
        caller.capture(10)
        await caller.send(0, 10)
        await caller.ack(10)
        down = True
        caller.capture(10, pause_ms=1_000)
        await caller.send(10, 20)
        assert (await caller.socket.closed()).code == StreamCode.UNAVAILABLE
        assert (await caller.again(first=5)).expected == 10
        await caller.send(10, 15)
        assert (await caller.socket.closed()).code == StreamCode.UNAVAILABLE
        down = False
        assert (await caller.again(first=5)).expected == 10
        await caller.send(10, 20)
        await caller.end()
        session = await at.stopped(session.session_id)
        assert dropped(session) == {"capture": 50}
        assert recorded(session) == SAID[: 10 * FRAME] + bytes(50 * FRAME) + SAID[10 * FRAME : 20 * FRAME]


async def test_too_much_audio_for_its_time_is_told_once_and_the_call_goes_on(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session, caller = await called(at)
        for turn in range(13):  # 48 kHz that are called 16 kHz
            await caller.socket.send(message(15 * turn, SAID[15 * turn * FRAME :][: 15 * FRAME], media_ms=100 * turn))
        await caller.socket.send(End(195))
        told = []
        while not isinstance(found := await caller.socket.receive(), Bye):
            told += [found] if isinstance(found, Event) and found.event == "error" else []
        (error,) = [one.payload for one in told]
        assert error == {"part": "stream", "reason": "too_much_audio", "audio_ms": 1800, "media_ms": 600}
        assert found.reason == "stopped"
        stopped = await at.stopped(session.session_id)
        assert recorded(stopped) == SAID[: 195 * FRAME]
        assert stopped.result is not None
        assert stopped.result.mismatches == (AudioMismatch("too_much_audio", 1_800, 600),)


@pytest.mark.parametrize(
    "anyio_backend", [("trio", {})], ids=["trio"]
)  # two servers each, and nothing of it is the loop's
@pytest.mark.parametrize("recording", [True, False], ids=["recorded", "accounted"])
async def test_pauses_outlive_the_death_of_the_server(anyio_backend: Any, recording: bool) -> None:
    with serving(
        "--no-auth",
        "--backend",
        anyio_backend[0],
        recording_format="wav",
        resume_window_seconds="60",
        account_seconds="0.5",
    ) as at:
        async with VoiceClient(at.url) as client:
            made = await client.create_session(
                "shop", stt_provider="whisper_local", metadata={"recording_enabled": recording}, resumable=True
            )
            caller, session_id = Caller(int(at.url.rpartition(":")[2])), made["session_id"]
            with anyio.fail_after(60):
                await caller.open(ticket=(await client.create_stream_ticket(session_id))["ticket"])
                caller.capture(60)
                caller.capture(60, pause_ms=3_000)
                await caller.send(0, 120)
                durable = (await caller.ack(120)).durable or 0
                while durable < 50:
                    durable = (await caller.socket.until(Ack)).durable or 0
                await anyio.to_thread.run_sync(at.killed)
                caller.capture(80, pause_ms=2_000)  # while the server was dead
                again = await caller.again(first=min(durable, 55), durable=durable)
                assert durable <= again.expected <= 120
                await caller.send(again.expected, 200)
                assert (await caller.ack(200)).lost == ()
                await caller.end()
            session = await client.get_session(session_id)
        await anyio.to_thread.run_sync(at.end)
    frames = session["result"]["frames"]
    assert frames["accepted"] == 450
    assert frames["accounted"] == 200
    assert sum(frames["dropped"].values()) == 250
    if recording:
        assert session["result"]["recording"]["seconds"] == 9.0


async def test_a_ping_that_is_answered_behind_a_pause_shows_what_is_known(anyio_backend: Any) -> None:
    def lively(app: Any) -> None:
        app.state.streams._heartbeat_ms = 200

    async with server(anyio_backend, change=lively) as at:
        session, caller = await called(at)
        caller.capture(10)
        caller.capture(10, pause_ms=1_000)
        await caller.send(0, 20)
        for _ in range(2):
            await caller.socket.send(Pong((await caller.socket.until(Ping)).id))
        await caller.end()
        assert dropped(await at.stopped(session.session_id)) == {"capture": 50}
