"""Tokens are remembered for a second, and forgotten at once when one was revoked here."""

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice.gateway.access.known_tokens import FRESH_MS, LOOKUPS, REMEMBERED, KnownTokens
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import AccessToken, Role, TokenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voice.db"


@pytest.fixture
def tokens(path: Path) -> Iterator[TokenStore]:
    with VoiceStore.open(path, busy_timeout_seconds=5.0) as store:
        yield TokenStore(store)


@pytest.fixture
def now() -> list[int]:
    return [0]


@pytest.fixture
def known(tokens: TokenStore, now: list[int]) -> KnownTokens:
    return KnownTokens(tokens.who, clock=lambda: now[0])


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
    with VoiceStore.open(path, busy_timeout_seconds=5.0) as other, other.transaction() as connection:
        connection.exec_driver_sql("UPDATE tokens SET revoked_at_ms = 1")  # what another process writes
    assert known.remembered(token) is not None
    now[0] += FRESH_MS
    assert known.remembered(token) is None
    assert await known.ask(token) is None


async def test_a_revocation_while_a_token_is_looked_up_is_not_missed(tokens: TokenStore, now: list[int]) -> None:
    """Whoever read the token just before it was revoked must not be believed afterwards."""
    token = tokens.create("me")
    read, go_on = threading.Event(), threading.Event()

    def slow(text: str) -> AccessToken | None:
        found = tokens.who(text)
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


async def test_what_nobody_has_is_not_remembered_and_memory_is_bounded(now: list[int]) -> None:
    def who(token: str) -> AccessToken | None:
        return None if token.startswith("no") else AccessToken(token, token, Role.ADMIN, None, 0, None, None)

    known = KnownTokens(who, clock=lambda: now[0])
    for number in range(REMEMBERED + 10):
        await known.ask(f"{number}")
        await known.ask(f"no {number}")
    assert len(known._known) == REMEMBERED
    assert known.remembered("0") is None
    assert known.remembered(f"{REMEMBERED + 9}") is not None


async def test_a_flood_of_tokens_takes_few_threads(now: list[int]) -> None:
    busy, most, lock = 0, 0, threading.Lock()
    go_on = threading.Event()

    def who(token: str) -> AccessToken | None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        go_on.wait(10)
        with lock:
            busy -= 1
        return None

    known = KnownTokens(who, clock=lambda: now[0])
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(known.ask, f"token {number}")
        while busy < LOOKUPS:
            await anyio.sleep(0.001)
        await anyio.to_thread.run_sync(lambda: None)  # the loop's other threads are free
        go_on.set()
    assert most == LOOKUPS
