"""A database of revision 0001, as that version wrote it, is brought up to date: nothing is lost, and its tokens are admins'."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.sqlite import schema
from agentos.core.communication.voice.storage.sqlite.opening import migrations_folder
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from machines.evidence import canonical_json

WRITTEN = Path(__file__).with_name("revision_0001.sql")  # the dump of a home with a call and three tokens
STANDS, EXPIRED, REVOKED = ("avt_" + letter * 43 for letter in "ver")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "voice.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(WRITTEN.read_text())
    return path


@pytest.fixture
def old_without_rows(tmp_path: Path) -> Path:
    path = tmp_path / "voice.db"
    lines = [line for line in WRITTEN.read_text().splitlines() if not line.startswith("INSERT") or "alembic" in line]
    with closing(sqlite3.connect(path)) as database:
        database.executescript("\n".join(lines))
    return path


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def down(path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()


def test_tokens_that_there_were_are_admins_and_stand_as_they_stood(old: Path) -> None:
    before = rows(old, "admin_tokens")
    with open_store(old, busy_timeout_seconds=5.0) as store:
        tokens = TokenStore(store)
        assert [(token.role, token.project) for token in tokens.list()] == [(Role.ADMIN, None)] * 3
        assert [tokens.valid(token) for token in (STANDS, EXPIRED, REVOKED)] == [True, False, False]
        assert [tokens.who(token) is not None for token in (STANDS, EXPIRED, REVOKED)] == [True, False, False]
    after = [(row[0], row[1], row[2], *row[5:]) for row in rows(old, "tokens")]
    assert len(after) == 3
    assert after == before


def test_the_call_and_its_evidence_stay_as_they_were(old: Path) -> None:
    before = [rows(old, table) for table in ("sessions", "events")]
    texts = [row[3] for row in rows(old, "evidence")]
    assert all(before)
    with open_store(old, busy_timeout_seconds=5.0) as store:
        assert store.verify().ok
        assert [session.project_id for session in store.sessions()] == ["shop"]
        assert [canonical_json(record) for record in store.evidence()[1:]] == texts
    assert [rows(old, table) for table in ("sessions", "events")] == before


def test_a_database_without_rows_is_migrated_too(old_without_rows: Path) -> None:
    with open_store(old_without_rows, busy_timeout_seconds=5.0) as store:
        tokens = TokenStore(store)
        assert tokens.list() == []
        assert not tokens.valid(STANDS)
        token = tokens.create("new", role=Role.PROJECT, project="shop")
        found = tokens.who(token)
        assert found is not None
        assert (found.role, found.project) == (Role.PROJECT, "shop")
    assert rows(old_without_rows, "alembic_version") == [(schema.HEAD,)]


def test_a_database_that_is_only_read_is_not_migrated_and_its_tokens_are_listed(old: Path) -> None:
    with open_to_read(old) as store:
        listed = [(token.name, token.role) for token in TokenStore(store).list()]
    assert sorted(listed) == [("expired", Role.ADMIN), ("revoked", Role.ADMIN), ("stands", Role.ADMIN)]
    assert rows(old, "alembic_version") == [("0001",)]


def test_the_version_before_finds_no_table_rather_than_a_project_that_it_takes_for_an_admin(old: Path) -> None:
    with open_store(old, busy_timeout_seconds=5.0) as store:
        TokenStore(store).create("shop", role=Role.PROJECT, project="shop")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        rows(old, "admin_tokens")


def test_on_the_way_down_only_the_tokens_of_admins_are_kept(old: Path) -> None:
    before = rows(old, "admin_tokens")
    with open_store(old, busy_timeout_seconds=5.0) as store:
        tokens = TokenStore(store)
        for role in (Role.OPERATOR, Role.AUDITOR):
            tokens.create(role.value, role=role)
        tokens.create("shop", role=Role.PROJECT, project="shop")
    down(old)
    assert rows(old, "admin_tokens") == before


@pytest.mark.parametrize(
    ("role", "project"), [("'owner'", "NULL"), ("'project'", "NULL"), ("'admin'", "'shop'"), ("NULL", "NULL")]
)
def test_the_database_itself_refuses_a_role_that_it_does_not_know(old: Path, role: str, project: str) -> None:
    open_store(old, busy_timeout_seconds=5.0).close()
    with closing(sqlite3.connect(old)) as database, pytest.raises(sqlite3.IntegrityError):
        database.execute(
            "INSERT INTO tokens (id, hash, name, role, project, created_at_ms) "
            f"VALUES ('tok-1', 'h', 'n', {role}, {project}, 1)"
        )
