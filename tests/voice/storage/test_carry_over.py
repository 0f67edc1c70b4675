"""A chain of a version that had personal content in its records is made anew, once; nothing is lost, its heads are known."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.sqlite import schema
from machines.carry_over import REQUEST
from machines.evidence import canonical_json, link
from machines.heads import GENESIS, Head, HeadState
from machines.operations import CHAIN_CARRIED_OVER, RECORD_UNREADABLE
from machines.sealing import SALT_BYTES, commitment
from machines.verification import Examination

WRITTEN = Path(__file__).with_name(
    "revision_0002.sql"
)  # a home with a call, a refusal, one at the door, and a host's record
PERSONAL = ("Lovelace", "Hopper", "Turing", "660 1234567", "forward ten meters", "192.0.2.7", "example.org", "laptop")
RECORDS = 7

OPEN = """
import sys
from pathlib import Path
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import VoiceStore
with open_store(Path(sys.argv[1]), busy_timeout_seconds=300) as store:
    print(store.head().text)
"""
OPEN_AND_DIE = (
    """
import os, signal, sys
from agentos.core.communication.voice.storage import chain
made, left = chain.chained, [int(sys.argv[2])]

def chained(record):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return made(record)

chain.chained = chained
"""
    + OPEN
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "voice.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(WRITTEN.read_text())
        database.execute("PRAGMA journal_mode = WAL")
    return path


def altered(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(statement, values).rowcount > 0
        database.commit()


def texts(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]


def head(path: Path, place: int | None = None) -> Head:
    with closing(sqlite3.connect(path)) as database:
        condition = "" if place is None else f"WHERE seq = {place}"
        return Head(*database.execute(f"SELECT seq, hash FROM evidence {condition} ORDER BY seq DESC").fetchone())


def carried_over(path: Path, *heads: Head) -> Examination:
    with open_store(path, busy_timeout_seconds=5) as store:
        return store.examine(heads)


def test_the_older_version_had_personal_content_in_its_records(old: Path) -> None:
    assert all(any(part in text for text in texts(old)) for part in PERSONAL)
    assert len(texts(old)) == RECORDS


def test_no_personal_content_is_left_in_the_chain_and_nothing_is_lost(old: Path) -> None:
    before, noted = texts(old), head(old)
    found = carried_over(old)
    assert found.chain.ok
    assert (found.chain.records, found.erased) == (RECORDS + 1, 0)
    assert not [part for part in PERSONAL for text in texts(old) if part in text]
    with open_to_read(old) as store:
        first, *others = store.evidence()
    assert [canonical_json(record) for record in others] == before
    assert (first.operation, first.request_id) == (CHAIN_CARRIED_OVER, REQUEST)
    assert (first.request_summary["place"], first.request_summary["head"]) == noted


def test_it_is_made_anew_once(old: Path) -> None:
    first = carried_over(old).chain
    assert carried_over(old).chain == first


def test_a_head_from_before_is_known_and_one_that_never_was_is_not(old: Path) -> None:
    noted = [head(old, place) for place in range(1, RECORDS + 1)]
    never = [Head(3, "ab" * 32), Head(RECORDS + 9, "ab" * 32), Head(3, noted[3].hash)]
    found = carried_over(old, *noted, *never)
    states = [check.state for check in found.heads]
    assert states == [HeadState.BEFORE_CARRY_OVER] * RECORDS + [HeadState.DIFFERS, HeadState.CUT, HeadState.DIFFERS]
    assert carried_over(old, head(old)).heads[0].state is HeadState.HOLDS


def test_an_empty_chain_has_nothing_to_carry_over(old: Path) -> None:
    altered(old, "DELETE FROM evidence")
    assert carried_over(old).chain == (0, GENESIS, None, None)


def test_a_database_that_is_only_read_is_walked_as_it_was_written(old: Path) -> None:
    noted = head(old)
    with open_to_read(old) as store:
        found = store.examine([noted])
        assert len(store.evidence()) == RECORDS
    assert (found.chain.ok, found.sealed, found.heads[0].state) == (True, 0, HeadState.HOLDS)


def test_an_older_chain_that_was_broken_is_never_called_whole(old: Path) -> None:
    altered(old, "UPDATE evidence SET record = replace(record, 'Hopper', 'Murray') WHERE seq = 5")
    noted = head(old)
    found = carried_over(old, noted)
    assert (found.chain.ok, found.chain.records, found.chain.at_seq) == (False, RECORDS + 1, 1)
    assert found.chain.fault == (
        "the chain that this one was made from was broken at its record 5: its text does not give its hash"
    )
    assert found.heads[0].state is HeadState.BEFORE_CARRY_OVER


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", '{"id":"ev-of-a-host"}', "x" * 10_000, '{"id":"ev-of-a-host","x":NaN}']
)
def test_a_record_that_can_not_be_read_any_more_is_carried_over_with_its_text(old: Path, text: str) -> None:
    altered(old, "UPDATE evidence SET record = ? WHERE id = 'ev-of-a-host'", text)
    assert not carried_over(old).chain.ok
    with open_to_read(old) as store:
        record = store.evidence_record("ev-of-a-host")
    assert record is not None
    assert (record.operation, record.request_summary) == (RECORD_UNREADABLE, {"text": text})


def test_a_record_whose_text_is_no_utf8_any_more_is_carried_over_too(old: Path) -> None:
    altered(old, "UPDATE evidence SET record = CAST(x'7bff7d' AS TEXT) WHERE id = 'ev-of-a-host'")
    assert not carried_over(old).chain.ok
    assert len(texts(old)) == RECORDS + 1


def forged(path: Path, place: int, old_text: str, new_text: str) -> None:
    """Edit what was carried over with a seal that fits, and make the chain anew behind it."""
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT part, value FROM evidence_content WHERE seq = ? AND instr(value, ?)"
        part, value = database.execute(query, (place, old_text)).fetchone()
        salt, value = bytes(SALT_BYTES), value.replace(old_text, new_text)
        database.execute(
            "UPDATE evidence_content SET salt = ?, value = ? WHERE seq = ? AND part = ?", (salt, value, place, part)
        )
        previous = GENESIS
        for seq, text in database.execute("SELECT seq, record FROM evidence ORDER BY seq").fetchall():
            record = json.loads(text)
            if seq == place:
                record[part]["sealed"] = commitment(salt, value)
            written = canonical_json(record)
            own = link(previous, written)
            database.execute(
                "UPDATE evidence SET record = ?, previous = ?, hash = ? WHERE seq = ?", (written, previous, own, seq)
            )
            previous = own
        database.commit()


def test_a_record_that_was_edited_since_is_not_the_one_that_was_carried_over(old: Path) -> None:
    carried_over(old)
    forged(old, 6, "Hopper", "Murray")
    found = carried_over(old)
    assert (found.chain.fault, found.chain.at_seq) == ("it is not the record that was carried over", 6)


@pytest.mark.parametrize(
    ("statement", "at"),
    [
        ("DELETE FROM evidence_before WHERE seq = 3", RECORDS + 1),
        ("INSERT INTO evidence_before VALUES (99, 'ab')", 1),
        ("UPDATE evidence_before SET hash = 'ab' WHERE seq = 7", RECORDS + 1),
        ("DELETE FROM evidence WHERE seq = 8", RECORDS + 1),
    ],
)
def test_hashes_from_before_that_were_edited_are_seen(old: Path, statement: str, at: int) -> None:
    carried_over(old)
    altered(old, statement)
    if statement.startswith("DELETE FROM evidence WHERE"):
        altered(old, "DELETE FROM evidence_content WHERE seq = 8")
    found = carried_over(old)
    assert not found.chain.ok
    assert found.chain.at_seq in {1, 4, at}


@pytest.mark.parametrize("records", [0, 1, 5, RECORDS])
def test_who_is_killed_over_it_leaves_the_older_chain_as_it_was(old: Path, records: int) -> None:
    before = texts(old)
    killed = subprocess.run([sys.executable, "-c", OPEN_AND_DIE, old, str(records)], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    with open_to_read(old) as store:
        assert store.verify().records == RECORDS
    assert texts(old) == before
    assert carried_over(old).chain.records == RECORDS + 1


def test_two_processes_that_open_it_at_once_make_one_chain(old: Path) -> None:
    opening = [subprocess.Popen([sys.executable, "-c", OPEN, old], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    heads = [process.communicate(timeout=300)[0].strip() for process in opening]
    assert [process.returncode for process in opening] == [0, 0]
    assert heads == [head(old).text] * 2
    assert carried_over(old).chain.records == RECORDS + 1


def test_the_schema_is_that_of_a_new_database(old: Path, tmp_path: Path) -> None:
    carried_over(old)
    open_store(tmp_path / "new.db", busy_timeout_seconds=5).close()

    def columns(path: Path) -> dict[str, list[object]]:
        with closing(sqlite3.connect(path)) as database:
            return {
                name: [
                    [row[1:] for row in database.execute(f"PRAGMA table_info({name})")],
                    sorted(row[1:4] for row in database.execute(f"PRAGMA index_list({name})")),
                ]
                for name in (table.name for table in schema.metadata.sorted_tables)
                if name.startswith("evidence")
            }

    assert columns(old) == columns(tmp_path / "new.db")
