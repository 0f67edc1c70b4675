"""What calls leave of their recordings becomes files, whoever runs, and evidence says what became of each."""

import errno
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import soundfile  # type: ignore[import-untyped]
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.recording import finishing as module
from agentos.core.communication.voice.recording.checks import check_recordings
from agentos.core.communication.voice.recording.finishing import Finishing, RecordingFinisher
from agentos.core.communication.voice.recording.manifest import MANIFEST, has_samples
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.sqlite.opening import migrations_folder
from agentos.core.communication.voice.storage.store import Entry
from machines.communication import RequestStatus
from machines.frozen import FrozenDict
from machines.recording import RecordingInfo, RecordingState
from machines.session import EndReason, FrameAccount, SessionResult, VoiceSession
from tests.voice.recovery.test_recovery import ACTIVE, STOPPED, Home, record, session, sound

FINISHING, READY, FAILED = RecordingState
WAIT_SECONDS = 20.0


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    with closing(home.store):
        yield home


def finishing(home: Home) -> Finishing:
    return Finishing(home.store, home.recordings, "flac")


def ended(home: Home, name: str = "1", frames: int = 120, *, gap: int = 0, named: bool = True) -> VoiceSession:
    """A session that has ended, with its segments, and one frame more behind a `gap`; without `named` as an older version left
    it."""
    of = session(name, ACTIVE, recording_enabled=True)
    home.leave(of)
    writer = home.write(of, sound(frames))
    if gap:
        writer.write(frames + gap, sound(1))
    info = writer.close()
    result = SessionResult(reason=EndReason.STOPPED, recording=info if named else None)
    stopped = of.model_copy(update={"state": STOPPED, "result": result})
    home.store.append([Entry(record(stopped, None), stopped)], "dead")
    return stopped


def recording(home: Home, of: VoiceSession) -> RecordingInfo | None:
    found = home.store.session(of.session_id)
    assert found is not None
    assert found.result is not None
    return found.result.recording


def ends(home: Home) -> list[tuple[str, str, Any]]:
    """What evidence says of recordings: under which id, what, and why."""
    found = [one for one in home.store.evidence() if one.operation.startswith("recording_")]
    return [(one.request_id, one.operation, (one.response_summary or {}).get("reason")) for one in found]


def names(home: Home, of: VoiceSession) -> set[str]:
    return {file.name for file in (home.recordings / of.session_id).iterdir()}


@contextmanager
def taken_by_another(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_it_is_one_file_and_on_record_under_its_own_id(left: Home) -> None:
    of = ended(left)
    before = recording(left, of)
    assert before is not None
    assert before.state is FINISHING
    assert left.store.unfinished_recordings() == [(of.session_id, before)]

    report = finishing(left).run()
    after = recording(left, of)
    assert after is not None
    assert (report.ready, report.failed, report.problems) == ((after,), (), {})
    assert (after.state, after.digest, after.samples) == (READY, before.digest, before.samples)
    heard, _ = soundfile.read(after.path, dtype="int16")
    assert heard.tobytes() == sound(120)
    assert names(left, of) == {"recording.flac", MANIFEST}
    assert left.store.sessions() == [left.store.session(of.session_id)] == left.store.session_page(None, None, 9, None)

    found = left.store.evidence(after.recording_id)
    assert [(one.operation, one.status) for one in found] == [("recording_ready", RequestStatus.SUCCESS)]
    assert found[0].request_summary == {"recording_id": after.recording_id, "session_id": of.session_id}
    assert found[0].response_summary == {
        "state": "ready",
        "sample_rate": 16_000,
        "channels": 1,
        "samples": 120 * 320,
        "gaps": [],
        "digest": after.digest,
    }
    assert "sealed" not in json.dumps(found[0].model_dump(mode="json")), "all of it may stand in the chain"
    assert left.store.evidence(of.session_id)[-1].operation == "session_stopped"
    assert left.store.verify().ok

    assert finishing(left).run().ready == ()
    assert len(ends(left)) == 1


def test_one_that_is_damaged_has_failed_and_what_there_is_stays(left: Home) -> None:
    of, other = ended(left, "1"), ended(left, "2")
    folder = left.recordings / of.session_id
    (folder / "000001.flac").write_bytes(b"fLaC")
    before = names(left, of)
    report = finishing(left).run()
    assert [one.state for one in (*report.ready, *report.failed)] == [READY, FAILED]
    after = recording(left, of)
    assert after is not None
    assert after.state is FAILED
    assert before - {"000002.wav"} <= names(left, of)
    assert (after.recording_id, "recording_failed", "damaged") in ends(left)
    assert [one.status for one in left.store.evidence(after.recording_id)] == [RequestStatus.FAILED]
    assert finishing(left).run().failed == ()
    assert left.store.failed_recordings() == [(of.session_id, after)]
    assert recording(left, other) == report.ready[0]


def test_samples_that_are_not_those_of_the_final_record_are_not_handed_out(left: Home) -> None:
    of = ended(left)
    folder = left.recordings / of.session_id
    soundfile.write(folder / "000000.flac", soundfile.read(folder / "000000.flac", dtype="int16")[0][::-1], 16_000)
    report = finishing(left).run()
    assert [one.state for one in report.failed] == [FAILED]
    assert not (folder / "recording.flac").exists()

    of = ended(left, "2")
    folder = left.recordings / of.session_id
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"digest": "0" * 64}))
    assert [one.state for one in finishing(left).run().failed] == [FAILED]

    of = ended(left, "3", 40)
    folder = left.recordings / of.session_id
    manifest = json.loads((folder / MANIFEST).read_text())
    soundfile.write(folder / "000000.wav", soundfile.read(folder / "000000.wav", dtype="int16")[0][::-1], 16_000)
    forged = sha256((folder / "000000.wav").read_bytes()[44:]).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest | {"digest": forged}))
    assert [one.state for one in finishing(left).run().failed] == [FAILED], (
        "it agrees with itself, and not with the record"
    )


def test_a_segment_of_another_rate_is_not_taken_for_the_one_that_was_written(left: Home) -> None:
    of = ended(left)
    segment = left.recordings / of.session_id / "000000.flac"
    soundfile.write(segment, soundfile.read(segment, dtype="int16")[0], 8_000)
    assert [one.state for one in finishing(left).run().failed] == [FAILED]


def test_sound_in_a_gap_was_never_written_and_is_not_handed_out(left: Home) -> None:
    of = ended(left, gap=20)
    file = left.recordings / of.session_id / "recording.flac"
    (info,) = finishing(left).run().ready
    assert info.gaps == ((120 * 320, 20 * 320),)
    assert check_recordings(left.store, left.recordings).mismatches == ()
    samples, rate = soundfile.read(file, dtype="int16")
    samples[130 * 320] = 1
    soundfile.write(file, samples, rate)
    assert [one.kind for one in check_recordings(left.store, left.recordings).mismatches] == ["recording-differs"]

    of = ended(left, "2", gap=20)
    with (left.recordings / of.session_id / "000002.wav").open("r+b") as segment:
        segment.seek(44 + (130 - 100) * 640)
        segment.write(b"\1\0")
    assert [one.state for one in finishing(left).run().failed] == [FAILED]


def test_samples_that_are_gone_have_failed_but_not_those_of_a_home_that_is_gone(left: Home) -> None:
    of = ended(left)
    left.recordings.rename(left.folder / "elsewhere")
    assert of.session_id in finishing(left).run().problems
    assert ends(left) == []
    (left.folder / "elsewhere").rename(left.recordings)
    for file in (left.recordings / of.session_id).iterdir():
        file.unlink()
    (left.recordings / of.session_id).rmdir()
    assert [one.state for one in finishing(left).run().failed] == [FAILED]
    assert [reason for _, _, reason in ends(left)] == ["gone"]


def test_a_full_disk_puts_it_off_and_loses_nothing(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    of, other = ended(left, "1"), ended(left, "2")
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if of.session_id in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        report = finishing(left).run()
    assert [one.path for one in report.ready] == [str(left.recordings / other.session_id / "recording.flac")]
    assert "No space left" in report.problems[of.session_id]
    assert [session_id for session_id, _ in left.store.unfinished_recordings()] == [of.session_id]
    assert "recording.flac" not in names(left, of)
    assert len(finishing(left).run().ready) == 1
    assert recording(left, of) is not None


def test_everything_is_on_the_disk_before_what_it_stands_for_goes(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left.recordings / "voice-1"
    synced: list[tuple[int, set[str]]] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        real(descriptor)
        synced.append((os.fstat(descriptor).st_ino, {file.name for file in folder.iterdir()}))

    monkeypatch.setattr(os, "fsync", noted)
    of = ended(left)
    assert folder == left.recordings / of.session_id
    assert (folder / "000002.wav").stat().st_ino in [inode for inode, _ in synced], "the end of the call"
    synced.clear()
    assert len(finishing(left).run().ready) == 1
    file, around = ((path.stat().st_ino) for path in (folder / "recording.flac", folder))
    assert any(inode == file and "recording.flac" not in there for inode, there in synced), "before it has its name"
    named = [there for inode, there in synced if inode == around and "recording.flac" in there]
    assert named, "its name"
    assert "000000.flac" in named[0]


def test_two_that_do_the_same_do_it_once(left: Home) -> None:
    of = ended(left)
    with taken_by_another(left.recordings / of.session_id):
        report = finishing(left).run()
        assert (report.ready, report.failed, report.problems) == ((), (), {})
    assert len(finishing(left).run().ready) == 1


def test_one_that_died_before_the_record_is_on_record_with_the_next(
    left: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ended(left)

    def down(*_: object) -> None:
        raise StoreError("the store is down", kind="io")

    with monkeypatch.context() as patched:
        patched.setattr(left.store, "append", down)
        assert "the store is down" in finishing(left).run().problems[of.session_id]
    assert names(left, of) == {"recording.flac", MANIFEST}
    assert len(finishing(left).run().ready) == 1
    assert len(ends(left)) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from agentos.core.communication.voice.recording.finishing import Finishing
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import VoiceStore
home, left = Path(sys.argv[1]), int(sys.argv[2])
def wanted():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
    Finishing(store, home / "recordings", "flac").run(wanted)
"""


def test_processes_that_are_killed_over_it_leave_it_to_the_next(left: Home) -> None:
    of = ended(left, frames=400)
    for step in (0, 3, 9, 14, 100):
        done = subprocess.run([sys.executable, "-c", KILLED, str(left.folder), str(step)], check=False, timeout=60)
        assert (names(left, of) >= {"recording.flac"}) or any(name[0] == "0" for name in names(left, of))
    assert done.returncode == 0, "the last one comes to its end"
    after = recording(left, of)
    assert after is not None
    assert after.state is READY
    assert soundfile.read(after.path, dtype="int16")[0].tobytes() == sound(400)
    assert done.returncode != -signal.SIGKILL


# Samples that no result names


def test_samples_of_a_stopped_session_that_its_result_does_not_name_are_named_and_finished(left: Home) -> None:
    """A version before this one left them so, when it could not join them in time."""
    of = ended(left, named=False)
    folder = left.recordings / of.session_id
    manifest = json.loads((folder / MANIFEST).read_text())
    for later in ("digest", "recording_id"):
        del manifest[later]
    manifest["segments"] = manifest["segments"][:-1]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert recording(left, of) is None
    assert finishing(left).unnamed() == {of.session_id: "dead"}

    with taken_by_another(folder):
        assert finishing(left).take_in() == {}
    assert finishing(left).unnamed() == {of.session_id: "dead"}, "another one closes it just now"
    assert finishing(left).take_in() == {}
    assert finishing(left).unnamed() == {}
    assert len(finishing(left).run().ready) == 1
    after = recording(left, of)
    assert after is not None
    assert (after.state, after.samples) == (READY, 120 * 320)
    assert soundfile.read(after.path, dtype="int16")[0].tobytes() == sound(120)
    assert [operation for _, operation, _ in ends(left)] == ["recording_ready"]
    assert left.store.evidence(of.session_id)[-1].operation == "session_stopped"


def test_samples_that_are_named_later_go_on_to_the_end_of_the_call(left: Home) -> None:
    of = session("1", ACTIVE, recording_enabled=True)
    left.leave(of)
    left.write(of, sound(30))
    frames = FrameAccount(accepted=45, accounted=30, dropped=FrozenDict(capture=15))
    stopped = of.model_copy(update={"state": STOPPED, "result": SessionResult(reason=EndReason.STOPPED, frames=frames)})
    left.store.append([Entry(record(stopped, None), stopped)], "dead")
    assert finishing(left).take_in() == {}
    (ready,) = finishing(left).run().ready
    assert (ready.samples, ready.gaps) == (45 * 320, ((30 * 320, 15 * 320),))
    assert soundfile.read(ready.path, dtype="int16")[0].tobytes() == sound(30) + bytes(15 * 640)


def test_a_joined_file_that_its_result_does_not_name_is_named(left: Home) -> None:
    of = ended(left)
    finishing(left).run()
    with closing(sqlite3.connect(left.store.place)) as connection, connection:
        connection.execute("DELETE FROM recordings")
        connection.execute("UPDATE sessions SET snapshot = json_set(snapshot, '$.result.recording', json('null'))")
    (left.recordings / of.session_id / MANIFEST).write_text(
        json.dumps(
            {"kind": "flac", "sample_rate": 16_000, "channels": 1, "segments": [{"file": "x", "samples": 38_400}]}
        )
    )
    assert finishing(left).unnamed() == {of.session_id: "dead"}
    finishing(left).take_in()
    assert [one.samples for one in finishing(left).run().ready] == [38_400]


def test_samples_of_the_living_and_of_nobody_are_left_alone(left: Home) -> None:
    of = ended(left, named=False)
    running = session("2", ACTIVE, recording_enabled=True)
    left.leave(running)
    left.write(running, sound(10))
    left.write(session("3"), sound(10))
    (left.recordings / "voice-4").mkdir()
    assert finishing(left).unnamed() == {of.session_id: "dead", "voice-3": None}
    ownership = FileLocks(left.folder).take("dead")
    assert finishing(left).take_in() == {}
    assert finishing(left).unnamed() == {of.session_id: "dead", "voice-3": None}
    ownership.release()
    finishing(left).take_in()
    assert finishing(left).unnamed() == {"voice-3": None}


def test_nothing_of_a_session_is_settled_before_its_final_record_is_stored(left: Home) -> None:
    running = session("1", ACTIVE, recording_enabled=True)
    left.leave(running)
    left.write(running, sound(10))
    before = names(left, running)
    assert not finishing(left).take_up(running.session_id)
    assert not finishing(left).take_up("voice-9")
    assert names(left, running) == before
    assert left.store.unfinished_recordings() == []
    of = ended(left, "2", named=False)
    assert finishing(left).take_up(of.session_id)
    assert [session_id for session_id, _ in left.store.unfinished_recordings()] == [of.session_id]


def test_a_folder_that_can_not_be_looked_into_keeps_none_of_the_others(
    left: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ended(left, named=False)
    (left.recordings / "lost+found").mkdir()

    def look(folder: Path) -> bool:
        if folder.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return has_samples(folder)

    monkeypatch.setattr("agentos.core.communication.voice.recording.finishing.has_samples", look)
    assert finishing(left).unnamed() == {of.session_id: "dead", "lost+found": None}
    assert finishing(left).take_in() == {}
    assert finishing(left).unnamed() == {"lost+found": None}


def test_what_can_not_be_named_is_told(left: Home) -> None:
    of = ended(left, named=False)
    (left.recordings / of.session_id / MANIFEST).write_text("{")
    assert "damaged" in finishing(left).take_in()[of.session_id]
    assert finishing(left).unnamed() == {of.session_id: "dead"}


def test_a_database_of_the_version_before_is_brought_up_to_date_and_can_be_looked_at(left: Home) -> None:
    of = ended(left, named=False)
    engine = sa.create_engine(f"sqlite:///{left.folder / 'voice.db'}")
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
    engine.dispose()
    with open_to_read(left.folder / "voice.db") as store:
        assert store.session(of.session_id) == of
        assert store.sessions() == [of]
        assert store.unfinished_recordings() == store.failed_recordings() == []
        assert Finishing(store, left.recordings, "flac").unnamed() == {of.session_id: "dead"}
    with open_store(left.folder / "voice.db", busy_timeout_seconds=5) as store:
        again = Finishing(store, left.recordings, "flac")
        again.take_in()
        assert len(again.run().ready) == 1


# In a thread


def until(condition: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(int(WAIT_SECONDS * 100)):
        if condition():
            return
        done.wait(0.01)  # a thread is at it
    pytest.fail("it did not come to that")


def state(home: Home, of: VoiceSession) -> RecordingState | None:
    found = recording(home, of)
    return None if found is None else found.state


def test_it_finishes_what_it_finds_and_what_comes(left: Home) -> None:
    older, found = ended(left, "1", named=False), ended(left, "2")
    finisher = RecordingFinisher(finishing(left), 3_600)
    told: list[str] = []
    finisher.start()
    try:
        until(lambda: state(left, older) is state(left, found) is READY)
        foreign = ended(left, "5")  # another process's, which nudges nobody here
        with finisher.told(foreign.session_id, lambda: None):
            until(lambda: state(left, foreign) is READY)
        coming, other = ended(left, "3"), ended(left, "4")
        with (
            finisher.told(coming.session_id, lambda: told.append("3")),
            finisher.told("voice-9", lambda: told.append("9")),
        ):
            finisher.nudge()
            until(lambda: state(left, coming) is state(left, other) is READY)
            until(lambda: told == ["3"])
            assert finisher.close(WAIT_SECONDS)
            assert told == ["3", "3", "9"], "who waits at its end waits for nothing any more"
    finally:
        assert finisher.close(WAIT_SECONDS)


def test_what_is_still_written_is_left_alone_and_what_the_disk_refuses_is_put_off(
    left: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, written, tries = finishing(left), [True], list[str]()

    def take_up(session_id: str, _: object) -> bool:
        tries.append(session_id)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    finisher = RecordingFinisher(work, 3_600, writing=lambda _: written[0])
    with monkeypatch.context() as patched:
        patched.setattr(work, "take_up", take_up)
        finisher.expect("voice-1")
        finisher._take_up()
        assert tries == []
        written[0] = False
        for _ in range(2):
            finisher._take_up()
        assert tries == ["voice-1"], "the second time it is left for the next interval"
        assert finisher.expects("voice-1")
    ended(left, named=False)
    finisher._put_off.clear()
    finisher._take_up()
    assert not finisher.expects("voice-1")
    assert len(work.run().ready) == 1


def test_it_rests_after_its_work_unless_somebody_waits(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    now, rests = [0], list[float]()
    monkeypatch.setattr(module, "monotonic_ms", lambda: now[0])
    monkeypatch.setattr(module, "sleep", rests.append)
    finisher = RecordingFinisher(finishing(left), 3_600)
    for worked_ms in (1, 9, 1_000):
        now[0] += worked_ms
        assert finisher._wanted()
    assert rests == [0.02, 0.1]
    with finisher.told("voice-1", lambda: None):
        now[0] += 1_000
        assert finisher._wanted()
    assert rests == [0.02, 0.1]
    now[0] += 1_000
    assert finisher._wanted()
    assert rests == [0.02, 0.1, 0.1]


def test_one_that_can_not_be_told_any_more_keeps_nobody_from_it(left: Home) -> None:
    of, other = ended(left, "1"), ended(left, "2")
    finisher, told = RecordingFinisher(finishing(left), 3_600), threading.Event()

    def over() -> None:
        raise RuntimeError("Event loop is closed")

    with finisher.told(of.session_id, over), finisher.told(of.session_id, told.set):
        finisher.start()
        try:
            assert told.wait(WAIT_SECONDS)
            until(lambda: state(left, other) is READY)
        finally:
            assert finisher.close(WAIT_SECONDS)


def test_its_end_waits_for_no_recording(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    of = ended(left)
    begun = threading.Event()

    def endless(*_: object) -> Generator[None, None, None]:
        begun.set()
        while True:
            yield

    with monkeypatch.context() as patched:
        patched.setattr(module, "finished_steps", endless)
        finisher = RecordingFinisher(finishing(left), 3_600)
        finisher.start()
        assert begun.wait(WAIT_SECONDS)
        assert finisher.close(WAIT_SECONDS)
    assert state(left, of) is FINISHING
    assert len(finishing(left).run().ready) == 1
    assert RecordingFinisher(finishing(left), 1).close(0)


def test_what_keeps_it_is_said_once_and_tried_again(
    left: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    of = ended(left)
    tries: list[object] = []
    room = threading.Event()
    real = module.finished_steps

    def full(folder: Path, kind: Any, digest: str) -> Any:
        tries.append(folder)
        if not room.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(folder, kind, digest)

    monkeypatch.setattr(module, "finished_steps", full)
    finisher = RecordingFinisher(finishing(left), 0.05)
    finisher.start()
    try:
        until(lambda: len(tries) > 3)
        room.set()
        until(lambda: state(left, of) is READY)
    finally:
        assert finisher.close(WAIT_SECONDS)
    said = [one.getMessage() for one in caplog.records if "recording_put_off" in one.getMessage()]
    assert len(said) == 1
    assert of.session_id in said[0]


def test_what_was_put_off_is_left_aside_until_the_interval_is_over(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    of = ended(left)
    tries: list[str] = []
    real = module.finished_steps

    def full(folder: Path, *of_it: Any) -> Any:
        tries.append(folder.name)
        if folder.name == of.session_id:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(folder, *of_it)

    monkeypatch.setattr(module, "finished_steps", full)
    finisher = RecordingFinisher(finishing(left), 3_600)
    finisher.start()
    try:
        until(lambda: tries == [of.session_id])
        other = ended(left, "2")
        finisher.nudge()
        until(lambda: state(left, other) is READY)
    finally:
        assert finisher.close(WAIT_SECONDS)
    assert tries == [of.session_id, other.session_id]


def test_samples_that_can_not_be_named_yet_are_tried_again(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    of = ended(left, named=False)
    tries: list[object] = []
    real = module.closed_steps

    def full(folder: Path, *of_it: Any) -> Any:
        tries.append(folder)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(folder, *of_it)

    monkeypatch.setattr(module, "closed_steps", full)
    finisher = RecordingFinisher(finishing(left), 0.05)
    finisher.start()
    try:
        until(lambda: recording(left, of) is not None and state(left, of) is READY)
        n = len(tries)
    finally:
        assert finisher.close(WAIT_SECONDS)
    assert len(tries) == n == 3, "once all are named nobody looks for more"
