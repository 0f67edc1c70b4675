"""The rows of a store in one SQLite file.

Every write is one `BEGIN IMMEDIATE` transaction, so that what it reads is read under the database's own write lock.
`synchronous=FULL` with WAL makes a return mean durable.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy.engine import Connection, Engine

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.database import Where
from agentos.core.communication.voice.storage.failures import failed, gone
from agentos.core.communication.voice.storage.sqlite.failures import failures
from agentos.core.communication.voice.storage.sqlite.opening import open_database, open_to_read
from agentos.core.communication.voice.storage.tables import TOKENS, R, Table

_TOKENS_OF_0001: Final = (
    "(SELECT id, hash, name, 'admin' AS role, NULL AS project, created_at_ms, expires_at_ms, revoked_at_ms"
    " FROM admin_tokens)"
)
"""Before revision 0002 every token was an admin's. A database that is only read is not migrated."""


class SqliteDatabase:
    """A `Database` in a file. Made by `open` or `open_read_only`."""

    def __init__(self, engine: Engine, path: Path, sources: dict[str, str] | None = None) -> None:
        self._engine = engine
        self._pool = engine.pool
        self._writing = engine.execution_options(immediate=True)
        self._sources = sources
        self._closed = False
        self._path = path
        self._file = _file_at(path)

    @classmethod
    def open(cls, path: Path, busy_timeout_seconds: float) -> Self:
        """Open the database at `path`, making the folder (mode 0700) and the file (0600) when they are missing.

        A new database gets the newest schema, an older one is migrated; two processes that open one home at once both
        succeed. `busy_timeout_seconds` bounds each wait for another process's lock. Raises `StoreError`: "schema" for a
        database of a newer version or of something else, "corrupt" for a file that is no database.
        """
        path = Path(path).absolute()
        return cls(open_database(path, busy_timeout_seconds), path)

    @classmethod
    def open_read_only(cls, path: Path, busy_timeout_seconds: float) -> Self:
        """Open a database, or a copy of one, only to look at it: nothing is created, migrated or changed. Tables that its
        revision does not have are empty.

        With a `-wal` file beside it that file is read too; SQLite may then make the `-shm` file that it shares with
        other readers. Raises `StoreError` when there is no such file, or it is not a database of this or an older
        version.
        """
        path = Path(path).absolute()
        engine, found = open_to_read(path, busy_timeout_seconds)
        sources = {name: name for name in found}
        if TOKENS.name not in found:
            sources[TOKENS.name] = _TOKENS_OF_0001
        return cls(engine, path, sources)

    @property
    def place(self) -> str:
        """Its path."""
        return str(self._path)

    @contextmanager
    def reading(self, *, damaged: bool = False) -> Iterator["_Transaction"]:
        """One consistent view, in a transaction that only reads.

        What was there can be read also after the file has gone, as long as this store is open: calls that run are to be seen
        and stopped.
        """
        with self._opened(), self._engine.connect() as connection, connection.begin():
            transaction = _Transaction(connection, self._sources, damaged=damaged)
            try:
                yield transaction
            finally:
                transaction.end()

    @contextmanager
    def transaction(self) -> Iterator["_Transaction"]:
        """One `BEGIN IMMEDIATE` transaction: committed at the end of the block, rolled back when it raises."""
        with self._opened():
            self.check()
            with self._writing.begin() as connection:
                transaction = _Transaction(connection, self._sources)
                try:
                    yield transaction
                finally:
                    transaction.end()
            self.check()

    def check(self) -> None:
        """Whether the database is still the file that was opened. Raises `StoreError` "gone" when it was deleted, moved or
        replaced: what is written to it then is nowhere."""
        found = _file_at(self._path)
        if found != self._file:
            raise gone(self._path, "was deleted or moved" if found is None else "was replaced by another file")

    def close(self) -> None:
        """Close the connections.

        A call that is still running in another thread ends as it would have, and closes its connection itself.
        """
        self._closed = True
        with failures(self._path):
            self._pool.dispose()  # the engine's own dispose makes a new pool, which nobody would close

    @contextmanager
    def _opened(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"the store {self._path} is closed", kind="io")
        try:
            with failures(self._path):
                yield
        finally:
            if self._closed:  # meanwhile, by another thread: the pool has the connection back
                self._pool.dispose()


class _Transaction:
    """A transaction on the connection of the driver: SQLAlchemy would take longer for a statement than SQLite does.

    `sources` says where the tables of an older revision are, by name; None where all of them are there.
    """

    def __init__(self, connection: Connection, sources: dict[str, str] | None, *, damaged: bool = False) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows the type
        self._driver = driver
        self._sources = sources
        self._reads: list[sqlite3.Cursor] = []
        if damaged:
            driver.text_factory = _decoded

    def end(self) -> None:
        """Nothing is read any longer: a statement that has rows left would hold its view of the database."""
        for cursor in self._reads:
            cursor.close()
        self._driver.text_factory = str

    def select(
        self,
        table: Table[R],
        where: Where | None = None,
        *,
        order: Sequence[str] = (),
        descending: bool = False,
        after: Sequence[str | int] | None = None,
        limit: int | None = None,
    ) -> Iterator[R]:
        """See `Reading.select`."""
        source = self._source(table)
        if source is None:
            return iter(())
        conditions, values = _conditions(where)
        text = _select(source, table.columns, conditions, tuple(order), descending, after is not None)
        cursor = self._driver.execute(text, [*values, *(after or ()), -1 if limit is None else limit])
        self._reads.append(cursor)
        return map(table.row._make, cursor)  # type: ignore[attr-defined]  # a NamedTuple has it

    def count(self, table: Table[R], where: Where | None = None) -> int:
        """See `Reading.count`."""
        source = self._source(table)
        if source is None:
            return 0
        conditions, values = _conditions(where)
        (found,) = self._driver.execute(f"SELECT count(*) FROM {source}{_where(conditions)}", values).fetchone()  # noqa: S608 - names of ours
        return int(found)

    def add(self, table: Table[R], rows: Sequence[R]) -> int:
        """See `Writing.add`."""
        return self._driver.executemany(_add(table.name, table.columns, table.key), rows).rowcount

    def put(self, table: Table[R], rows: Sequence[R]) -> None:
        """See `Writing.put`."""
        self._driver.executemany(_put(table.name, table.columns, table.key), rows)

    def delete(self, table: Table[R], keys: Sequence[tuple[str | int, ...]]) -> None:
        """See `Writing.delete`."""
        self._driver.executemany(_delete(table.name, table.key), keys)

    def _source(self, table: Table[R]) -> str | None:
        return table.name if self._sources is None else self._sources.get(table.name)


def _conditions(where: Where | None) -> tuple[tuple[tuple[str, bool], ...], list[Any]]:
    """For each column whether it is to have one value, and the values to be bound."""
    if not where:
        return (), []
    conditions, values = [], list[Any]()
    for column, wanted in where.items():
        one = len(wanted) == 1
        conditions.append((column, one))
        values.append(wanted[0] if one else json.dumps(list(wanted)))
    return tuple(conditions), values


def _where(conditions: tuple[tuple[str, bool], ...], *more: str) -> str:
    some = "IN (SELECT value FROM json_each(?))"
    said = [*(f"{column} {'= ?' if one else some}" for column, one in conditions), *more]
    return f" WHERE {' AND '.join(said)}" if said else ""


# The texts of the statements. All names in them are ours; each is made once.


@lru_cache(maxsize=256)
def _select(
    source: str,
    columns: tuple[str, ...],
    conditions: tuple[tuple[str, bool], ...],
    order: tuple[str, ...],
    descending: bool,  # noqa: FBT001 - one of the cache's keys
    behind: bool,  # noqa: FBT001 - as above
) -> str:
    direction, beyond = (" DESC", "<") if descending else ("", ">")
    places = ", ".join("?" for _ in order)
    text = f"SELECT {', '.join(columns)} FROM {source}"  # noqa: S608 - as above
    text += _where(conditions, *([f"({', '.join(order)}) {beyond} ({places})"] if behind else []))
    if order:
        text += f" ORDER BY {', '.join(f'{column}{direction}' for column in order)}"
    return f"{text} LIMIT ?"


@lru_cache
def _add(name: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    return f"{_insert(name, columns)} ON CONFLICT ({', '.join(key)}) DO NOTHING"


@lru_cache
def _put(name: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return f"{_insert(name, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"


def _insert(name: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"  # noqa: S608 - as above


@lru_cache
def _delete(name: str, key: tuple[str, ...]) -> str:
    return f"DELETE FROM {name} WHERE {' AND '.join(f'{column} = ?' for column in key)}"  # noqa: S608 - as above


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at `path`, None if none is. Raises `StoreError` when that can't be told."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failed(path, error) from error
    return found.st_dev, found.st_ino
