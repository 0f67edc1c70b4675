"""Connections that come in: who is refused is told, which is said once, and what goes wrong with one keeps no other out."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice.errors import Overloaded
from agentos.core.communication.voice.gateway import accepting as module
from agentos.core.communication.voice.gateway.accepting import accept, turn_away
from agentos.core.communication.voice.gateway.access.connections import Connections, Guest
from agentos.core.communication.voice.gateway.access.limits import LOCAL

Begin = Callable[[socket.socket, Guest], Awaitable[None]]


@asynccontextmanager
async def accepting(connections: Connections, begin: Begin) -> AsyncIterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(accept, taken, connections, begin)
            yield taken.getsockname()
            group.cancel_scope.cancel()


def said_to(address: tuple[str, int]) -> bytes:
    """All that is said to a new connection until it is closed."""
    with socket.create_connection(address, timeout=30) as client, client.makefile("rb") as said:
        return said.read()


def test_who_is_turned_away_is_told_in_whole_seconds_when_to_come_again() -> None:
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as said:
        turn_away(ours, Overloaded("too much", retry_after_seconds=1.25))
        head, _, body = said.read().partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 503 Service Unavailable"
    assert b"Retry-After: 2" in head.split(b"\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")


@pytest.mark.anyio
async def test_refusals_are_said_once_and_not_for_each_of_them(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(total=1, per_client=9, strangers=9)
    connections.admit("192.0.2.1", 3).known()

    async def begin(_: socket.socket, __: Guest) -> None:
        raise AssertionError("nobody is let in")

    async with accepting(connections, begin) as address:
        for _ in range(3):
            assert b"503" in await anyio.to_thread.run_sync(said_to, address)
    assert connections.refused == 3
    assert [message.partition(":")[0] for message in caplog.messages] == ["connections_refused"]


@pytest.mark.anyio
async def test_one_about_which_something_goes_wrong_is_closed_and_the_next_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0)
    connections, faults, served = Connections(total=9, per_client=9, strangers=9), [1, 2], list[str]()
    real = connections.admit

    def admit(address: str | None, descriptor: int) -> Guest:
        if faults:
            raise RuntimeError(f"a planted fault, {faults.pop()}")
        return real(address, descriptor)

    async def begin(client: socket.socket, guest: Guest) -> None:
        served.append(guest.client)
        guest.left()
        client.close()

    monkeypatch.setattr(connections, "admit", admit)
    async with accepting(connections, begin) as address:
        for _ in range(3):
            assert await anyio.to_thread.run_sync(said_to, address) == b""
    assert served == ["127.0.0.1"]


@pytest.mark.anyio
async def test_who_comes_through_a_socket_file_is_of_this_machine(tmp_path: Path) -> None:
    connections, served = Connections(total=9, per_client=9, strangers=9), list[str]()

    async def begin(client: socket.socket, guest: Guest) -> None:
        served.append(guest.client)
        guest.left()
        client.close()

    with socket.socket(socket.AF_UNIX) as taken, socket.socket(socket.AF_UNIX) as client:
        taken.bind(str(tmp_path / "here"))
        taken.listen()
        taken.setblocking(False)
        client.settimeout(30)
        async with anyio.create_task_group() as group:
            group.start_soon(accept, taken, connections, begin)
            await anyio.to_thread.run_sync(client.connect, str(tmp_path / "here"))
            assert await anyio.to_thread.run_sync(client.recv, 1) == b""
            group.cancel_scope.cancel()
    assert served == [LOCAL]


@pytest.mark.anyio
async def test_one_that_can_not_be_served_leaves_its_place_and_the_next_is_taken() -> None:
    connections, served = Connections(total=9, per_client=1, strangers=9), list[int]()

    async def begin(client: socket.socket, guest: Guest) -> None:
        served.append(len(connections))
        if len(served) < 3:
            guest.known()
            raise RuntimeError("a planted fault")
        guest.left()
        client.close()

    async with accepting(connections, begin) as address:
        for _ in range(3):
            assert await anyio.to_thread.run_sync(said_to, address) == b""
    assert served == [1, 1, 1]
    assert (len(connections), connections.refused) == (0, 0)
