"""kill -9 in the middle of calls: what was acknowledged is in evidence, closed segments play, the next start works."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService
from agentos.core.communication.voice.recording.packing import finished_steps
from agentos.core.communication.voice.recording.steps import taken
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from agentos.core.time import monotonic_ms

PATIENCE = 30
TALK = """
import sys, time
from array import array
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService

service = VoiceService()
session = service.create_session(
    "p", VoiceProvider.LOCAL, STTProvider(sys.argv[1]), {"recording_enabled": True}
)
print("created", session.session_id, flush=True)
for second in range(1000):
    for frame in range(second * 50, second * 50 + 50):
        samples = array("h", [(at * 7919) % 60_000 - 30_000 for at in range(frame * 320, frame * 320 + 320)])
        service.dispatch_audio_chunk(session.session_id, samples.tobytes())
    time.sleep(0.05)
"""
OPEN_AND_CLOSE = """
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService

service = VoiceService()
while True:
    session = service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
    print("created", session.session_id, flush=True)
    service.dispatch_audio_chunk(session.session_id, bytes(640))
    service.stop_session(session.session_id)
    print("stopped", session.session_id, flush=True)
"""


def start(code: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={
            **os.environ,
            "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
            "AGENTOS_VOICE_RECORDING_SEGMENT_SECONDS": "1",
            "AGENTOS_VOICE_ACCOUNT_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **variables,
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: "subprocess.Popen[str]") -> str:
    """End it as no handler can see; what it had said until then."""
    process.send_signal(signal.SIGKILL)
    told, _ = process.communicate(timeout=PATIENCE)
    return told


def until(condition: Callable[[], Any]) -> Any:
    deadline = monotonic_ms() + PATIENCE * 1000
    while not (found := condition()):
        assert monotonic_ms() < deadline, "it did not come to be in time"
        sleep(0.02)  # another process is doing it
    return found


def records(home: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home / "voice.db")) as database:
        return [json.loads(text) for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]


def verify(home: Path) -> int:
    with open_to_read(home / "voice.db") as store:
        found = store.verify()
        assert store.cross_check() == []
    assert found.ok, found
    return found.records


def spoken(samples: int) -> bytes:
    return array("h", [(at * 7919) % 60_000 - 30_000 for at in range(samples)]).tobytes()


def closed_segments(folder: Path) -> list[Path]:
    try:
        manifest = json.loads((folder / "recording.json").read_text())
    except FileNotFoundError:
        return []
    return [folder / segment["file"] for segment in manifest["segments"]]


@pytest.mark.parametrize("engine", [STTProvider.WHISPER, STTProvider.POCKETSPHINX])
@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_killed_in_the_middle_of_a_call(home: Path, kind: str, engine: STTProvider) -> None:
    process = start(TALK, engine.value, AGENTOS_VOICE_RECORDING_FORMAT=kind, AGENTOS_VOICE_STT_WORKERS="1")
    try:
        assert process.stdout is not None
        session_id = process.stdout.readline().split()[1]
        folder = home / "recordings" / session_id
        until(lambda: len(closed_segments(folder)) >= 3)
        until(lambda: sum(record["operation"] == "audio_accounted" for record in records(home)) >= 2)
        workers = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [pid for task in workers for pid in task.read_text().split()]
    finally:
        kill(process)
    assert bool(children) == (engine is STTProvider.POCKETSPHINX)

    found = records(home)
    assert verify(home) == len(found)
    operations = [record["operation"] for record in found]
    assert operations[:2] == ["session_created", "session_active"]
    accounted = [record["response_summary"] for record in found if record["operation"] == "audio_accounted"]

    segments = closed_segments(folder)
    heard = b""
    for segment in segments:
        samples, rate = soundfile.read(segment, dtype="int16")
        assert (rate, segment.suffix) == (16_000, f".{kind}")
        heard += samples.tobytes()
    assert len(heard) == len(segments) * 32_000
    assert heard == spoken(len(heard) // 2)

    # Packed they are one file, with what was written since the last was closed.
    whole = taken(finished_steps(folder, "flac"), lambda: True)
    assert whole is not None
    assert whole.samples >= len(heard) // 2
    samples, _ = soundfile.read(whole.path, dtype="int16")
    assert samples.tobytes() == spoken(whole.samples)
    assert accounted[-1]["bytes"] > 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))  # no worker outlives its service


def test_killed_while_sessions_come_and_go(home: Path) -> None:
    process = start(OPEN_AND_CLOSE)
    try:
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(41))
    finally:
        told += kill(process)
    acknowledged = [tuple(line.split()) for line in told.splitlines() if line.count(" ") == 1 and len(line) > 30]
    found = records(home)
    assert verify(home) == len(found)
    stored = {(record["operation"], record["request_id"]) for record in found}
    for what, session_id in acknowledged:
        assert (f"session_{what}", session_id) in stored

    with VoiceService(load_settings(home=home, on_stt_unavailable="record_only")) as service:
        for what, session_id in acknowledged:
            session = service.get_session(session_id)
            assert session is not None
            if what == "stopped":
                assert service.stop_session(session_id)
                assert session.result is not None
                assert session.result.frames.accepted == 1
        again = service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
        assert service.stop_session(again.session_id)
    assert verify(home) > len(found)
