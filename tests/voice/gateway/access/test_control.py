"""Who may do what: every role, every project, and every way to ask without being allowed to: refused, and in evidence."""

import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from agentos.core.communication.voice.errors import (
    Forbidden,
    InvalidRequest,
    RateLimited,
    SessionNotFound,
    StoreError,
    Unauthenticated,
    VoiceError,
)
from agentos.core.communication.voice.gateway.access.control import (
    PERMISSIONS,
    AccessControl,
    Permission,
    Principal,
    access_of,
    checked,
    requires,
)
from agentos.core.communication.voice.gateway.access.limits import RateLimit
from agentos.core.communication.voice.gateway.access.refusals import Refusals
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from agentos.core.time import utc_now
from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.evidence import EvidenceRecord, canonical_json
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from tests.voice.gateway.asking import ACCEPT, CLOSE, Reply, ask, connect

pytestmark = pytest.mark.anyio

STATUS = {
    InvalidRequest: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    SessionNotFound: 404,
    RateLimited: 429,
    StoreError: 503,
}
PATHS = {permission: f"/may/{permission.name.lower()}" for permission in Permission}
NOBODYS = "avt_" + "x" * 43
SESSION = VoiceSession(
    session_id="voice-1",
    project_id="shop",
    provider=VoiceProvider.LOCAL,
    stt_provider=STTProvider.WHISPER,
    state=VoiceSessionState.ACTIVE,
    created_at=utc_now(),
    last_activity_at=utc_now(),
    risk_tier=RiskLevel.LOW,
    policy_verdict=PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
    audit_trace_id="audit-1",
)


class Server:
    """An app with a route for each permission, a real store behind it, and the records that it wrote."""

    def __init__(self, tokens: TokenStore) -> None:
        self.tokens = tokens
        self.records: list[EvidenceRecord] = []
        self.now = [0]

    def app(self, **options: Any) -> FastAPI:
        refusals = Refusals(self.records.append, clock=lambda: self.now[0])
        app = FastAPI()
        app.state.access = AccessControl(self.tokens.whose, refusals, clock=lambda: self.now[0], **options)
        for permission, path in PATHS.items():
            _add(app, path, permission)

        @app.get("/open", dependencies=[Depends(checked)])
        @app.post("/open", dependencies=[Depends(checked)])
        async def is_open() -> str:
            return "open"

        @app.get("/v1/sessions/{session_id}")
        async def session(
            session_id: str, request: Request, principal: Annotated[Principal, Depends(requires(Permission.READ))]
        ) -> str:
            found = SESSION if session_id == SESSION.session_id else None
            return access_of(request).session(principal, session_id, found, request).session_id

        @app.get("/v1/sessions")
        async def sessions(
            request: Request,
            principal: Annotated[Principal, Depends(requires(Permission.READ))],
            project_id: str | None = None,
        ) -> str:
            return access_of(request).project(principal, project_id, request) or "all projects"

        @app.exception_handler(VoiceError)
        async def problem(request: Request, error: VoiceError) -> JSONResponse:
            headers = {"www-authenticate": error.challenge} if isinstance(error, Unauthenticated) else {}
            return JSONResponse(str(error), STATUS[type(error)], headers)

        return app

    def token(self, role: Role, project: str | None = None, seconds: float | None = None) -> tuple[str, str]:
        """The header of a new token, as `ask` takes it."""
        return "authorization", f"Bearer {self.tokens.create(role.value, seconds, role=role, project=project)}"

    @property
    def refused(self) -> list[dict[str, Any]]:
        return [record.request_summary for record in self.records]


def _add(app: FastAPI, path: str, permission: Permission) -> None:
    @app.post(path)
    async def done(principal: Annotated[Principal, Depends(requires(permission))]) -> str:
        return principal.name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5.0) as store:
        yield Server(TokenStore(store))


# --- roles -----------------------------------------------------------------------------------------------------------

MAY = {
    Role.ADMIN: {"CREATE", "STOP", "STREAM", "READ", "EXPLAIN", "EVIDENCE", "STATISTICS", "DRAIN"},
    Role.OPERATOR: {"CREATE", "STOP", "STREAM", "READ", "EXPLAIN", "STATISTICS", "DRAIN"},
    Role.AUDITOR: {"READ", "EXPLAIN", "EVIDENCE", "STATISTICS"},
    Role.PROJECT: {"CREATE", "STOP", "STREAM", "READ", "EXPLAIN"},
}


def test_the_roles_may_do_what_is_promised_and_nothing_else() -> None:
    assert {role: {permission.name for permission in may} for role, may in PERMISSIONS.items()} == MAY


@pytest.mark.parametrize("role", Role)
async def test_each_role_gets_through_where_it_may_and_is_refused_elsewhere(server: Server, role: Role) -> None:
    app = server.app()
    token = server.token(role, "shop" if role is Role.PROJECT else None)
    for permission in Permission:
        reply = await ask(app, "POST", PATHS[permission], token)
        assert reply.status == (200 if permission.name in MAY[role] else 403), permission
    not_allowed = [PATHS[permission] for permission in Permission if permission.name not in MAY[role]]
    token_id = server.tokens.list()[0].id
    assert [(one["reason"], one["route"], one["who"]) for one in server.refused] == [
        ("role", path, token_id) for path in not_allowed
    ]


# --- projects --------------------------------------------------------------------------------------------------------


async def test_a_session_of_another_project_is_not_there_and_the_attempt_is_on_record(server: Server) -> None:
    app = server.app()
    own, other = server.token(Role.PROJECT, "shop"), server.token(Role.PROJECT, "bank")
    assert (await ask(app, "GET", "/v1/sessions/voice-1", own)).data == "voice-1"
    hidden, unknown = [await ask(app, "GET", f"/v1/sessions/{name}", other) for name in ("voice-1", "voice-2")]
    assert hidden.status == unknown.status == 404
    assert hidden.data.replace("voice-1", "voice-2") == unknown.data
    [refused] = server.refused
    assert (refused["reason"], refused["session_id"]) == ("project", "voice-1")
    assert refused["route"] == "/v1/sessions/{session_id}"
    assert refused["who"] in {token.id for token in server.tokens.list() if token.project == "bank"}


async def test_lists_and_new_sessions_are_those_of_the_own_project(server: Server) -> None:
    app = server.app()
    project, operator = server.token(Role.PROJECT, "shop"), server.token(Role.OPERATOR)
    assert (await ask(app, "GET", "/v1/sessions", project)).data == "shop"
    assert (await ask(app, "GET", "/v1/sessions?project_id=shop", project)).data == "shop"
    assert (await ask(app, "GET", "/v1/sessions?project_id=bank", project)).status == 403
    assert [one["reason"] for one in server.refused] == ["project"]
    assert (await ask(app, "GET", "/v1/sessions", operator)).data == "all projects"
    assert (await ask(app, "GET", "/v1/sessions?project_id=bank", operator)).data == "bank"


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no_token"),
        ([("authorization", "")], "bad_header"),
        ([("authorization", NOBODYS)], "bad_header"),
        ([("authorization", f"Basic {NOBODYS}")], "bad_header"),
        ([("authorization", "Bearer")], "bad_header"),
        ([("authorization", f"Bearer {NOBODYS} x")], "bad_header"),
        ([("authorization", f"Bearer {NOBODYS}")] * 2, "bad_header"),
        ([("authorization", f"Bearer {NOBODYS}")], "unknown_token"),
        ([("authorization", "Bearer x")], "unknown_token"),
        ([("authorization", "Bearer avt_\xff")], "unknown_token"),
    ],
)
async def test_who_is_not_known_gets_401_with_a_challenge_and_a_record(
    server: Server, headers: list[tuple[str, str]], reason: str
) -> None:
    reply = await ask(server.app(), "POST", "/may/read", *headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith('Bearer realm="agentos-voice"')
    assert [(one["reason"], one["client"]) for one in server.refused] == [(reason, "127.0.0.1")]
    assert "xxxx" not in canonical_json(server.records[0])


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(server: Server, name: str, scheme: str) -> None:
    token = server.tokens.create("me")
    assert (await ask(server.app(), "POST", "/may/drain", (name.lower(), f"{scheme} {token}"))).status == 200


@pytest.mark.parametrize("letter", "trs")
async def test_a_token_in_a_url_is_refused_even_beside_a_good_one(server: Server, letter: str) -> None:
    secret = f"av{letter}_" + "x" * 43
    for url in (f"/open?token={secret}", f"/open/{secret}", f"/may/read?a=b&x={secret}"):
        app = server.app()
        app.add_api_route("/open/{name}", lambda name: name, dependencies=[Depends(checked)])
        method = "GET" if url.startswith("/open") else "POST"
        assert (await ask(app, method, url, server.token(Role.ADMIN))).status == 401
    assert {one["reason"] for one in server.refused} == {"token_in_url"}
    assert all("xxxx" not in canonical_json(record) for record in server.records)


async def test_an_expired_token_is_not_known_any_longer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentos.core.communication.voice.gateway.access import known_tokens  # noqa: PLC0415 - only its clock
    from agentos.core.communication.voice.storage import tokens  # noqa: PLC0415 - only its clock

    now = [1_000_000]
    for module in (known_tokens, tokens):
        monkeypatch.setattr(module, "utc_now_ms", lambda: now[0])
    app, token = server.app(), server.token(Role.ADMIN, seconds=0.5)
    assert (await ask(app, "POST", "/may/read", token)).status == 200
    now[0] += 500  # well within the second for which it is remembered
    assert (await ask(app, "POST", "/may/read", token)).status == 401


async def test_a_token_revoked_in_this_process_is_refused_at_once(server: Server) -> None:
    app, token, other = server.app(), server.token(Role.ADMIN), server.token(Role.AUDITOR)
    ids = {one.role: one.id for one in server.tokens.list()}
    for header in (token, other):
        assert (await ask(app, "POST", "/may/read", header)).status == 200
    server.tokens.revoke(ids[Role.ADMIN])
    assert (await ask(app, "POST", "/may/read", token)).status == 401
    assert (await ask(app, "POST", "/may/read", other)).status == 200


async def test_a_store_that_does_not_answer_lets_nobody_in(server: Server) -> None:
    app, token = server.app(), server.token(Role.ADMIN)
    assert (await ask(app, "POST", "/may/read", token)).status == 200
    server.tokens._store.close()
    assert (await ask(app, "POST", "/may/read", token)).status == 200  # still remembered
    server.now[0] += 1_000
    assert (await ask(app, "POST", "/may/read", token)).status == 503


# --- without authentication ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
async def test_without_authentication_everybody_on_this_machine_may_do_everything(server: Server, host: str) -> None:
    app = server.app(authentication=False)
    for path in PATHS.values():
        assert (await ask(app, "POST", path, ("host", host))).data == "local"
    assert server.records == []


@pytest.mark.parametrize("url", ["/may/read", "/open"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "192.0.2.7:8000"])
async def test_a_name_that_was_pointed_here_gets_no_answer(server: Server, url: str, host: str) -> None:
    reply = await ask(server.app(authentication=False), "POST", url, ("host", host))
    assert reply.status == 403
    assert [one["reason"] for one in server.refused] == ["host"]


async def test_two_host_headers_are_none(server: Server) -> None:
    hosts = [("host", "127.0.0.1:8000"), ("host", "evil.example")]
    assert (await ask(server.app(authentication=False), "GET", "/open", *hosts)).status == 403


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"])
async def test_without_authentication_nothing_comes_through_a_proxy(server: Server, name: str) -> None:
    app = server.app(authentication=False)
    assert (await ask(app, "GET", "/open", (name, "192.0.2.7"))).status == 403
    assert [one["reason"] for one in server.refused] == ["proxied"]
    assert (await ask(server.app(), "GET", "/open", (name, "192.0.2.7"))).status == 200


@pytest.mark.parametrize(("address", "status"), [("192.0.2.7", 403), ("2001:db8::1", 403), ("::1", 200), (None, 200)])
async def test_without_authentication_nothing_comes_from_another_machine(
    server: Server, address: str | None, status: int
) -> None:
    client = None if address is None else (address, 50_000)
    assert (await ask(server.app(authentication=False), "GET", "/open", client=client)).status == status


async def test_with_authentication_a_server_answers_to_the_names_it_was_given(server: Server) -> None:
    app = server.app(hosts=["Voice.example", "::1"])
    for host, status in (("voice.example", 200), ("VOICE.example.:443", 200), ("[::1]:80", 200), ("127.0.0.1", 403)):
        assert (await ask(app, "GET", "/open", ("host", host))).status == status, host
    assert (await ask(server.app(), "GET", "/open", ("host", "any.example"))).status == 200


# --- origins ---------------------------------------------------------------------------------------------------------


async def from_page(app: FastAPI, method: str, *origins: str, url: str = "/open") -> Reply:
    return await ask(app, method, url, *(("origin", origin) for origin in origins))


@pytest.mark.parametrize("authentication", [True, False])
async def test_a_page_of_another_origin_changes_nothing(server: Server, *, authentication: bool) -> None:
    app = server.app(authentication=authentication, origins=["https://app.example"])
    for origin, status in (
        ("https://app.example", 200),
        ("http://127.0.0.1:8000", 200),
        ("https://evil.example", 403),
        ("http://app.example", 403),
        ("https://app.example:444", 403),
        ("https://app.example.evil.example", 403),
        ("http://localhost:8000", 403),
        ("null", 403),
        ("", 403),
    ):
        assert (await from_page(app, "POST", origin)).status == status, origin
    assert {one["reason"] for one in server.refused} == {"origin"}
    assert server.refused[0]["detail"] == "https://evil.example"
    assert (await from_page(app, "POST", "https://app.example", "https://evil.example")).status == 403
    assert (await from_page(app, "POST")).status == 200


async def test_a_page_of_another_origin_may_ask_but_its_browser_does_not_let_it_read(server: Server) -> None:
    reply = await from_page(server.app(), "GET", "https://evil.example")
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["*", "null", "app.example", "https://app.example/page"])
def test_an_origin_that_would_allow_everybody_or_nobody_is_refused_at_the_start(server: Server, origin: str) -> None:
    with pytest.raises(InvalidRequest):
        server.app(origins=[origin])


# --- how much --------------------------------------------------------------------------------------------------------


async def test_who_asks_too_much_waits_and_others_do_not(server: Server) -> None:
    app = server.app(requests=RateLimit(1, burst=2))
    token, other = server.token(Role.ADMIN), server.token(Role.ADMIN)
    assert [(await ask(app, "POST", "/may/read", token)).status for _ in range(3)] == [200, 200, 429]
    assert (await ask(app, "POST", "/may/read", other)).status == 200
    server.now[0] += 1_000
    assert (await ask(app, "POST", "/may/read", token)).status == 200


def bad(number: int) -> tuple[str, str]:
    """The header of a token that nobody has."""
    return "authorization", f"Bearer avt_{number:043}"


async def test_a_client_that_tries_tokens_is_told_to_wait_and_good_tokens_are_not_held_off(server: Server) -> None:
    app = server.app(unknown=RateLimit(1, burst=3))
    asked = [(await ask(app, "POST", "/may/read", bad(number))).status for number in range(5)]
    assert asked == [401, 401, 401, 429, 429]
    for _ in range(200):  # of the same address, all for the first time
        assert (await ask(app, "POST", "/may/read", server.token(Role.ADMIN))).status == 200
    assert (await ask(app, "POST", "/may/read", bad(5))).status == 429  # good ones give nothing back either
    assert (await ask(app, "POST", "/may/read", bad(6), client=("192.0.2.7", 1))).status == 401
    server.now[0] += 1_000
    assert (await ask(app, "POST", "/may/read", bad(7))).status == 401


async def test_every_token_that_nobody_has_is_counted_in_evidence(server: Server) -> None:
    app = server.app(unknown=RateLimit(1, burst=3))
    for number in range(20):
        await ask(app, "POST", "/may/read", bad(number))
    app.state.access.refusals.write_sum()
    assert sum(record.operation == "access_refused" for record in server.records) == 10
    assert server.refused[-1]["reasons"] == {"unknown_token": 10}


# --- through proxies -------------------------------------------------------------------------------------------------

PROXY = ("10.0.0.1", 50_000)


def through(client: str) -> tuple[str, str]:
    return "x-forwarded-for", f"198.51.100.99, {client}"  # it claims to be another one


async def test_limits_and_evidence_go_by_the_client_behind_a_trusted_proxy(server: Server) -> None:
    app = server.app(unknown=RateLimit(1, burst=2), proxies=[ip_network("10.0.0.0/24")])
    for client, expected in (("192.0.2.1", [401, 401, 429]), ("192.0.2.2", [401, 401, 429])):
        asked = [
            (await ask(app, "POST", "/may/read", bad(number), through(client), client=PROXY)).status
            for number in range(3)
        ]
        assert asked == expected
    assert [one["client"] for one in server.refused] == ["192.0.2.1"] * 3 + ["192.0.2.2"] * 3


async def test_nobody_else_is_believed_who_the_client_is(server: Server) -> None:
    app = server.app(unknown=RateLimit(1, burst=2), proxies=[ip_network("10.0.0.0/24")])
    asked = [
        (await ask(app, "POST", "/may/read", bad(n), through(f"192.0.2.{n}"), client=("10.0.1.1", 1))).status
        for n in range(3)
    ]
    assert asked == [401, 401, 429]
    assert {one["client"] for one in server.refused} == {"10.0.1.1"}


@pytest.mark.parametrize("url", ["/open", "/may/read"])
async def test_a_proxy_that_can_not_be_understood_is_refused_and_its_address_in_evidence(
    server: Server, url: str
) -> None:
    app = server.app(proxies=[ip_network("10.0.0.0/24")])
    with pytest.raises(InvalidRequest) as refused:
        app.state.access.check_connection(
            HTTPConnection(
                {
                    "type": "http",
                    "path": url,
                    "headers": [(b"x-forwarded-for", b"who")],
                    "client": PROXY,
                    "method": "GET",
                }
            )
        )
    assert refused.value.field == "X-Forwarded-For"
    assert [(one["reason"], one["client"], one["detail"]) for one in server.refused] == [
        ("forwarded", "10.0.0.1", "X-Forwarded-For")
    ]
    assert (await ask(app, "POST", url, ("x-forwarded-for", "who"), client=PROXY)).status == 422


async def test_a_server_that_asks_nobody_takes_nothing_from_a_trusted_proxy_either(server: Server) -> None:
    app = server.app(authentication=False, proxies=[ip_network("127.0.0.1")])
    assert (await ask(app, "POST", "/may/read", through("127.0.0.1"))).status == 403
    assert server.refused[0]["reason"] == "proxied"


# --- in an app -------------------------------------------------------------------------------------------------------


async def test_an_app_that_a_host_mounts_has_its_own_rules(server: Server) -> None:
    host = FastAPI()
    host.mount("/voice", server.app())
    token = server.token(Role.AUDITOR)
    assert (await ask(host, "POST", "/voice/may/read", token)).status == 200
    assert (await ask(host, "POST", "/voice/may/create", token)).status == 403
    assert (await ask(host, "POST", "/voice/may/read")).status == 401
    assert [(one["reason"], one["route"]) for one in server.refused] == [
        ("role", "/may/create"),
        ("no_token", "/may/read"),
    ]


@pytest.mark.parametrize("url", ["/open", "/may/read"])
async def test_the_rules_are_asked_on_the_loop_never_in_a_thread(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def check(access: AccessControl, connection: HTTPConnection) -> None:
        threads.append(threading.get_ident())

    monkeypatch.setattr(AccessControl, "check_connection", check)
    assert (await ask(server.app(), "POST", url, server.token(Role.ADMIN))).status == 200
    assert threads == [threading.get_ident()]


def test_the_api_says_that_a_bearer_token_is_needed(server: Server) -> None:
    schema = server.app().openapi()
    assert schema["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert schema["paths"]["/may/drain"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in schema["paths"]["/open"]["get"]


@pytest.mark.parametrize(
    ("origin", "opened"),
    [(None, True), ("http://127.0.0.1:8000", True), ("https://app.example", True), ("https://evil.example", False)],
)
async def test_a_page_of_another_origin_opens_no_stream(server: Server, origin: str | None, *, opened: bool) -> None:
    app = server.app(origins=["https://app.example"])

    @app.websocket("/stream", dependencies=[Depends(checked)])
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    @app.exception_handler(Forbidden)
    async def forbidden(socket: HTTPConnection, error: Exception) -> None:
        assert isinstance(socket, WebSocket)
        await socket.close(4403)

    headers = [("host", "127.0.0.1:8000"), *([] if origin is None else [("origin", origin)])]
    sent = await connect(app, "/stream", headers)
    assert [message["type"] for message in sent] == ([ACCEPT, CLOSE] if opened else [CLOSE])
    assert [(one["reason"], one["method"], one["route"]) for one in server.refused] == (
        [] if opened else [("origin", "WEBSOCKET", "/stream")]
    )
