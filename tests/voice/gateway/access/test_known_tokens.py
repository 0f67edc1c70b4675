"""Tokens are remembered for a second, and forgotten at once when one was revoked here."""

import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.gateway.access.known_tokens import FRESH_MS, REMEMBERED, KnownTokens
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tables import TOKENS
from agentos.core.communication.voice.storage.tokens import AccessToken, Role, TokenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voice.db"


@pytest.fixture
def tokens(path: Path) -> Iterator[TokenStore]:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        yield TokenStore(store)


@pytest.fixture
def now() -> list[int]:
    return [0]


@pytest.fixture
def known(tokens: TokenStore, now: list[int]) -> KnownTokens:
    return KnownTokens(tokens.whose, clock=lambda: now[0])


async def test_a_token_is_remembered_for_a_second(tokens: TokenStore, known: KnownTokens, now: list[int]) -> None:
    token = tokens.create("me", role=Role.AUDITOR)
    assert known.remembered(token) is None
    found = await known.ask(token)
    assert found is not None
    now[0] += FRESH_MS - 1
    assert known.remembered(token) == found
    now[0] += 1
    assert known.remembered(token) is None


async def test_a_revocation_by_another_process_counts_within_the_second(
    tokens: TokenStore, known: KnownTokens, now: list[int], path: Path
) -> None:
    token = tokens.create("me")
    await known.ask(token)
    with open_store(path, busy_timeout_seconds=5.0) as other, other.transaction() as writing:
        rows = [row._replace(revoked_at_ms=1) for row in writing.select(TOKENS)]
        writing.put(TOKENS, rows)  # what another process writes
    assert known.remembered(token) is not None
    now[0] += FRESH_MS
    assert known.remembered(token) is None
    assert await known.ask(token) is None


async def test_a_revocation_while_a_token_is_looked_up_is_not_missed(tokens: TokenStore, now: list[int]) -> None:
    """Whoever read the token just before it was revoked must not be believed afterwards."""
    token = tokens.create("me")
    read, go_on = threading.Event(), threading.Event()

    def slow(asked: Collection[str]) -> dict[str, AccessToken]:
        found = tokens.whose(asked)
        read.set()
        go_on.wait(10)
        return found

    known = KnownTokens(slow, clock=lambda: now[0])
    async with anyio.create_task_group() as group:
        group.start_soon(known.ask, token)
        await anyio.to_thread.run_sync(read.wait, 10)
        tokens.revoke(tokens.list()[0].id)
        go_on.set()
    assert known.remembered(token) is None


def somebody(token: str) -> AccessToken:
    return AccessToken(token, token, Role.ADMIN, None, 0, None, None)


def whose(tokens: Collection[str]) -> dict[str, AccessToken]:
    """Every token is somebody's but those that begin with "no"."""
    return {token: somebody(token) for token in tokens if not token.startswith("no")}


async def test_what_nobody_has_is_not_remembered_and_memory_is_bounded(now: list[int]) -> None:
    known = KnownTokens(whose, clock=lambda: now[0])
    for number in range(REMEMBERED + 10):
        await known.ask(f"{number}")
        await known.ask(f"no {number}")
    assert len(known._known) == REMEMBERED
    assert known.remembered("0") is None
    assert known.remembered(f"{REMEMBERED + 9}") is not None


class Slow:
    """Looks tokens up when it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[set[str]] = []
        self.go_on = threading.Event()

    def whose(self, tokens: Collection[str]) -> dict[str, AccessToken]:
        self.batches.append(set(tokens))
        self.go_on.wait(10)
        return whose(tokens)


async def test_a_good_token_waits_for_no_flood(now: list[int]) -> None:
    """However many tokens that nobody has are before it, it is looked up with them: two look-ups are all that it waits for."""
    slow, answers = Slow(), dict[str, AccessToken | None]()
    known = KnownTokens(slow.whose, clock=lambda: now[0])

    async def ask(token: str) -> None:
        answers[token] = await known.ask(token)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "no first")
        while not slow.batches:
            await anyio.sleep(0.001)
        for number in range(1000):
            group.start_soon(ask, f"no {number}")
        group.start_soon(ask, "good")
        await anyio.wait_all_tasks_blocked()
        slow.go_on.set()
    assert [len(batch) for batch in slow.batches] == [1, 1001]
    assert answers["good"] == somebody("good")
    assert sum(answer is not None for answer in answers.values()) == 1


@pytest.mark.parametrize("when", ["it looks up", "it waits for its turn"])
async def test_who_waits_with_somebody_who_goes_away_gets_an_answer(when: str, now: list[int]) -> None:
    slow, answers = Slow(), list[AccessToken | None]()
    known = KnownTokens(slow.whose, clock=lambda: now[0])

    async def ask(token: str) -> None:
        answers.append(await known.ask(token))

    async with anyio.create_task_group() as others, anyio.create_task_group() as goes_away:
        if when == "it waits for its turn":
            others.start_soon(ask, "before")
            while not slow.batches:
                await anyio.sleep(0.001)
        goes_away.start_soon(ask, "one")
        await anyio.wait_all_tasks_blocked()
        others.start_soon(ask, "other")
        await anyio.wait_all_tasks_blocked()
        goes_away.cancel_scope.cancel()
        slow.go_on.set()
    assert somebody("other") in answers
    assert known.remembered("other") is not None


async def test_what_the_store_says_is_said_to_all_who_wait_and_is_not_remembered(now: list[int]) -> None:
    go_on, broken = threading.Event(), [True]

    def fails(tokens: Collection[str]) -> dict[str, AccessToken]:
        go_on.wait(10)
        if broken[0]:
            raise StoreError("is down", kind="io")
        return whose(tokens)

    known, told = KnownTokens(fails, clock=lambda: now[0]), list[str]()

    async def ask(token: str) -> None:
        with pytest.raises(StoreError, match="is down") as error:
            await known.ask(token)
        told.append(str(error.value))

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(ask, f"{number}")
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert len(told) == 5
    broken[0] = False
    assert await known.ask("0") == somebody("0")
