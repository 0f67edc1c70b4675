"""Sessions, events, recordings and the chain, held against each other: what was changed beside a chain that holds is found."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np
import pytest
import soundfile

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.recording.checks import check_recordings
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.evidence import canonical_json, link

REASON = '"reason":"stopped"'


class Home(NamedTuple):
    """A copy of a home with two calls that have ended, the first one recorded, and one that was refused."""

    path: Path
    recorded: str
    plain: str

    @property
    def file(self) -> Path:
        return next((self.path / "recordings" / self.recorded).glob("recording.*c"))

    def run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path / "voice.db")) as connection:
            assert connection.execute(statement, values).rowcount, statement
            connection.commit()

    def edit(self, session_id: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the stored session."""
        with closing(sqlite3.connect(self.path / "voice.db")) as connection:
            row = connection.execute("SELECT snapshot FROM sessions WHERE session_id = ?", [session_id]).fetchone()
            session = json.loads(row[0])
            change(session)
            values = (json.dumps(session), session["state"], session_id)
            connection.execute("UPDATE sessions SET snapshot = ?, state = ? WHERE session_id = ?", values)
            connection.commit()

    def forge(self, session_id: str, **changes: Any) -> None:
        """Append a record to the chain, as the store would: like the session's second one, but for the changes."""
        with closing(sqlite3.connect(self.path / "voice.db")) as connection:
            head = connection.execute("SELECT seq, hash FROM evidence ORDER BY seq DESC LIMIT 1").fetchone()
            query = "SELECT record FROM evidence WHERE request_id = ? ORDER BY seq LIMIT 1 OFFSET 1"
            record = {**json.loads(connection.execute(query, [session_id]).fetchone()[0]), **changes}
            del record["request_summary"]["sealed"]
            text = canonical_json(record)
            row = (head[0] + 1, record["id"], session_id, text, head[1], link(head[1], text))
            connection.execute("INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.commit()

    def last_number(self, session_id: str) -> int:
        """Of the records before the final one."""
        with closing(sqlite3.connect(self.path / "voice.db")) as connection:
            query = "SELECT max(record ->> '$.metadata.number') FROM evidence WHERE request_id = ? AND id NOT LIKE '%-final'"
            found: int = connection.execute(query, [session_id]).fetchone()[0]
        return found

    def secret(self, session_id: str) -> str:
        with closing(sqlite3.connect(self.path / "voice.db")) as connection:
            query = "SELECT id FROM evidence WHERE request_id = ?"
            found: str = connection.execute(query, [session_id]).fetchone()[0]
        return found.split("-")[1]


async def _calls(home: Path, audio: bytes) -> tuple[str, str]:
    settings = load_settings(home=home, on_stt_unavailable="record_only")
    async with AsyncVoiceService(settings) as service:
        made = []
        for recorded in (True, False):
            metadata = {"recording_enabled": recorded, "caller": "Ada"}
            session = await service.create_session("shop", VoiceProvider.LOCAL, STTProvider.AZURE, metadata)
            await service.dispatch_audio_chunk(session.session_id, audio)
            assert await service.stop_session(session.session_id)
            await service.recording(session.session_id)
            made.append(session.session_id)
        with pytest.raises(PermissionError):
            await service.create_session("shop", VoiceProvider.LOCAL, STTProvider.AZURE, {"requires_data_access": True})
    return made[0], made[1]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, audio: Callable[..., bytes]) -> Home:
    path = tmp_path_factory.mktemp("kept") / "home"
    return Home(path, *anyio.run(_calls, path, audio(16_000)))


@pytest.fixture
def kept(original: Home, tmp_path: Path) -> Home:
    shutil.copytree(original.path, tmp_path / "copy")
    return original._replace(path=tmp_path / "copy")


def found(home: Home) -> set[tuple[str, str]]:
    """The kinds of disagreement, each with what it is about."""
    with open_to_read(home.path / "voice.db") as store:
        assert store.verify().ok
        mismatches = [*store.cross_check(), *check_recordings(store, home.path / "recordings").mismatches]
    assert all(one.text for one in mismatches)
    return {(one.kind, one.about) for one in mismatches}


def test_what_a_service_leaves_agrees(kept: Home) -> None:
    assert found(kept) == set()


def cut_the_last_final_record(home: Home) -> None:
    for table in ("evidence_content", "evidence"):
        home.run(
            f"DELETE FROM {table} WHERE seq >= (SELECT seq FROM evidence WHERE id LIKE '%-final' AND request_id = ?)",
            home.plain,
        )


def another_recording(home: Home, samples: int = 16_000) -> None:
    soundfile.write(home.file, np.ones(samples, np.int16), 16_000)


def a_folder(home: Home, name: str) -> None:
    folder = home.path / "recordings" / name
    folder.mkdir()
    shutil.copy(home.file, folder / "000000.wav")


# What is done to the home, and what is found, each "about" by the name of a field of `Home`.
CHANGES: dict[str, tuple[Callable[[Home], object], set[tuple[str, str]]]] = {
    "a final record is cut off": (
        cut_the_last_final_record,
        {("final-record-missing", "plain"), ("end-without-record", "plain")},
    ),
    "a session is deleted": (
        lambda home: home.run("DELETE FROM sessions WHERE session_id = ?", home.recorded),
        {("session-missing", "recorded"), ("events-of-nobody", "recorded"), ("folder-of-nobody", "recorded")},
    ),
    "a session is brought back to life": (
        lambda home: home.edit(home.plain, lambda session: session.update(state="active")),
        {("state-differs", "plain")},
    ),
    "a session of nobody": (
        lambda home: home.run("UPDATE sessions SET session_id = 'voice-0' WHERE session_id = ?", home.plain),
        {("records-missing", "voice-0"), ("session-missing", "plain"), ("events-of-nobody", "plain")},
    ),
    "an end for another reason": (
        lambda home: home.edit(home.plain, lambda session: session["result"].update(reason="idle")),
        {("result-differs", "plain")},
    ),
    "another transcript": (
        lambda home: home.edit(home.plain, lambda session: session["result"].update(transcript="yes, I agree")),
        {("result-differs", "plain")},
    ),
    "other metadata": (
        lambda home: home.edit(home.plain, lambda session: session["metadata"].update(caller="Grace")),
        {("facts-differ", "plain")},
    ),
    "another project": (
        lambda home: home.edit(home.plain, lambda session: session.update(project_id="bank")),
        {("facts-differ", "plain")},
    ),
    "an event tells of another end": (
        lambda home: home.run('UPDATE events SET event = replace(event, ?, \'"reason":"idle"\')', REASON),
        {("event-differs", "plain"), ("event-differs", "recorded")},
    ),
    "an event tells of other words": (
        lambda home: home.run('UPDATE events SET event = replace(event, \'"text":""\', \'"text":"no"\')'),
        {("event-differs", "plain"), ("event-differs", "recorded")},
    ),
    "a session that can't be read": (
        lambda home: home.run("UPDATE sessions SET snapshot = '[1]' WHERE session_id = ?", home.plain),
        {("unreadable", "plain")},
    ),
    "a record is forged behind the final one": (
        lambda home: home.forge(home.plain, id=f"ev-{home.secret(home.plain)}-9"),
        {("record-behind-final", "plain"), ("record-out-of-order", "plain")},
    ),
    "a record is forged with an id of its own": (
        lambda home: home.forge(home.plain, id="ev-00-9", metadata={"number": 9}),
        {("record-behind-final", "plain"), ("record-foreign", "plain")},
    ),
    "a record is forged with a number that was there": (
        lambda home: home.forge(
            home.plain, id=f"ev-{home.secret(home.plain)}-9", metadata={"number": home.last_number(home.plain)}
        ),
        {("record-behind-final", "plain"), ("record-out-of-order", "plain")},
    ),
    "a recording with other samples": (another_recording, {("recording-differs", "recorded")}),
    "a shorter recording": (lambda home: another_recording(home, 8_000), {("recording-differs", "recorded")}),
    "a recording that is no sound": (
        lambda home: home.file.write_bytes(b"no sound"),
        {("recording-unreadable", "recorded")},
    ),
    "a recording is deleted": (lambda home: home.file.unlink(), {("recording-missing", "recorded")}),
    "samples that no result names": (lambda home: a_folder(home, home.plain), {("recording-unnamed", "plain")}),
    "a recording that is called damaged": (
        lambda home: home.run("UPDATE recordings SET info = json_set(info, '$.state', 'failed')"),
        {("recording-unrecorded", "recorded")},
    ),
    "what became of a recording is gone": (
        lambda home: home.run("DELETE FROM recordings"),
        {("recording-altered", "recorded")},
    ),
    "a recording is stored with another digest": (
        lambda home: home.run("UPDATE recordings SET info = json_set(info, '$.digest', 'ab')"),
        {("recording-altered", "recorded")},
    ),
    "a recording is stored with another gap": (
        lambda home: home.run("UPDATE recordings SET info = json_set(info, '$.gaps', json('[[0, 320]]'))"),
        {("recording-altered", "recorded")},
    ),
    "a folder of nobody": (lambda home: a_folder(home, "voice-0"), {("folder-of-nobody", "voice-0")}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_beside_the_chain_is_found(
    change: str, kept: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    alter, wanted = CHANGES[change]
    alter(kept)
    named = {(kind, getattr(kept, about, about)) for kind, about in wanted}
    if change == "a session that can't be read":
        with open_to_read(kept.path / "voice.db") as store:
            assert {(one.kind, one.about) for one in store.cross_check()} == named
        return
    assert found(kept) == named
    assert main(["evidence", "verify", "--home", str(kept.path)]) == 4
    said = capsys.readouterr()
    kind, about = min(named)
    assert f"({kind})" in said.out
    assert about in said.out
    assert said.err.startswith("agentos-voice: stored data disagrees with the chain, in ")
    assert main(["evidence", "verify", str(kept.path / "voice.db"), "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is False
    assert {(one["kind"], one["about"]) for one in told["mismatches"]} == named


def test_recordings_may_be_left_aside_and_are_not_looked_for_beside_a_copy(
    kept: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.file.unlink()
    assert main(["evidence", "verify", "--home", str(kept.path), "--no-recordings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"] is None
    copy = shutil.copy(kept.path / "voice.db", tmp_path / "copy.db")
    assert main(["evidence", "verify", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"] is None


def test_an_end_whose_record_waits_in_a_spill_file_is_no_finding(kept: Home) -> None:
    kept.edit(kept.plain, lambda session: session.update(state="stopping"))
    cut_the_last_final_record(kept)
    assert found(kept) == {("end-without-record", kept.plain)}
    (kept.path / "1-a.spill").touch()
    assert found(kept) == set()
