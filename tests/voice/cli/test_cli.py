"""The command line as a user runs it: a process of its own, real files, a real worker, a temporary home."""

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import pytest
import soundfile

from agentos.core.communication.voice import errors
from agentos.core.communication.voice.cli import EXIT_CODES, app, main
from agentos.core.communication.voice.cli.exits import exit_code
from agentos.core.communication.voice.cli.sessions import StateName
from agentos.core.communication.voice.errors import StoreError, VoiceError
from agentos.core.communication.voice.samples import SAMPLE, SAMPLE_TEXT
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.time import monotonic_ms
from machines.session import VoiceSessionState

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "agentos.core.communication.voice.cli"]
SENSITIVE = '{"sensitive_data": true, "international_call": true}'
LIMIT_SECONDS = 60

Done = subprocess.CompletedProcess[str]


def environment(**variables: str) -> dict[str, str]:
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in paths if path),
        **variables,
    }


def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Done:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode in EXIT_CODES
    return done


def run_here(*arguments: str | Path, **variables: str) -> Done:
    """The same in this process, which saves the imports: for what needs no call."""
    output, complaint = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, variables), redirect_stdout(output), redirect_stderr(complaint):
        code = main([*map(str, arguments)])
    assert "Traceback" not in complaint.getvalue() + output.getvalue()
    assert code in EXIT_CODES
    return Done(arguments, code, output.getvalue(), complaint.getvalue())


def told(*arguments: str | Path, code: int = 0, run: Callable[..., Done] = run, **variables: str) -> dict[str, Any]:
    """The one object that a command prints with `--json`; stdout holds nothing else."""
    done = run(*arguments, "--json", **variables)
    assert done.returncode == code, done.stdout + done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def problem(done: Done) -> str:
    """The one line on stderr."""
    assert done.stderr.startswith("agentos-voice: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("agentos-voice: ").strip()


def tone(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    at = np.arange(int(seconds * rate)) / rate
    samples = np.stack([0.3 * np.sin(2 * np.pi * (220 + 110 * channel) * at) for channel in range(channels)], axis=1)
    soundfile.write(path, (samples * 32_767).astype(np.int16), rate)
    return path


@contextmanager
def running(*arguments: str | Path, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object]) -> None:
    deadline_ms = monotonic_ms() + LIMIT_SECONDS * 1000
    while not condition():
        assert monotonic_ms() < deadline_ms
        time.sleep(0.02)


def frames_hold(frames: dict[str, Any]) -> bool:
    accepted = frames["accepted"]
    return bool(
        accepted == frames["accounted"] + sum(frames["dropped"].values())
        and accepted == frames["transcribed"] + sum(frames["untranscribed"].values())
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home with one call and one token in it, for commands that only read: its variable, and the ids."""
    folder = tmp_path_factory.mktemp("kept") / "home"
    done = told("call", "--fast", "--project", "shop", AGENTOS_VOICE_HOME=str(folder))
    token = told("token", "create", "laptop", "--role", "admin", run=run_here, AGENTOS_VOICE_HOME=str(folder))
    return {"home": str(folder), "session": done["session_id"], "token": token["id"], "head": done["evidence"]["head"]}


# --- a call --------------------------------------------------------------------------------------------------------


def test_a_call_without_a_file_plays_the_sample_and_tells_what_it_says(home: Path) -> None:
    done = run("call", "--fast")
    assert done.returncode == 0
    assert done.stderr == ""
    said = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert said["said"] == SAMPLE_TEXT
    assert "94 accepted, 94 accounted, 94 recorded, 0 dropped, 94 transcribed, 0 not" in said["frames"]
    assert "verified" in said["evidence"]
    assert said["recording"].startswith(str(home))
    assert said["recorded"] == "1.87 s"
    assert "\x1b" not in done.stdout


def test_the_json_object_of_a_call_has_the_whole_result(home: Path) -> None:
    result = told("call", "--fast")
    assert result["session_id"].startswith("voice-")
    assert result["transcript"] == SAMPLE_TEXT
    assert result["state"] == "stopped"
    assert result["reason"] == "stopped"
    assert result["stt_engine"] == "pocketsphinx"
    assert result["seconds"] == 1.87
    assert frames_hold(result["frames"])
    assert result["frames"]["accepted"] == 94
    assert result["quality"]["peak_dbfs"] < 0
    assert result["recording"] == result["recording_info"]["path"]
    evidence = result["evidence"]
    assert evidence["verified"] is True
    assert evidence["records"] == evidence["chain_records"] - 1 == 4, "the other one is that of the recording"
    assert evidence["database"] == str(home / "voice.db")
    verified = told("evidence", "verify")
    assert (verified["records"], verified["head"]) == (evidence["chain_records"], evidence["head"])


def test_the_recording_holds_the_samples_that_went_in_bit_for_bit() -> None:
    result = told("call", SAMPLE, "--fast", "--loop", "trio")
    played, rate = soundfile.read(SAMPLE, dtype="int16")
    recorded, recorded_rate = soundfile.read(result["recording"], dtype="int16")
    assert (recorded_rate, rate) == (16_000, 16_000)
    assert np.array_equal(played, recorded)


def test_another_rate_and_stereo_come_out_with_the_resampled_length(tmp_path: Path) -> None:
    path = tone(tmp_path / "stereo.wav", 1.0, rate=44_100, channels=2)
    result = told("call", path, "--fast")
    recorded, rate = soundfile.read(result["recording"], always_2d=True)
    assert (rate, recorded.shape[1]) == (16_000, 1)
    assert abs(len(recorded) - 44_100 * 16_000 / 44_100) <= 1
    assert frames_hold(result["frames"])


def test_an_ogg_file_is_played(tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLE)
    path = tmp_path / "speech.ogg"
    soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS")
    result = told("call", path, "--fast")
    assert "forward" in result["transcript"]
    assert result["frames"]["accepted"] == 94


def test_in_real_time_a_call_lasts_at_least_as_long_as_its_file(tmp_path: Path) -> None:
    result = told("call", tone(tmp_path / "half.wav", 0.5))
    assert result["took_seconds"] >= result["seconds"] == 0.5


def test_without_recording_nothing_is_recorded(home: Path) -> None:
    result = told("call", "--fast", "--no-record")
    assert result["recording"] is None
    assert result["frames"]["recorded"] == 0
    assert result["risk_tier"] == "low"
    assert not list(home.rglob("*.flac"))


def test_an_engine_that_is_not_there_is_replaced_and_the_call_says_so() -> None:
    result = told("call", "--fast", "--stt", "azure")
    assert (result["stt_provider"], result["stt_engine"]) == ("azure", "pocketsphinx")
    assert "azure" in result["stt_fallback"]


def test_an_engine_that_may_not_be_replaced_is_not_available() -> None:
    result = told("call", "--fast", "--stt", "azure", code=5, AGENTOS_VOICE_ON_STT_UNAVAILABLE="refuse")
    assert result["error"]["type"] == "STTUnavailable"


def test_a_call_that_lasts_too_long_ends_and_says_so(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", 20.0)
    result = told("call", path, code=1, AGENTOS_VOICE_MAX_SESSION_SECONDS="0.5")
    assert result["reason"] == "overrun"
    assert 0 < result["seconds"] < 20
    assert frames_hold(result["frames"])


def test_a_call_in_which_nobody_speaks_ends_and_says_so(tmp_path: Path) -> None:
    options = ("--silence-timeout", "0.4", "--stt", "azure")
    result = told(
        "call", tone(tmp_path / "hum.wav", 20.0), *options, code=1, AGENTOS_VOICE_ON_STT_UNAVAILABLE="record_only"
    )
    assert result["reason"] == "silence"
    assert 0 < result["seconds"] < 20
    wrong = told("call", "--fast", "--silence-timeout", "0", code=2)
    assert wrong["error"]["field"] == "silence_timeout_seconds"


def empty(path: Path) -> None:
    path.touch()


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.int16), 16_000)


def cut(path: Path) -> None:
    tone(path, 1.0)
    path.write_bytes(path.read_bytes()[:-1000])


def no_audio(path: Path) -> None:
    path.write_text("This is no sound, whatever its name says.\n" * 50)


def missing(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [empty, no_samples, cut, no_audio, missing, folder])
def test_a_file_that_can_not_be_played_is_refused_before_anything_is_made(
    make: Callable[[Path], None], tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "input.wav"
    make(path)
    done = run_here("call", path, "--fast")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "input.wav" in problem(done)
    assert not home.exists()


@pytest.mark.parametrize("given", ["{", "[1]", "7", '{"a": NaN}'])
def test_metadata_that_is_no_json_object_is_refused(given: str) -> None:
    done = run_here("call", "--fast", "--metadata", given)
    assert done.returncode == 2
    assert "metadata" in problem(done)


def test_a_denied_call_says_why_and_works_with_a_token(home: Path) -> None:
    denied = told("call", "--fast", "--metadata", SENSITIVE, code=3)
    assert denied["error"]["verdict"]["reason_code"] == "ADMIN_TOKEN_REQUIRED"
    assert "token create" in denied["error"]["message"]
    assert "raised by sensitive_data and international_call and recording_enabled" in denied["error"]["message"]
    refused = denied["error"]["session_id"]
    assert f"evidence list {refused}" in denied["error"]["message"]
    (record,) = told("evidence", "list", refused, run=run_here)["records"]
    assert record["operation"] == "session_denied"
    assert told("evidence", "list", run=run_here)["records"] == [record]
    assert told("sessions", run=run_here)["sessions"] == []
    token = told("token", "create", "me", "--role", "admin", "--expires", "1d")["token"]
    by_variable = told("call", "--fast", "--metadata", SENSITIVE, AGENTOS_VOICE_ADMIN_TOKEN=token)
    assert by_variable["transcript"] == SAMPLE_TEXT
    assert by_variable["risk_tier"] == "critical"
    assert all(token.encode() not in path.read_bytes() for path in home.rglob("*") if path.is_file())
    (listed,) = told("token", "list", run=run_here)["tokens"]
    for _ in range(2):  # the second changes nothing
        assert told("token", "revoke", listed["id"], run=run_here)["revoked"] is True
    done = run("call", "--fast", "--metadata", SENSITIVE, "--admin-token", token)
    assert done.returncode == 3
    assert "ADMIN_TOKEN_REQUIRED" in problem(done)
    assert "the one given is unknown, expired or revoked" in problem(done)


@pytest.mark.parametrize(
    ("signum", "backend"), [(signal.SIGINT, "asyncio"), (signal.SIGINT, "trio"), (signal.SIGTERM, "asyncio")]
)
def test_a_signal_stops_the_call_in_order_and_the_summary_is_still_told(
    signum: signal.Signals, backend: str, tmp_path: Path, home: Path
) -> None:
    path = tone(tmp_path / "long.wav", 50.0)
    with running("call", path, "--json", "--loop", backend) as process:
        wait_for(lambda: list(home.glob("recordings/*/*")))
        process.send_signal(signum)
        output, complaint = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 128 + signum
    assert complaint == ""
    result = json.loads(output)
    assert (result["state"], result["reason"]) == ("stopped", "stopped")
    assert 0 < result["frames"]["accepted"] < 2500
    assert frames_hold(result["frames"])
    assert result["evidence"]["verified"] is True
    assert len(soundfile.read(result["recording"])[0]) == result["recording_info"]["samples"]


def test_a_signal_before_there_is_a_session_leaves_none(home: Path) -> None:
    told("token", "create", "makes-the-database", "--role", "auditor", run=run_here)
    lock = sqlite3.connect(home / "voice.db", isolation_level=None, timeout=LIMIT_SECONDS)
    lock.execute("BEGIN IMMEDIATE")
    with running("call", AGENTOS_VOICE_STORE_BUSY_TIMEOUT_SECONDS="60") as process:
        wait_for(lambda: list(home.glob("*.spill")))
        process.send_signal(signal.SIGINT)
        lock.close()
        output, complaint = process.communicate(timeout=LIMIT_SECONDS)
        assert (process.returncode, output) == (130, "")
    assert complaint == "agentos-voice: interrupted by SIGINT; nothing was done\n"
    assert told("sessions", "--state", "active", run=run_here)["sessions"] == []
    assert not list(home.rglob("*.flac"))


def test_a_file_that_is_cut_while_it_plays_ends_the_call_in_order(tmp_path: Path, home: Path) -> None:
    path = tone(tmp_path / "long.wav", 8.0)
    with running("call", path, "--json") as process:
        wait_for(lambda: list(home.glob("recordings/*/*")))
        os.truncate(path, 44 + 4 * 32_000)
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    result = json.loads(output)
    assert process.returncode == result["error"]["exit_code"] == 2
    assert "cut off" in result["error"]["message"]
    assert result["state"] == "stopped"
    assert 0 < result["frames"]["accepted"] < 400
    assert frames_hold(result["frames"])
    assert result["evidence"]["verified"] is True


def test_evidence_that_is_not_durable_is_told_beside_the_result(tmp_path: Path, home: Path) -> None:
    path = tone(tmp_path / "short.wav", 3.0)
    timeouts = {"AGENTOS_VOICE_EVIDENCE_TIMEOUT_SECONDS": "0.5", "AGENTOS_VOICE_STORE_BUSY_TIMEOUT_SECONDS": "0.1"}
    with running("call", path, "--json", **timeouts) as process:
        wait_for(lambda: list(home.glob("recordings/*/*")))
        lock = sqlite3.connect(home / "voice.db", isolation_level=None, timeout=LIMIT_SECONDS)
        lock.execute("BEGIN IMMEDIATE")
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        lock.close()
    result = json.loads(output)
    assert process.returncode == result["error"]["exit_code"] == 4
    assert result["error"]["type"] == "EvidenceNotDurable"
    assert result["error"]["spilled"] is True
    assert result["state"] == "stopped"
    assert result["frames"]["accepted"] == 150


def test_a_home_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    home = tmp_path / "file" / "home"
    done = run("call", "--fast", "--home", home)
    assert done.returncode == 5
    assert str(home) in problem(done)


# --- evidence ------------------------------------------------------------------------------------------------------


def tampered(kept: dict[str, str], folder: Path) -> Path:
    path = folder / "copy.db"
    with sqlite3.connect(Path(kept["home"]) / "voice.db") as source, sqlite3.connect(path) as copy:
        source.backup(copy)
        copy.execute("UPDATE evidence SET record = replace(record, 'custom', 'slack') WHERE seq = 2")
    source.close()
    copy.close()
    return path


def test_verification_of_a_whole_chain_says_how_many_records_hold_and_the_head(kept: dict[str, str]) -> None:
    done = run("evidence", "verify", AGENTOS_VOICE_HOME=kept["home"])
    assert done.returncode == 0
    assert "every link holds" in done.stdout
    assert kept["head"] in done.stdout


def test_verification_of_a_tampered_copy_names_the_first_fault(kept: dict[str, str], tmp_path: Path) -> None:
    path = tampered(kept, tmp_path)
    before = path.read_bytes()
    done = run("evidence", "verify", path)
    assert done.returncode == 4
    assert problem(done) == "the evidence chain is broken at record 2: its text does not give its hash"
    found = told("evidence", "verify", path, code=4, run=run_here)
    assert (found["verified"], found["at_seq"], found["records"]) == (False, 2, 1)
    assert path.read_bytes() == before


def test_verification_of_what_is_no_database_fails_clearly(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    no_audio(path)
    done = run("evidence", "verify", path)
    assert done.returncode == 9
    assert problem(done) == f"{path} is no SQLite database: restore a copy or move the file away"
    for name, statement in (("empty.db", ""), ("other.db", "CREATE TABLE notes (text)")):
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute("PRAGMA user_version = 1")
            database.execute(statement)
        done = run_here("evidence", "verify", tmp_path / name)
        assert done.returncode == 9
        assert str(tmp_path / name) in problem(done)
    done = run_here("evidence", "verify", tmp_path / "nowhere.db")
    assert done.returncode == 2
    assert problem(done) == f"there is no such file: {tmp_path / 'nowhere.db'}"
    done = run_here("evidence", "verify")
    assert done.returncode == 2
    assert "a first call makes one" in problem(done)


def test_a_head_is_printed_as_it_is_noted_and_the_chain_goes_on_from_it(kept: dict[str, str], tmp_path: Path) -> None:
    home = kept["home"]
    done = run_here("evidence", "head", AGENTOS_VOICE_HOME=home)
    found = told("evidence", "head", run=run_here, AGENTOS_VOICE_HOME=home)
    noted = f"{found['place']}:{found['hash']}"
    assert done.stdout == f"{noted}\n"
    file = tmp_path / "heads"
    file.write_text(f"# of the shop\n0:{'0' * 64}\n{noted}\n")
    said = told("evidence", "verify", "--head", noted, "--heads", file, run=run_here, AGENTOS_VOICE_HOME=home)
    assert said["verified"] is True
    assert [head["state"] for head in said["heads"]] == ["holds", "holds"]
    assert said["not_shown"] == (
        f"that no record was cut off or inserted behind record {found['place']}, the newest noted head; and an attacker who "
        "can write the database and the place where heads are noted can rewrite both"
    )
    done = run_here("evidence", "verify", "--head", noted, AGENTOS_VOICE_HOME=home)
    assert "holds: the chain goes on from it" in done.stdout
    without = told("evidence", "verify", run=run_here, AGENTOS_VOICE_HOME=home)
    assert "that the end was not cut off" in without["not_shown"]


def test_a_tail_that_was_cut_is_told_to_who_noted_the_head(kept: dict[str, str], tmp_path: Path) -> None:
    found = told("evidence", "head", run=run_here, AGENTOS_VOICE_HOME=kept["home"])
    noted, path = f"{found['place']}:{found['hash']}", tmp_path / "copy.db"
    with closing(sqlite3.connect(Path(kept["home"]) / "voice.db")) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        for table in ("evidence", "evidence_content"):
            copy.execute(f"DELETE FROM {table} WHERE seq >= ?", [found["place"]])
        copy.commit()
    assert run_here("evidence", "verify", path).returncode == 0
    done = run_here("evidence", "verify", path, "--head", noted)
    assert done.returncode == 4
    assert problem(done) == (
        f"the evidence chain does not go on from the head {noted}: the chain ends before it: records were cut off"
    )
    said = told("evidence", "verify", path, "--head", noted, code=4, run=run_here)
    assert (said["verified"], said["fault"], said["heads"][0]["state"]) == (False, None, "cut")


def test_a_head_of_the_chain_before_the_carry_over_has_a_code_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "voice.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((Path(__file__).parents[1] / "storage" / "revision_0002.sql").read_text())
    noted = told("evidence", "head", "--home", tmp_path, run=run_here)
    open_store(path, busy_timeout_seconds=60).close()
    done = run_here("evidence", "verify", path, "--head", f"{noted['place']}:{noted['hash']}")
    assert done.returncode == 8
    assert problem(done).startswith(f"head-before-carry-over: {noted['place']}:{noted['hash']}")
    done = run_here("evidence", "verify", path, "--head", f"{noted['place']}:{'ab' * 32}")
    assert done.returncode == 4


def test_what_is_no_head_is_refused(kept: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "heads"
    file.write_text("not a head\n")
    for wrong in (("--head", "7"), ("--head", f"7:{'A' * 64}"), ("--heads", file), ("--heads", tmp_path / "nowhere")):
        done = run_here("evidence", "verify", *wrong, AGENTOS_VOICE_HOME=kept["home"])
        assert done.returncode == 2, wrong
        assert "head" in problem(done)


def test_the_evidence_of_a_session_is_listed_in_order(kept: dict[str, str]) -> None:
    found = told("evidence", "list", kept["session"], run=run_here, AGENTOS_VOICE_HOME=kept["home"])
    operations = [record["operation"] for record in found["records"]]
    assert operations[0] == "session_created"
    assert operations[-1] == "session_stopped"
    done = run_here("evidence", "list", "voice-of-nobody", AGENTOS_VOICE_HOME=kept["home"])
    assert done.returncode == 2
    assert "voice-of-nobody" in problem(done)


def test_without_a_session_the_newest_records_are_listed(kept: dict[str, str]) -> None:
    every = told("evidence", "list", "--limit", "1000", run=run_here, AGENTOS_VOICE_HOME=kept["home"])["records"]
    of_one = told("evidence", "list", kept["session"], run=run_here, AGENTOS_VOICE_HOME=kept["home"])["records"]
    assert [record for record in reversed(every) if record["request_id"] == kept["session"]] == of_one
    newest = told("evidence", "list", "--limit", "2", run=run_here, AGENTOS_VOICE_HOME=kept["home"])
    assert newest == {"session_id": None, "records": every[:2]}
    assert run_here("evidence", "list", "--limit", "0", AGENTOS_VOICE_HOME=kept["home"]).returncode == 2


class Narrow(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["sessions", "evidence list", "evidence verify", "token list", "doctor"])
def test_a_narrow_terminal_gets_ids_and_paths_whole(
    command: str, kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_HOME", kept["home"])
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stdout(Narrow()) as narrow:
        assert main(command.split()) == 0
    database = str(Path(kept["home"]) / "voice.db")
    expected = {
        "sessions": [kept["session"]],
        "evidence list": [kept["session"]],
        "evidence verify": [database],
        "token list": [kept["token"]],
        "doctor": [kept["home"], sys.executable],
    }[command]
    for text in expected:
        assert text in narrow.getvalue()


# --- sessions, events, tokens, settings ----------------------------------------------------------------------------


def test_sessions_are_listed_by_project_and_state(kept: dict[str, str]) -> None:
    def ids(*options: str) -> list[str]:
        found = told("sessions", *options, run=run_here, AGENTOS_VOICE_HOME=kept["home"])["sessions"]
        return [session["session_id"] for session in found]

    assert ids("--project", "shop", "--state", "stopped") == [kept["session"]]
    assert ids("--project", "other") == ids("--state", "active") == []


def test_the_events_of_a_session_end_with_its_stop(kept: dict[str, str]) -> None:
    found = told("events", kept["session"], run=run_here, AGENTOS_VOICE_HOME=kept["home"])["events"]
    types = [event["event_type"] for event in found]
    assert types[0] == "session_started"
    assert types[-2:] == ["transcript_ready", "session_stopped"]
    later = told(
        "events",
        kept["session"],
        "--after",
        str(found[-1]["number"] - 1),
        run=run_here,
        AGENTOS_VOICE_HOME=kept["home"],
    )
    assert later["events"] == found[-1:]
    done = run_here("events", "voice-of-nobody", AGENTOS_VOICE_HOME=kept["home"])
    assert done.returncode == 2
    assert "voice-of-nobody" in problem(done)


def test_what_a_dead_process_left_is_told_and_ended(tmp_path: Path, home: Path) -> None:
    with running("call", tone(tmp_path / "long.wav", 60), "--stt", "whisper_local", "--record") as process:
        wait_for(lambda: "active" in run_here("sessions").stdout)  # before, there may be no table to read
        assert told("sessions", run=run_here)["unowned"] == []
        nothing = {name: [] for name in ("recordings_ready", "recordings_failed", "recordings_of_nobody")}
        assert told("recover", run=run_here) == {
            "recovered": [],
            "owned": 1,
            "problems": [],
            "resumable": [],
            **nothing,
        }
        process.kill()
        process.wait(LIMIT_SECONDS)
    [session_id] = told("sessions", run=run_here)["unowned"]
    assert "active, its process died" in run_here("sessions").stdout
    [finding] = [check for check in told("doctor", run=run_here)["checks"] if check["name"] == "sessions"]
    assert (finding["level"], finding["found"]) == ("warn", "left by processes that died: 1, running: 0")
    assert "agentos-voice recover" in finding["advice"]

    done = run_here("recover")
    assert done.returncode == 0
    assert session_id in done.stdout
    assert "sessions ended: 1; running in living processes: 0" in done.stdout
    [ended] = told("sessions", "--state", "stopped", run=run_here)["sessions"]
    assert ended["result"]["reason"] == "recovered"
    assert frames_hold(ended["result"]["frames"])
    assert soundfile.info(ended["result"]["recording"]["path"]).frames == ended["result"]["recording"]["samples"]
    assert told("evidence", "verify", run=run_here)["verified"] is True
    [finding] = [check for check in told("doctor", run=run_here)["checks"] if check["name"] == "sessions"]
    assert (finding["level"], finding["found"]) == ("ok", "running: 0, none was left by a process that died")


def test_what_could_not_be_recovered_is_told_with_a_code(home: Path, kept: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept["home"], folder)
    with closing(sqlite3.connect(folder / "voice.db")) as database, database:
        database.execute("UPDATE sessions SET state = 'active'")
        database.execute("UPDATE events SET event = 'damaged'")
    data = told("recover", "--home", folder, run=run_here, code=1)
    assert data["recovered"] == []
    assert kept["session"] in data["problems"][0]
    assert kept["session"] in problem(run_here("recover", "--home", folder))


def test_tokens_are_listed_without_their_secret(kept: dict[str, str]) -> None:
    done = run_here("token", "list", AGENTOS_VOICE_HOME=kept["home"])
    assert kept["token"] in done.stdout
    assert "laptop  admin  -        valid" in done.stdout
    assert "avt_" not in done.stdout


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 300])
def test_a_token_with_a_bad_name_is_refused(name: str) -> None:
    assert run_here("token", "create", name, "--role", "admin").returncode == 2
    assert told("token", "list", run=run_here)["tokens"] == []


@pytest.mark.parametrize(
    "expires", ["0d", "-1d", "nan", "", "90", "1.5d", "90 d", "2w", "Never", "36601d", "9" * 4400 + "d"]
)
def test_a_token_with_a_bad_lifetime_is_refused_with_what_is_meant(
    expires: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["token", "create", "x", "--role", "admin", f"--expires={expires}", "--home", str(home)]) == 2
    said = capsys.readouterr().err
    assert "--expires must be like 90d, 12h, 30m or 45s, at most a hundred years, or never" in said
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [((), 90 * 86_400), (("--expires", "12h"), 43_200), (("--expires", "30m"), 1800), (("--expires", "45s"), 45)],
)
def test_a_token_expires_after_ninety_days_or_as_it_is_told(
    arguments: tuple[str, ...], seconds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "create", "x", "--role", "auditor", *arguments, "--home", str(tmp_path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts.total_seconds() == seconds


def test_a_token_that_never_expires_is_asked_for_by_that_word() -> None:
    assert told("token", "create", "x", "--role", "auditor", "--expires", "never", run=run_here)["expires_at"] is None


def test_a_token_that_was_revoked_is_listed_as_that_and_not_as_expired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--home", str(tmp_path), "--json")
    assert main(["token", "create", "x", "--role", "auditor", *at]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["state"], made["revoked_at"]) == ("valid", None)
    assert main(["token", "revoke", made["id"], *at]) == 0
    capsys.readouterr()
    assert main(["token", "list", *at]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["tokens"]
    assert listed["state"] == "revoked"
    assert listed["revoked_at"] is not None


def test_a_token_without_a_role_is_refused_and_nothing_is_asked() -> None:
    done = run_here("token", "create", "x")
    assert done.returncode == 2
    assert "--role" in problem(done)
    assert told("token", "list", run=run_here)["tokens"] == []


def test_a_token_is_made_for_a_role_and_a_project(home: Path) -> None:
    assert told("token", "create", "ops", "--role", "operator", run=run_here)["role"] == "operator"
    made = told("token", "create", "web", "--role", "project", "--project", "shop", run=run_here)
    assert (made["role"], made["project"]) == ("project", "shop")
    assert told("token", "create", "me", "--role", "admin", run=run_here)["role"] == "admin"
    listed = told("token", "list", run=run_here)["tokens"]
    assert {(token["name"], token["role"], token["project"]) for token in listed} == {
        ("ops", "operator", None),
        ("web", "project", "shop"),
        ("me", "admin", None),
    }


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--role", "project"), "name it with --project"),
        (("--role", "admin", "--project", "shop"), "add --role project"),
        (("--role", "auditor", "--project", "shop"), "add --role project"),
        (("--role", "owner"), '"admin", "operator", "auditor", "project"'),
        (("--role", "project", "--project", ""), "project must be 1 to 200 printable characters"),
    ],
)
def test_a_token_with_a_bad_role_or_project_is_refused_with_what_to_do(arguments: tuple[str, ...], hint: str) -> None:
    done = run_here("token", "create", "x", *arguments)
    assert done.returncode == 2
    assert hint in problem(done)
    assert told("token", "list", run=run_here)["tokens"] == []


def test_revoking_what_is_no_token_fails(home: Path) -> None:
    done = run_here("token", "revoke", "tok-none")
    assert done.returncode == 2
    assert "tok-none" in problem(done)


def test_settings_tell_value_source_and_variable_and_hide_secrets(tmp_path: Path) -> None:
    file = tmp_path / "voice.toml"
    file.write_text("account_seconds = 20\n")
    variables = {
        "AGENTOS_VOICE_CONFIG": str(file),
        "AGENTOS_VOICE_LOOP": "trio",
        "TWILIO_AUTH_TOKEN": "very-secret-indeed",
    }
    rows = {row["name"]: row for row in told("settings", run=run_here, **variables)["settings"]}
    assert list(rows) == list(VoiceSettings.model_fields)
    assert (rows["account_seconds"]["value"], rows["account_seconds"]["source"]) == (20, "file")
    assert (rows["loop"]["value"], rows["loop"]["source"]) == ("trio", "environment")
    assert (rows["uvloop"]["value"], rows["uvloop"]["source"]) == ("auto", "default")
    assert rows["home"]["variable"] == "AGENTOS_VOICE_HOME"
    assert all(row["description"] for row in rows.values())
    assert rows["twilio_auth_token"]["value"] == "(hidden)"
    assert "very-secret-indeed" not in run_here("settings", **variables).stdout
    elsewhere = {row["name"]: row for row in told("settings", "--home", tmp_path / "there", run=run_here)["settings"]}
    assert (elsewhere["home"]["value"], elsewhere["home"]["source"]) == (str(tmp_path / "there"), "argument")


def test_a_setting_without_a_legal_value_is_named() -> None:
    done = run_here("settings", AGENTOS_VOICE_LOOP="twisted")
    assert done.returncode == 2
    assert "AGENTOS_VOICE_LOOP" in problem(done)


# --- what holds for every command ----------------------------------------------------------------------------------

READING = [
    ("evidence", "verify"),
    ("evidence", "head"),
    ("evidence", "list", "{session}"),
    ("evidence", "list"),
    ("sessions",),
    ("events", "{session}"),
    ("recover",),
    ("token", "list"),
    ("settings",),
    ("doctor",),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_command_says_the_same_as_text_and_as_one_json_object(
    command: tuple[str, ...], kept: dict[str, str]
) -> None:
    arguments = [part.format(**kept) for part in command]
    text = run_here(*arguments, AGENTOS_VOICE_HOME=kept["home"])
    assert text.returncode == 0, text.stderr
    assert text.stdout
    assert not any(line != line.rstrip() for line in text.stdout.splitlines())
    assert told(*arguments, run=run_here, AGENTOS_VOICE_HOME=kept["home"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("call", "--no-such-option"), 2),
        (("call", "one.wav", "two.wav"), 2),
        (("call", "--stt", "clairvoyance"), 2),
        (("call", "missing.wav"), 2),
        (("nonsense",), 2),
        (("evidence", "nonsense"), 2),
        (("evidence", "verify", "missing.db"), 2),
        (("evidence", "list"), 2),
        (("evidence", "list", "voice-x"), 2),
        (("sessions", "--state", "asleep"), 2),
        (("events", "voice-x"), 2),
        (("token", "create"), 2),
        (("token", "create", "x"), 2),
        (("token", "create", "x", "--role", "admin", "--expires", "1"), 2),
        (("token", "revoke", "tok-x"), 2),
        (("diagrams", "--check", "--output", "nowhere"), 1),
        (("check", "nothing"), 2),
        (("check", "--kind", "carsh=1"), 2),
        (("settings", "--home"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_an_error_has_the_same_code_as_one_line_and_as_one_json_object(
    arguments: tuple[str, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--json"]) == code  # in this process: it is quick, and the border is the same
    output = capfd.readouterr()
    assert output.err == ""
    assert isinstance(json.loads(output.out), dict)
    assert main(arguments) == code
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("agentos-voice: ")
    assert output.err.count("\n") == 1


def test_help_is_there_for_every_command_and_loads_no_database_or_audio_library() -> None:
    script = (
        "import sys\n"
        "from agentos.core.communication.voice.cli import main\n"
        "code = main(['--help'])\n"
        "heavy = {'sqlalchemy', 'numpy', 'alembic', 'soundfile', 'pydantic', 'anyio', 'trio', 'pocketsphinx'}\n"
        "sys.stderr.write(','.join(sorted(heavy & set(sys.modules))))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command in (
        *(
            "call",
            "check",
            "diagrams",
            "doctor",
            "events",
            "evidence",
            "recover",
            "sessions",
            "settings",
            "token",
            "top",
        ),
        "trace",
    ):
        assert command in done.stdout


@pytest.mark.parametrize(
    "command",
    ["call", "check", "evidence verify", "recover", "token create", "diagrams", "doctor", "top", "trace"],
)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_output_that_nobody_reads_any_more_is_no_error_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "settings"],
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_an_error_of_our_own_is_a_line_too_and_says_where_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("the roof\nis open")

    monkeypatch.setattr(app, "application", broken)
    assert main([]) == 1
    told = capsys.readouterr().err
    assert told.startswith("agentos-voice: internal error, RuntimeError: the roof is open;")
    assert "Traceback" not in told
    monkeypatch.setenv("AGENTOS_VOICE_LOG_LEVEL", "debug")
    assert main(["--json"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["error"]["type"] == "RuntimeError"
    assert "in broken" in output.err


def kinds(root: type[VoiceError]) -> Iterator[type[VoiceError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_has_an_exit_code_that_is_documented() -> None:
    found = {kind: exit_code(kind.__new__(kind)) for kind in kinds(VoiceError) if not issubclass(kind, StoreError)}
    assert set(found.values()) <= set(EXIT_CODES) - {0}
    assert found[errors.ChunkTooLarge] == found[errors.SettingsError] == 2
    assert found[errors.PolicyDenied] == 3
    assert found[errors.EvidenceNotDurable] == found[errors.EvidenceUnavailable] == 4
    assert found[errors.Overloaded] == found[errors.STTUnavailable] == 5
    assert exit_code(StoreError("", kind="corrupt")) == 4
    assert exit_code(StoreError("", kind="schema")) == 2
    assert exit_code(StoreError("", kind="full")) == 5


def test_the_names_that_options_take_are_those_of_the_models() -> None:
    assert get_args(StateName) == tuple(state.value for state in VoiceSessionState)
