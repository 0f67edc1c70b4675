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
from agentos.core.communication.voice.storage.ownership import owners
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.time import monotonic_ms
from machines.events import VoiceEventType
from machines.session import EndReason, VoiceSession, VoiceSessionState

PATIENCE_SECONDS = 150
CALLS = 20
KILLS_A_ROUND = 10
FRAME_BYTES = 640
SERVICE = """
import os, random, sys
from array import array
import anyio
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider
from agentos.core.communication.voice.storage.store import VoiceStore

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

async def call(service, ending):
    while not ending.is_set():
        metadata = {"recording_enabled": chance.random() < 0.5}
        session = await service.create_session("torture", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)
        journal("created", session.session_id)
        sent = 0
        for _ in range(chance.choice([0, 1, 3, 30, 100])):
            frames = min(chance.choice([1, 2, 5]), 500 - sent)
            await service.dispatch_audio_chunk(session.session_id, speech[sent * 640 : (sent + frames) * 640])
            sent += frames
            await anyio.sleep(chance.choice([0, 0.002, 0.02]))
        await service.stop_session(session.session_id)
        journal("stopped", session.session_id, str(sent))

async def main():
    ending = anyio.Event()
    async with AsyncVoiceService() as service, anyio.create_task_group() as group:
        journal("ready")
        for _ in range(calls):
            group.start_soon(call, service, ending)
        if until_told:
            await anyio.to_thread.run_sync(sys.stdin.readline)
            ending.set()

anyio.run(main, backend=loop)
"""
SPEECH = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(320 * 500)]).tobytes()


def start(
    home: Path, journal: Path, loop: str, seed: int, calls: int, *, until_told: bool
) -> "subprocess.Popen[bytes]":
    """Start a process that has `calls` calls at a time, until it is killed, or told on its standard input to end."""
    arguments = [loop, str(seed), str(calls), "until_told" if until_told else "for_ever"]
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
    """What processes said was done: ids of durable records, sessions that were created, and the frames of those stopped."""

    stored: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    stopped: dict[str, int] = field(default_factory=dict)

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
        return found


def check(home: Path, acknowledged: Acknowledged) -> list[VoiceSession]:
    """What holds once everything that died was recovered; the sessions."""
    with VoiceStore.open(home / "voice.db", busy_timeout_seconds=5) as store:  # none, if it died before it made one
        found = store.verify()
        assert found.ok, found
        records = store.evidence()
        assert store.unfinished() == {}
        sessions = {session.session_id: session for session in store.sessions()}
        events = {session_id: store.events(session_id) for session_id in sessions}
    assert acknowledged.stored <= {record.id for record in records}
    assert acknowledged.created <= sessions.keys()
    assert owners(home) == []
    operations: dict[str, list[str]] = {}
    for record in records:
        operations.setdefault(record.request_id, []).append(record.operation)
    for session_id, session in sessions.items():
        assert operations[session_id][0] == "session_created"
        assert operations[session_id].index("session_stopped") == len(operations[session_id]) - 1
        _check_session(session)
        if session_id in acknowledged.stopped:
            assert session.result is not None
            assert session.result.reason is EndReason.STOPPED
            assert session.result.frames.accepted == acknowledged.stopped[session_id]
        elif session.result is not None and session.result.reason is EndReason.RECOVERED:
            kinds = [event.event_type for event in events[session_id]]
            assert kinds[-2:] == [VoiceEventType.TRANSCRIPT_READY, VoiceEventType.SESSION_STOPPED]
            assert kinds.count(VoiceEventType.SESSION_STARTED) == kinds.count(VoiceEventType.SESSION_STOPPED) == 1
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
    samples, rate = soundfile.read(session.result.recording.path, dtype="int16")
    heard = samples.tobytes()
    assert rate == 16_000
    assert heard == SPEECH[: len(heard)]
    assert frames.recorded == frames.accounted == -(-len(heard) // FRAME_BYTES)
    assert frames.digest == hashlib.sha256(heard).hexdigest()


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
