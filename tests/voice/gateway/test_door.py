"""The door of a server as a whole, on a real service: tokens, sessions, keys, streams, and the evidence of what was refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, Header, Request, Response
from starlette.responses import JSONResponse

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.errors import (
    Forbidden,
    InvalidTicket,
    KeyReused,
    SessionNotFound,
    Unauthenticated,
    VoiceError,
)
from agentos.core.communication.voice.gateway.access.control import (
    AccessControl,
    Permission,
    Principal,
    access_of,
    checked,
    requires,
)
from agentos.core.communication.voice.gateway.access.idempotency import (
    HttpAnswer,
    IdempotencyKeys,
    checked_key,
    fingerprint,
)
from agentos.core.communication.voice.gateway.access.refusals import REQUEST, Refusals
from agentos.core.communication.voice.gateway.access.tickets import StreamCredentials
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_to_read
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from agentos.core.time import monotonic_ms
from machines.session import STTProvider, VoiceProvider
from tests.voice.gateway.asking import Reply, ask

MakeSettings = Callable[..., VoiceSettings]

pytestmark = pytest.mark.anyio

STATUS = {Unauthenticated: 401, Forbidden: 403, InvalidTicket: 403, SessionNotFound: 404, KeyReused: 422}


def server(service: AsyncVoiceService) -> FastAPI:
    """As small as an app can be that creates sessions, hands out tickets, and opens streams by them."""
    app = FastAPI()
    refusals = Refusals(service.note_evidence)
    app.state.access = AccessControl(service.token_store().whose, refusals)
    keys = IdempotencyKeys(service.voice_store)
    streams = StreamCredentials(service.voice_store, service.stream_tickets)

    @app.post("/v1/sessions")
    async def create(
        request: Request,
        principal: Annotated[Principal, Depends(requires(Permission.CREATE))],
        idempotency_key: Annotated[str, Header()],
        project_id: str,
    ) -> Response:
        access_of(request).project(principal, project_id, request)

        async def made() -> HttpAnswer:
            session = await service.create_session(project_id, VoiceProvider.LOCAL, STTProvider.WHISPER)
            return HttpAnswer(201, (("location", f"/v1/sessions/{session.session_id}"),), session.session_id.encode())

        same = fingerprint("POST", "/v1/sessions", project_id.encode())
        answer = await keys.once(principal.token_id, checked_key(idempotency_key), same, made)
        headers = {**dict(answer.headers), "idempotent-replayed": str(answer.replayed).lower()}
        return Response(answer.body, answer.status, headers)

    @app.post("/v1/sessions/{session_id}/stream-tickets")
    async def ticket(
        session_id: str, request: Request, principal: Annotated[Principal, Depends(requires(Permission.STREAM))]
    ) -> str:
        found = await service.get_session(session_id)
        access_of(request).session(principal, session_id, found, request)
        return streams.tickets.issue(session_id, principal.token_id, monotonic_ms())

    @app.post("/v1/streams", dependencies=[Depends(checked)])
    async def stream(request: Request, ticket: Annotated[str, Header()]) -> list[str]:
        try:
            return list((await streams.open(ticket))[:3])
        except InvalidTicket as error:
            raise access_of(request).refused(error, request) from None

    @app.exception_handler(VoiceError)
    async def problem(request: Request, error: VoiceError) -> JSONResponse:
        return JSONResponse(str(error), STATUS[type(error)])

    return app


async def test_a_call_from_its_token_to_its_stream_and_what_is_refused_on_the_way(
    home: Path, make_settings: MakeSettings
) -> None:
    async with AsyncVoiceService(make_settings(control_socket="off")) as service:
        tokens: TokenStore = service.token_store()
        shop, bank = (
            ("authorization", f"Bearer {tokens.create(name, role=Role.PROJECT, project=name)}")
            for name in ("shop", "bank")
        )
        app = server(service)
        key = ("idempotency-key", "8e03978e-40d5-43dd-bc93-6894a57f9324")

        async def post(url: str, *headers: tuple[str, str]) -> Reply:
            return await ask(app, "POST", url, *headers)

        made = await post("/v1/sessions?project_id=shop", shop, key)
        again = await post("/v1/sessions?project_id=shop", shop, key)
        assert (made.status, made.headers["idempotent-replayed"]) == (201, "false")
        assert (again.status, again.headers["idempotent-replayed"]) == (201, "true")
        assert again.body == made.body
        assert len(await service.list_sessions()) == 1
        session_id = made.body.decode()

        assert (await post("/v1/sessions?project_id=bank", shop, key)).status == 403
        assert (await post("/v1/sessions?project_id=shop", key)).status == 401
        tickets = f"/v1/sessions/{session_id}/stream-tickets"
        assert (await post(tickets, bank)).status == 404
        ticket = (await post(tickets, shop)).data
        opened = await post("/v1/streams", ("ticket", ticket))
        assert opened.data[0] == session_id
        assert (await post("/v1/streams", ("ticket", ticket))).status == 403
        assert (await post("/v1/streams", ("ticket", ticket), ("origin", "https://evil.example"))).status == 403
        assert (await post("/v1/streams", ("ticket", opened.data[1]))).status == 403

        ids = {token.project: token.id for token in tokens.list()}
        tokens.revoke(ids["shop"])
        assert (await post(tickets, shop)).status == 401
    with open_to_read(home / "voice.db") as store:
        assert store.verify().ok
        found: list[dict[str, Any]] = [record.request_summary for record in store.evidence(REQUEST)]
    assert [one["reason"] for one in found] == [
        "project",
        "no_token",
        "project",
        "used_ticket",
        "origin",
        "unknown_ticket",
        "unknown_token",
    ]
    assert [(one["who"], one.get("session_id")) for one in found if one["reason"] == "project"] == [
        (ids["shop"], None),
        (ids["bank"], session_id),
    ]
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    for secret in (shop[1], bank[1], ticket, opened.data[1]):
        assert secret.removeprefix("Bearer ")[4:].encode() not in kept


async def test_a_token_revoked_by_the_command_line_is_refused_within_the_second(
    home: Path, make_settings: MakeSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentos.core.communication.voice.gateway.access import known_tokens  # noqa: PLC0415 - only what it is told of others

    monkeypatch.setattr(known_tokens, "revocations", lambda: 0)  # as in another process
    async with AsyncVoiceService(make_settings(control_socket="off")) as service:
        app = server(service)

        async def command(*arguments: str) -> Any:
            assert await anyio.to_thread.run_sync(main, [*arguments, "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        made = await command("token", "create", "web", "--role", "project", "--project", "shop")
        token = ("authorization", f"Bearer {made['token']}")
        url = "/v1/sessions/voice-none/stream-tickets"
        assert (await ask(app, "POST", url, token)).status == 404
        await command("token", "revoke", made["id"])
        with anyio.fail_after(10):
            while (await ask(app, "POST", url, token)).status == 404:
                await anyio.sleep(0.05)
        assert (await ask(app, "POST", url, token)).status == 401
