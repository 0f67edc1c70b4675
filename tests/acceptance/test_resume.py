"""A process is killed in the middle of a call, and another one goes on with it: nothing of what was acknowledged is lost, what
was not comes again or is declared, and who does not come back is ended."""

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from actors import Actor
from actors.runtime.system import AskTimeout
from actors.voice import CallPart, PartContext
from actors.voice.call_part import UnmadeActor
from actors.voice.messages import Facts, Resumption
from agentos.core.communication.voice import (
    AsyncVoiceService,
    AudioEncoding,
    AudioFormat,
    STTProvider,
    VoiceEventType,
    VoiceProvider,
    VoiceService,
    VoiceSession,
    VoiceSessionState,
    samples,
)
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.errors import (
    Draining,
    EvidenceUnavailable,
    InvalidRequest,
    InvalidState,
    NotResumable,
    ServiceClosed,
    SessionNotFound,
    UnusableExtension,
)
from agentos.core.communication.voice.recording.finishing import Finishing
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from machines.session import EndReason, SessionResult
from tests.forking import Forking, forking
from tests.loops import ASYNCIO_SLOW, TRIO, UVLOOP, loops

anyio_backend = loops(ASYNCIO_SLOW, UVLOOP, TRIO)

DieInACall = Callable[..., str]
PATIENCE = 60
WINDOW = 300  # seconds; it never ends by itself where a test does not say so
FRAME = 640
SPEECH = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 600)]).tobytes()
SETTINGS: dict[str, Any] = {
    "on_stt_unavailable": "record_only",
    "recording_segment_seconds": 1,
    "account_seconds": 0.2,
    "recovery_interval_seconds": 0.05,
    "resume_window_seconds": WINDOW,
    "log_level": "error",
}
CALL = """
import json, os, signal, sys
from array import array
import anyio
from agentos.core.communication.voice import AsyncVoiceService, AudioFormat, STTProvider
from agentos.core.communication.voice.providers.local import LocalProvider

class Kiosk(LocalProvider):
    name = "kiosk"

loop, wish = sys.argv[1], json.loads(sys.argv[2])
engine = STTProvider.POCKETSPHINX if wish["sentence"] else STTProvider.WHISPER
speech = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 600)]).tobytes()
if wish["sentence"]:
    with open(wish["sentence"], "rb") as file:
        speech = file.read()

async def heard(service, session_id):
    async for event in service.events(session_id):
        if event.event_type.value == "stt_final":
            return

async def main():
    async with AsyncVoiceService(providers=[Kiosk()]) as service:
        if wish["resume"]:
            resumed = await service.resume(wish["resume"], first_frame=wish["first"])
            session, first = resumed.session, resumed.next_frame
        else:
            session = await service.create_session(
                "p", wish["provider"], engine, wish["metadata"],
                audio_format=AudioFormat(**wish["format"]), resumable=wish["resumable"],
            )
            first = wish["first"]
        size = session.audio_format.frame_bytes
        for frame in range(first, wish["upto"]):
            await service.dispatch_audio_chunk(session.session_id, speech[frame * size : frame * size + size])
            await anyio.sleep(0.001)
        least = 1 if wish["resume"] else 3  # an account is among them
        while wish["settled"] and (service.statistics().media.queued_frames or service.statistics().store.stored < least):
            await anyio.sleep(0.01)
        if wish["sentence"]:
            await heard(service, session.session_id)
            await anyio.sleep(0.5)  # until the event is stored
        if wish["stopping"]:
            os.write(1, session.session_id.encode())
            async with anyio.create_task_group() as group:
                group.start_soon(service.stop_session, session.session_id)
                while (await service.get_session(session.session_id)).state.value != "stopping":
                    await anyio.sleep(0.001)
                os.kill(os.getpid(), signal.SIGKILL)
        os.write(1, session.session_id.encode())
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main, backend=loop)
"""


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of every process here."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"AGENTOS_VOICE_{name.upper()}", str(value))


@pytest.fixture(scope="module")
def programs() -> Iterator[Forking]:
    with forking() as process:
        yield process


@pytest.fixture
def die_in_a_call(programs: Forking) -> DieInACall:
    """A process has a call, up to frame `upto`, and is killed; the session's id."""
    usual = {
        "resume": None, "first": 0, "upto": 130, "metadata": {"recording_enabled": True}, "format": {}, "resumable": True,
        "settled": False, "stopping": False, "sentence": "", "provider": "local",
    }  # fmt: skip

    def die(loop: str = "asyncio", **wish: Any) -> str:
        code, told = programs.run(CALL, loop, json.dumps({**usual, **wish}), environment=os.environ)
        assert code == -signal.SIGKILL
        return told.decode()

    return die


async def speak(service: AsyncVoiceService, session_id: str, first: int, upto: int, size: int = FRAME) -> None:
    await service.dispatch_audio_chunk(session_id, SPEECH[first * size : upto * size])


async def stopped(service: AsyncVoiceService, session_id: str) -> SessionResult:
    """Of the session, stopped now, with the sums of its account held."""
    assert await service.stop_session(session_id)
    return await result_of(service, session_id)


async def result_of(service: AsyncVoiceService, session_id: str) -> SessionResult:
    await service.recording(session_id)
    session = await service.get_session(session_id)
    assert session is not None
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    frames = session.result.frames
    assert frames.accepted == frames.accounted + sum(frames.dropped.values())
    assert frames.accepted == frames.transcribed + sum(frames.untranscribed.values())
    return session.result


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


def records(home: Path, session_id: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home / "voice.db")) as database:
        found = [json.loads(text) for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]
    return [record for record in found if record["request_id"] == session_id]


def moves(home: Path, session_id: str) -> list[str]:
    """What is in evidence of its moves."""
    found = [record["operation"].removeprefix("session_") for record in records(home, session_id)]
    return [operation for operation in found if operation != "audio_accounted"]


def check_home(home: Path) -> None:
    """The chain holds, and nothing is left of anybody who ran."""
    with open_to_read(home / "voice.db") as store:
        found = store.verify()
        assert store.cross_check() == []
    assert found.ok, found
    assert FileLocks(home).names() == []


def heard(result: SessionResult) -> bytes:
    """The samples of a recording, which is packed when nobody else has done it."""
    assert result.recording is not None
    home = Path(result.recording.path).parents[2]
    with open_store(home / "voice.db", busy_timeout_seconds=20) as store:
        while not Path(result.recording.path).exists():  # another process may be at it
            Finishing(store, home / "recordings", "flac").run()
    sound, rate = soundfile.read(result.recording.path, dtype="int16")
    assert (rate, len(sound)) == (16_000, result.recording.samples)
    return bytes(sound.tobytes())


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Somebody else holds the database."""
    with closing(sqlite3.connect(home / "voice.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


# The caller comes back


@pytest.mark.anyio
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "in-full-flight"])
async def test_the_caller_goes_on_and_the_recording_is_bit_for_bit_what_was_said(
    anyio_backend: Any, home: Path, settled: bool, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=settled)
    async with AsyncVoiceService() as service:
        calls = service.calls()
        resumed = await service.resume(session_id)
        call = await anext(calls)  # the host is told that it goes on
        assert (call.session_id, call.resumed) == (session_id, True)
        assert (resumed.session.session_id, resumed.session.state) == (session_id, VoiceSessionState.ACTIVE)
        assert resumed.next_frame == 130 if settled else resumed.next_frame <= 130
        assert [one.session_id for one in await service.list_active_sessions()] == [session_id]
        await speak(service, session_id, resumed.next_frame, 220)
        result = await stopped(service, session_id)
        events = [event async for event in service.events(session_id)]
    assert heard(result) == SPEECH[: 220 * FRAME]
    assert (result.reason, result.drained, result.frames.accounted) == (EndReason.STOPPED, True, 220)
    assert result.frames.digest == hashlib.sha256(SPEECH[: 220 * FRAME]).hexdigest()
    assert result.recording is not None
    assert result.recording.gaps == ()
    assert moves(home, session_id) == ["created", "active", "resumed", "stopping", "stopped"]
    numbers = [record["metadata"]["number"] for record in records(home, session_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    told = [event.payload.get("state", event.event_type.value) for event in events]
    assert [one for one in told if one != "stt_fallback"] == [
        "created", "active", "error", "stopping", "transcript_ready", "session_stopped"
    ]  # fmt: skip
    check_home(home)


@pytest.mark.anyio
async def test_what_the_caller_can_not_send_again_is_a_gap_that_is_declared(
    anyio_backend: Any, home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=True)
    async with AsyncVoiceService() as service:
        resumed = await service.resume(session_id, first_frame=155)
        assert resumed.next_frame == 155
        await speak(service, session_id, 155, 200)
        result = await stopped(service, session_id)
    whole = heard(result)
    assert whole == SPEECH[: 130 * FRAME] + bytes(25 * FRAME) + SPEECH[155 * FRAME : 200 * FRAME]
    assert result.recording is not None
    assert result.recording.gaps == ((130 * 320, 25 * 320),)
    assert (result.frames.accepted, result.frames.accounted) == (200, 175)
    assert result.frames.dropped == {"process_died": 25}
    assert result.frames.digest == hashlib.sha256(whole[: 130 * FRAME] + whole[155 * FRAME :]).hexdigest()
    record = next(one for one in records(home, session_id) if one["operation"] == "session_resumed")
    said = record["response_summary"]
    assert (said["state"], said["upto_frame"], said["accounted"]) == ("active", 155, 130)
    assert said["dropped"] == {"process_died": 25}
    assert (said["resumed"]["state"], said["resumed"]["recording"]) == ("active", "whole")
    check_home(home)


@pytest.mark.parametrize("first", [0, 400], ids=["sent again", "lost"])
def test_who_dies_over_it_is_followed_by_another_one(home: Path, first: int, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call("asyncio", upto=70, settled=True)
    at = 70
    for again in range(3):
        at += 60
        lost = at - 5 if first else 0
        assert die_in_a_call("trio", resume=session_id, first=lost, upto=at, settled=bool(again % 2)) == session_id
    with VoiceService() as service:
        resumed = service.resume(session_id, first_frame=at if first else 0)
        service.dispatch_audio_chunk(session_id, SPEECH[resumed.next_frame * FRAME : 300 * FRAME])
        assert service.stop_session(session_id)
        service.recording(session_id)
        result = (service.get_session(session_id) or pytest.fail("it is gone")).result
    assert result is not None
    assert result.recording is not None
    whole = heard(result)
    assert len(whole) == 300 * FRAME
    silent = np.zeros(300 * 320, bool)
    for begin, count in result.recording.gaps:
        silent[begin : begin + count] = True
    expected = np.frombuffer(SPEECH[: 300 * FRAME], np.int16).copy()
    expected[silent] = 0
    assert whole == expected.tobytes()
    assert result.frames.accepted == 300
    assert sum(result.frames.dropped.values()) == silent.sum() // 320
    assert bool(silent.any()) is bool(first)
    assert result.frames.digest == hashlib.sha256(expected[~silent].tobytes()).hexdigest()
    assert moves(home, session_id) == ["created", "active", *["resumed"] * 4, "stopping", "stopped"]
    check_home(home)


@pytest.mark.trio
async def test_a_call_that_only_is_accounted_goes_on_from_its_last_account(
    home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(metadata={}, settled=True)
    async with AsyncVoiceService() as service:
        resumed = await service.resume(session_id)
        assert 0 < resumed.next_frame <= 130
        await speak(service, session_id, resumed.next_frame, 200)
        result = await stopped(service, session_id)
    assert (result.frames.accepted, result.frames.accounted, result.recording) == (200, 200, None)
    at = resumed.next_frame * FRAME
    before = hashlib.sha256(SPEECH[:at]).hexdigest()
    assert result.frames.digest == hashlib.sha256(before.encode() + SPEECH[at : 200 * FRAME]).hexdigest()
    check_home(home)


@pytest.mark.trio
async def test_a_call_from_the_telephone_goes_on_with_its_recording(home: Path, die_in_a_call: DieInACall) -> None:
    telephone = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8000)
    session_id = die_in_a_call(format=telephone.model_dump(mode="json"), settled=True)
    async with AsyncVoiceService() as service:
        resumed = await service.resume(session_id)
        assert (resumed.next_frame, resumed.session.audio_format) == (130, telephone)
        await speak(service, session_id, 130, 200, telephone.frame_bytes)
        result = await stopped(service, session_id)
    assert result.recording is not None
    assert (result.frames.accounted, result.recording.seconds, result.recording.gaps) == (200, 4.0, ())
    check_home(home)


@pytest.mark.trio
async def test_before_any_audio_it_goes_on_from_the_first_frame(home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call(upto=0)
    async with AsyncVoiceService() as service:
        assert [one.session_id for one in await wait_for_it(service)] == [session_id]
        resumed = await service.resume(session_id)
        assert (resumed.next_frame, resumed.session.state) == (0, VoiceSessionState.ACTIVE)
        await speak(service, session_id, 0, 50)
        result = await stopped(service, session_id)
    assert heard(result) == SPEECH[: 50 * FRAME]
    assert moves(home, session_id) == ["created", "resumed", "stopping", "stopped"]


async def wait_for_it(service: AsyncVoiceService) -> list[VoiceSession]:
    with anyio.fail_after(PATIENCE):
        while not (found := await service.list_resumable_sessions()):
            await anyio.sleep(0.01)
    return found


@pytest.mark.trio
async def test_the_transcript_goes_on_with_times_of_the_whole_call(home: Path, die_in_a_call: DieInACall) -> None:
    speech, rate = soundfile.read(Path(str(samples.__file__)).with_name("go-forward.flac"), dtype="int16")
    sentence = speech.tobytes() + bytes(32_000)
    frames = len(sentence) // FRAME
    file = home.with_name("sentence")
    file.write_bytes(sentence)
    session_id = die_in_a_call(sentence=str(file), upto=frames, settled=True)
    async with AsyncVoiceService() as service:
        resumed = await service.resume(session_id, first_frame=frames)
        assert (rate, resumed.next_frame) == (16_000, frames)
        await service.dispatch_audio_chunk(session_id, sentence[: frames * FRAME])
        result = await stopped(service, session_id)
        finals = [one async for one in service.events(session_id) if one.event_type is VoiceEventType.STT_FINAL]
    assert result.transcript == "go forward ten meters go forward ten meters"
    spoken = (finals[0].payload["end_ms"] - finals[0].payload["start_ms"]) // 20
    assert spoken > 0, "what was told before it died is no less told"
    assert result.frames.untranscribed == {"process_died": frames - spoken}
    assert result.frames.transcribed == frames + spoken
    assert [one.payload["text"] for one in finals] == ["go forward ten meters"] * 2
    assert finals[1].payload["start_ms"] - finals[0].payload["start_ms"] == pytest.approx(frames * 20, abs=100)


# Nobody comes back


@pytest.mark.trio
async def test_who_does_not_come_back_is_ended_when_the_window_closes(home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call(settled=True)
    settings = load_settings(resume_window_seconds=3, recovery_interval_seconds=3600)
    async with AsyncVoiceService(settings) as service:
        with anyio.fail_after(PATIENCE):
            while (await result_or_none(service, session_id)) is None:  # nothing else happens
                await anyio.sleep(0.02)
        result = await result_of(service, session_id)
        with pytest.raises(NotResumable, match="it has ended"):
            await service.resume(session_id)
        assert await service.list_resumable_sessions() == []
    assert result.reason is EndReason.RECOVERED
    assert heard(result) == SPEECH[: 130 * FRAME]
    assert moves(home, session_id) == ["created", "active", "stopping", "stopped"]
    check_home(home)


async def result_or_none(service: AsyncVoiceService, session_id: str) -> SessionResult | None:
    session = await service.get_session(session_id)
    return None if session is None else session.result


@pytest.mark.trio
@pytest.mark.parametrize(
    ("wish", "settings"),
    [({"resumable": False}, {}), ({}, {"resume_window_seconds": 0}), ({"stopping": True}, {})],
    ids=["not wished", "no window", "was stopping"],
)
async def test_who_may_not_come_back_is_ended_at_once(
    home: Path, wish: Any, settings: Any, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(**wish)
    async with AsyncVoiceService(load_settings(**settings)) as service:
        with anyio.fail_after(PATIENCE):
            while (await result_or_none(service, session_id)) is None:
                await anyio.sleep(0.01)
        with pytest.raises(NotResumable):
            await service.resume(session_id)
        reason = (await result_of(service, session_id)).reason
    assert reason is EndReason.RECOVERED
    assert "resumed" not in moves(home, session_id)


@pytest.mark.trio
async def test_the_window_counts_from_the_death_and_not_from_the_next_start(
    home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call()
    owner = FileLocks(home).names()[0]
    long_ago = (home / f"{owner}.owner").stat().st_mtime - WINDOW - 1
    os.utime(home / f"{owner}.owner", (long_ago, long_ago))
    async with AsyncVoiceService() as service:
        with pytest.raises(NotResumable):
            await service.resume(session_id)
        with anyio.fail_after(PATIENCE):
            while (await result_or_none(service, session_id)) is None:
                await anyio.sleep(0.01)


@pytest.mark.trio
async def test_a_stop_ends_a_session_that_waits_and_so_does_the_end_of_the_service(
    home: Path, die_in_a_call: DieInACall
) -> None:
    first, second = die_in_a_call(), die_in_a_call()
    async with AsyncVoiceService() as service:
        await until_both_wait(service)
        with pytest.raises(InvalidState, match="another process runs it, or died"):
            await speak(service, first, 0, 1)
        assert await service.stop_session(first)
        assert (await result_of(service, first)).reason is EndReason.RECOVERED
        assert [one.session_id for one in await service.list_resumable_sessions()] == [second]
        assert await service.list_resumable_sessions("another") == []
    assert moves(home, second)[-2:] == ["stopping", "stopped"]
    check_home(home)


async def until_both_wait(service: AsyncVoiceService) -> None:
    with anyio.fail_after(PATIENCE):
        while len(await service.list_resumable_sessions()) < 2:
            await anyio.sleep(0.01)


def test_the_command_leaves_those_that_may_come_back(
    home: Path, capsys: pytest.CaptureFixture[str], die_in_a_call: DieInACall
) -> None:
    waits, over = die_in_a_call(metadata={}), die_in_a_call(resumable=False)
    assert main(["recover", "--home", str(home), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["session_id"] for one in told["recovered"]] == [over]
    assert (told["resumable"], told["owned"]) == ([waits], 0)
    assert main(["recover", "--home", str(home)]) == 0
    assert "waiting to be resumed: 1" in capsys.readouterr().out
    with VoiceService() as service:
        assert service.resume(waits).session.session_id == waits
        assert [one.session_id for one in service.list_resumable_sessions()] == []
        assert service.stop_session(waits)
    check_home(home)


# Bad luck, and those who have no right


@pytest.mark.anyio
async def test_of_two_who_resume_at_once_one_wins(anyio_backend: Any, home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=True)
    won: list[int] = []
    lost: list[NotResumable] = []
    async with AsyncVoiceService() as service:

        async def resume() -> None:
            try:
                won.append((await service.resume(session_id)).next_frame)
            except NotResumable as error:
                lost.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(resume)
        assert (won, len(lost)) == ([130], 7)
        assert {error.state for error in lost} == {VoiceSessionState.ACTIVE}
        await stopped(service, session_id)
    assert moves(home, session_id).count("resumed") == 1


@pytest.mark.trio
async def test_only_the_process_that_has_it_resumes_it(home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call()
    async with AsyncVoiceService() as mine, AsyncVoiceService() as other:
        while not (found := [await one.list_resumable_sessions() for one in (mine, other)])[0] + found[1]:
            await anyio.sleep(0.01)
        has_it, has_not = (mine, other) if found[0] else (other, mine)
        with pytest.raises(NotResumable, match="another process has it"):
            await has_not.resume(session_id)
        assert await has_not.stop_session(session_id) is False
        await has_it.resume(session_id)
        with pytest.raises(NotResumable, match="it runs here"):
            await has_it.resume(session_id)
        with pytest.raises(NotResumable, match="another process has it"):
            await has_not.resume(session_id)
        await stopped(has_it, session_id)
    check_home(home)


@pytest.mark.trio
async def test_what_is_no_session_and_what_is_no_frame_is_refused(home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call(upto=0)
    async with AsyncVoiceService() as service:
        for unknown in ("voice-unknown", "x" * 100_000, "\ud800", "a\0b", "../voice"):
            with pytest.raises(SessionNotFound):
                await service.resume(unknown)
        for nothing in ("", None, 7):
            with pytest.raises(InvalidRequest) as caught:
                await service.resume(nothing)  # type: ignore[arg-type]
            assert caught.value.field == "session_id"
        for frame in (-1, 1.5, True, "1", None, 10**12, 3600 * 50 + 1):
            with pytest.raises(InvalidRequest) as caught:
                await service.resume(session_id, first_frame=frame)  # type: ignore[arg-type]
            assert caught.value.field == "first_frame"
        assert (await service.resume(session_id)).next_frame == 0


@pytest.mark.trio
async def test_a_session_can_only_be_resumable_where_there_is_a_window() -> None:
    async with AsyncVoiceService(load_settings(resume_window_seconds=0)) as service:
        for wish in (True, "yes"):
            with pytest.raises(InvalidRequest) as caught:
                await service.create_session(
                    "p",
                    VoiceProvider.LOCAL,
                    STTProvider.WHISPER,
                    resumable=wish,  # type: ignore[arg-type]
                )
            assert caught.value.field == "resumable"


@pytest.mark.anyio
async def test_without_evidence_it_is_not_resumed_and_waits_on(
    anyio_backend: Any, home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=True)
    settings = load_settings(store_busy_timeout_seconds=0.1, evidence_timeout_seconds=0.5)
    async with AsyncVoiceService(settings) as service:
        await wait_for_it(service)
        with locked(home), pytest.raises(EvidenceUnavailable, match="still waits"):
            await service.resume(session_id)
        assert "resumed" not in moves(home, session_id)
        assert await service.list_active_sessions() == []
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    resumed = await service.resume(session_id, first_frame=140)
                    break
                except EvidenceUnavailable:  # evidence finds out that the store is back within a second
                    await anyio.sleep(0.05)
        assert resumed.next_frame == 140
        await speak(service, session_id, 140, 180)
        result = await stopped(service, session_id)
    assert result.frames.accepted == 180
    assert moves(home, session_id).count("resumed") == 1
    check_home(home)


@pytest.mark.anyio
async def test_a_part_that_can_not_begin_leaves_the_session_waiting(home: Path, die_in_a_call: DieInACall) -> None:
    class Hesitant(CallPart):
        """Does not say at first whether it is part of a call, then can't begin, and then does."""

        name, kind, essential = "hesitant", UnmadeActor, False
        asked = 0

        def takes(self, facts: Facts) -> bool:
            Hesitant.asked += 1
            if Hesitant.asked == 1:
                raise LookupError("not yet")
            return True

        def begins_with(self, resumption: Resumption | None) -> None:
            if Hesitant.asked == 3:
                raise LookupError("not yet")

        def actor(self, context: PartContext) -> Actor:
            return UnmadeActor("it has none")

    session_id = die_in_a_call()
    async with AsyncVoiceService(parts=[Hesitant()]) as service:
        await wait_for_it(service)
        with pytest.raises(UnusableExtension, match="'hesitant'"):
            await service.resume(session_id)
        with pytest.raises(EvidenceUnavailable, match="a part of the call can't begin: LookupError: not yet"):
            await service.resume(session_id)
        await service.resume(session_id)
        await stopped(service, session_id)


@pytest.mark.anyio
async def test_a_resumption_that_is_cancelled_goes_on(
    anyio_backend: Any, home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0])
    async with AsyncVoiceService() as service:
        await wait_for_it(service)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await service.resume(session_id)
        with pytest.raises(NotResumable, match="it runs here"):
            await service.resume(session_id)
        assert (await stopped(service, session_id)).reason is EndReason.STOPPED
    check_home(home)


def test_a_resumption_that_is_cancelled_past_its_shield_at_any_turn_goes_on_or_waits(
    home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(settled=True)

    async def resume_cancelled(service: AsyncVoiceService, turns: int) -> bool:
        """Whether it waits again."""
        task = asyncio.create_task(service.resume(session_id))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        while not task.done():  # asyncio's own cancellation knows no shield
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        waits = None
        while waits is None:
            await asyncio.sleep(0.001)
            if await service.list_active_sessions():
                waits = False
            elif await service.list_resumable_sessions():
                waits = True
        return waits

    async def main() -> SessionResult:
        async with AsyncVoiceService() as service:
            await wait_for_it(service)
            turns = 0
            while await resume_cancelled(service, turns):
                turns += 1
            assert turns > 1
            return await stopped(service, session_id)

    assert asyncio.run(main()).reason is EndReason.STOPPED
    assert moves(home, session_id).count("resumed") == 1
    check_home(home)


@pytest.mark.trio
async def test_a_service_that_drains_resumes_nothing(home: Path, die_in_a_call: DieInACall) -> None:
    session_id = die_in_a_call()
    async with AsyncVoiceService() as service, anyio.create_task_group() as group:
        await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
        await wait_for_it(service)
        group.start_soon(service.drain)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Draining):
            await service.resume(session_id)
        await service.aclose()
    assert moves(home, session_id)[-1] == "stopped"
    check_home(home)


@pytest.mark.anyio
@pytest.mark.parametrize(("end", "refusal"), [("aclose", ServiceClosed), ("drain", (Draining, ServiceClosed))])
async def test_a_service_that_ends_while_a_session_is_made_ready_leaves_it_to_another_one(
    anyio_backend: Any, home: Path, monkeypatch: pytest.MonkeyPatch, end: str, refusal: Any, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=True)
    begun, let_on = threading.Event(), threading.Event()

    async def resuming() -> None:
        with pytest.raises(refusal):
            await service.resume(session_id)

    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService() as service, anyio.create_task_group() as group:
            await wait_for_it(service)
            recovery = service._runtime.resources().recovery
            restored = recovery.restored

            def slowly(*arguments: Any) -> Any:
                found = restored(*arguments)
                begun.set()
                let_on.wait(PATIENCE)
                return found

            monkeypatch.setattr(recovery, "restored", slowly)
            group.start_soon(resuming)
            await anyio.to_thread.run_sync(begun.wait)
            group.start_soon(getattr(service, end))
            await until(lambda: not service.ready)
            let_on.set()
    assert "resumed" not in moves(home, session_id)
    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService() as service:
            await result_or_waiting(service, session_id)
    check_home(home)


async def result_or_waiting(service: AsyncVoiceService, session_id: str) -> None:
    """Wait until the session has ended, or waits to be resumed here."""
    while await result_or_none(service, session_id) is None and not await service.list_resumable_sessions():
        await anyio.sleep(0.001)


@pytest.mark.anyio
async def test_who_is_not_answered_in_time_finds_it_running_or_waiting(
    anyio_backend: Any, home: Path, monkeypatch: pytest.MonkeyPatch, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(anyio_backend[0], settled=True)
    async with AsyncVoiceService() as service:
        await wait_for_it(service)
        ask = service._runtime.system.ask

        async def too_short(ref: Any, make: Any, _: float) -> Any:
            return await ask(ref, make, 0.0)

        async def set_aside(ref: Any, make: Any, _: float) -> Any:
            raise AskTimeout

        for lost, waits in ((set_aside, True), (too_short, False)):
            monkeypatch.setattr(service._runtime.system, "ask", lost)
            with pytest.raises(EvidenceUnavailable, match="goes on as soon as"):
                await service.resume(session_id)
            with anyio.fail_after(PATIENCE):
                while not (await service.list_resumable_sessions() if waits else await service.list_active_sessions()):
                    await anyio.sleep(0.001)
        monkeypatch.setattr(service._runtime.system, "ask", ask)
        assert await service.list_resumable_sessions() == []
        assert (await stopped(service, session_id)).reason is EndReason.STOPPED
    assert moves(home, session_id).count("resumed") == 1
    check_home(home)


@pytest.mark.trio
async def test_a_recording_that_is_not_what_evidence_says_is_ended_and_not_gone_on_with(
    home: Path, die_in_a_call: DieInACall
) -> None:
    session_id = die_in_a_call(settled=True)
    async with AsyncVoiceService() as service:
        await wait_for_it(service)
        folder = home / "recordings" / session_id
        for segment in folder.glob("000000.*"):  # it may have died while it made one of the other
            with suppress(ValueError, soundfile.SoundFileError):  # that one is not finished
                sound, rate = soundfile.read(segment, dtype="int16")
                soundfile.write(segment, sound[::-1], rate, subtype="PCM_16")
        with pytest.raises(NotResumable, match="differs from the account in evidence"):
            await service.resume(session_id)
        assert (await result_of(service, session_id)).reason is EndReason.RECOVERED
    said = records(home, session_id)[-1]["response_summary"]
    assert said["recovered"]["recording"] == "differs"
    check_home(home)


@pytest.mark.anyio
@pytest.mark.parametrize("recovery", ["0.05", "3600"])  # it was found dead before, or has still to be
async def test_a_session_whose_provider_is_not_here_can_not_be_resumed(
    anyio_backend: Any, die_in_a_call: DieInACall, monkeypatch: pytest.MonkeyPatch, recovery: str
) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_RECOVERY_INTERVAL_SECONDS", recovery)
    session_id = die_in_a_call(anyio_backend[0], settled=True, provider="kiosk")
    async with AsyncVoiceService() as service:
        with pytest.raises(NotResumable, match="its provider 'kiosk' is not registered here"):
            await service.resume(session_id)
        assert [session.session_id for session in await service.list_resumable_sessions()] == [session_id]
