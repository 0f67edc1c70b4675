"""Two processes on one home: one chain, and neither touches the other's sessions."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService, VoiceSessionState
from agentos.core.communication.voice.errors import InvalidState
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_to_read

PATIENCE = 60
MANY_CALLS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService

with VoiceService() as service:
    print("ready", flush=True)
    sys.stdin.readline()

    def call(number):
        session = service.create_session(sys.argv[1], VoiceProvider.LOCAL, STTProvider.WHISPER, {"number": number})
        for _ in range(10):
            service.dispatch_audio_chunk(session.session_id, bytes(640))
        assert service.stop_session(session.session_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(40)))
    assert service.statistics().store.failed == 0
"""
ONE_CALL = """
import sys
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService

with VoiceService() as service:
    session = service.create_session("theirs", VoiceProvider.LOCAL, STTProvider.WHISPER)
    service.dispatch_audio_chunk(session.session_id, bytes(6400))
    print(session.session_id, flush=True)
    sys.stdin.readline()
    service.dispatch_audio_chunk(session.session_id, bytes(6400))
    print(service.get_session(session.session_id).state.value, service.stop_session(session.session_id), flush=True)
    print(service.get_session(session.session_id).result.frames.accepted, flush=True)
"""


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={
            **os.environ,
            "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def verify(home: Path) -> int:
    with open_to_read(home / "voice.db") as store:
        found = store.verify()
        assert store.cross_check() == []
    assert found.ok, found
    return found.records


def test_their_calls_make_one_chain(home: Path) -> None:
    both = [start(MANY_CALLS, project) for project in ("one", "two")]  # the home and its tables are new to both
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=PATIENCE)
    assert [process.returncode for process in both] == [0, 0]
    with closing(sqlite3.connect(home / "voice.db")) as database:
        found = [json.loads(text) for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]
    assert verify(home) == len(found) == 2 * 40 * 4
    of_session: dict[str, list[str]] = {}
    for record in found:
        of_session.setdefault(record["request_id"], []).append(record["operation"])
    assert len(of_session) == 80
    assert all(
        operations == ["session_created", "session_active", "session_stopping", "session_stopped"]
        for operations in of_session.values()
    )
    projects = [record["request_summary"]["project_id"] for record in found]
    assert projects != sorted(projects)  # they were at it at the same time
    with VoiceService(load_settings(home=home)) as service:
        assert len(service.list_sessions("one", VoiceSessionState.STOPPED)) == 40
        assert len(service.list_sessions(state=VoiceSessionState.STOPPED)) == 80
    assert list(home.glob("*.spill")) == []


def test_neither_touches_the_sessions_of_the_other(home: Path) -> None:
    other = start(ONE_CALL)
    try:
        assert other.stdout is not None
        assert other.stdin is not None
        theirs = other.stdout.readline().strip()
        with VoiceService(load_settings(home=home, on_stt_unavailable="record_only")) as service:
            ours = service.create_session("ours", VoiceProvider.LOCAL, STTProvider.WHISPER)
            seen = service.get_session(theirs)
            assert seen is not None
            assert seen.project_id == "theirs"
            assert [session.session_id for session in service.list_active_sessions()] == [ours.session_id]
            assert {session.session_id for session in service.list_sessions()} == {theirs, ours.session_id}
            assert service.stop_session(theirs) is False
            with pytest.raises(InvalidState, match="another process"):
                service.dispatch_audio_chunk(theirs, bytes(640))
        other.stdin.write("go on\n")
        other.stdin.flush()
        told, _ = other.communicate(timeout=PATIENCE)
    finally:
        other.kill()
        other.wait(PATIENCE)
    assert told.split() == ["active", "True", "20"]
    with EvidenceLogger(home / "voice.db") as log:
        assert [record.operation for record in log.get_request_evidence(theirs)] == [
            "session_created",
            "session_active",
            "session_stopping",
            "session_stopped",
        ]
    verify(home)
