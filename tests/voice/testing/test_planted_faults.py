"""The conformance suite is worth something: each of these stores is wrong in one way, and a test of the suite says so."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage import file_locks
from agentos.core.communication.voice.storage.file_locks import FileLock, FileLocks
from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.storage.sqlite import database as module
from agentos.core.communication.voice.storage.sqlite.database import SqliteDatabase
from agentos.core.communication.voice.storage.tables import R, Table
from agentos.core.communication.voice.testing.store_conformance import StoreConformance


class Rows(module._Transaction):
    """A transaction to be made wrong."""


class WithRows(SqliteDatabase):
    """A database whose blocks give `rows`."""

    rows: type[module._Transaction] = Rows

    @contextmanager
    def reading(self, *, damaged: bool = False) -> Iterator[module._Transaction]:
        with self._opened(), self._engine.connect() as connection, connection.begin():
            yield self.rows(connection, None, damaged=damaged)

    @contextmanager
    def transaction(self) -> Iterator[module._Transaction]:
        with self._opened():
            self.check()
            with self._writing.begin() as connection:
                yield self.rows(connection, None)


class AddReplaces(WithRows):
    class rows(Rows):  # noqa: N801 - the attribute
        def add(self, table: Table[R], rows: Sequence[R]) -> int:
            self.put(table, rows)
            return len(rows)


class KnowsNoDuplicates(WithRows):
    class rows(Rows):  # noqa: N801 - as above
        def select(self, table: Table[R], where: Any = None, **options: Any) -> Iterator[R]:
            found = super().select(table, where, **options)
            return iter(()) if where and len(next(iter(where.values()))) > 1 else found


class ForgetsWhereItWas(WithRows):
    class rows(Rows):  # noqa: N801 - as above
        def select(self, table: Table[R], where: Any = None, **options: Any) -> Iterator[R]:
            return super().select(table, where, **{**options, "after": None})


class CommitsEachStatement(WithRows):
    @contextmanager
    def transaction(self) -> Iterator[module._Transaction]:
        with self._opened(), self._engine.connect() as connection:
            yield self.rows(connection, None)


class ReadsBeforeItsTurn(WithRows):
    @contextmanager
    def transaction(self) -> Iterator[module._Transaction]:
        with self._opened(), self._engine.begin() as connection:
            yield self.rows(connection, None)


class ViewMoves(WithRows):
    @contextmanager
    def reading(self, *, damaged: bool = False) -> Iterator[module._Transaction]:
        with self._opened(), self._engine.connect() as connection:
            yield self.rows(connection, None)


class CommitsLate(WithRows):
    """It acknowledges what a crash takes back."""

    late: Any = None

    @contextmanager
    def transaction(self) -> Iterator[module._Transaction]:
        with self._opened():
            if self.late is None:
                self.late = self._writing.connect()
                self.late.begin()
            yield self.rows(self.late, None)

    def close(self) -> None:
        if self.late is not None:
            self.late.commit()
            self.late.close()
            self.late = None
        super().close()


class WritesToNowhere(SqliteDatabase):
    def check(self) -> None:
        pass


class LeaksErrors(SqliteDatabase):
    @contextmanager
    def _opened(self) -> Iterator[None]:
        if self._closed:
            raise sqlite3.ProgrammingError("closed")
        yield


class AnybodyTakesOver(FileLocks):
    def take_over(self, owner: str) -> FileLock | None:
        path = self._path(owner)
        return FileLock(os.open(path, os.O_RDWR | os.O_CREAT), path)


class NobodyDies(FileLocks):
    def is_dead(self, owner: str) -> bool:
        return owner in self.names()


class NeverTold(FileLocks):
    def take(self, owner: str) -> FileLock:
        lock = super().take(owner)
        lock.check = lambda: None  # type: ignore[method-assign]
        return lock


def opens(kind: type[SqliteDatabase]) -> StoreFactory:
    return StoreFactory(database=lambda settings: kind.open(settings.database, settings.store_busy_timeout_seconds))


def owned_by(kind: type[FileLocks]) -> StoreFactory:
    return StoreFactory(owners=lambda settings: kind(settings.home))


class Late(StoreConformance):
    """At the top of the module, since other processes load it."""

    __test__ = False
    store = opens(CommitsLate)


class Immortal(StoreConformance):
    __test__ = False
    store = owned_by(NobodyDies)


class Suite(StoreConformance):
    __test__ = False

    def __init__(self, store: StoreFactory) -> None:
        self.store = store

    def make_settings(self, home: Path) -> VoiceSettings:
        return super().make_settings(home).model_copy(update={"store_busy_timeout_seconds": 0.5})


@pytest.mark.parametrize(
    ("suite", "test", "arguments"),
    [
        (Suite(opens(AddReplaces)), "a_row_is_added_once_and_replaced_when_it_is_put", {}),
        (Suite(opens(KnowsNoDuplicates)), "entries_are_stored_in_order_once_and_with_all_that_belongs_to_them", {}),
        (Suite(opens(ForgetsWhereItWas)), "a_query_gives_what_a_list_would", {"seed": 1}),
        (Suite(opens(CommitsEachStatement)), "a_transaction_that_raises_stores_nothing", {"error": KeyError()}),
        (Suite(opens(ReadsBeforeItsTurn)), "transactions_stand_in_one_line", {}),
        (Suite(opens(ViewMoves)), "a_view_does_not_change_while_others_write", {}),
        (Late(), "what_was_acknowledged_survives_a_kill", {"acknowledged": 2}),
        (Suite(opens(WritesToNowhere)), "a_store_that_was_taken_away_takes_nothing", {}),
        (Suite(opens(LeaksErrors)), "a_closed_store_says_so", {}),
        (Suite(owned_by(AnybodyTakesOver)), "of_many_one_takes_the_place_of_the_dead", {}),
        (Immortal(), "an_owner_lives_as_long_as_its_process", {}),
        (Suite(owned_by(NeverTold)), "an_owner_that_lost_its_place_is_told_and_harms_nobody", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_suite_finds_it(
    suite: StoreConformance, test: str, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(StoreConformance, f"test_{test}") is getattr(type(suite), f"test_{test}")
    monkeypatch.setattr(file_locks, "TAKE_SECONDS", 0.05)
    monkeypatch.setattr(file_locks, "_held", set())  # remembers those that a test which failed has not let go
    try:
        with pytest.raises((AssertionError, OSError, sqlite3.Error, pytest.fail.Exception)):
            getattr(suite, f"test_{test}")(suite.make_settings(tmp_path / "home"), **arguments)
    finally:
        file_locks._forget_all()
