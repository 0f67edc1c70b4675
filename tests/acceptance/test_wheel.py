"""What is installed from the wheel, away from the sources, does the whole job."""

import json
import os
import sqlite3
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("machines", "actors", "agentos")

# Brings an old (here: empty) database up through every migration, and holds the result against a new one's schema.
MIGRATE = """
import sys
from pathlib import Path

import sqlalchemy as sa

import machines, actors
from agentos.core.communication.voice.storage.sqlite import schema
from agentos.core.communication.voice.storage.sqlite.opening import migrate
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import VoiceStore

def shape(engine):
    found = sa.inspect(engine)
    return {
        table: (
            sorted((column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)),
            sorted(str(index["column_names"]) for index in found.get_indexes(table)),
        )
        for table in found.get_table_names()
    }

folder = Path(sys.argv[1])
for module in (machines, actors, schema):
    assert Path(module.__file__).is_relative_to(sys.prefix), module.__file__
migrated = sa.create_engine(f"sqlite:///{folder / 'migrated.db'}")
with migrated.begin() as connection:
    migrate(connection)
    assert connection.scalar(sa.text("select version_num from alembic_version")) == schema.HEAD
open_store(folder / "new.db", busy_timeout_seconds=2.0).close()
assert shape(migrated) == shape(sa.create_engine(f"sqlite:///{folder / 'new.db'}"))
print("migrated to", schema.HEAD)
"""


def run(*command: str | Path, cwd: Path, fails: bool = False, home: Path | None = None) -> str:
    """What a command says, which must succeed or fail as told; it sees none of this process's Python settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if home:
        env["AGENTOS_VOICE_HOME"] = str(home)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode != 0) is fails, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr + done.stdout if fails else done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a new environment that has the wheel and what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return folder / "bin"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it to work from."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def call(installed: Path, empty: Path, home: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        run(installed / "agentos-voice", "call", "--fast", "--json", cwd=empty, home=home)
    )
    return told


def test_the_wheel_holds_every_source_and_data_file_and_nothing_else(wheel: Path) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE.txt")]
    assert names == sources
    assert "License-Expression: LicenseRef-Proprietary" in text
    assert licences


def test_the_wheel_has_its_data_files_and_leaves_the_namespaces_open(wheel: Path) -> None:
    voice = "agentos/core/communication/voice"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "machines/py.typed",
        "actors/py.typed",
        f"{voice}/py.typed",
        f"{voice}/storage/sqlite/migrations/env.py",
    } <= names
    assert any(name.startswith(f"{voice}/samples/") and name.endswith(".flac") for name in names)
    assert any(name.startswith(f"{voice}/storage/sqlite/migrations/versions/0001") for name in names)
    assert not names & {"agentos/__init__.py", "agentos/core/__init__.py", "agentos/core/communication/__init__.py"}


def test_a_whole_call_on_the_shipped_sample_with_evidence_that_verifies(
    installed: Path, empty: Path, home: Path
) -> None:
    told = call(installed, empty, home)
    assert told.keys() >= {"session_id", "transcript", "recording", "frames", "evidence"}
    assert "go forward ten meters" in told["transcript"]
    assert told["frames"]["accepted"] > 0
    assert told["frames"]["accepted"] == told["frames"]["accounted"] + sum(told["frames"]["dropped"].values())
    assert Path(told["recording"]).is_relative_to(home)
    assert Path(told["recording"]).stat().st_size > 0
    run(installed / "agentos-voice", "evidence", "verify", cwd=empty, home=home)
    assert not list(empty.iterdir())


def test_verification_finds_a_changed_record(installed: Path, empty: Path, home: Path) -> None:
    call(installed, empty, home)
    (database,) = home.glob("*.db")
    with sqlite3.connect(database) as connection:
        connection.execute("update evidence set record = replace(record, 'custom', 'slack') where seq = 1")
    connection.close()
    said = run(installed / "agentos-voice", "evidence", "verify", database, cwd=empty, home=home, fails=True)
    assert "its text does not give its hash" in said


def test_the_diagrams_come_from_the_wheel_and_are_those_of_the_sources(
    installed: Path, empty: Path, tmp_path: Path
) -> None:
    run(installed / "agentos-voice", "diagrams", "--output", tmp_path / "diagrams", cwd=empty)
    drawn = {path.name: path.read_text() for path in (tmp_path / "diagrams").iterdir()}
    assert drawn
    assert drawn == {path.name: path.read_text() for path in (ROOT / "diagrams").iterdir()}


def test_the_migrations_run_from_the_wheel_and_give_the_schema_of_a_new_database(
    installed: Path, empty: Path, tmp_path: Path
) -> None:
    assert run(installed / "python", "-c", MIGRATE, tmp_path, cwd=empty).startswith("migrated to ")
