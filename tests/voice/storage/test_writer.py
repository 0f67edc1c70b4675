"""The writer: each ticket is answered once, in order, whatever the database does."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.spill import HEADER, SpillFile
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter
from agentos.core.time import monotonic_ms
from machines.communication import ConnectorType
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord
from machines.framing import framed

PATIENCE_SECONDS = 30.0  # only a bug makes a test wait so long
HANGING_SECONDS = 60.0  # a busy timeout beyond that: the writer's thread hangs in the database
SPILL_BYTES = 64 * 1024


def entry(name: str, request: str = "voice-1", **summary: object) -> Entry:
    return Entry(
        EvidenceRecord(
            id=name,
            request_id=request,
            connector_type=ConnectorType.CUSTOM,
            operation="test",
            request_summary=summary,
            created_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
    )


def event(number: int) -> VoiceEvent:
    return VoiceEvent(
        event_id=f"evt-{number}",
        session_id="voice-1",
        event_type=VoiceEventType.STT_PARTIAL,
        timestamp_ms=1,
        number=number,
    )


class Answers:
    """What the writer told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.errors: dict[object, Exception] = {}
        self._changed = threading.Condition()

    def stored(self, tickets: Sequence[object]) -> None:
        self._tell("stored", tickets)

    def spilled(self, tickets: Sequence[object]) -> None:
        self._tell("spilled", tickets)

    def failed(self, tickets: Sequence[object], error: Exception) -> None:
        self.errors |= dict.fromkeys(tickets, error)
        self._tell("failed", tickets)

    def _tell(self, what: str, tickets: Sequence[object]) -> None:
        with self._changed:
            self.told += [(what, ticket) for ticket in tickets]
            self._changed.notify_all()

    def wait(self, count: int) -> list[tuple[str, object]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, PATIENCE_SECONDS), self.told
            return list(self.told)


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic_ms() + PATIENCE_SECONDS * 1000
    while not condition():
        assert monotonic_ms() < deadline, "it did not happen"
        time.sleep(0.005)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


@contextmanager
def writing(
    folder: Path, *, busy_timeout_seconds: float = HANGING_SECONDS, max_backlog: int = 100_000
) -> Iterator[tuple[GroupCommitWriter, VoiceStore, Answers]]:
    answers = Answers()
    with open_store(folder / "voice.db", busy_timeout_seconds=busy_timeout_seconds) as store:
        writer = GroupCommitWriter(
            store,
            SpillFile.open(folder, "me", SPILL_BYTES),
            on_stored=answers.stored,
            on_failed=answers.failed,
            on_spilled=answers.spilled,
            max_backlog=max_backlog,
            retry_seconds=0.02,
        )
        try:
            yield writer, store, answers
        finally:
            assert writer.close(PATIENCE_SECONDS)


@contextmanager
def hanging(folder: Path, writer: GroupCommitWriter) -> Iterator[None]:
    """The database hangs, and the writer's thread in it, with the entry `ev-hung`."""
    assert writer.flush(PATIENCE_SECONDS)
    with locked(folder / "voice.db"):
        writer.put(entry("ev-hung", "voice-hung"), "hung")
        until(lambda: not writer._work and len(writer._in_flight) == 1)
        yield


def ids(store: VoiceStore) -> list[str]:
    assert store.verify().ok
    return [item.id for item in store.evidence()]


def test_what_is_put_is_stored_in_order_and_answered_once(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        for number in range(1500):
            writer.put(entry(f"ev-{number}"), number)
        assert writer.flush(PATIENCE_SECONDS)
        assert answers.told == [("stored", number) for number in range(1500)]
        assert ids(store) == [f"ev-{number}" for number in range(1500)]
        assert writer.statistics().backlog == 0
        assert writer.statistics().stored == writer.statistics().lags.count == 1500


def test_an_answer_comes_only_when_the_record_is_durable(tmp_path: Path) -> None:
    seen: list[bool] = []
    with writing(tmp_path) as (writer, store, answers):
        writer._on_stored = lambda tickets: seen.extend(
            store.evidence_record(str(name)) is not None for name in tickets
        )
        for number in range(20):
            writer.put(entry(f"ev-{number}"), f"ev-{number}")
        assert writer.flush(PATIENCE_SECONDS)
    assert seen == [True] * 20
    assert answers.told == []


def test_what_came_during_a_transaction_goes_into_the_next_one(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, _, answers):
        with hanging(tmp_path, writer):
            for number in range(700):
                writer.put(entry(f"ev-{number}"), number)
            assert writer.statistics().backlog == 701
        answers.wait(701)
        assert writer.flush(PATIENCE_SECONDS)
        found = writer.statistics()
        assert (found.transactions, found.largest_batch) == (3, 512)


def test_many_threads_put_at_once(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        threads = [
            threading.Thread(
                target=lambda name=name: [writer.put(entry(f"ev-{name}-{n}", name), (name, n)) for n in range(100)]
            )
            for name in ("a", "b", "c", "d")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush(PATIENCE_SECONDS)
        for name in ("a", "b", "c", "d"):
            own = [ticket for _, ticket in answers.told if isinstance(ticket, tuple) and ticket[0] == name]
            assert own == [(name, number) for number in range(100)]
        assert len(ids(store)) == 400


def test_only_the_bad_entries_of_a_batch_fail(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            for number in range(6):
                writer.put(entry(f"ev-{number}", thing=object() if number in (1, 5) else number), number)
        answers.wait(7)
        assert sorted(answers.told[1:]) == sorted(
            [("failed", 1), ("failed", 5), ("stored", 0), ("stored", 2), ("stored", 3), ("stored", 4)]
        )
        assert isinstance(answers.errors[1], BadEntry)
        assert ids(store) == ["ev-hung", "ev-0", "ev-2", "ev-3", "ev-4"]


def test_an_unexpected_error_fails_only_the_entry_that_has_it(tmp_path: Path) -> None:
    class Odd(VoiceEvent):
        def model_dump_json(self, **_: object) -> str:  # type: ignore[override]
            raise LookupError("odd")

    with writing(tmp_path) as (writer, store, answers):
        odd = Odd.model_construct(**event(1).model_dump())
        with hanging(tmp_path, writer):
            for number in range(4):
                put = entry(f"ev-{number}")
                writer.put(Entry(put.record, None, (odd,)) if number == 2 else put, number)
        answers.wait(5)
        assert isinstance(answers.errors[2], LookupError)
        assert set(answers.errors) == {2}
        assert ids(store) == ["ev-hung", "ev-0", "ev-1", "ev-3"]


def test_a_locked_database_fails_the_batch_and_the_next_one_is_stored(tmp_path: Path) -> None:
    with writing(tmp_path, busy_timeout_seconds=0.05) as (writer, store, answers):
        assert writer.flush(PATIENCE_SECONDS)
        with locked(tmp_path / "voice.db"):
            writer.put(entry("ev-1"), 1)
            assert answers.wait(1) == [("failed", 1)]
            error = answers.errors[1]
            assert isinstance(error, StoreError)
            assert error.kind == "locked"
        writer.put(entry("ev-1"), "again")
        assert answers.wait(2)[1:] == [("stored", "again")]
        assert ids(store) == ["ev-1"]


def test_a_probe_tells_whether_the_store_can_be_written(tmp_path: Path) -> None:
    with writing(tmp_path, busy_timeout_seconds=0.05) as (writer, store, answers):
        writer.probe("before")
        assert answers.wait(1) == [("stored", "before")]
        with locked(tmp_path / "voice.db"):
            writer.probe("locked")
            assert answers.wait(2)[1:] == [("failed", "locked")]
        writer.probe("after")
        assert answers.wait(3)[2:] == [("stored", "after")]
        assert ids(store) == []
        assert (writer.statistics().stored, writer.statistics().failed) == (0, 0)


def test_events_are_stored_as_well_as_it_goes(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, _):
        writer.add_events([event(1), event(2**63), event(2)])
        assert writer.flush(PATIENCE_SECONDS)
        assert store.events("voice-1") == [event(1), event(2)]
        assert writer.statistics().events_lost == 1


def test_events_of_a_time_when_the_store_was_down_are_stored_when_it_is_back(tmp_path: Path) -> None:
    with writing(tmp_path, busy_timeout_seconds=0.05) as (writer, store, _):
        with locked(tmp_path / "voice.db"):
            writer.add_events([event(1)])
            assert writer.flush(PATIENCE_SECONDS)
            writer.add_events([event(2)])
            assert writer.flush(PATIENCE_SECONDS)
            assert store.events("voice-1") == []
        until(lambda: store.events("voice-1") == [event(1), event(2)])
        assert writer.statistics().events_lost == 0


def test_a_callback_that_raises_is_logged_and_the_writer_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(tickets: Sequence[object]) -> None:
        raise LookupError(f"broken for {tickets}")

    with writing(tmp_path) as (writer, store, answers), caplog.at_level(logging.ERROR):
        writer._on_stored = broken
        writer.put(entry("ev-1"), 1)
        assert writer.flush(PATIENCE_SECONDS)
        writer._on_stored = answers.stored
        writer.put(entry("ev-2"), 2)
        assert answers.wait(1) == [("stored", 2)]
        assert ids(store) == ["ev-1", "ev-2"]
    assert "callback" in caplog.text
    assert "broken for" in caplog.text


# The spill


def test_a_hung_database_does_not_stop_the_spill_and_the_spilled_goes_in_before_what_is_newer(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            writer.put(entry("ev-queued", "voice-2"), "queued")
            writer.spill(entry("ev-final", "voice-1"), "final")
            assert answers.wait(1) == [("spilled", "final")]
            assert writer.statistics().waiting_in_spill == 1
        answers.wait(3)
        assert writer.flush(PATIENCE_SECONDS)
        assert ids(store) == ["ev-hung", "ev-final", "ev-queued"]
        found = writer.statistics()
        assert (found.spilled, found.recovered, found.waiting_in_spill) == (1, 1, 0)
    assert not (tmp_path / "me.spill").exists()


def test_a_spilled_final_record_stays_behind_the_earlier_ones_of_its_session(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            writer.put(entry("ev-first"), "first")
            writer.put(entry("ev-other", "voice-2"), "other")
            writer.put(entry("ev-second"), "second")
            writer.spill(entry("ev-final"), "final")
            answers.wait(1)
        answers.wait(5)
        assert sorted(str(ticket) for _, ticket in answers.told) == ["final", "first", "hung", "other", "second"]
        own = [name for name in ids(store) if name not in ("ev-hung", "ev-other")]
        assert own == ["ev-first", "ev-second", "ev-final"]
        assert len(ids(store)) == 5


def test_a_record_takes_room_in_the_spill_file_once(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            for number in range(10):
                writer.put(entry(f"ev-{number}"), number)
            for number in range(10):
                writer.spill(entry(f"ev-{number}"), ("again", number))
                assert answers.wait(number + 1)[-1] == ("spilled", ("again", number))
            assert writer.statistics().waiting_in_spill == 10
        answers.wait(21)
        assert writer.flush(PATIENCE_SECONDS)
        assert ids(store) == ["ev-hung", *(f"ev-{number}" for number in range(10))]


def test_what_was_taken_in_can_be_spilled_again(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        for count in (1, 2):
            writer.spill(entry("ev-1"), count)
            assert answers.wait(count)[-1] == ("spilled", count)
            until(lambda: writer.statistics().waiting_in_spill == 0)
        assert ids(store) == ["ev-1"]


def test_a_bad_record_in_the_queue_does_not_keep_the_final_one_from_the_spill(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            writer.put(entry("ev-bad", thing=object()), "bad")
            writer.spill(entry("ev-final"), "final")
            assert answers.wait(1) == [("spilled", "final")]
        answers.wait(3)
        assert writer.flush(PATIENCE_SECONDS)
        assert ids(store) == ["ev-hung", "ev-final"]


def test_an_idle_writer_brings_the_spilled_in_when_the_store_is_back(tmp_path: Path) -> None:
    with writing(tmp_path, busy_timeout_seconds=0.02) as (writer, store, answers):
        assert writer.flush(PATIENCE_SECONDS)
        with locked(tmp_path / "voice.db"):
            writer.spill(entry("ev-final"), "final")
            assert answers.wait(1) == [("spilled", "final")]
            writer.put(entry("ev-1"), 1)
            assert answers.wait(2)[1:] == [("failed", 1)]
            assert ids(store) == []
        until(lambda: writer.statistics().recovered == 1)
        assert ids(store) == ["ev-final"]
        assert answers.told == [("spilled", "final"), ("failed", 1)]


def test_what_a_dead_process_left_goes_in_first_at_the_start(tmp_path: Path) -> None:
    for owner in ("dead", "me"):
        with SpillFile.open(tmp_path, owner, SPILL_BYTES) as left:
            left.add([entry(f"ev-{owner}-1"), entry(f"ev-{owner}-2")])
    with writing(tmp_path) as (writer, store, answers):
        writer.put(entry("ev-new"), "new")
        assert answers.wait(1) == [("stored", "new")]
        assert ids(store) == ["ev-dead-1", "ev-dead-2", "ev-me-1", "ev-me-2", "ev-new"]
        assert not (tmp_path / "dead.spill").exists()
    assert not (tmp_path / "me.spill").exists()


def test_what_went_in_already_is_not_stored_again(tmp_path: Path) -> None:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5.0) as store:
        store.append([entry("ev-1")])
    with SpillFile.open(tmp_path, "dead", SPILL_BYTES) as left:
        left.add([entry("ev-1"), entry("ev-2")])
    with writing(tmp_path) as (writer, store, _):
        assert writer.flush(PATIENCE_SECONDS)
        assert ids(store) == ["ev-1", "ev-2"]


def test_a_spill_file_that_cannot_be_read_is_kept_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = SpillFile.open(tmp_path, "later", SPILL_BYTES)
    payload = b'{"of a later version": true}'
    os.pwrite(left._opened(), framed(payload, left._generation), HEADER.size)
    left.count = 1
    left.close()
    with writing(tmp_path) as (writer, store, answers):
        writer.put(entry("ev-1"), 1)
        assert answers.wait(1) == [("stored", 1)]
        assert ids(store) == ["ev-1"]
    assert (tmp_path / "later.spill").exists()
    assert "left as it is" in caplog.text


def test_a_full_spill_file_fails_the_ticket(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            writer.spill(entry("ev-large", text="x" * SPILL_BYTES), "large")
            assert answers.wait(1) == [("failed", "large")]
            error = answers.errors["large"]
            assert isinstance(error, StoreError)
            assert error.kind == "full"
            writer.spill(entry("ev-small"), "small")
            assert answers.wait(2)[1:] == [("spilled", "small")]
        assert writer.flush(PATIENCE_SECONDS)
        until(lambda: writer.statistics().recovered == 1)
        assert ids(store) == ["ev-hung", "ev-small"]


def test_on_a_full_disk_puts_fail_the_spill_works_and_all_goes_in_later(
    small_disk: Path, fill_disk: Callable[[], Path]
) -> None:
    with writing(small_disk, busy_timeout_seconds=1.0) as (writer, store, answers):
        writer.put(entry("ev-0"), 0)
        assert writer.flush(PATIENCE_SECONDS)
        stuffing = fill_disk()
        number = 0
        while answers.told[-1][0] == "stored":
            number += 1
            writer.put(entry(f"ev-{number}", text="x" * 50_000), number)
            assert writer.flush(PATIENCE_SECONDS)
        error = answers.errors[number]
        assert isinstance(error, StoreError)
        assert error.kind == "full"
        # As large as what failed: the database could still take a small one into what its WAL has.
        writer.spill(entry("ev-final", text="x" * 50_000), "final")
        until(lambda: ("spilled", "final") in answers.told)
        stuffing.unlink()
        until(lambda: writer.statistics().waiting_in_spill == 0)
        assert ids(store) == [*(f"ev-{at}" for at in range(number)), "ev-final"]


# The end


def test_closing_stores_what_is_queued(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        for number in range(100):
            writer.put(entry(f"ev-{number}"), number)
        assert writer.close(PATIENCE_SECONDS)
        assert answers.told == [("stored", number) for number in range(100)]
        assert len(ids(store)) == 100
        for call in (writer.put, writer.spill):
            with pytest.raises(StoreError, match="closed"):
                call(entry("ev-late"), "late")
        with pytest.raises(StoreError, match="closed"):
            writer.probe("late")
        writer.add_events([event(1)])
        assert writer.statistics().events_lost == 1
        assert writer.flush(PATIENCE_SECONDS)


def test_closing_is_bounded_when_the_database_hangs_and_answers_what_is_queued(tmp_path: Path) -> None:
    with writing(tmp_path) as (writer, store, answers):
        with hanging(tmp_path, writer):
            writer.put(entry("ev-1"), 1)
            writer.probe("probe")
            writer.spill(entry("ev-final"), "final")
            assert answers.wait(1) == [("spilled", "final")]
            assert not writer.flush(0.05)
            assert not writer.close(0.1)
            assert answers.told[1:] == [("failed", 1), ("failed", "probe")]
        assert writer.close(PATIENCE_SECONDS)  # it goes on where it hung
        assert answers.told[3:] == [("stored", "hung")]
        # ev-1 was queued when its session's last record was spilled, and went along.
        assert ids(store) == ["ev-hung", "ev-1", "ev-final"]


def test_what_comes_after_the_close_waits_for_a_thread_that_hangs(tmp_path: Path) -> None:
    tidied = threading.Event()
    with writing(tmp_path) as (writer, store, _):
        with hanging(tmp_path, writer):
            writer.spill(entry("ev-final"), "final")
            assert not writer.close(0.1, then=tidied.set)
            assert not tidied.is_set()
        assert tidied.wait(PATIENCE_SECONDS)
        assert ids(store) == ["ev-hung", "ev-final"]
        assert list(tmp_path.glob("*.spill")) == []  # closed too, and nothing is left in it


def test_what_comes_after_the_close_comes_before_its_end(tmp_path: Path) -> None:
    tidied = threading.Event()
    with writing(tmp_path) as (writer, _, _):
        assert writer.close(PATIENCE_SECONDS, then=tidied.set)
        assert tidied.is_set()


def test_the_backlog_is_bounded(tmp_path: Path) -> None:
    with writing(tmp_path, max_backlog=3) as (writer, _, answers):
        with hanging(tmp_path, writer):
            for number in range(3):
                writer.put(entry(f"ev-{number}"), number)
            with pytest.raises(StoreError, match="behind"):
                writer.put(entry("ev-3"), 3)
            writer.add_events([event(1)])
            assert writer.statistics().events_lost == 1
        answers.wait(4)
        assert ("stored", 2) in answers.told
