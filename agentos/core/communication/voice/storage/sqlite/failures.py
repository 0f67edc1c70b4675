"""What SQLite, SQLAlchemy and the file system raise, as the one `StoreError` that says what to do."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from agentos.core.communication.voice.errors import FailureKind, NotADatabase, StoreError
from agentos.core.communication.voice.storage.failures import failure_of
from agentos.core.communication.voice.storage.failures import failures as file_failures

_KINDS: dict[int, FailureKind] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_SCHEMA: "schema",
    sqlite3.SQLITE_ERROR: "schema",  # "no such table" and "no such column"; our statements are right otherwise
}


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn what SQLite, SQLAlchemy and the file system raise into `StoreError`."""
    try:
        with file_failures(path):
            yield
    except sa.exc.DBAPIError as error:
        raise _store_error(path, error.orig) from error
    except sqlite3.Error as error:
        raise _store_error(path, error) from error
    except sa.exc.TimeoutError as error:  # every connection of the pool is in use
        raise StoreError(f"the store {path} is busy: {error}", kind="locked") from error


def _store_error(path: Path, error: BaseException | None) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    kind: FailureKind = _KINDS.get(code & 0xFF, "io")
    if kind == "io" and _no_space(path):
        kind = "full"  # SQLite calls a failed growth of the WAL's index an I/O error
    if code == sqlite3.SQLITE_CANTOPEN and not os.access(path, os.R_OK | os.W_OK):
        kind = "readonly"
    if "Could not decode" in str(error):  # text that is no UTF-8; it has no code
        kind = "corrupt"
    if code & 0xFF == sqlite3.SQLITE_NOTADB:
        return NotADatabase(path, f"{path} is no SQLite database: restore a copy or move the file away", kind=kind)
    return failure_of(path, kind, error)


def _no_space(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail == 0
