"""Homes that older versions wrote are read, verified, recovered and gone on with.

The archives in `homes/` are named after the commit whose code wrote them: 4cbd924 writes the newest revision of the database,
f2f52dc revision 0002, whose evidence is not sealed yet. `homes/make.py` made them, and says what is in them. Each holds calls
that had ended, a request that was denied, and what two killed processes left: a recorded call to resume, one that was resumed
before, one of which only accounts are there, one that nobody may resume, one whose recording was not packed, and one whose last
record is in the spill file.
"""

import hashlib
import json
import tarfile
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import AsyncVoiceService, VoiceEventType, VoiceSession, VoiceSessionState, samples
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.gateway import voice_app
from agentos.core.communication.voice.recording.checks import check_recordings
from agentos.core.communication.voice.recovery import resumption
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_to_read
from agentos.core.communication.voice.storage.store import VoiceStore
from machines.recording import RecordingState
from machines.session import EndReason, SessionResult
from tests.loops import TRIO, UVLOOP, loops

anyio_backend = loops(UVLOOP, TRIO)  # those that the server runs on

HOMES = Path(__file__).with_name("homes")
PATIENCE = 60
FRAME = 640
NOISE = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 100)]).tobytes()
WORDS = "go forward ten meters"
ENDED = ("ended", "telephone", "silent")
LEFT = ("died twice", "resumable", "accounted", "lost", "spilled")


class Old:
    """A home of before, and what its makers know of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.heads = home.with_name("heads")
        self.made: dict[str, Any] = json.loads(home.with_name("made.json").read_text())

    def ids(self, *names: str) -> list[str]:
        return [self.made[name] for name in names if name in self.made]

    def accounted(self, session_id: str) -> int:
        """The frames that its last account in evidence has."""
        said = [record["response_summary"] for record in self.made["evidence"] if record["request_id"] == session_id]
        return int(max(summary["accounted"] for summary in said if "accounted" in summary))

    def verified(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
        """What `evidence verify` says, with the heads that were noted, if any were."""
        heads = ("--heads", str(self.heads)) if self.heads.exists() else ()
        return self.command(capsys, "evidence", "verify", *heads)

    def command(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
        """What a command says of the home."""
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)


@pytest.fixture(params=["4cbd924", "f2f52dc"])
def old(home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Old:
    """A home as its processes left it when they were killed, just now."""
    with tarfile.open(HOMES / f"{request.param}.tar.xz") as archive:
        archive.extractall(home.parent, filter="data")
    for path in home.glob("*.owner"):
        path.touch()  # the last sign of life of a process
    monkeypatch.setenv("AGENTOS_VOICE_RESUME_WINDOW_SECONDS", "3600")
    # The homes grow old, and the longest duration of a call counts from its creation: as if its process had died just now.
    monkeypatch.setattr(resumption, "utc_now", lambda: datetime.fromtimestamp(0, UTC))
    monkeypatch.setenv("AGENTOS_VOICE_HEADS", str(home.with_name("heads")))
    monkeypatch.setenv("AGENTOS_VOICE_ON_STT_UNAVAILABLE", "record_only")
    monkeypatch.setenv("AGENTOS_VOICE_LOG_LEVEL", "error")
    for deadline in ("DRAIN", "STOP"):  # speech to text has time on a busy machine
        monkeypatch.setenv(f"AGENTOS_VOICE_{deadline}_TIMEOUT_SECONDS", str(PATIENCE))
    return Old(home)


@contextmanager
def stored(old: Old) -> Iterator[VoiceStore]:
    with open_to_read(old.home / "voice.db") as store:
        yield store


def assert_says(now: Any, before: Any, at: str = "") -> None:
    """All that was said before is said now, by the same names; a newer version may say more."""
    if isinstance(before, Mapping):
        assert isinstance(now, Mapping), at
        for name, value in before.items():
            assert name in now, f"{at}.{name} is gone"
            assert_says(now[name], value, f"{at}.{name}")
    elif isinstance(before, list):
        assert isinstance(now, list), at
        assert len(now) >= len(before), at
        for place, value in enumerate(before):
            assert_says(now[place], value, f"{at}[{place}]")
    else:
        assert now == before, at


def assert_all_is_told(store: VoiceStore, old: Old, session_ids: list[str]) -> None:
    for session_id in session_ids:
        session = store.session(session_id)
        assert session is not None
        assert_says(session.model_dump(mode="json"), old.made["sessions"][session_id], session_id)
        events = [event.model_dump(mode="json") for event in store.events(session_id)]
        assert_says(events, old.made["events"][session_id], f"{session_id} events")


def assert_evidence_stands(store: VoiceStore, old: Old) -> None:
    before = old.made["evidence"]
    found = {record.id: record.model_dump(mode="json") for record in store.evidence()}
    assert_says(found, {record["id"]: record for record in before})
    assert [one for one in found if one in {record["id"] for record in before}] == [one["id"] for one in before]


def test_it_is_read_as_it_is_and_not_changed(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    before = (old.home / "voice.db").read_bytes()
    with stored(old) as store:
        assert store.verify().ok
        assert store.cross_check() == []
        assert_all_is_told(store, old, list(old.made["sessions"]))
        assert_evidence_stands(store, old)
        assert {session.session_id for session in store.sessions()} == set(old.ids(*ENDED, "unpacked", *LEFT))
    code, said = old.verified(capsys)
    assert (code, said["verified"], said["mismatches"]) == (0, True, [])
    assert all(head["state"] == "holds" for head in said["heads"])
    code, said = old.command(capsys, "sessions")
    assert (code, {one["session_id"] for one in said["sessions"]}) == (0, set(old.made["sessions"]))
    code, said = old.command(capsys, "events", *old.ids("ended"))
    assert [one["event_type"] for one in said["events"]][-2:] == ["transcript_ready", "session_stopped"]
    code, said = old.command(capsys, "evidence", "list", *old.ids("denied"))
    assert (code, [one["operation"] for one in said["records"]]) == (0, ["session_denied"])
    code, said = old.command(capsys, "token", "list")
    assert {one["name"] for one in said["tokens"]} == set(old.made["tokens"])
    assert (old.home / "voice.db").read_bytes() == before


def test_recover_ends_what_was_left(
    old: Old, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_RESUME_WINDOW_SECONDS", "0")
    assert doctor_says(old, capsys, "sessions") == ("warn", "left by processes that died: 5, running: 0")
    code, said = old.command(capsys, "recover")
    assert code == 0, said
    with stored(old) as store:
        sessions = {session.session_id: session for session in store.sessions()}
        assert_all_is_told(store, old, old.ids(*ENDED))
        assert_evidence_stands(store, old)
    reasons = [result_of(sessions[one]).reason for one in old.ids(*LEFT)]
    assert reasons == [EndReason.RECOVERED] * 4 + [EndReason.STOPPED]
    assert result_of(sessions[old.made["resumable"]]).transcript == WORDS
    twice = result_of(sessions[old.made["died twice"]]).frames
    assert (twice.accepted, twice.dropped) == (60, {"process_died": 60 - old.accounted(old.made["died twice"])})
    assert_nothing_is_left(old, capsys)
    assert doctor_says(old, capsys, "sessions") == ("ok", "running: 0, none was left by a process that died")
    assert doctor_says(old, capsys, "recordings") == ("ok", "all are named; still to be finished: 0")


@pytest.mark.trio
async def test_a_service_ends_what_may_not_be_resumed_and_goes_on_with_the_rest(
    old: Old, capsys: pytest.CaptureFixture[str]
) -> None:
    speech, _ = soundfile.read(Path(str(samples.__file__)).with_name("go-forward.flac"), dtype="int16")
    sentence = speech.tobytes() + bytes(32_000)
    frames = len(sentence) // FRAME
    sentence = sentence[: frames * FRAME]
    async with AsyncVoiceService() as service:
        twice, resumable, accounted, lost, spilled = old.ids(*LEFT)
        with anyio.fail_after(PATIENCE):
            while {one.session_id for one in await service.list_resumable_sessions()} != {
                resumable,
                twice,
                accounted,
            }:
                await anyio.sleep(0.01)
        resumed = await service.resume(twice)
        assert resumed.next_frame == 60  # so far it had been resumed, without any audio since
        await service.dispatch_audio_chunk(twice, NOISE[60 * FRAME :])
        resumed = await service.resume(resumable)
        assert resumed.next_frame == frames
        await service.dispatch_audio_chunk(resumable, sentence)
        resumed = await service.resume(accounted)
        assert resumed.next_frame == old.accounted(accounted) > 0
        assert await service.stop_session(accounted)
        assert await service.stop_session(resumable)
        assert await service.stop_session(twice)
        result = await finished(service, resumable)
        assert (result.reason, result.transcript) == (EndReason.STOPPED, f"{WORDS} {WORDS}")
        assert sounds(old, resumable) == sentence * 2
        finals = [one async for one in service.events(resumable) if one.event_type is VoiceEventType.STT_FINAL]
        assert [one.payload["text"] for one in finals] == [WORDS] * 2
        result = await finished(service, twice)
        kept = old.accounted(twice)
        assert (result.frames.accepted, result.frames.dropped) == (100, {"process_died": 60 - kept})
        before = hashlib.sha256(NOISE[: kept * FRAME]).hexdigest()
        assert result.frames.digest == hashlib.sha256(before.encode() + NOISE[60 * FRAME :]).hexdigest()
        with anyio.fail_after(PATIENCE):
            while not any(
                one.session_id == lost for one in await service.list_sessions(state=VoiceSessionState.STOPPED)
            ):
                await anyio.sleep(0.01)
        assert (await finished(service, lost)).reason is EndReason.RECOVERED
        assert sounds(old, lost) == NOISE[: 75 * FRAME]
        assert (await finished(service, spilled)).reason is EndReason.STOPPED
        await finished(service, old.made["unpacked"])
        assert sounds(old, old.made["unpacked"]) == NOISE[: 30 * FRAME]
    with stored(old) as store:
        assert_all_is_told(store, old, old.ids(*ENDED))
        assert_evidence_stands(store, old)
    assert_nothing_is_left(old, capsys)


@pytest.mark.anyio
async def test_a_server_takes_its_tokens_and_serves_its_calls(anyio_backend: Any, old: Old) -> None:
    ended = old.made["ended"]
    path = f"/v1/sessions/{ended}"
    async with AsyncVoiceService() as service:
        app = voice_app(service, authentication=True)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:

            async def get(path: str, role: str) -> httpx2.Response:
                return await client.get(path, headers={"Authorization": f"Bearer {old.made['tokens'][role]}"})

            for role in ("admin", "operator", "auditor", "project"):
                assert (await get(path, role)).json()["result"]["transcript"] == WORDS
            assert (await get(path, "revoked")).status_code == 401
            sound = await get(f"{path}/recording", "admin")
            assert sound.content == (old.home / "recordings" / ended / "recording.flac").read_bytes()
            told = (await get(f"{path}/evidence", "auditor")).json()
            before = [record for record in old.made["evidence"] if record["request_id"] == ended]
            assert_says([link["record"] for link in told["links"]], before)
            told = (await get(f"{path}/events", "operator")).json()
            assert_says(told["events"], old.made["events"][ended])
            assert (await get("/v1/evidence/verification", "auditor")).json()["ok"]


def result_of(session: VoiceSession | None) -> SessionResult:
    assert session is not None
    assert session.result is not None
    return session.result


async def finished(service: AsyncVoiceService, session_id: str) -> SessionResult:
    """The result of a session, with its recording packed, and with sums that hold."""
    await service.recording(session_id)
    result = result_of(await service.get_session(session_id))
    assert result.frames.accepted == result.frames.accounted + sum(result.frames.dropped.values())
    assert result.frames.accepted == result.frames.transcribed + sum(result.frames.untranscribed.values())
    assert result.recording is None or result.recording.state is RecordingState.READY
    return result


def sounds(old: Old, session_id: str) -> bytes:
    samples, _ = soundfile.read(old.home / "recordings" / session_id / "recording.flac", dtype="int16")
    return bytes(samples.tobytes())


def assert_nothing_is_left(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    """Each call has ended, each recording is one file, and the chain goes on from the heads of before."""
    assert FileLocks(old.home).names() == []
    with stored(old) as store:
        assert {session.state for session in store.sessions()} == {VoiceSessionState.STOPPED}
        assert store.unfinished_recordings() == []
        checked = check_recordings(store, old.home / "recordings")
        assert (checked.unfinished, checked.mismatches) == (0, ())
    code, said = old.verified(capsys)
    assert (code, said["verified"], said["mismatches"]) == (0, True, [])


def doctor_says(old: Old, capsys: pytest.CaptureFixture[str], name: str) -> tuple[str, str]:
    code, said = old.command(capsys, "doctor")
    (check,) = [check for check in said["checks"] if check["name"] == name]
    assert code == 0
    return str(check["level"]), str(check["found"])
