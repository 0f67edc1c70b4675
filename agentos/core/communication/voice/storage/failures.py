"""What SQLite, SQLAlchemy and the file system raise, as the one `StoreError` that says what to do."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from agentos.core.communication.voice.errors import FailureKind, NotADatabase, StoreError, VoiceError

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
_ERRNO_KINDS: dict[int | None, FailureKind] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
    errno.EPERM: "readonly",
    errno.EAGAIN: "locked",
}
_ADVICE: dict[FailureKind, str] = {
    "full": "the disk is full: free some space",
    "locked": "another process holds the database's lock: try again, or see which one it is",
    "corrupt": "it is no SQLite database, or a damaged one: restore a copy or move the file away",
    "readonly": "it can't be written: check the permissions and the mount",
    "io": "the file system failed: check the disk",
    "schema": "its tables are not those of this version",
    "gone": "put it back where it was, or start again on what is there now",
}


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn what SQLite, SQLAlchemy and the file system raise into `StoreError`."""
    try:
        yield
    except VoiceError:
        raise
    except sa.exc.DBAPIError as error:
        raise _store_error(path, error.orig) from error
    except sqlite3.Error as error:
        raise _store_error(path, error) from error
    except sa.exc.TimeoutError as error:  # every connection of the pool is in use
        raise StoreError(f"the store {path} is busy: {error}", kind="locked") from error
    except OSError as error:
        raise failed(path, error) from error


def failed(path: Path, error: OSError) -> StoreError:
    """The `StoreError` that a failure of the file system at `path` is."""
    return _error(path, _ERRNO_KINDS.get(error.errno, "io"), error)


def gone(path: Path, problem: str) -> StoreError:
    """The `StoreError` for a file that is no longer where its process opened it."""
    return StoreError(f"{path} {problem}; {_ADVICE['gone']}", kind="gone")


def _store_error(path: Path, error: BaseException | None) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    kind: FailureKind = _KINDS.get(code & 0xFF, "io")
    if kind == "io" and _no_space(path):
        kind = "full"  # SQLite calls a failed growth of the WAL's index an I/O error
    if code == sqlite3.SQLITE_CANTOPEN and not os.access(path, os.R_OK | os.W_OK):
        kind = "readonly"
    if code & 0xFF == sqlite3.SQLITE_NOTADB:
        return NotADatabase(path, f"{path} is no SQLite database: restore a copy or move the file away", kind=kind)
    return _error(path, kind, error)


def _error(path: Path, kind: FailureKind, error: BaseException | None) -> StoreError:
    return StoreError(f"the store {path} failed ({error}); {_ADVICE[kind]}", kind=kind)


def _no_space(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail == 0
