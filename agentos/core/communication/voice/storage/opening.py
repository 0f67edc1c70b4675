"""Where a store is opened: the one place that knows which kind of store and of ownership there is.

A home is kept by SQLite and by file locks. A host may have a service work on a store of another kind (`StoreFactory`); the
commands, and `EvidenceLogger`, work on the home's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.database import Database
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.ownership import Owners
from agentos.core.communication.voice.storage.sqlite.database import SqliteDatabase
from agentos.core.communication.voice.storage.sqlite.opening import revision_at
from agentos.core.communication.voice.storage.sqlite.schema import HEAD
from agentos.core.communication.voice.storage.store import VoiceStore

NEWEST_REVISION = HEAD
"""The revision of a new database."""


def _locks_in_home(settings: VoiceSettings) -> Owners:
    return FileLocks(settings.home)


def _sqlite_in_home(settings: VoiceSettings) -> Database:
    return SqliteDatabase.open(settings.database, settings.store_busy_timeout_seconds)


@dataclass(frozen=True, slots=True)
class StoreFactory:
    """How the store of a service is opened: `database(settings)` opens it, and makes it when it is missing; `owners(settings)`
    are those who have sessions in it. Without them it is SQLite, and file locks, in the home.

    A service asks for the owners first, becomes one of them, and then opens the database. Both functions may block, and raise
    `StoreError`.
    """

    database: Callable[[VoiceSettings], Database] = _sqlite_in_home
    owners: Callable[[VoiceSettings], Owners] = _locks_in_home


def open_store(path: Path, *, busy_timeout_seconds: float, owner: str = "") -> VoiceStore:
    """The store in the SQLite file at `path`, in its home; see `SqliteDatabase.open`. The sessions that it makes belong to
    `owner`."""
    path = Path(path).absolute()
    return VoiceStore(SqliteDatabase.open(path, busy_timeout_seconds), FileLocks(path.parent), path.parent, owner)


def open_to_read(path: Path, *, busy_timeout_seconds: float = 5.0) -> VoiceStore:
    """The store in the SQLite file at `path`, or in a copy of one, only to look at it; see `SqliteDatabase.open_read_only`."""
    path = Path(path).absolute()
    return VoiceStore(SqliteDatabase.open_read_only(path, busy_timeout_seconds), FileLocks(path.parent), path.parent)


def revision_of(path: Path) -> str:
    """The revision of the SQLite file at `path`, which is only read. Raises `StoreError`."""
    return revision_at(Path(path).absolute())
