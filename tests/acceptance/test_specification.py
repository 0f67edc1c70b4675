"""The specification's own snippets run unchanged, in a fresh interpreter, from a file and from standard input."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent / "specification.md").read_text()
QUICK_START = re.search(r"## Quick Start\n+```python\n(.*?)```", TEXT, re.DOTALL)
TESTING = re.search(r"## Testing\n.*?```bash\n(python3 << 'EOF'\n.*?\nEOF)\n```", TEXT, re.DOTALL)
WORKER = "agentos.core.communication.voice.stt.worker"


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AGENTOS_VOICE_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def workers_of(home: Path) -> set[int]:
    """The worker processes that were started with this home."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = str(home) in (entry / "environ").read_text()
                if ours and WORKER in (entry / "cmdline").read_text():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def evidence(home: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(home / "voice.db")) as database:
        return [json.loads(record) for (record,) in database.execute("SELECT record FROM evidence ORDER BY seq")]


def run(command: list[str], home: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, env=environment(home), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def quick_start() -> str:
    assert QUICK_START is not None
    return QUICK_START.group(1)


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_the_quick_start_runs_unchanged(quick_start: str, way: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    if way == "file":
        script = tmp_path / "quick_start.py"
        script.write_text(quick_start)
        done = run([sys.executable, str(script)], home)
    else:
        done = run([sys.executable, "-"], home, quick_start)

    assert (done.returncode, done.stderr) == (0, "")
    records = evidence(home)
    assert [record["operation"] for record in records] == [
        "session_created",
        "session_active",
        "session_stopping",
        "session_stopped",
    ]
    frames = records[-1]["response_summary"]["result"]["frames"]  # type: ignore[index]
    assert (frames["accepted"], frames["bytes"], frames["leftover_bytes"]) == (
        1,
        2,
        1,
    )  # three bytes, one and a half samples
    assert workers_of(home) == set()


def test_the_testing_snippet_runs_unchanged_and_says_what_it_promises(tmp_path: Path) -> None:
    assert TESTING is not None
    done = run(["bash", "-c", TESTING.group(1)], tmp_path / "home")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"Session created: voice-[0-9a-f]+\nSession stopped successfully\n", done.stdout)


SPEAKING = """
from agentos.core.communication.voice import VoiceService, VoiceProvider, STTProvider
import soundfile
from agentos.core.communication.voice.samples import SAMPLE
print("main module runs")
service = VoiceService()
session = service.create_session("proj", VoiceProvider.LOCAL, STTProvider.WHISPER)
audio = soundfile.read(SAMPLE, dtype="int16")[0].tobytes()
for at in range(0, len(audio), 640):
    service.dispatch_audio_chunk(session.session_id, audio[at : at + 640])
service.stop_session(session.session_id)
print(service.get_session(session.session_id).result.transcript)
"""


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_script_without_a_main_guard_gets_its_words_and_leaves_no_process(way: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    script = tmp_path / "speaking.py"
    script.write_text(SPEAKING)
    command = [sys.executable, str(script)] if way == "file" else [sys.executable, "-"]
    done = run(command, home, None if way == "file" else SPEAKING)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "main module runs\ngo forward ten meters\n"
    assert workers_of(home) == set()


def test_every_name_of_the_specification_is_there() -> None:
    code = """
from agentos.core.communication.voice import (
    STTProvider, VoiceEvent, VoiceEventType, VoicePolicy, VoiceProvider, VoiceService, VoiceSession, VoiceSessionState,
)
from agentos.core.communication.voice.models import VoiceSession, VoiceEvent
from agentos.core.communication.voice.policy import VoicePolicy
from agentos.core.communication.voice.service import AsyncVoiceService, VoiceService
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.providers.local import LocalProvider
from agentos.core.communication.voice.providers.twilio import TwilioProvider
from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.models import ConnectorType, EvidenceRecord, PolicyVerdict, RequestStatus, RiskLevel
from agentos.core.time import utc_now, utc_now_ms
session_fields = {
    "session_id", "project_id", "provider", "stt_provider", "state", "created_at", "last_activity_at", "risk_tier",
    "policy_verdict", "audit_trace_id", "metadata",
}
assert session_fields <= set(VoiceSession.model_fields)
assert {"event_id", "session_id", "event_type", "payload", "timestamp_ms", "metadata"} <= set(VoiceEvent.model_fields)
assert {"id", "request_id", "connector_type", "operation", "request_summary", "response_summary", "status", "metadata",
        "created_at"} == set(EvidenceRecord.model_fields)
assert {"status", "reason_code", "hint", "metadata"} == set(PolicyVerdict.model_fields)
for enum in (VoiceProvider, STTProvider, VoiceSessionState, VoiceEventType, ConnectorType, RequestStatus, RiskLevel):
    assert all(isinstance(member, str) and member.value == member.value.lower() for member in enum)
assert STTProvider.WHISPER.value == "whisper_local"
assert {"WHISPER", "GOOGLE", "AZURE", "AWS", "POCKETSPHINX"} == {member.name for member in STTProvider}
assert [m.name for m in ConnectorType] == ["WEB_SEARCH", "WEB_FETCH", "RSS", "EMAIL_SMTP", "SLACK", "CUSTOM"]
assert RiskLevel.LOW < RiskLevel.MEDIUM < RiskLevel.HIGH < RiskLevel.CRITICAL
assert [m.name for m in RequestStatus] == [
    "PENDING", "APPROVED", "DENIED", "IN_PROGRESS", "SUCCESS", "FAILED", "RATE_LIMITED", "REQUIRE_ADMIN"]
for name in ("get_session_metadata", "validate_config", "on_session_created", "on_session_stopped"):
    assert callable(getattr(IVoiceProvider, name))
print("all there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "all there\n", "")
