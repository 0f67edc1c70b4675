"""Whether a store does what `storage/database.py` and `storage/ownership.py` say: a class of tests for a host's own store.

    class TestMyStore(StoreConformance):
        store = StoreFactory(database=open_my_database)

Some tests start processes, which load the module of that class by its file: the class stands at the top of a module, and needs
no fixture of its own. All tests are plain functions of pytest.
"""

import importlib.util
import inspect
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.database import Database, Writing
from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from agentos.core.communication.voice.storage.tables import (
    EVENTS,
    EVIDENCE_CONTENT,
    IDEMPOTENCY_KEYS,
    SESSIONS,
    STREAM_MARKS,
    TABLES,
    TOKENS,
    ContentRow,
    EventRow,
    IdempotencyRow,
    SessionRow,
    StreamMarkRow,
    TokenRow,
)
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.time import monotonic_ms, utc_now, utc_now_ms
from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord, record_id
from machines.recording import RecordingInfo, RecordingState
from machines.session import EndReason, STTProvider, VoiceProvider, VoiceSession, VoiceSessionState

PATIENCE_SECONDS: Final = 60.0
LARGEST: Final = 2**63 - 1
TO_BE_ALTERED: Final = "voice.call.to_be_altered"  # an operation that stands in the text of a record
ALTERED: Final = "voice.call.that_altered.."
FILE_LIMIT_BYTES: Final = 400_000
_WORDS: Final = ("", "a", "b", "ab", "Z", "ä", "\uffff", "\U0001f600", "it's", 'say "so"', "line\nline", "%_\\")


def evidence(name: str, request: str = "voice-1", operation: str = "voice.host", **summary: object) -> EvidenceRecord:
    """A record of a host's own, whose content is sealed."""
    return EvidenceRecord(
        id=name,
        request_id=request,
        connector_type=ConnectorType.CUSTOM,
        operation=operation,
        request_summary={"said": "grüße", **summary},
        created_at=utc_now(),
    )


def session(name: str = "voice-1", state: VoiceSessionState = VoiceSessionState.CREATED) -> VoiceSession:
    """The snapshot of a session."""
    return VoiceSession(
        session_id=name,
        project_id="demo",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.POCKETSPHINX,
        state=state,
        created_at=utc_now(),
        last_activity_at=utc_now(),
        risk_tier=RiskLevel.LOW,
        policy_verdict=PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
        audit_trace_id="audit-1",
    )


def event(number: int, name: str = "voice-1") -> VoiceEvent:
    """An event of a session."""
    return VoiceEvent(
        event_id=f"evt-{number}",
        session_id=name,
        event_type=VoiceEventType.STATE_CHANGED,
        payload={"state": "active"},
        timestamp_ms=1,
        number=number,
    )


def _mark(number: int, stream: str = "stream") -> StreamMarkRow:
    return StreamMarkRow(stream, number, frame=number, media_ms=number)


class StoreConformance:
    """The tests. `store` opens what is tested."""

    store: StoreFactory

    def make_settings(self, home: Path) -> VoiceSettings:
        """The settings of a home, which is new for each test. A store that is elsewhere makes itself a place for each home."""
        return load_settings(home=home, on_stt_unavailable="record_only")

    def damage(self, settings: VoiceSettings) -> None:
        """Alter the record that says `TO_BE_ALTERED`, behind the back of the store, which is closed. As it is, it looks for
        that text in the files of the home."""
        for path in settings.home.rglob("*"):
            if path.is_file() and TO_BE_ALTERED.encode() in (content := path.read_bytes()):
                path.write_bytes(content.replace(TO_BE_ALTERED.encode(), ALTERED.encode()))

    def take_away(self, settings: VoiceSettings) -> bool:
        """Take the store away under a process that has it open; False where that can't be. As it is, the home is moved."""
        settings.home.rename(settings.home.with_name("elsewhere"))
        return True

    def depose(self, settings: VoiceSettings, owner: str) -> None:
        """Let an owner that lives lose its place. As it is, its lock file is deleted."""
        (settings.home / f"{owner}.owner").unlink()

    # --- for the tests -----------------------------------------------------------------------------------------------

    @pytest.fixture
    def settings(self, tmp_path: Path) -> VoiceSettings:
        """The settings of the test's home."""
        return self.make_settings(tmp_path / "home")

    @contextmanager
    def database(self, settings: VoiceSettings) -> Iterator[Database]:
        """The database, open."""
        database = self.store.database(settings)
        try:
            yield database
        finally:
            database.close()

    @contextmanager
    def voice_store(self, settings: VoiceSettings, owner: str = "") -> Iterator[VoiceStore]:
        """The whole store, open."""
        with self.database(settings) as database:
            yield VoiceStore(database, self.store.owners(settings), settings.home, owner)

    @contextmanager
    def child(self, settings: VoiceSettings, action: str) -> Iterator["subprocess.Popen[str]"]:
        """Another process, which runs the function of this module with the name `action`. It is killed at the end."""
        file = inspect.getfile(type(self))
        program = f"from {__name__} import run_child; run_child()"
        command = [sys.executable, "-c", program, file, type(self).__qualname__, str(settings.home), action]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    # --- rows --------------------------------------------------------------------------------------------------------

    def test_rows_come_back_as_they_were_put(self, settings: VoiceSettings) -> None:
        """Whatever a value may be."""
        token = TokenRow("id", "hash", "name", "admin", None, 0, None, LARGEST)
        content = ContentRow(LARGEST, "metadata", bytes(range(256)), "{}")
        answer = IdempotencyRow("me", "key", "print", "own", "try", 1, 201, "[]", b"\x00\xff")
        words = [EventRow(word, at, word) for at, word in enumerate(_WORDS)]
        numbers = [EventRow("n", number, "") for number in (-LARGEST - 1, -1, 0, LARGEST)]
        with self.database(settings) as database, database.transaction() as writing:
            assert writing.add(TOKENS, [token]) == writing.add(EVIDENCE_CONTENT, [content]) == 1
            writing.put(IDEMPOTENCY_KEYS, [answer])
            assert writing.add(EVENTS, words + numbers) == len(words + numbers)
        with self.database(settings) as database, database.reading() as reading:
            assert list(reading.select(TOKENS)) == [token]
            assert list(reading.select(EVIDENCE_CONTENT)) == [content]
            assert list(reading.select(IDEMPOTENCY_KEYS)) == [answer]
            assert sorted(reading.select(EVENTS)) == sorted(words + numbers)
            assert all(isinstance(row, EventRow) for row in reading.select(EVENTS))
            for word in words:
                assert list(reading.select(EVENTS, {"session_id": [word.session_id]})) == [word]

    def test_all_tables_are_there_and_empty(self, settings: VoiceSettings) -> None:
        """In a new store."""
        with self.database(settings) as database, database.reading() as reading:
            for table in TABLES:
                assert list(reading.select(table)) == []
                assert reading.count(table) == 0

    def test_a_row_is_added_once_and_replaced_when_it_is_put(self, settings: VoiceSettings) -> None:
        """By its key."""
        with self.database(settings) as database:
            with database.transaction() as writing:
                assert writing.add(STREAM_MARKS, [_mark(1), _mark(2), _mark(1)._replace(frame=9)]) == 2
            with database.transaction() as writing:
                assert writing.add(STREAM_MARKS, [_mark(2)._replace(frame=9), _mark(3)]) == 1
                writing.put(STREAM_MARKS, [_mark(3)._replace(media_ms=7), _mark(4), _mark(4)._replace(media_ms=8)])
                writing.delete(STREAM_MARKS, [("stream", 1), ("stream", 77)])
            with database.reading() as reading:
                found = list(reading.select(STREAM_MARKS, order=("number",)))
        assert found == [_mark(2), _mark(3)._replace(media_ms=7), _mark(4)._replace(media_ms=8)]

    @pytest.mark.parametrize("seed", range(5))
    def test_a_query_gives_what_a_list_would(self, settings: VoiceSettings, seed: int) -> None:
        """Conditions, order, place and limit, drawn: held against a list in memory."""
        chance = random.Random(seed)  # noqa: S311 - nothing secret
        rows = [
            SessionRow(f"{word}{at}", chance.choice("pq"), chance.choice(_WORDS), chance.randrange(4), "{}", word)
            for at, word in enumerate(_WORDS * 3)
        ]
        with self.database(settings) as database:
            with database.transaction() as writing:
                writing.put(SESSIONS, rows)
            with database.reading() as reading:
                for _ in range(60):
                    where: dict[str, list[str]] = {
                        column: chance.sample(values, chance.randrange(len(values) + 1))
                        for column, values in {"project_id": ["p", "q", "r"], "state": list(_WORDS)}.items()
                        if chance.random() < 0.4
                    }
                    order = chance.choice([("session_id",), ("created_at", "session_id"), ("owner", "created_at")])
                    descending, limit = chance.random() < 0.5, chance.choice([None, 0, 1, 5, 100])
                    after = chance.choice([None, _values(chance.choice(rows), order)])
                    found = list(
                        reading.select(SESSIONS, where, order=order, descending=descending, after=after, limit=limit)
                    )
                    wanted = [
                        row
                        for row in rows
                        if all(getattr(row, column) in some for column, some in where.items())
                        and (after is None or _behind(_values(row, order), after, descending=descending))
                    ]
                    places = sorted((_values(row, order) for row in wanted), reverse=descending)
                    assert [_values(row, order) for row in found] == places[:limit]
                    assert set(found) <= set(wanted)
                    assert len(set(found)) == len(found)
                    assert reading.count(SESSIONS, where) == len(
                        [row for row in rows if all(getattr(row, column) in some for column, some in where.items())]
                    )

    def test_a_query_may_name_thousands_of_values(self, settings: VoiceSettings) -> None:
        """As a start does for each folder of a recording."""
        numbers = list(range(5_000))
        with self.database(settings) as database, database.transaction() as writing:
            writing.add(STREAM_MARKS, [_mark(number) for number in numbers])
            found = writing.select(STREAM_MARKS, {"number": [*numbers[::2], *range(10_000, 15_000)]})
            assert sorted(row.number for row in found) == numbers[::2]

    # --- transactions ------------------------------------------------------------------------------------------------

    def test_a_transaction_sees_what_it_wrote_and_nobody_else_does_before_its_end(
        self, settings: VoiceSettings
    ) -> None:
        """Of this process or of another one."""
        with self.database(settings) as database, self.database(settings) as other, ThreadPoolExecutor(1) as pool:
            with database.transaction() as writing:
                writing.put(STREAM_MARKS, [_mark(1)])
                assert list(writing.select(STREAM_MARKS)) == [_mark(1)]
                assert pool.submit(_rows, other).result(PATIENCE_SECONDS) == []
            assert _rows(other) == _rows(database) == [_mark(1)]

    @pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, StoreError("no", kind="io")])
    def test_a_transaction_that_raises_stores_nothing(self, settings: VoiceSettings, error: BaseException) -> None:
        """And the error goes on."""
        with self.database(settings) as database:
            with database.transaction() as writing:
                writing.put(STREAM_MARKS, [_mark(1)])
            kind = type(error) if isinstance(error, BaseException) else error
            with pytest.raises(kind), database.transaction() as writing:
                writing.put(STREAM_MARKS, [_mark(1)._replace(frame=9), _mark(2)])
                writing.delete(STREAM_MARKS, [("stream", 1)])
                raise error
            assert _rows(database) == [_mark(1)]
            with database.transaction() as writing:
                assert writing.add(STREAM_MARKS, [_mark(2)]) == 1
        with self.database(settings) as database:
            assert _rows(database) == [_mark(1), _mark(2)]

    def test_a_view_does_not_change_while_others_write(self, settings: VoiceSettings) -> None:
        """From the first row that was read of it."""
        with self.database(settings) as database, self.database(settings) as other, ThreadPoolExecutor(1) as pool:
            with database.transaction() as writing:
                writing.put(STREAM_MARKS, [_mark(number) for number in range(3)])
            with database.reading() as reading:
                assert reading.count(STREAM_MARKS) == 3
                pool.submit(_put, other, _mark(3)).result(PATIENCE_SECONDS)
                assert [row.number for row in reading.select(STREAM_MARKS, order=("number",))] == [0, 1, 2]
            assert len(_rows(database)) == 4

    def test_transactions_stand_in_one_line(self, settings: VoiceSettings) -> None:
        """What is read in one is still so at its end: counting loses nothing."""

        def count(database: Database) -> None:
            for _ in range(10):
                with database.transaction() as writing:
                    (row,) = writing.select(STREAM_MARKS)
                    time.sleep(0.001)
                    writing.put(STREAM_MARKS, [row._replace(frame=row.frame + 1)])

        with self.database(settings) as one, self.database(settings) as two, ThreadPoolExecutor(4) as pool:
            _put(one, _mark(0))
            for done in [pool.submit(count, database) for database in (one, two, one, two)]:
                done.result(PATIENCE_SECONDS)
            assert [row.frame for row in _rows(one)] == [40]

    def test_a_closed_store_says_so(self, settings: VoiceSettings) -> None:
        """And can be closed again."""
        with self.database(settings) as database:
            _put(database, _mark(1))
        database.close()
        for attempt in (_rows, lambda database: _put(database, _mark(2))):
            with pytest.raises(StoreError):
                attempt(database)

    def test_a_store_that_was_taken_away_takes_nothing(self, settings: VoiceSettings) -> None:
        """What would be written, nobody would find."""
        with self.database(settings) as database:
            _put(database, _mark(1))
            database.check()
            if not self.take_away(settings):
                pytest.skip("it can't be taken away")
            for attempt in (database.check, lambda: _put(database, _mark(2))):
                with pytest.raises(StoreError) as caught:
                    attempt()
                assert caught.value.kind == "gone"

    # --- evidence ----------------------------------------------------------------------------------------------------

    def test_entries_are_stored_in_order_once_and_with_all_that_belongs_to_them(self, settings: VoiceSettings) -> None:
        """An entry that comes again, and one behind its session's end, is left out as a whole."""
        created, active = session(), session(state=VoiceSessionState.ACTIVE)
        stopped = session(state=VoiceSessionState.STOPPED)
        records = [evidence(record_id("secret", number)) for number in (1, 2)]
        final, late = evidence(record_id("secret", None)), evidence(record_id("secret", 3))
        with self.voice_store(settings, "one") as store:
            store.append([Entry(records[0], created, (event(1),)), Entry(records[1], active, (event(2), event(1)))])
        with self.voice_store(settings, "two") as store:
            store.append([Entry(records[1], stopped, (event(3),))])  # the answer to the first was lost
            assert store.session("voice-1") == active
            store.append([Entry(final, stopped), Entry(late, active, (event(4),))])
            assert store.evidence("voice-1") == store.evidence() == [*records, final]
            assert store.evidence_record(final.id) == final
            assert store.newest_evidence(2) == [final, records[1]]
            assert store.session("voice-1") == stopped
            assert [told.number for told in store.events("voice-1")] == [1, 2]
            assert store.events("voice-1", after=1, limit=1) == [event(2)]
            found = store.examine([store.head()])
            assert (found.chain.ok, found.chain.records, found.sealed, found.erased) == (True, 3, 3, 0)
            store.probe()
            assert store.examine([store.head()]) == found
            statistics = store.statistics()
        assert (statistics.records, statistics.sessions, statistics.events) == (3, 1, 2)

    def test_one_bad_entry_keeps_its_batch_out(self, settings: VoiceSettings) -> None:
        """It is named, and the store works on."""
        with self.voice_store(settings) as store:
            bad = evidence("bad", text="\ud800")
            with pytest.raises(BadEntry) as caught:
                store.append([Entry(evidence("good"), session(), (event(1),)), Entry(bad)])
            assert caught.value.record_id == "bad"
            assert (store.evidence(), store.sessions(), store.events("voice-1")) == ([], [], [])
            store.append([Entry(evidence("good"), session(), (event(1),))])
            assert store.verify().records == 1

    def test_many_append_to_one_chain(self, settings: VoiceSettings) -> None:
        """While others read it: what was there stays, and every link holds."""
        with self.voice_store(settings) as one, self.voice_store(settings) as two, ThreadPoolExecutor(6) as pool:

            def write(store: VoiceStore, name: str) -> None:
                for number in range(10):
                    records = [evidence(f"ev-{name}-{number}-{part}", f"voice-{name}") for part in range(3)]
                    store.append([Entry(record) for record in records])

            def read(store: VoiceStore) -> None:
                before = 0
                for _ in range(10):
                    found = store.verify()
                    assert found.ok, found
                    assert found.records >= before
                    assert found.records % 3 == 0
                    before = found.records

            stores = {"a": one, "b": two, "c": one, "d": two}
            work = [pool.submit(write, store, name) for name, store in stores.items()]
            work += [pool.submit(read, one), pool.submit(read, two)]
            for done in work:
                done.result(PATIENCE_SECONDS)
            assert one.verify() == two.verify()
            assert one.verify().records == 120
            for name in stores:
                ids = [record.id for record in one.evidence(f"voice-{name}")]
                assert ids == [f"ev-{name}-{number}-{part}" for number in range(10) for part in range(3)]

    def test_sessions_are_found_by_owner_project_state_and_page(self, settings: VoiceSettings) -> None:
        """A session keeps the owner that made it until another takes it over."""
        with self.voice_store(settings, "one") as store:
            store.append([Entry(evidence("ev-1", "voice-1"), session("voice-1"))])
            store.append([Entry(evidence("ev-2", "voice-2"), session("voice-2"))])
        with self.voice_store(settings, "two") as store:
            store.append([Entry(evidence("ev-3", "voice-1"), session("voice-1", VoiceSessionState.ACTIVE))])
            assert {owner: len(found) for owner, found in store.unfinished().items()} == {"one": 2}
            taken = session("voice-2", VoiceSessionState.ACTIVE)
            store.append([Entry(evidence("ev-4", "voice-2"), taken, takes_over=True)])
            assert [found.session_id for found in store.unfinished()["two"]] == ["voice-2"]
            assert {found.session_id for found in store.sessions("demo", VoiceSessionState.ACTIVE)} == {
                "voice-1",
                "voice-2",
            }
            assert store.sessions("another") == []
            (newest,) = store.session_page(None, None, 1, None)
            assert newest == store.sessions()[0]

    def test_recordings_and_tokens_are_kept(self, settings: VoiceSettings) -> None:
        """What one process does to them another one sees."""
        recording = RecordingInfo(
            path="r", sample_rate=8000, channels=1, samples=1, seconds=0.1, segments=1, state=RecordingState.FINISHING
        )
        with self.voice_store(settings) as one, self.voice_store(settings) as two:
            one.append([Entry(evidence("ev-1"), session(state=VoiceSessionState.STOPPED))])
            assert one.add_recording("voice-1", recording)
            assert not two.add_recording("voice-1", recording)
            assert [name for name, _ in two.unfinished_recordings()] == ["voice-1"]
            assert two.unnamed_recordings(["voice-1", "voice-2"]) == {"voice-2": None}
            token = TokenStore(one).create("host")
            known = TokenStore(two).who(token)
            assert known is not None
            assert TokenStore(one).revoke(known.id)
            assert TokenStore(two).who(token) is None
            assert not TokenStore(two).revoke(known.id)

    def test_a_record_that_was_altered_is_found(self, settings: VoiceSettings) -> None:
        """The walk names it, or the store can't be read."""
        with self.voice_store(settings) as store:
            for number in range(5):
                operation = TO_BE_ALTERED if number == 2 else "voice.host"
                store.append([Entry(evidence(f"ev-{number}", operation=operation))])
        self.damage(settings)
        try:
            with self.voice_store(settings) as store:
                found = store.verify()
        except StoreError as error:
            assert error.kind == "corrupt"  # either is right
        else:
            assert (found.ok, found.at_seq) == (False, 3)

    # --- crashes -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("acknowledged", [1, 7, 20])
    def test_what_was_acknowledged_survives_a_kill(self, settings: VoiceSettings, acknowledged: int) -> None:
        """Batches are whole, nothing is there twice, and the next process goes on."""
        with self.child(settings, "append_for_ever") as process:
            told = [_line(process) for _ in range(acknowledged)]
            process.send_signal(signal.SIGKILL)
            told += process.communicate(timeout=PATIENCE_SECONDS)[0].split()
        with self.voice_store(settings) as store:
            found = store.verify()
            assert found.ok, found
            ids = [record.id for record in store.evidence()]
            assert ids == [f"ev-{number}-{part}" for number in range(len(ids) // 3) for part in range(3)]
            assert len(ids) >= 3 * len(told)
            store.append([Entry(evidence("ev-next"))])
            assert store.verify().records == len(ids) + 1

    def test_a_batch_whose_answer_was_lost_is_stored_once(self, settings: VoiceSettings) -> None:
        """The process died between commit and answer, and another one stores the same again."""
        with self.child(settings, "append_and_die") as process:
            process.wait(PATIENCE_SECONDS)
        with self.voice_store(settings) as store:
            assert [record.id for record in store.evidence()] == ["ev-1", "ev-2"]
            store.append([Entry(evidence("ev-1")), Entry(evidence("ev-2")), Entry(evidence("ev-3"))])
            assert [record.id for record in store.evidence()] == ["ev-1", "ev-2", "ev-3"]
            assert store.verify().ok

    def test_a_transaction_that_was_not_finished_is_nowhere(self, settings: VoiceSettings) -> None:
        """Its process was killed in it, and holds nobody up."""
        with self.child(settings, "begin_and_wait") as process:
            assert _line(process) == "begun"
        with self.database(settings) as database:
            assert _rows(database) == []
            _put(database, _mark(2))
            assert _rows(database) == [_mark(2)]

    def test_what_finds_no_room_is_refused_whole_and_the_rest_stays(self, settings: VoiceSettings) -> None:
        """Files may not grow any more; once they may, the same store works again."""
        with self.child(settings, "append_until_it_fails") as process:
            said = process.communicate(timeout=PATIENCE_SECONDS)[0].split()
        if said == ["never"]:
            pytest.skip("it keeps nothing in files of the process that writes")
        with self.voice_store(settings) as store:
            assert store.verify().ok
            ids = [record.id for record in store.evidence()]
        stored = [f"ev-{number}-{part}" for number in range(int(said[0])) for part in range(3)]
        assert ids == [*stored, "ev-again"]

    # --- ownership ---------------------------------------------------------------------------------------------------

    def test_an_owner_lives_as_long_as_its_process(self, settings: VoiceSettings) -> None:
        """Then one takes its place, and it is as alive as before for everybody else."""
        owners, others = self.store.owners(settings), self.store.owners(settings)
        with self.child(settings, "own") as process:
            assert _line(process) == "owned"
            assert owners.names() == ["other"]
            assert not owners.is_dead("other")
            assert owners.take_over("other") is None
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)
        _wait_for_death(settings, self.store, "other")
        taken = owners.take_over("other")
        assert taken is not None
        assert taken.owner == "other"
        assert not others.is_dead("other")
        assert others.take_over("other") is None
        taken.check()
        taken.release()
        taken.release()
        assert owners.names() == []
        assert owners.is_dead("other")

    def test_a_name_that_another_process_has_is_refused(self, settings: VoiceSettings) -> None:
        """In time."""
        with self.child(settings, "own") as process:
            assert _line(process) == "owned"
            with pytest.raises(StoreError) as caught:
                self.store.owners(settings).take("other")
            assert caught.value.kind == "locked"

    def test_an_owner_that_leaves_as_the_dead_do_is_dead(self, settings: VoiceSettings) -> None:
        """With its last sign of life, which nobody who takes its place renews."""
        owners, before = self.store.owners(settings), utc_now_ms()
        mine = owners.take("mine")
        assert not owners.is_dead("mine")
        assert owners.names() == ["mine"]
        mine.sign()
        signed = mine.signed_ms()
        assert before - 2000 <= signed <= utc_now_ms() + 2000  # a file system's clock may be coarse
        mine.forget()
        assert owners.is_dead("mine")
        assert owners.names() == ["mine"]
        taken = owners.take_over("mine")
        assert taken is not None
        assert taken.signed_ms() == signed
        taken.release()

    def test_of_many_one_takes_the_place_of_the_dead(self, settings: VoiceSettings) -> None:
        """Each time."""
        self.store.owners(settings).take("mine").forget()
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                found = list(pool.map(lambda _: self.store.owners(settings).take_over("mine"), range(8)))
                taken = [one for one in found if one is not None]
                assert len(taken) == 1
                taken[0].forget()

    @pytest.mark.parametrize("name", ["", "nobody-ever", "../evil", "x" * 200, "ä ö"])
    def test_an_owner_that_never_was_is_dead(self, settings: VoiceSettings, name: str) -> None:
        """Whatever its name: it may come from a store that somebody altered."""
        owners = self.store.owners(settings)
        owners.take("mine").release()
        assert owners.is_dead(name)
        taken = owners.take_over(name)
        assert taken is not None
        taken.release()

    def test_an_owner_that_lost_its_place_is_told_and_harms_nobody(self, settings: VoiceSettings) -> None:
        """Neither who has its place now, nor the chain."""
        owners = self.store.owners(settings)
        old = owners.take("mine")
        with self.voice_store(settings, "mine") as theirs, self.voice_store(settings, "new") as store:
            theirs.append([Entry(evidence(record_id("secret", 1)), session())])
            self.depose(settings, "mine")
            with pytest.raises(StoreError) as caught:
                old.check()
            assert caught.value.kind == "gone"
            taken = owners.take_over("mine")
            assert taken is not None
            final = Entry(evidence(record_id("secret", None)), session(state=VoiceSessionState.STOPPED))
            store.append([final])
            try:
                theirs.append([Entry(evidence(record_id("secret", 2)), session(state=VoiceSessionState.ACTIVE))])
            except StoreError as error:
                assert error.kind == "gone"  # a store may fence it as well
            with pytest.raises(StoreError):
                old.check()
            old.release()
            taken.check()
            assert not owners.is_dead("mine")
            taken.release()
            assert [record.id for record in store.evidence()] == [record_id("secret", 1), record_id("secret", None)]
            stored = store.session("voice-1")
        assert stored is not None
        assert stored.state is VoiceSessionState.STOPPED

    # --- a service ---------------------------------------------------------------------------------------------------

    def test_a_call_runs_and_one_that_its_process_left_is_recovered(self, settings: VoiceSettings) -> None:
        """On this store: the whole way."""
        with self.child(settings, "call_for_ever") as process:
            left = _line(process)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)
        anyio.run(_call_and_recover, settings, self.store, left)


async def _call_and_recover(settings: VoiceSettings, store: StoreFactory, left: str) -> None:
    async with AsyncVoiceService(settings, store=store) as service:
        call = await service.create_session("demo", "local", "whisper_local", {"recording_enabled": True})
        await service.dispatch_audio_chunk(call.session_id, bytes(32_000))
        assert await service.stop_session(call.session_id)
        recording = await service.recording(call.session_id)
        assert recording is not None
        assert recording.state is RecordingState.READY
        with anyio.fail_after(PATIENCE_SECONDS):
            while (dead := await service.get_session(left)) is None or dead.state is not VoiceSessionState.STOPPED:
                await anyio.sleep(0.02)
        assert dead.result is not None
        assert dead.result.reason is EndReason.RECOVERED
        assert {one.session_id for one in await service.list_sessions()} == {call.session_id, left}
        assert [told async for told in service.events(call.session_id)]
        assert (await service.examine_evidence()).chain.ok
        assert (await service.evidence_disagreements(10)).first == ()


def _values(row: SessionRow, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in columns)


def _behind(place: tuple[Any, ...], after: tuple[Any, ...], *, descending: bool) -> bool:
    return place < after if descending else place > after


def _rows(database: Database) -> list[StreamMarkRow]:
    with database.reading() as reading:
        return list(reading.select(STREAM_MARKS, order=("stream", "number")))


def _put(database: Database, row: StreamMarkRow) -> None:
    with database.transaction() as writing:
        writing.put(STREAM_MARKS, [row])


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the other process has ended"
    return line


def _wait_for_death(settings: VoiceSettings, store: StoreFactory, owner: str) -> None:
    deadline = monotonic_ms() + int(PATIENCE_SECONDS * 1000)
    while not store.owners(settings).is_dead(owner):
        assert monotonic_ms() < deadline, "its owner died, and still counts as alive"
        time.sleep(0.05)


# --- in other processes -----------------------------------------------------------------------------------------------


def run_child() -> None:
    """What a process does that a test has started: the module of the test's class is loaded, and the action done."""
    file, name, home, action = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("store_under_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite: StoreConformance = getattr(module, name)()
    {
        "append_for_ever": _append_for_ever,
        "append_and_die": _append_and_die,
        "append_until_it_fails": _append_until_it_fails,
        "begin_and_wait": _begin_and_wait,
        "own": _own,
        "call_for_ever": _call_for_ever,
    }[action](suite, suite.make_settings(Path(home)))


def _batch(number: int) -> list[Entry]:
    return [Entry(evidence(f"ev-{number}-{part}", text="x" * 2_000)) for part in range(3)]


def _append_for_ever(suite: StoreConformance, settings: VoiceSettings) -> None:
    with suite.voice_store(settings) as store:
        for number in range(10_000):
            store.append(_batch(number))
            print(number, flush=True)


def _append_and_die(suite: StoreConformance, settings: VoiceSettings) -> None:
    with suite.voice_store(settings) as store:
        store.append([Entry(evidence("ev-1")), Entry(evidence("ev-2"))])
        os._exit(0)


def _append_until_it_fails(suite: StoreConformance, settings: VoiceSettings) -> None:
    """Prints how many batches were stored; "never" when none was refused."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with suite.voice_store(settings) as store:
        store.append(_batch(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, hard))
        stored = 1
        try:
            while stored * 3 * 2_000 < 10 * FILE_LIMIT_BYTES:
                store.append(_batch(stored))
                stored += 1
            print("never")
        except StoreError:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            store.append([Entry(evidence("ev-again"))])
            print(stored)


def _begin_and_wait(suite: StoreConformance, settings: VoiceSettings) -> None:
    with suite.database(settings) as database, database.transaction() as writing:
        _write_and_wait(writing)


def _write_and_wait(writing: Writing) -> None:
    writing.put(STREAM_MARKS, [_mark(1)])
    print("begun", flush=True)
    sys.stdin.read()


def _own(suite: StoreConformance, settings: VoiceSettings) -> None:
    ownership = suite.store.owners(settings).take("other")
    print("owned", flush=True)
    sys.stdin.read()
    ownership.release()


def _call_for_ever(suite: StoreConformance, settings: VoiceSettings) -> None:
    async def call() -> None:
        async with AsyncVoiceService(settings, store=suite.store) as service:
            made = await service.create_session("demo", "local", "whisper_local", {})
            print(made.session_id, flush=True)
            await anyio.sleep_forever()

    anyio.run(call)
