"""What lasts ends when its access token was revoked or has expired, on the real servers: event streams and streams of audio."""

from typing import Any

import anyio
import httpx2
import pytest

from agentos.core.communication.voice.gateway.access import token_watch
from agentos.core.communication.voice.gateway.access.control import LOCAL, Principal
from agentos.core.communication.voice.gateway.access.token_watch import TokenWatch
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tables import TOKENS
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from agentos.core.time import monotonic_ms
from machines.session import VoiceSessionState
from machines.stream.messages import Hello, StreamCode, Welcome
from tests.voice.gateway.streaming import PCM, RawSocket, Server, server

pytestmark = pytest.mark.anyio

NO_LONGER = "the access token behind it was revoked or has expired"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_watch, "LOOK_SECONDS", 0.02)


async def end(how: str, at: Server, token_id: str) -> None:
    """As another process does it: nothing in this one is told."""

    def write() -> None:
        over = {"revoked_at_ms": 1} if how == "revoked" else {"expires_at_ms": 1}
        store = open_store(at.service.settings.database, busy_timeout_seconds=5.0)
        with store, store.transaction() as writing:
            writing.put(TOKENS, [row._replace(**over) for row in writing.select(TOKENS, {"id": [token_id]})])

    await anyio.to_thread.run_sync(write)


def made(at: Server, name: str) -> tuple[str, Principal]:
    tokens = at.service.token_store()
    token = tokens.create(name, role=Role.OPERATOR)
    found = tokens.who(token)
    assert found is not None
    return token, Principal(found.id, name, Role.OPERATOR)


async def opened(at: Server, principal: Principal) -> tuple[RawSocket, Welcome]:
    session = await at.session()
    socket = await RawSocket.open(at.port)
    ticket = at.service.stream_tickets.issue_for(session, principal.token_id).ticket
    await socket.send(Hello((PCM,), 1, ticket=ticket))
    return socket, await socket.until(Welcome)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_stream_of_audio_ends_and_does_not_go_on(anyio_backend: Any, how: str) -> None:
    async with server(anyio_backend, authentication=True) as at:
        (_, ends), (_, stays) = made(at, "ends"), made(at, "stays")
        socket, welcome = await opened(at, ends)
        other, _ = await opened(at, stays)
        unused = at.service.stream_tickets.issue(welcome.session_id, ends.token_id, monotonic_ms())
        await end(how, at, ends.token_id)
        with anyio.fail_after(30):
            closed = await socket.closed()
        assert (closed.code, closed.reason) == (StreamCode.UNAUTHENTICATED, NO_LONGER)
        for credential in ({"resume": welcome.resume}, {"ticket": unused}):
            again = await RawSocket.open(at.port)
            await again.send(Hello((PCM,), 2, **credential))
            assert (await again.closed()).code == StreamCode.UNAUTHENTICATED
        found = await at.service.get_session(welcome.session_id)
        assert found is not None
        assert found.state is not VoiceSessionState.STOPPED  # whoever has another token may have it now
        with anyio.move_on_after(0.2):
            closed = await other.closed()
            raise AssertionError(closed)
        await other.abort()
        with anyio.fail_after(30):
            while len(at.app.state.token_watch):
                await anyio.sleep(0.01)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_stream_of_events_ends_whole_and_is_refused_then(anyio_backend: Any, how: str) -> None:
    async with server(anyio_backend, authentication=True) as at:
        token, principal = made(at, "ends")
        session = await at.session()
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        path = f"/v1/sessions/{session.session_id}/events"
        async with httpx2.AsyncClient(base_url=at.url, timeout=30) as client:
            async with client.stream("GET", path, headers=headers) as reply:
                assert reply.status_code == 200
                lines = reply.aiter_lines()
                assert await anext(lines) == "retry: 1000"
                await end(how, at, principal.token_id)
                told = [line async for line in lines]  # to its end, which is whole: otherwise this would raise
            assert "event: session_started" in told
            with anyio.fail_after(30):
                while (await client.get(path, headers=headers)).status_code != 401:
                    await anyio.sleep(0.02)
        assert not len(at.app.state.token_watch)


async def test_while_the_store_can_not_be_read_everything_stays_open(anyio_backend: Any, tmp_path: Any) -> None:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5.0) as store:
        tokens = TokenStore(store)
        token = tokens.create("me", role=Role.ADMIN)
        found = tokens.who(token)
        assert found is not None
    ended: list[str] = []
    watch = TokenWatch(tokens.standing)  # of a store that is closed
    with watch.open_for(found.id, lambda: ended.append("it")):
        await watch._look()
        assert not ended
        with open_store(tmp_path / "voice.db", busy_timeout_seconds=5.0) as store:
            TokenStore(store).revoke(found.id)
            watch._standing = TokenStore(store).standing
            await watch._look()
    assert ended == ["it"]


async def test_what_is_open_still_ends_though_something_else_of_its_token_is_over(anyio_backend: Any) -> None:
    ended: list[str] = []
    watch = TokenWatch(lambda _: ())
    with watch.open_for("tok-1", lambda: ended.append("stays")):
        with watch.open_for("tok-1", lambda: ended.append("goes")):
            pass
        await watch._look()
    assert ended == ["stays"]
    assert not len(watch)


async def test_nobody_looks_for_the_token_of_a_server_that_asks_for_none(anyio_backend: Any) -> None:
    watch = TokenWatch(lambda _: ())
    with watch.open_for(LOCAL.token_id, lambda: pytest.fail("it has no token that could be revoked")):
        assert not len(watch)
        await watch._look()
