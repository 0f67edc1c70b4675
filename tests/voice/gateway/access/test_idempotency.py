"""A request that comes again with its key is answered as before and not carried out twice, whatever happened in between."""

import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentos.core.communication.voice.errors import InvalidRequest, KeyInUse, KeyReused, RateLimited, StoreError
from agentos.core.communication.voice.gateway.access import idempotency as module
from agentos.core.communication.voice.gateway.access.idempotency import (
    KEPT_MS,
    HttpAnswer,
    IdempotencyKeys,
    checked_key,
    fingerprint,
)
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.sqlite.database import SqliteDatabase
from agentos.core.communication.voice.storage.store import VoiceStore

pytestmark = pytest.mark.anyio

MADE = HttpAnswer(201, (("location", "/v1/sessions/voice-1"),), b'{"session_id":"voice-1"}')


class Work:
    """Something that must not be done twice."""

    def __init__(self, answer: HttpAnswer = MADE) -> None:
        self.done = 0
        self._answer = answer

    async def __call__(self) -> HttpAnswer:
        self.done += 1
        await checkpoint()
        return self._answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(folder: Path) -> Iterator[VoiceStore]:
    ownership = FileLocks(folder).take("me")
    with open_store(folder / "voice.db", busy_timeout_seconds=5.0, owner="me") as store:
        yield store
    ownership.release()


@pytest.fixture
def keys(store: VoiceStore) -> IdempotencyKeys:
    return IdempotencyKeys(lambda: store)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000_000]
    monkeypatch.setattr(module, "utc_now_ms", lambda: now[0])
    return now


def rows(folder: Path) -> list[tuple[str, str, int | None]]:
    with closing(sqlite3.connect(folder / "voice.db")) as database:
        return database.execute("SELECT principal, key, status FROM idempotency_keys ORDER BY 1, 2").fetchall()


# --- the same again --------------------------------------------------------------------------------------------------


async def test_the_same_request_has_the_same_answer_and_is_carried_out_once(
    keys: IdempotencyKeys, store: VoiceStore
) -> None:
    work = Work()
    assert await keys.once("tok-1", "key", "print", work) == MADE
    again = await keys.once("tok-1", "key", "print", work)
    assert (again, again.replayed) == (MADE._replace(replayed=True), True)
    assert await IdempotencyKeys(lambda: store).once("tok-1", "key", "print", work) == again
    assert work.done == 1


async def test_an_answer_outlives_the_process(folder: Path) -> None:
    work = Work()
    for owner in ("one", "two"):
        ownership = FileLocks(folder).take(owner)
        with open_store(folder / "voice.db", busy_timeout_seconds=5.0, owner=owner) as store:
            answer = await IdempotencyKeys(lambda: store).once("tok-1", "key", "print", work)
        ownership.release()
    assert answer == MADE._replace(replayed=True)
    assert work.done == 1


async def test_another_request_with_the_key_is_refused_and_changes_nothing(keys: IdempotencyKeys) -> None:
    work, other = Work(), Work()
    await keys.once("tok-1", "key", "print", work)
    with pytest.raises(KeyReused):
        await keys.once("tok-1", "key", "another print", other)
    assert other.done == 0
    assert (await keys.once("tok-1", "key", "print", work)).replayed


async def test_keys_belong_to_whoever_used_them(keys: IdempotencyKeys) -> None:
    work = Work()
    for principal in ("tok-1", "tok-2"):
        assert not (await keys.once(principal, "key", principal, work)).replayed
    assert work.done == 2


@pytest.mark.parametrize("status", [200, 202, 403, 404, 422])
async def test_every_answer_is_kept_also_a_refusal(keys: IdempotencyKeys, status: int) -> None:
    work = Work(HttpAnswer(status, (), bytes(range(256))))
    await keys.once("tok-1", "key", "print", work)
    assert await keys.once("tok-1", "key", "print", work) == HttpAnswer(status, (), bytes(range(256)), replayed=True)


async def test_a_key_is_forgotten_after_a_day(keys: IdempotencyKeys, folder: Path, now: list[int]) -> None:
    work = Work()
    await keys.once("tok-1", "key", "print", work)
    await keys.once("tok-1", "other", "print", work)
    now[0] += KEPT_MS - 1
    assert (await keys.once("tok-1", "key", "print", work)).replayed
    now[0] += 1
    assert not (await keys.once("tok-1", "key", "another print", work)).replayed
    assert rows(folder) == [("tok-1", "key", 201)]


async def test_one_principal_has_so_many_keys_and_others_have_theirs(
    keys: IdempotencyKeys, monkeypatch: pytest.MonkeyPatch, now: list[int]
) -> None:
    monkeypatch.setattr(module, "KEYS_OF_ONE", 2)
    work = Work()
    for key in ("a", "b"):
        await keys.once("tok-1", key, "print", work)
    with pytest.raises(RateLimited):
        await keys.once("tok-1", "c", "print", work)
    assert work.done == 2
    assert (await keys.once("tok-1", "a", "print", work)).replayed
    assert not (await keys.once("tok-2", "c", "print", work)).replayed
    now[0] += KEPT_MS
    assert not (await keys.once("tok-1", "c", "print", work)).replayed


# --- at the same time ------------------------------------------------------------------------------------------------


async def test_while_a_request_is_carried_out_the_same_one_has_to_wait(keys: IdempotencyKeys) -> None:
    begun, go_on = anyio.Event(), anyio.Event()
    answers: list[HttpAnswer] = []

    async def slow() -> HttpAnswer:
        begun.set()
        await go_on.wait()
        return MADE

    async def first() -> None:
        answers.append(await keys.once("tok-1", "key", "print", slow))

    other = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await begun.wait()
        with pytest.raises(KeyInUse) as raised:
            await keys.once("tok-1", "key", "print", other)
        with pytest.raises(KeyReused):
            await keys.once("tok-1", "key", "another print", other)
        go_on.set()
    assert raised.value.retry_after_seconds > 0
    assert answers == [MADE]
    assert (await keys.once("tok-1", "key", "print", other)).replayed
    assert other.done == 0


async def test_of_many_at_once_one_is_carried_out(keys: IdempotencyKeys) -> None:
    work = Work()
    replayed: list[bool | None] = []

    async def ask() -> None:
        try:
            replayed.append((await keys.once("tok-1", "key", "print", work)).replayed)
        except KeyInUse:
            replayed.append(None)

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(ask)
    assert work.done == 1
    assert replayed.count(False) == 1
    assert len(replayed) == 12


# --- what goes wrong -------------------------------------------------------------------------------------------------


async def test_a_request_that_fails_sets_its_key_free(keys: IdempotencyKeys, folder: Path) -> None:
    async def fails() -> HttpAnswer:
        raise StoreError("down", kind="full")

    with pytest.raises(StoreError, match="down"):
        await keys.once("tok-1", "key", "print", fails)
    assert rows(folder) == []
    assert not (await keys.once("tok-1", "key", "another print", Work())).replayed


async def test_a_request_that_is_cancelled_sets_its_key_free(keys: IdempotencyKeys, folder: Path) -> None:
    with anyio.CancelScope() as scope:

        async def cancelled() -> HttpAnswer:
            scope.cancel()
            await anyio.sleep_forever()
            raise AssertionError

        await keys.once("tok-1", "key", "print", cancelled)
    assert scope.cancelled_caught
    assert rows(folder) == []
    assert not (await keys.once("tok-1", "key", "print", Work())).replayed


async def test_nothing_is_carried_out_when_the_key_can_not_be_stored(keys: IdempotencyKeys, store: VoiceStore) -> None:
    store.close()
    work = Work()
    with pytest.raises(StoreError):
        await keys.once("tok-1", "key", "print", work)
    assert work.done == 0


async def test_an_answer_that_the_store_did_not_take_is_kept_in_memory_and_stored_when_it_is_back(
    store: VoiceStore, folder: Path
) -> None:
    down = [False]

    def maybe() -> None:
        if down[0]:
            raise StoreError("down", kind="locked")

    class Flaky(SqliteDatabase):
        def transaction(self) -> object:  # type: ignore[override]
            maybe()
            return super().transaction()

    with VoiceStore(Flaky.open(folder / "voice.db", 5.0), FileLocks(folder), folder, "me") as flaky:
        keys = IdempotencyKeys(lambda: flaky)

        async def and_then_it_is_down() -> HttpAnswer:
            down[0] = True
            return MADE

        assert await keys.once("tok-1", "key", "print", and_then_it_is_down) == MADE
        assert rows(folder) == [("tok-1", "key", None)]
        down[0] = False
        work = Work()
        assert await keys.once("tok-1", "key", "print", work) == MADE._replace(replayed=True)
        assert rows(folder) == [("tok-1", "key", 201)]
        assert work.done == 0
    assert module._here == {}


async def test_an_attempt_of_this_process_that_left_nothing_but_its_key_is_made_again(
    keys: IdempotencyKeys, store: VoiceStore
) -> None:
    """Neither its answer nor the end of its key could be stored, and nobody carries it out any longer."""

    claim = module._Claim(store, "tok-1", "key", "print", "an attempt that is over")
    assert claim.begin() is None
    work = Work()
    assert not (await keys.once("tok-1", "key", "print", work)).replayed
    claim.finish(HttpAnswer(500, (), b"late"))  # its thread wakes up at last, and changes nothing
    claim.give_up()
    assert await keys.once("tok-1", "key", "print", work) == MADE._replace(replayed=True)
    assert work.done == 1


DIES = """
import os, signal, sys
from pathlib import Path
import anyio
from agentos.core.communication.voice.gateway.access.idempotency import HttpAnswer, IdempotencyKeys
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.sqlite.database import SqliteDatabase
from agentos.core.communication.voice.storage.store import VoiceStore

folder = Path(sys.argv[1])
ownership = FileLocks(folder).take("other")
store = open_store(folder / "voice.db", busy_timeout_seconds=5.0, owner="other")

async def work() -> HttpAnswer:
    print("carried out", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)

anyio.run(IdempotencyKeys(lambda: store).once, "tok-1", "key", "print", work)
"""


def started(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DIES, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_what_a_process_that_was_killed_had_begun_is_carried_out_anew(
    keys: IdempotencyKeys, folder: Path
) -> None:
    work = Work()
    with started(folder) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "carried out\n"
        with pytest.raises(KeyInUse):  # it lives, and may still answer
            await keys.once("tok-1", "key", "print", work)
        other.stdin.write("\n")
        other.stdin.flush()
        other.wait(30)
    with pytest.raises(KeyReused):
        await keys.once("tok-1", "key", "another print", work)
    assert work.done == 0
    assert await keys.once("tok-1", "key", "print", work) == MADE
    assert await keys.once("tok-1", "key", "print", work) == MADE._replace(replayed=True)
    assert work.done == 1


async def test_nothing_is_remembered_of_what_is_over(keys: IdempotencyKeys) -> None:
    async def fails() -> HttpAnswer:
        raise KeyError

    runs: list[Callable[[], Awaitable[HttpAnswer]]] = [Work(), fails]
    for number, run in enumerate(runs):
        try:
            await keys.once("tok-1", f"key-{number}", "print", run)
        except KeyError:
            continue
    assert module._here == {}


async def test_answers_that_the_store_did_not_take_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_here", {"runs": None})
    monkeypatch.setattr(module, "UNSAVED", 2)
    for number in range(4):
        module._keep(f"attempt {number}", MADE)
    assert list(module._here) == ["runs", "attempt 2", "attempt 3"]


# --- keys and fingerprints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "key"), [("a", "a"), ('"8e03978e-40d5"', "8e03978e-40d5"), ("x" * 255, "x" * 255), ('"', '"')]
)
def test_a_key_is_read_with_or_without_quotes(header: str, key: str) -> None:
    assert checked_key(header) == key


@pytest.mark.parametrize("header", ["", '""', "a b", "x" * 256, "a\n", "ä", "\x00", '"a b"'])
def test_what_is_no_key_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        checked_key(header)
    assert raised.value.field == "Idempotency-Key"


def test_requests_are_the_same_when_route_and_json_are() -> None:
    same = fingerprint("POST", "/v1/sessions", b'{"a": 1, "b": [2]}')
    assert fingerprint("POST", "/v1/sessions", b'{"b":[2],"a":1}') == same
    others = [
        fingerprint("POST", "/v1/sessions", b'{"a": 1, "b": [3]}'),
        fingerprint("POST", "/v1/sessions/voice-1/stop", b'{"a": 1, "b": [2]}'),
        fingerprint("PUT", "/v1/sessions", b'{"a": 1, "b": [2]}'),
        fingerprint("POST", "/v1/sessions", b""),
        fingerprint("POST", "/v1/sessions", b"\xff"),
        fingerprint("POST", "/v1/sessions", b"[" * 100_000),
    ]
    assert len({same, *others}) == 7
