"""The chain against an attacker with the database: what is seen by the walk alone, and what by who noted a head."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import Entry
from machines.communication import ConnectorType
from machines.evidence import EvidenceRecord, link
from machines.heads import Head, HeadState
from machines.sealing import SALT_BYTES
from machines.verification import Examination, Verification

NAMES = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether")


def record(number: int, name: str) -> EvidenceRecord:
    return EvidenceRecord(
        id=f"ev-{name.partition(' ')[0]}-{number}",
        request_id=f"voice-{number}",
        connector_type=ConnectorType.CUSTOM,
        operation="session_stopped",
        request_summary={"project_id": "shop", "metadata": {"caller": name}},
        response_summary={"state": "stopped", "result": {"transcript": f"I am {name}", "drained": True}},
        metadata={"audit_trace_id": "audit-1", "risk_tier": "low"},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def filled(path: Path, names: tuple[str, ...] = NAMES) -> Head:
    with open_store(path, busy_timeout_seconds=5) as store:
        store.append([Entry(record(number, name)) for number, name in enumerate(names, 1)])
        return store.head()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "voice.db"
    filled(path)
    return path


def altered(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def made_anew(path: Path) -> None:
    """Link the rows anew, as a forger does who has edited some."""
    previous = Head().hash
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, record FROM evidence ORDER BY seq").fetchall()
        for seq, text in rows:
            own = link(previous, text)
            connection.execute("UPDATE evidence SET previous = ?, hash = ? WHERE seq = ?", (previous, own, seq))
            previous = own
        connection.commit()


def examined(path: Path, *heads: Head) -> Examination:
    with open_to_read(path) as store:
        return store.examine(heads)


def verified(path: Path) -> Verification:
    return examined(path).chain


def state(path: Path, head: Head) -> HeadState:
    return examined(path, head).heads[0].state


def test_no_personal_content_is_in_the_chain_and_all_of_it_is_read_again(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        texts = " ".join(text for (text,) in connection.execute("SELECT record FROM evidence"))
    assert not any(
        part in texts for name in NAMES for part in name.split() if part not in {"Ada", "Grace", "Alan", "Emmy"}
    )
    assert "caller" not in texts
    assert "transcript" not in texts
    with open_to_read(database) as store:
        whole = [record(number, name) for number, name in enumerate(NAMES, 1)]
        assert store.evidence() == whole
        assert store.newest_evidence(2) == whole[:1:-1]
        assert store.evidence_record("ev-Grace-2") == whole[1]
        assert [link.record for link in store.evidence_page("voice-3", 0, 10)] == [whole[2]]
    assert (verified(database).records, examined(database)[1:]) == (4, (8, 0, ()))


def test_each_value_has_a_salt_of_its_own(tmp_path: Path) -> None:
    filled(tmp_path / "voice.db", ("Ada Lovelace", "Ada Lovelace"[::-1]))
    with closing(sqlite3.connect(tmp_path / "voice.db")) as connection:
        salts = [salt for (salt,) in connection.execute("SELECT salt FROM evidence_content")]
    assert len(set(salts)) == 4
    assert {len(salt) for salt in salts} == {SALT_BYTES}


def test_a_record_and_its_content_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "voice.db"
    filled(path, ())
    altered(
        path,
        "CREATE TRIGGER full BEFORE INSERT ON evidence_content WHEN NEW.seq = 2 BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )
    with open_store(path, busy_timeout_seconds=5) as store:
        store.append([Entry(record(1, "Ada Lovelace"))])
        with pytest.raises(StoreError, match="no room"):
            store.append([Entry(record(2, "Alan Turing")), Entry(record(3, "Emmy Noether"))])
    assert (verified(path).records, examined(path)[1:]) == (1, (2, 0, ()))
    altered(path, "DROP TRIGGER full")


def test_what_is_stored_twice_has_its_content_once(database: Path) -> None:
    filled(database)
    assert (verified(database).records, examined(database).sealed) == (4, 8)


ATTACKS: dict[str, Callable[[Path], None]] = {
    "a value": lambda path: altered(
        path, "UPDATE evidence_content SET value = replace(value, 'Grace', 'Gracie') WHERE seq = 2"
    ),
    "a salt": lambda path: altered(path, "UPDATE evidence_content SET salt = zeroblob(32) WHERE seq = 2"),
    "a letter moved into the salt": lambda path: altered(
        path,
        "UPDATE evidence_content SET salt = CAST(salt || substr(value, 1, 1) AS BLOB), value = substr(value, 2) WHERE seq = 2",
    ),
    "values of two records": lambda path: altered(
        path,
        "UPDATE evidence_content SET seq = -seq WHERE seq IN (2, 3)",
        "UPDATE evidence_content SET seq = 5 + seq WHERE seq < 0",
    ),
    "the part": lambda path: altered(path, "UPDATE evidence_content SET part = 'metadata' WHERE seq = 2"),
    "a value of no record": lambda path: altered(path, "UPDATE evidence_content SET seq = 99 WHERE seq = 4"),
    "a value before all": lambda path: altered(path, "UPDATE evidence_content SET seq = 0 WHERE seq = 2"),
    "a value that is no text": lambda path: altered(path, "UPDATE evidence_content SET value = x'ff' WHERE seq = 2"),
    "a salt that is a text": lambda path: altered(
        path, f"UPDATE evidence_content SET salt = '{'s' * 32}' WHERE seq = 2"
    ),
    "the record": lambda path: altered(
        path, "UPDATE evidence SET record = replace(record, 'shop', 'shed') WHERE seq = 2"
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_edit_in_the_chain_or_beside_it_is_seen_by_the_walk(database: Path, attack: str) -> None:
    if attack == "the part":
        altered(database, "DELETE FROM evidence_content WHERE seq = 2 AND part != 'request_summary'")
    ATTACKS[attack](database)
    found = verified(database)
    assert not found.ok
    assert found.at_seq in {1, 2, 4, 5}, found


def test_what_is_erased_is_said_and_the_chain_holds(database: Path) -> None:
    altered(database, "DELETE FROM evidence_content WHERE seq = 2 AND part = 'request_summary'")
    found = examined(database)
    assert (found.chain.ok, found.sealed, found.erased) == (True, 7, 1)
    with open_to_read(database) as store:
        left = store.evidence_record("ev-Grace-2")
        links = store.evidence_page("voice-2", 0, 1)
    assert left is not None
    assert left.request_summary.keys() == {"project_id", "sealed"}
    assert left.response_summary == record(2, "Grace Hopper").response_summary
    assert [content.part for content in links[0].contents] == ["response_summary.result"]


def test_the_tail_that_was_cut_is_seen_by_who_noted_the_head(database: Path) -> None:
    noted = filled(database)
    altered(database, "DELETE FROM evidence WHERE seq = 4", "DELETE FROM evidence_content WHERE seq = 4")
    assert verified(database).ok
    assert state(database, noted) is HeadState.CUT


def test_that_all_was_removed_is_seen_by_who_noted_the_head(database: Path) -> None:
    noted = filled(database)
    altered(database, "DELETE FROM evidence", "DELETE FROM evidence_content")
    assert verified(database).ok
    assert state(database, noted) is HeadState.CUT


def test_a_record_that_was_exchanged_at_the_end_is_seen_by_who_noted_the_head(database: Path) -> None:
    noted = filled(database)
    altered(database, "DELETE FROM evidence WHERE seq = 4", "DELETE FROM evidence_content WHERE seq = 4")
    with open_store(database, busy_timeout_seconds=5) as store:
        store.append([Entry(record(4, "Mallory"))])
    assert verified(database).ok
    assert state(database, noted) is HeadState.DIFFERS


def test_a_chain_that_was_made_anew_behind_an_edit_is_seen_by_who_noted_a_head(database: Path) -> None:
    noted = filled(database)
    altered(database, "UPDATE evidence SET record = replace(record, 'shop', 'shed') WHERE seq = 2")
    made_anew(database)
    assert verified(database).ok
    assert state(database, noted) is HeadState.DIFFERS


def test_a_database_in_the_place_of_another_is_seen_by_who_noted_a_head(database: Path, tmp_path: Path) -> None:
    noted, other = filled(database), filled(tmp_path / "other.db")
    (tmp_path / "other.db").replace(database)
    assert verified(database).ok
    assert [state(database, head) for head in (noted, other)] == [HeadState.DIFFERS, HeadState.HOLDS]


def test_a_chain_goes_on_from_its_heads_when_more_was_appended(database: Path) -> None:
    noted = filled(database)
    with open_store(database, busy_timeout_seconds=5) as store:
        store.append([Entry(record(5, "Mary Somerville"))])
        assert [check.state for check in store.examine([noted, store.head(), Head()]).heads] == [HeadState.HOLDS] * 3
