"""Every error of the API is a problem with the status that it should have, and tells nothing of the inside."""

import json
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from agentos.core.communication.voice import errors
from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.gateway import request_guard
from agentos.core.communication.voice.gateway.problems import KINDS, MEDIA_TYPE, URN, Problem, kind_of, problem_of
from agentos.core.communication.voice.storage.store import BadEntry
from machines.communication import PolicyVerdict, RequestStatus
from machines.session import VoiceSessionState
from tests.voice.gateway.conftest import Run, Running

VERDICT = PolicyVerdict(status=RequestStatus.REQUIRE_ADMIN, reason_code="ADMIN_TOKEN_REQUIRED", hint="bring a token")


def is_problem(reply: httpx2.Response, status: int, name: str) -> Problem:
    assert (reply.status_code, reply.headers["content-type"]) == (status, MEDIA_TYPE), reply.text
    problem = Problem.model_validate_json(reply.content)
    assert problem.type == URN + name
    assert problem.status == status
    assert problem.instance == reply.request.url.path
    assert problem.detail
    return problem


OF_CLIENTS = {errors.RequestRefused, errors.StreamClosed}  # what a client makes of a server's refusal


def test_every_error_is_in_the_table() -> None:
    known = vars(errors).values()
    tree = {kind for kind in known if isinstance(kind, type) and issubclass(kind, VoiceError)} - OF_CLIENTS
    assert len(tree) > 20
    assert [kind.__name__ for kind in tree if kind not in KINDS] == []


def test_names_and_statuses_are_of_http() -> None:
    for kind in KINDS.values():
        assert kind.status == 202 or 400 <= kind.status < 600
        assert kind.name == kind.name.lower().replace(" ", "-")
        assert kind.title


def test_an_error_that_is_not_in_the_table_is_what_its_base_is() -> None:
    assert kind_of(BadEntry("ev-1", "no JSON")) is KINDS[VoiceError]


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (errors.InvalidRequest("cursor is none", field="cursor"), {"field": "cursor", "detail": "cursor is none"}),
        (errors.SessionNotFound("voice-1"), {"session_id": "voice-1"}),
        (errors.InvalidState("voice-1", VoiceSessionState.STOPPED), {"session_id": "voice-1", "state": "stopped"}),
        (
            errors.PolicyDenied(VERDICT, session_id="voice-1"),
            {"session_id": "voice-1", "verdict": VERDICT.model_dump(mode="json")},
        ),
        (errors.Overloaded("full", retry_after_seconds=1.5), {"retry_after_seconds": 1.5}),
        (errors.EvidenceNotDurable("voice-1", spilled=True), {"spilled": True, "status": 202}),
        (errors.Unauthenticated("unknown_token"), {"reason": "unknown_token", "status": 401}),
        (errors.Forbidden("no", reason="role"), {"reason": "role", "status": 403}),
        (errors.RequestTooLarge(100), {"limit_bytes": 100, "status": 413}),
    ],
)
def test_the_fields_of_an_error_are_those_of_its_problem(error: VoiceError, fields: dict[str, Any]) -> None:
    problem = json.loads(problem_of(error, "/v1").model_dump_json(exclude_none=True))
    assert problem.items() >= fields.items()


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreError("/home/someone/voice.db is locked", kind="locked"),
        errors.LocksUnavailable(Path("/home/someone")),
        errors.EvidenceUnavailable("/home/someone/voice.db is full"),
        errors.ServiceNotReachable("nobody at /home/someone/run", path="/home/someone/run"),
        errors.CannotListen("10.0.0.1", 80, "someone"),
        BadEntry("ev-1", "someone"),
    ],
)
def test_no_path_of_the_server_is_told(error: VoiceError) -> None:
    text = problem_of(error).model_dump_json()
    assert "someone" not in text
    assert "10.0.0.1" not in text


@pytest.mark.anyio
class TestTheApi:
    async def test_a_path_that_is_not_there(self, run: Run) -> None:
        async with run() as running:
            is_problem(await running.client.get("/v1/nothing"), 404, "not-found")
            is_problem(await running.client.get("/v1/sessions/"), 404, "not-found")
            is_problem(await running.client.get("/docs"), 404, "not-found")

    async def test_a_method_that_a_path_does_not_have(self, run: Run) -> None:
        async with run() as running:
            reply = await running.client.delete("/v1/sessions")
            is_problem(reply, 405, "method-not-allowed")
            assert set(reply.headers["allow"].split(", ")) <= {"GET", "POST"}
            assert reply.headers["allow"]

    async def test_a_body_of_another_form_names_every_field(self, run: Run) -> None:
        async with run() as running:
            body = {"project_id": "", "provider": 1, "surprise": 1, "admin_token": "avt_secret"}
            reply = await running.client.post("/v1/sessions", json=body)
            problem = is_problem(reply, 422, "invalid-request")
            assert problem.errors is not None
            assert {item.field for item in problem.errors} == {"project_id", "provider", "surprise"}
            assert problem.field in {"project_id", "provider", "surprise"}
            assert "avt_secret" not in reply.text

    async def test_a_secret_of_the_wrong_type_is_not_repeated(self, run: Run) -> None:
        async with run() as running:
            reply = await running.client.post("/v1/sessions", json={"project_id": "p", "admin_token": ["avt_secret"]})
            assert is_problem(reply, 422, "invalid-request").field == "admin_token"
            assert "avt_secret" not in reply.text

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b'"text"', b"null", b"NaN", b"[" * 5000])
    async def test_what_is_no_json_object(self, run: Run, body: bytes) -> None:
        async with run() as running:
            reply = await running.client.post(
                "/v1/sessions", content=body, headers={"content-type": "application/json"}
            )
            is_problem(reply, 422, "invalid-request")

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
    async def test_json_that_is_not_called_so(self, run: Run, kind: str | None) -> None:
        async with run() as running:
            headers = {} if kind is None else {"content-type": kind}
            reply = await running.client.post("/v1/sessions", content=b'{"project_id": "p"}', headers=headers)
            assert "Content-Type: application/json" in is_problem(reply, 422, "invalid-request").detail

    async def test_a_body_that_is_too_large(self, run: Run) -> None:
        async with run(max_metadata_bytes=1000) as running:
            problem = is_problem(
                await running.client.post("/v1/sessions", content=bytes(30_000)), 413, "request-too-large"
            )
            assert problem.limit_bytes == 22_384
            assert (await running.client.get("/v1/sessions")).json()["sessions"] == []

    async def test_a_body_that_comes_too_slowly(self, run: Run) -> None:
        async with run() as running:
            slow = request_guard.RequestGuard(running.app.router, body_limit_bytes=10, body_timeout_seconds=0.01)
            sent: list[Any] = []

            async def receive() -> Any:
                if sent:
                    await anyio.sleep_forever()
                sent.append(None)
                return {"type": "http.request", "body": b"{", "more_body": True}

            async def send(message: Any) -> None:
                sent.append(message)

            await slow({"type": "http", "path": "/v1/sessions", "headers": [], "method": "POST"}, receive, send)
            assert sent[1]["status"] == 408
            assert (b"connection", b"close") in sent[1]["headers"]

    async def test_a_fault_of_ours(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with run() as running:
            monkeypatch.setattr(running.service, "statistics", lambda: 1 / 0)
            reply = await running.client.get("/v1/statistics")
            problem = is_problem(reply, 500, "internal")
            assert "ZeroDivisionError" not in reply.text
            assert "log" in problem.detail
            assert "ZeroDivisionError" in caplog.text
            assert (await running.client.get("/healthz")).status_code == 200

    async def test_a_service_that_has_ended(self, run: Run) -> None:
        async with run() as running:
            await running.service.drain()
            for path in ("/v1/sessions", "/v1/statistics", "/metrics", "/readyz", "/v1/evidence/verification"):
                is_problem(await running.client.get(path), 503, "service-closed")
            is_problem(await running.client.post("/v1/sessions", json={"project_id": "p"}), 503, "service-closed")
            assert (await running.client.get("/healthz")).status_code == 200

    async def test_every_reply_has_the_security_headers(self, run: Run) -> None:
        async with run() as running:
            await self._check_headers(running)

    @staticmethod
    async def _check_headers(running: Running) -> None:
        for path in ("/healthz", "/v1/sessions", "/v1/nothing", "/metrics", "/openapi.json"):
            headers = (await running.client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["cache-control"] == "no-store"
            assert not [name for name in headers if name.startswith("access-control")]
