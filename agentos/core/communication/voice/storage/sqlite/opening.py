"""How the database is opened: the file with its modes, connections, WAL, and the schema brought up to date.

Every transaction that writes is a `BEGIN IMMEDIATE`, asked for by the execution option `immediate`.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from agentos.core.communication.voice.errors import NotADatabase, StoreError
from agentos.core.communication.voice.storage.folders import ensure_private_folder
from agentos.core.communication.voice.storage.sqlite import schema
from agentos.core.communication.voice.storage.sqlite.failures import failures
from agentos.core.time import monotonic_ms

_TABLES = sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")
LOCK_POLL_SECONDS = 0.01  # opening waits for another process's migration, which takes milliseconds


def open_database(path: Path, busy_timeout_seconds: float) -> Engine:
    """The database at `path`, made when it is missing, with the newest schema. Raises `StoreError`."""
    deadline = monotonic_ms() + int(busy_timeout_seconds * 1000)
    with failures(path):
        ensure_private_folder(path.parent)
        # Only a new file is opened here: closing one lets go of the locks of every other store in this process (POSIX), and
        # then another process takes itself for the last one and removes the WAL. SQLite gives WAL and SHM the file's mode.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    engine = _engine(f"file:{quote(str(path))}?mode=rw", busy_timeout_seconds, read_only=False)
    try:
        if _revision(engine, path) != schema.HEAD:
            with _file_lock(path.with_name(f"{path.name}.lock"), deadline):
                _bring_up_to_date(engine, path, deadline)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_to_read(path: Path, busy_timeout_seconds: float) -> tuple[Engine, frozenset[str]]:
    """The database at `path`, or a copy of one, for reading only, and the tables that it has. Raises `StoreError`."""
    with failures(path):
        if not path.is_file():
            raise StoreError(f"there is no database at {path}", kind="io")
        wal = beside(path, "-wal")
        immutable = "" if wal.exists() and wal.stat().st_size else "&immutable=1"
    engine = _engine(f"file:{quote(str(path))}?mode=ro{immutable}", busy_timeout_seconds, read_only=True)
    try:
        _check_revision(path, _revision(engine, path))
        with failures(path), engine.connect() as connection:
            return engine, frozenset(connection.scalars(_TABLES))
    except BaseException:
        engine.dispose()
        raise


def revision_at(path: Path, busy_timeout_seconds: float = 5.0) -> str:
    """The revision of the database at `path`, which is only read. Raises `StoreError`."""
    engine, _ = open_to_read(path, busy_timeout_seconds)
    try:
        return _revision(engine, path) or "none"
    finally:
        engine.dispose()


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside the database, by its suffix."""
    return path.with_name(path.name + suffix)


def migrate(connection: Connection) -> None:
    """Bring the database to the newest revision, within the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - costs over a second, and only an old database needs it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrations_folder() -> Path:
    """Where the migration scripts are, also when installed."""
    return Path(__file__).with_name("migrations")


def _revision(engine: Engine, path: Path) -> str | None:
    """The stored revision; None for a database without tables. Raises when the tables are not ours."""
    with failures(path), engine.connect() as connection:
        tables = set(connection.scalars(_TABLES))
        if not tables:
            return None
        if schema.alembic_version.name not in tables:
            raise NotADatabase(path, f"{path} is a database of something else; choose another path", kind="schema")
        return connection.scalar(sa.select(schema.alembic_version.c.version_num)) or "none"


def _check_revision(path: Path, revision: str | None) -> None:
    if revision is None:
        raise NotADatabase(path, f"{path} is an empty database, without any evidence", kind="schema")
    if revision not in schema.REVISIONS:
        raise StoreError(
            f"{path} was written by a newer version (revision {revision}, known up to {schema.HEAD}); "
            "update agentos-voice",
            kind="schema",
        )


def _bring_up_to_date(engine: Engine, path: Path, deadline: int) -> None:
    revision = _revision(engine, path)  # again, now that the lock is held: another process may have been faster
    if revision is not None:
        _check_revision(path, revision)
    if revision == schema.HEAD:
        return
    _enter_wal(engine, path, deadline)
    with failures(path), engine.execution_options(immediate=True).begin() as connection:
        if revision is None:
            schema.metadata.create_all(connection)
            schema.alembic_version.create(connection)
            connection.execute(sa.insert(schema.alembic_version), {"version_num": schema.HEAD})
        else:
            migrate(connection)


def _enter_wal(engine: Engine, path: Path, deadline: int) -> None:
    while True:
        try:
            with failures(path), engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows the type
                mode = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]  # outside any transaction
        except StoreError as error:
            # This pragma does not wait for other connections by itself.
            if error.kind != "locked" or monotonic_ms() >= deadline:
                raise
            time.sleep(LOCK_POLL_SECONDS)
            continue
        if mode != "wal":
            raise StoreError(f"the file system of {path} can't hold a shared (WAL) database", kind="io")
        return


def _engine(uri: str, busy_timeout_seconds: float, *, read_only: bool) -> Engine:
    def connected() -> sqlite3.Connection:
        # isolation_level None: the begin event below says which BEGIN, sqlite3 adds none of its own.
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            if not read_only:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()  # the pool never gets to know it
            raise
        return connection

    engine = sa.create_engine(
        "sqlite://", creator=connected, poolclass=QueuePool, pool_timeout=busy_timeout_seconds, hide_parameters=True
    )

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


@contextmanager
def _file_lock(path: Path, deadline: int) -> Iterator[None]:
    with failures(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic_ms() >= deadline:
                    problem = f"another process is opening {path.parent} and holds {path.name}; try again"
                    raise StoreError(problem, kind="locked") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
