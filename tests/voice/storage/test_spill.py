"""The spill file: what was acknowledged is read back exactly, what was torn is not, and a full disk doesn't stop it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.spill import HEADER, SpillFile, SpillFull
from agentos.core.communication.voice.storage.store import BadEntry, Entry
from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord, canonical_json
from machines.framing import FRAME, framed
from machines.recording import RecordingInfo
from machines.session import (
    EndReason,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)

BORN = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)
SIZE = 64 * 1024


def entry(name: str = "ev-1", **summary: object) -> Entry:
    record = EvidenceRecord(
        id=name,
        request_id="voice-1",
        connector_type=ConnectorType.CUSTOM,
        operation="voice.session.stopped",
        request_summary=summary,
        created_at=BORN,
    )
    recording = RecordingInfo(
        path="a.flac", sample_rate=16_000, channels=1, samples=9, seconds=0.1, segments=1, gaps=((1, 2), (5, 1))
    )
    session = VoiceSession(
        session_id="voice-1",
        project_id="p",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.POCKETSPHINX,
        state=VoiceSessionState.STOPPED,
        created_at=BORN,
        last_activity_at=BORN,
        risk_tier=RiskLevel.LOW,
        policy_verdict=PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK", metadata={"factors": ["a"]}),
        audit_trace_id="audit-1",
        metadata={"user": {"tags": ["a", "b"]}},
        result=SessionResult(reason=EndReason.IDLE, transcript="grüße", recording=recording, stopped_at=BORN),
    )
    event = VoiceEvent(
        event_id="evt-1",
        session_id="voice-1",
        event_type=VoiceEventType.SESSION_STOPPED,
        payload={"words": [{"at": 1.5}]},
        timestamp_ms=1,
        number=9,
    )
    return Entry(record, session, (event,))


def test_entries_come_back_exactly_and_in_order(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        assert spill.entries() == []
        spill.add([entry("ev-1"), entry("ev-2")])
        spill.add([Entry(entry("ev-3").record)])
        assert spill.entries() == [entry("ev-1"), entry("ev-2"), Entry(entry("ev-3").record)]
        assert spill.count == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(summary=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_record_keeps_its_canonical_text(
    tmp_path_factory: pytest.TempPathFactory, summary: dict[str, object]
) -> None:
    with SpillFile.open(tmp_path_factory.mktemp("any"), "me", SIZE) as spill:
        put = Entry(entry().record.model_copy(update={"request_summary": summary}))
        spill.add([put])
        [found] = spill.entries()
        assert canonical_json(found.record) == canonical_json(put.record)
        spill.clear()


def test_a_reopened_file_goes_on_behind_its_entries(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        spill.add([entry("ev-1")])
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        assert spill.count == 1
        spill.add([entry("ev-2")])
        assert spill.entries() == [entry("ev-1"), entry("ev-2")]


def test_the_file_is_private_and_its_space_is_taken_at_once(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        found = spill.path.stat()
        assert found.st_mode & 0o777 == 0o600
        assert found.st_size == SIZE
        assert found.st_blocks * 512 >= SIZE
        assert [item.name for item in tmp_path.iterdir()] == ["me.spill"]


def test_an_empty_file_is_removed_at_the_close_a_used_one_is_kept(tmp_path: Path) -> None:
    SpillFile.open(tmp_path, "empty", SIZE).close()
    with SpillFile.open(tmp_path, "cleared", SIZE) as spill:
        spill.add([entry()])
        spill.clear()
    with SpillFile.open(tmp_path, "used", SIZE) as spill:
        spill.add([entry()])
    spill.close()
    assert [item.name for item in tmp_path.iterdir()] == ["used.spill"]
    with pytest.raises(StoreError, match="closed"):
        spill.add([entry()])


@pytest.mark.parametrize("cut", ["in the payload", "in the frame head", "a bit is wrong"])
def test_a_torn_tail_ends_the_reading_and_is_written_over(tmp_path: Path, cut: str) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        spill.add([entry("ev-1")])
        first_end = spill._end
        spill.add([entry("ev-2")])
        path = spill.path
    data = bytearray(path.read_bytes())
    if cut == "a bit is wrong":
        data[first_end + FRAME.size + 20] ^= 1
    else:
        data[first_end + (3 if cut == "in the frame head" else 100) :] = b""
    path.write_bytes(data)
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        assert spill.entries() == [entry("ev-1")]
        spill.add([entry("ev-3")])
        assert spill.entries() == [entry("ev-1"), entry("ev-3")]
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        assert spill.entries() == [entry("ev-1"), entry("ev-3")]


def test_cleared_entries_never_come_back(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        spill.add([entry("ev-1"), entry("ev-2"), entry("ev-3")])
        spill.clear()
        assert (spill.count, spill.entries()) == (0, [])
        spill.add([entry("ev-4")])  # as long as ev-1, so the frame of ev-2 begins right behind it
        assert spill.entries() == [entry("ev-4")]
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        assert spill.entries() == [entry("ev-4")]


def test_the_bound_holds_and_what_is_in_stays(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", 8192) as spill:
        added = 0
        refused: SpillFull | None = None
        while refused is None:
            try:
                spill.add([entry(f"ev-{added}"), entry(f"ev-{added + 1}")])
                added += 2
            except SpillFull as full:
                refused = full
        assert isinstance(refused, StoreError)
        assert (refused.kind, refused.max_bytes) == ("full", 8192)
        assert 0 < added < 100
        assert [item.record.id for item in spill.entries()] == [f"ev-{at}" for at in range(added)]
        assert spill.path.stat().st_size == 8192
        spill.clear()
        spill.add([entry()])


def test_a_bad_entry_is_named_and_nothing_is_added(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        with pytest.raises(BadEntry) as caught:
            spill.add([entry("ev-1"), entry("ev-bad", thing=object())])
        assert caught.value.record_id == "ev-bad"
        assert spill.entries() == []


@pytest.mark.parametrize("owner", ["", "../evil", ".hidden", "a/b", "x" * 129, "a\n"])
def test_a_bad_owner_is_refused(tmp_path: Path, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        SpillFile.open(tmp_path, owner, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        SpillFile.open(tmp_path, "me", 1)


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "me.spill").write_text("something else entirely")
    with pytest.raises(StoreError) as caught:
        SpillFile.open(tmp_path, "me", SIZE)
    assert caught.value.kind == "corrupt"
    assert SpillFile.orphans(tmp_path) == []
    assert (tmp_path / "me.spill").read_text() == "something else entirely"


def test_a_whole_frame_that_is_no_entry_is_an_error(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        payload = b'{"of a later version": true}'
        os.pwrite(spill._opened(), framed(payload, spill._generation), HEADER.size)
        with pytest.raises(StoreError, match="can't read") as caught:
            spill.entries()
        assert caught.value.kind == "corrupt"


def test_a_full_disk_does_not_stop_an_open_spill_file(small_disk: Path, fill_disk: Callable[[], Path]) -> None:
    with SpillFile.open(small_disk, "me", SIZE) as spill:
        fill_disk()
        spill.add([entry(f"ev-{at}") for at in range(20)])
        assert len(spill.entries()) == 20
        with pytest.raises(StoreError) as caught:
            SpillFile.open(small_disk, "other", SIZE)
        assert caught.value.kind == "full"
        assert not (small_disk / "other.spill").exists()


# Owners and orphans

HOLDING = """
import sys, time
from pathlib import Path
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import Entry
from machines.evidence import EvidenceRecord

spill = SpillFile.open(Path(sys.argv[1]), "other", 65536)
spill.add([Entry(EvidenceRecord(id="ev-other", request_id="voice-1", connector_type="custom", operation="test",
                                created_at="2026-11-22T12:00:00Z"))])
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_file_is_an_orphan_only_when_its_process_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert SpillFile.orphans(tmp_path) == []
        with pytest.raises(StoreError, match="another process") as caught:
            SpillFile.open(tmp_path, "other", SIZE)
        assert caught.value.kind == "locked"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    [orphan] = SpillFile.orphans(tmp_path)
    assert orphan.owner == "other"
    assert [item.record.id for item in orphan.entries()] == ["ev-other"]
    assert SpillFile.orphans(tmp_path) == []  # it is ours now
    orphan.clear()
    orphan.close()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_one_dead_owner_is_taken(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "other", SIZE) as spill:
        spill.add([entry()])
        with pytest.raises(StoreError, match="another process") as caught:
            SpillFile.orphan(tmp_path, "other")
        assert caught.value.kind == "locked"
    orphan = SpillFile.orphan(tmp_path, "other")
    assert orphan is not None
    assert orphan.entries() == [entry()]
    orphan.clear()
    orphan.close()
    assert SpillFile.orphan(tmp_path, "other") is None
    (tmp_path / "other.spill").write_bytes(b"of another version")
    with pytest.raises(StoreError, match="no spill file of this version") as caught:
        SpillFile.orphan(tmp_path, "other")
    assert caught.value.kind == "corrupt"
    (tmp_path / "home").mkdir()
    assert SpillFile.orphan(tmp_path / "home", "../other") is None


def test_the_own_file_is_no_orphan(tmp_path: Path) -> None:
    with SpillFile.open(tmp_path, "me", SIZE) as spill:
        spill.add([entry()])
        assert SpillFile.orphans(tmp_path) == []


def test_a_folder_without_spill_files_has_no_orphans(tmp_path: Path) -> None:
    assert SpillFile.orphans(tmp_path) == []
    assert SpillFile.orphans(tmp_path / "missing") == []
