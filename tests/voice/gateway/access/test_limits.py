"""What one client may ask: so many requests, connections and bytes, in bounded memory, and without a clock of its own."""

import math
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from agentos.core.communication.voice.errors import Overloaded, RateLimited, RequestTooLarge, RequestTooSlow
from agentos.core.communication.voice.gateway.access.limits import ConnectionLimit, RateLimit, client_of, read_body
from agentos.core.communication.voice.gateway.routes.event_stream import EventStream

# --- requests --------------------------------------------------------------------------------------------------------


def admitted(limit: RateLimit, client: str, now_ms: float) -> bool:
    try:
        limit.admit(client, now_ms)
    except RateLimited:
        return False
    return True


def test_a_burst_is_let_in_and_then_one_at_a_time() -> None:
    limit = RateLimit(10, burst=3)
    assert [admitted(limit, "a", 0) for _ in range(5)] == [True, True, True, False, False]
    assert [admitted(limit, "a", now) for now in (99, 100, 101, 199, 200)] == [False, True, False, False, True]
    assert [admitted(limit, "a", 10_000) for _ in range(5)] == [True, True, True, False, False]


def test_the_refusal_says_when_it_works_again() -> None:
    limit = RateLimit(10, burst=1)
    limit.admit("a", 0)
    with pytest.raises(RateLimited) as raised:
        limit.admit("a", 30)
    assert raised.value.retry_after_seconds == 0.07
    limit.admit("a", 100)


def test_clients_do_not_take_each_others_allowance() -> None:
    limit = RateLimit(1, burst=1)
    assert [admitted(limit, client, 0) for client in "aabbc"] == [True, False, True, False, True]


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 50), st.integers(1, 6))
def test_no_span_of_time_has_more_than_its_rate_and_one_burst(gaps: list[int], per_second: int, burst: int) -> None:
    limit, now, let_in = RateLimit(per_second, burst), 0, []
    for gap in gaps:
        now += gap
        if admitted(limit, "a", now):
            let_in.append(now)
    for at, first in enumerate(let_in):
        for number, last in enumerate(let_in[at:], 1):
            assert number <= burst + (last - first) * per_second / 1000 + 1e-6


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 50), st.integers(1, 6))
def test_who_waits_as_long_as_it_is_told_is_let_in(gaps: list[int], per_second: int, burst: int) -> None:
    limit, now = RateLimit(per_second, burst), 0
    for gap in gaps:
        now += gap
        try:
            limit.admit("a", now)
        except RateLimited as refused:
            now += math.ceil(refused.retry_after_seconds * 1000 + 1e-6)
            limit.admit("a", now)


def test_memory_is_bounded_and_a_flood_of_clients_frees_nobody_of_its_limit() -> None:
    limit = RateLimit(1, burst=2, max_clients=100)
    for _ in range(2):
        limit.admit("known", 0)
    let_in = sum(admitted(limit, f"client-{number}", 1) for number in range(10_000))
    assert let_in <= 99 + 2  # those told apart, and the one allowance that the others share
    assert len(limit) <= 101
    assert not admitted(limit, "known", 1)


def test_clients_that_are_idle_make_room_for_others() -> None:
    limit = RateLimit(1, burst=1, max_clients=10)
    for number in range(10):
        limit.admit(f"client-{number}", 0)
    assert [admitted(limit, name, 1) for name in ("x", "y")] == [True, False]  # they share one allowance
    assert [admitted(limit, name, 5_000) for name in ("x", "y", "z")] == [True, True, True]


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0)])
def test_a_rate_that_lets_nobody_in_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RateLimit(per_second, burst)


# --- who is one client -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, "local"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_client_is_an_address_or_a_network_that_is_given_to_one(address: str | None, client: str) -> None:
    assert client_of(address) == client


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_client_has_so_many_connections_and_others_have_theirs() -> None:
    limit = ConnectionLimit(per_client=2, total=3)
    with limit.counted("a"), limit.counted("a"):
        with pytest.raises(RateLimited), limit.counted("a"):
            pass
        with limit.counted("b"):
            with pytest.raises(Overloaded), limit.counted("c"):
                pass
            assert len(limit) == 3
        with limit.counted("c"):
            pass
    assert len(limit) == 0
    assert limit._open == {}


def test_a_connection_that_fails_is_not_counted_any_longer() -> None:
    limit = ConnectionLimit(per_client=1, total=1)
    for _ in range(3):
        with pytest.raises(KeyError), limit.counted("a"):
            raise KeyError
    assert len(limit) == 0


# --- bytes -----------------------------------------------------------------------------------------------------------


class Sender:
    """The messages of a request; after the last one nothing comes."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages: Iterator[dict[str, Any]] = iter(messages)
        self.taken = 0

    async def __call__(self) -> dict[str, Any]:
        for message in self._messages:
            self.taken += 1
            return message
        await anyio.sleep_forever()
        raise AssertionError


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def read(sender: Sender, *headers: tuple[bytes, bytes], limit: int = 10, seconds: float = 5) -> bytes:
    return await read_body({"headers": headers}, sender, limit_bytes=limit, timeout_seconds=seconds)


@pytest.mark.anyio
async def test_a_body_is_read_whole_up_to_its_limit() -> None:
    assert await read(Sender(part(b"01234", more=True), part(b"56789", more=False)), (b"content-length", b"10")) == (
        b"0123456789"
    )
    assert await read(Sender({"type": "http.request"})) == b""


@pytest.mark.anyio
async def test_a_body_that_says_it_is_too_large_is_not_read_at_all() -> None:
    sender = Sender(part(b"0", more=True))
    for told in (b"11", b"9" * 5_000):
        with pytest.raises(RequestTooLarge):
            await read(sender, (b"content-length", told))
    assert sender.taken == 0


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")], [(b"content-length", b"x")]])
async def test_a_body_that_is_larger_than_it_says_is_not_read_to_its_end(headers: list[tuple[bytes, bytes]]) -> None:
    sender = Sender(*(part(b"0123", more=True) for _ in range(100)))
    with pytest.raises(RequestTooLarge):
        await read(sender, *headers)
    assert sender.taken == 3


@pytest.mark.anyio
async def test_a_body_that_does_not_come_whole_is_given_up() -> None:
    with pytest.raises(RequestTooSlow):
        await read(Sender(part(b"0", more=True)), seconds=0.01)


@pytest.mark.anyio
async def test_a_client_that_goes_away_is_told_as_that() -> None:
    with pytest.raises(ClientDisconnect):
        await read(Sender(part(b"0", more=True), {"type": "http.disconnect"}))


def event_stream(limit: ConnectionLimit, token: str) -> EventStream:
    async def nothing() -> AsyncGenerator[bytes]:
        await anyio.sleep_forever()
        yield b""

    return EventStream(nothing(), place=limit.counted(token))


@pytest.mark.anyio
async def test_one_token_follows_so_many_event_streams_and_no_more() -> None:
    limit = ConnectionLimit(1, 10, "event streams are open, as many as a token may follow")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(event_stream(limit, "one"), {}, receive, send)
        with anyio.fail_after(30):
            while not sent:
                await anyio.sleep(0.001)
        before = len(sent)
        with pytest.raises(RateLimited, match="1 event streams are open, as many as a token may follow"):
            await event_stream(limit, "one")({}, receive, send)
        group.start_soon(event_stream(limit, "other"), {}, receive, send)
        with anyio.fail_after(30):
            while len(limit) < 2:
                await anyio.sleep(0.001)
        assert before
        group.cancel_scope.cancel()
    assert len(limit) == 0
