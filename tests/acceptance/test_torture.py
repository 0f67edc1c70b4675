"""kill -9 at random points of twenty calls, again and again on one home: everything that was acknowledged is there.

`pytest tests/acceptance/test_torture.py --kills 200` does it more often than usual. The processes keep a journal of what was
acknowledged to them; what must hold afterwards is in `check`.
"""

import hashlib
import os
import random
import subprocess
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import VoiceService
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.time import monotonic_ms
from machines.events import VoiceEventType
from machines.recording import RecordingState
from machines.session import EndReason, VoiceSession, VoiceSessionState

PATIENCE_SECONDS = 150
CALLS = 20
KILLS_A_ROUND = 10
FRAME_BYTES = 640
SERVICE = """
import os, random, sys, time
from array import array
import anyio
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceEventType, VoiceProvider
from agentos.core.communication.voice.sessions import directory
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import VoiceStore

engine, planted = STTProvider(sys.argv[5]), sys.argv[6]
loop, seed, calls, until_told = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "until_told"
chance = random.Random(seed)
speech = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 500)]).tobytes()

def journal(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

append = VoiceStore.append

def spied(store, entries, owner=None):
    append(store, entries, owner)
    for entry in entries:
        journal("stored", entry.record.id)

VoiceStore.append = spied

if planted == "words before they are stored":
    directory.KEPT_FIRST = frozenset()
    VoiceStore.add_events = lambda store, events: None

if planted == "acknowledged before it is kept":
    RecordingWriter.write = lambda writer, first_frame, pcm: time.sleep(30)

async def listen(service, session_id):
    async for event in service.events(session_id):
        if event.event_type is VoiceEventType.STT_FINAL:
            said = event.payload
            journal("heard", session_id, str(said["start_ms"]), str(said["end_ms"]), said["text"])

async def call(service, group, ending):
    while not ending.is_set():
        metadata = {"recording_enabled": chance.random() < 0.5}
        session = await service.create_session("torture", VoiceProvider.LOCAL, engine, metadata)
        journal("created", session.session_id)
        group.start_soon(listen, service, session.session_id)
        door = service.door(session.session_id)
        fate = service.fates(session, door)
        sent = 0
        for _ in range(chance.choice([0, 1, 3, 30, 100])):
            frames = min(chance.choice([1, 2, 5]), 500 - sent)
            await service.dispatch_audio_chunk(session.session_id, speech[sent * 640 : (sent + frames) * 640])
            sent += frames
            await anyio.sleep(chance.choice([0, 0.002, 0.02]))
            durable = door.accepted if planted == "acknowledged before it is kept" else fate(0).durable
            if session.recording_enabled:
                journal("durable", session.session_id, str(durable))
        await service.stop_session(session.session_id)
        journal("stopped", session.session_id, str(sent))

async def main():
    ending = anyio.Event()
    async with AsyncVoiceService() as service, anyio.create_task_group() as group:
        journal("ready")
        for _ in range(calls):
            group.start_soon(call, service, group, ending)
        if until_told:
            await anyio.to_thread.run_sync(sys.stdin.readline)
            ending.set()

anyio.run(main, backend=loop)
"""
ENGINE = """
from agentos.core.communication.voice.stt.base import FinalText, SpeechEngine

counting = SpeechEngine(name="google", factory="counting_engine:Counting")

class Counting:
    settled_ms = 0

    def __init__(self, configuration, options):
        pass

    def start(self, session):
        self.fed = self.settled_ms = 0

    def feed(self, pcm):
        self.fed += len(pcm) // 32
        found = []
        while self.fed - self.settled_ms >= 100:
            self.settled_ms += 100
            found.append(FinalText(f"word-{self.settled_ms}", self.settled_ms - 100, self.settled_ms))
        return found

    def finish(self):
        return []

    def abort(self):
        self.fed = self.settled_ms = 0
"""
SPEECH = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 500)]).tobytes()


def start(
    home: Path,
    journal: Path,
    loop: str,
    seed: int,
    calls: int,
    *,
    until_told: bool,
    engine: str = "whisper_local",
    planted: str = "",
) -> "subprocess.Popen[bytes]":
    """Start a process that has `calls` calls at a time, until it is killed, or told on its standard input to end. It may have a
    fault `planted`."""
    arguments = [loop, str(seed), str(calls), "until_told" if until_told else "for_ever", engine, planted]
    settings = {
        "HOME": str(home),
        "ON_STT_UNAVAILABLE": "record_only",
        "RECORDING_SEGMENT_SECONDS": "1",
        "ACCOUNT_SECONDS": "0.2",
        "RECOVERY_INTERVAL_SECONDS": "0.2",
        "LOG_LEVEL": "error",
    }
    with journal.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", SERVICE, *arguments],
            env={
                **os.environ,
                **{f"AGENTOS_VOICE_{name}": value for name, value in settings.items()},
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            stdin=subprocess.PIPE,
            stdout=out,
        )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End it as no handler can see, and wait until it is gone."""
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)


def until(condition: Callable[[], Any]) -> None:
    """Look until it is so; other processes are at it."""
    deadline = monotonic_ms() + PATIENCE_SECONDS * 1000
    while not condition():
        assert monotonic_ms() < deadline, "it did not come to be in time"
        sleep(0.01)


@dataclass
class Acknowledged:
    """What processes said was done: ids of durable records, sessions that were created, and the frames of those stopped; below
    which frame all were acknowledged as durable, and the utterances that listeners were told, with their frames."""

    stored: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    stopped: dict[str, int] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    heard: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    @classmethod
    def read(cls, journal: Path) -> "Acknowledged":
        """From a journal; a line that was cut off was not said."""
        found = cls()
        for line in journal.read_text().split("\n")[:-1]:
            match line.split():
                case ["stored", record_id]:
                    found.stored.add(record_id)
                case ["created", session_id]:
                    found.created.add(session_id)
                case ["stopped", session_id, frames]:
                    found.stopped[session_id] = int(frames)
                case ["durable", session_id, below]:
                    found.durable[session_id] = max(int(below), found.durable.get(session_id, 0))
                case ["heard", session_id, start_ms, end_ms, word]:
                    found.heard.setdefault(session_id, []).append((word, (int(end_ms) - int(start_ms)) // 20))
        return found


def check(home: Path, acknowledged: Acknowledged) -> list[VoiceSession]:
    """What holds once everything that died was recovered; the sessions."""
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:  # none, if it died before it made one
        found = store.verify()
        assert found.ok, found
        assert store.cross_check() == []
        records = store.evidence()
        assert store.unfinished() == {}
        sessions = {session.session_id: session for session in store.sessions()}
        events = {session_id: store.events(session_id) for session_id in sessions}
    assert acknowledged.stored <= {record.id for record in records}
    assert acknowledged.created <= sessions.keys()
    assert FileLocks(home).names() == []
    operations: dict[str, list[str]] = {}
    for record in records:
        operations.setdefault(record.request_id, []).append(record.operation)
    for session_id, session in sessions.items():
        assert operations[session_id][0] == "session_created"
        assert operations[session_id].index("session_stopped") == len(operations[session_id]) - 1
        _check_session(session)
        assert _is_true(session, acknowledged)
        recording = None if session.result is None else session.result.recording
        if recording is not None:
            assert operations.pop(recording.recording_id, None) == ["recording_ready"]
        if session_id in acknowledged.stopped:
            assert session.result is not None
            assert session.result.reason is EndReason.STOPPED
            assert session.result.frames.accepted == acknowledged.stopped[session_id]
        elif session.result is not None and session.result.reason is EndReason.RECOVERED:
            kinds = [event.event_type for event in events[session_id]]
            assert kinds[-2:] == [VoiceEventType.TRANSCRIPT_READY, VoiceEventType.SESSION_STOPPED]
            assert kinds.count(VoiceEventType.SESSION_STARTED) == kinds.count(VoiceEventType.SESSION_STOPPED) == 1
    assert operations.keys() == sessions.keys()
    return list(sessions.values())


def _check_session(session: VoiceSession) -> None:
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    frames = session.result.frames
    assert frames.accepted == frames.accounted + sum(frames.dropped.values())
    assert frames.accepted == frames.transcribed + sum(frames.untranscribed.values())
    if not session.recording_enabled or not frames.accepted:
        assert session.result.recording is None
        return
    assert session.result.recording is not None
    assert session.result.recording.state is RecordingState.READY
    assert session.result.recording.digest == frames.digest
    samples, rate = soundfile.read(session.result.recording.path, dtype="int16")
    assert rate == 16_000
    heard = samples.tobytes()
    for first, count in session.result.recording.gaps:  # what the process heard and did not keep, at the end
        assert (first + count) * 2 == len(heard)
        assert not any(heard[first * 2 :])
        heard = heard[: first * 2]
    assert heard == SPEECH[: len(heard)]
    assert frames.recorded == frames.accounted == -(-len(heard) // FRAME_BYTES)
    assert frames.digest == hashlib.sha256(heard).hexdigest()


def _is_true(session: VoiceSession, acknowledged: Acknowledged) -> bool:
    """P10, by what came out of the process while it lived: no frame of a recording that was called durable is lost (the disk
    took all), and the result says at least what listeners were told."""
    assert session.result is not None
    frames, heard = session.result.frames, acknowledged.heard.get(session.session_id, [])
    words = iter(session.result.transcript.split())
    return (
        frames.accounted >= acknowledged.durable.get(session.session_id, 0)
        and all(word in words for word, _ in heard)
        and frames.transcribed >= sum(count for _, count in heard)
    )


def grown(journal: Path, n_bytes: int) -> bool:
    return journal.stat().st_size > n_bytes


def all_ready(journal: Path, processes: int) -> bool:
    return journal.read_text().count("ready") == processes


def stopped_more(journal: Path, calls: int) -> bool:
    return len(Acknowledged.read(journal).stopped) > calls


def restart(home: Path) -> None:
    """A service that does nothing but recover."""
    with VoiceService(load_settings(home=home, recovery_interval_seconds=0.2, log_level="error")) as service:
        until(lambda: all(session.state is VoiceSessionState.STOPPED for session in service.list_sessions()))
        for session in service.list_sessions():
            service.recording(session.session_id)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A round of kills for each seed."""
    if "seed" in metafunc.fixturenames:
        rounds = -(-metafunc.config.getoption("kills") // KILLS_A_ROUND)
        metafunc.parametrize("seed", range(rounds), ids=[f"seed-{seed}" for seed in range(rounds)])


@pytest.mark.slow  # processes start and die for half a minute
@pytest.mark.timeout(400)
def test_nothing_that_was_acknowledged_is_lost_by_a_kill(seed: int, home: Path, tmp_path: Path) -> None:
    chance, journal = random.Random(seed), tmp_path / "journal"
    reasons: set[EndReason] = set()
    for number in range(KILLS_A_ROUND):
        loop = chance.choice(["asyncio", "trio"])
        process = start(home, journal, loop, chance.randrange(2**32), CALLS, until_told=False)
        try:
            told = journal.stat().st_size
            if chance.random() < 0.9:  # the others die while they start
                until(partial(grown, journal, told))
            sleep(chance.uniform(0, 1.2))
            assert process.poll() is None
        finally:
            kill(process)
        again = chance.choice(["next", "service", "command"])
        if again == "service" or number == KILLS_A_ROUND - 1:
            restart(home)
        elif again == "command":
            assert main(["recover", "--home", str(home)]) == 0
        else:
            continue  # the next process recovers, and may be killed over it
        sessions = check(home, Acknowledged.read(journal))
        reasons |= {session.result.reason for session in sessions if session.result is not None}
    assert {EndReason.STOPPED, EndReason.RECOVERED} <= reasons


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine that hears a word in every tenth of a second; its name."""
    folder = tmp_path / "plugin"
    (folder / "counting-1.dist-info").mkdir(parents=True)
    (folder / "counting-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    points = "[agentos_voice.stt]\ngoogle = counting_engine:counting\n"
    (folder / "counting-1.dist-info" / "entry_points.txt").write_text(points)
    (folder / "counting_engine.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(str(folder))
    return "google"


def killed_when_told(home: Path, journal: Path, loop: str, engine: str, planted: str = "") -> Acknowledged:
    """What a process had told when it was killed, soon after listeners heard of utterances."""
    told = len(Acknowledged.read(journal).heard) if journal.exists() else 0
    process = start(home, journal, loop, 1, CALLS, until_told=False, engine=engine, planted=planted)
    try:
        until(lambda: len(Acknowledged.read(journal).heard) > told)
    finally:
        kill(process)
    restart(home)
    return Acknowledged.read(journal)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_was_told_before_a_kill_is_true_after_it(home: Path, tmp_path: Path, counting: str) -> None:
    for loop in ("asyncio", "trio"):
        told = killed_when_told(home, tmp_path / "journal", loop, counting)
        check(home, told)
    assert told.heard
    assert any(told.durable.values())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("planted", ["words before they are stored", "acknowledged before it is kept"])
def test_what_was_told_too_early_is_found(home: Path, tmp_path: Path, counting: str, planted: str) -> None:
    told = killed_when_told(home, tmp_path / "journal", "asyncio", counting, planted)
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        sessions = store.sessions()
    assert not all(_is_true(session, told) for session in sessions)
    if planted.startswith("words"):
        told.heard.clear()
    else:
        told.durable.clear()
    assert all(_is_true(session, told) for session in sessions)


def test_three_processes_on_one_home_recover_and_go_on_without_forking_the_chain(home: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    processes = [
        start(home, journal, loop, seed, 4, until_told=True) for seed, loop in enumerate(("asyncio", "trio") * 2)
    ]
    try:
        until(partial(all_ready, journal, len(processes)))
        until(partial(stopped_more, journal, 4))
        for victim in (0, 1):  # three are left, then two and a new one: they recover what is left at the same time
            kill(processes[victim])
            before = len(Acknowledged.read(journal).stopped)
            until(partial(stopped_more, journal, before + 4))
            processes.append(start(home, journal, "trio", 10 + victim, 4, until_told=True))
        until(partial(all_ready, journal, len(processes)))
        living = processes[2:]
        for process in living:
            process.communicate(b"end\n", timeout=PATIENCE_SECONDS)
        assert [process.returncode for process in living] == [0] * len(living)
    finally:
        for process in processes:
            kill(process)
    restart(home)
    sessions = check(home, Acknowledged.read(journal))
    reasons = [session.result.reason for session in sessions if session.result is not None]
    assert reasons.count(EndReason.RECOVERED) >= 2  # what a victim had running is a matter of timing
