"""Many clients behind one proxy, on the real servers: who tries what is not good holds nobody off, by HTTP or WebSocket."""

from typing import Any

import anyio
import httpx2
import pytest

from agentos.core.communication.voice.gateway.access.refusals import REQUEST
from agentos.core.communication.voice.storage.tokens import Role
from machines.stream.messages import Hello, StreamCode, Welcome
from tests.voice.gateway.streaming import PCM, RawSocket, Refused, Server, server

pytestmark = pytest.mark.anyio

FEW = {"authentication": True, "unknown_tokens_per_second": 0.001, "unknown_tokens_burst": 2}
ATTACKER, OTHER = "192.0.2.66", "192.0.2.7"


def bearer(token: str, client: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "X-Forwarded-For": client}


def nobody_s(number: int) -> str:
    return f"avt_{number:043}"


async def status(client: httpx2.AsyncClient, token: str, address: str) -> int:
    return (await client.get("/v1/sessions", headers=bearer(token, address))).status_code


async def clients_in_evidence(at: Server) -> list[str]:
    resources = at.service._runtime.resources()
    resources.store_port.writer.flush(20)
    records = await anyio.to_thread.run_sync(resources.store.evidence, REQUEST)
    return [str(record.request_summary["client"]) for record in records]


@pytest.mark.parametrize("trusted", ["127.0.0.0/8", ""])
async def test_tenants_and_an_attacker_behind_one_address(anyio_backend: Any, trusted: str) -> None:
    """Whether the proxy is trusted or not, good tokens are taken, also those that come for the first time."""
    async with server(anyio_backend, **FEW, trusted_proxies=trusted) as at:
        tokens = [
            at.service.token_store().create("a tenant", role=Role.PROJECT, project=f"P{number}") for number in range(20)
        ]
        answers: list[int] = []

        async with httpx2.AsyncClient(base_url=at.url) as client:

            async def tenant(token: str, address: str) -> None:
                answers.append(await status(client, token, address))
                answers.append(await status(client, token, address))

            attacks = [await status(client, nobody_s(number), ATTACKER) for number in range(6)]
            async with anyio.create_task_group() as group:
                for number, token in enumerate(tokens):
                    group.start_soon(tenant, token, f"192.0.2.{number}")
                group.start_soon(tenant, tokens[0], ATTACKER)
            assert attacks == [401, 401, 429, 429, 429, 429]
            assert answers == [200] * 42
            elsewhere = await status(client, nobody_s(7), OTHER)
        assert elsewhere == (401 if trusted else 429)
        expected = [ATTACKER] * 6 + [OTHER] if trusted else ["127.0.0.1"] * 7
        assert await clients_in_evidence(at) == expected


async def test_tickets_and_streams_of_clients_behind_a_proxy(anyio_backend: Any) -> None:
    def few(app: Any) -> None:
        app.state.streams._limit._per_client = 2

    async with server(anyio_backend, change=few, **FEW, trusted_proxies="127.0.0.1") as at:

        async def tried(ticket: str, client: str) -> Any:
            socket = await RawSocket.open(at.port, X_Forwarded_For=client)
            await socket.send(Hello((PCM,), 1, ticket=ticket))
            return (await socket.closed()).code

        codes = [await tried(f"avs_{number:043}", ATTACKER) for number in range(4)]
        bad, many = StreamCode.UNAUTHENTICATED, StreamCode.TOO_MANY
        assert codes == [bad, bad, many, many]
        assert await tried("avs_" + "1" * 43, OTHER) == bad
        welcome = await RawSocket.open(at.port, X_Forwarded_For=ATTACKER)  # with a good one from the same address
        await welcome.send(Hello((PCM,), 1, ticket=at.ticket(await at.session())))
        await welcome.until(Welcome)
        idle = await RawSocket.open(at.port, X_Forwarded_For=ATTACKER)
        with pytest.raises(Refused) as raised:
            await RawSocket.open(at.port, X_Forwarded_For=ATTACKER)
        assert raised.value.status == 429
        other = await RawSocket.open(at.port, X_Forwarded_For=f"{ATTACKER}, {OTHER}")
        for socket in (welcome, idle, other):
            await socket.abort()
        assert await clients_in_evidence(at) == [ATTACKER] * 4 + [OTHER]


async def test_a_handshake_whose_client_can_not_be_told_is_refused(anyio_backend: Any) -> None:
    async with server(anyio_backend, **FEW, trusted_proxies="127.0.0.1") as at:
        with pytest.raises(Refused) as raised:
            await RawSocket.open(at.port, Forwarded="for=who")
        assert raised.value.status == 422
        async with httpx2.AsyncClient(base_url=at.url) as client:
            reply = await client.get("/healthz", headers={"Forwarded": "for=who"})
        assert (reply.status_code, reply.json()["field"]) == (422, "Forwarded")
        assert await clients_in_evidence(at) == ["127.0.0.1"] * 2
