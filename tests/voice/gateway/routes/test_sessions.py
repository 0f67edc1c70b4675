"""Sessions over HTTP: made, seen, listed page by page, stopped; each by those who may."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSessionState
from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.gateway.routes.cursors import cursor_of, key_of
from agentos.core.communication.voice.gateway.routes.repeats import REPLAYED
from agentos.core.communication.voice.storage.past_sessions import SessionKey
from agentos.core.communication.voice.storage.tokens import Role
from machines.session import EndReason
from tests.voice.gateway.conftest import Run, Running
from tests.voice.gateway.test_problems import is_problem

HOW = (VoiceProvider.LOCAL, STTProvider.WHISPER)
WORDS = {"project_id": "demo", "stt_provider": "whisper_local"}


@given(st.integers(0, 253_402_300_799_999), st.from_regex(r"voice-[0-9a-f]{24}", fullmatch=True))
def test_a_cursor_names_its_place(at: int, session_id: str) -> None:
    cursor = cursor_of(SessionKey(at, session_id))
    assert key_of(cursor) == (at, session_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=40) | st.text("MTcz0123456789-_=.", max_size=40))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    try:
        key = key_of(text)
    except InvalidRequest:
        return
    assert cursor_of(key) == text


@pytest.mark.anyio
class TestOne:
    async def test_a_session_is_made_and_can_be_found(self, run: Run) -> None:
        async with run() as running:
            body = {
                **WORDS,
                "metadata": {"recording_enabled": True, "from": {"a": [1]}},
                "audio_format": {"encoding": "mulaw", "sample_rate": 8000},
            }
            made = await running.client.post("/v1/sessions", json=body)
            assert made.status_code == 201
            session = made.json()
            assert made.headers["location"] == f"/v1/sessions/{session['session_id']}"
            assert session["audio_format"] == {"encoding": "mulaw", "sample_rate": 8000, "channels": 1}
            assert session["metadata"] == body["metadata"]
            assert (session["state"], session["recording_enabled"], session["result"]) == ("created", True, None)
            found = (await running.client.get(made.headers["location"])).json()
            assert found == {**session, "last_activity_at": found["last_activity_at"]}

    async def test_a_session_that_is_not_there(self, run: Run) -> None:
        async with run() as running:
            for path in ("", "/events", "/transcript", "/recording", "/evidence", "/verdict"):
                reply = await running.client.get(f"/v1/sessions/voice-0{path}")
                assert is_problem(reply, 404, "session-not-found").session_id == "voice-0"
            for path in ("/stop", "/stream-tickets"):
                is_problem(await running.client.post(f"/v1/sessions/voice-0{path}"), 404, "session-not-found")
            is_problem(await running.client.get(f"/v1/sessions/{'x' * 101}"), 422, "invalid-request")

    async def test_a_denial_has_the_verdict_and_stands_in_evidence(self, run: Run) -> None:
        async with run() as running:
            asked = {**WORDS, "metadata": {"requires_data_access": True}}
            reply = await running.client.post("/v1/sessions", json=asked)
            problem = is_problem(reply, 403, "policy-denied")
            assert problem.verdict is not None
            assert problem.verdict.reason_code == "ADMIN_TOKEN_REQUIRED"
            evidence = (await running.client.get(f"/v1/sessions/{problem.session_id}/evidence")).json()
            assert [link["record"]["operation"] for link in evidence["links"]] == ["session_denied"]
            verdict = (await running.client.get(f"/v1/sessions/{problem.session_id}/verdict")).json()
            assert (verdict["allowed"], verdict["risk_level"]) == (False, "high")
            assert verdict["explanation"] == problem.verdict.hint

    async def test_an_admins_token_is_checked_and_never_told(self, run: Run, home: Path) -> None:
        async with run() as running:
            token = running.service.token_store().create("somebody")
            asked = {**WORDS, "metadata": {"requires_data_access": True}, "admin_token": token}
            made = await running.client.post("/v1/sessions", json=asked)
            assert made.status_code == 201
            assert token not in made.text
        assert token.encode() not in (home / "voice.db").read_bytes()

    async def test_what_can_not_be_had(self, run: Run) -> None:
        async with run(on_stt_unavailable="refuse") as running:
            is_problem(await running.client.post("/v1/sessions", json=WORDS), 422, "stt-unavailable")
            reply = await running.client.post("/v1/sessions", json={"project_id": "p", "provider": "twilio"})
            is_problem(reply, 422, "provider-not-configured")
            surrogate = b'{"project_id": "p", "metadata": {"a": "\\ud800"}}'
            json = {"content-type": "application/json"}
            reply = await running.client.post("/v1/sessions", content=surrogate, headers=json)
            is_problem(reply, 422, "invalid-request")
            reply = await running.client.post("/v1/sessions", json={"project_id": "p", "resumable": True})
            assert is_problem(reply, 422, "invalid-request").field == "resumable"

    async def test_a_silence_timeout_of_its_own(self, run: Run) -> None:
        async with run(silence_timeout_seconds=40) as running:
            for asked, has in ({}, 40), ({"silence_timeout_seconds": 7}, 7), ({"silence_timeout_seconds": None}, 40):
                made = await running.client.post("/v1/sessions", json={**WORDS, **asked})
                assert (made.status_code, made.json()["silence_timeout_seconds"]) == (201, has)
            for wrong in (0, -1, 86_401, "7", True):
                reply = await running.client.post("/v1/sessions", json={**WORDS, "silence_timeout_seconds": wrong})
                assert is_problem(reply, 422, "invalid-request").field == "silence_timeout_seconds"

    async def test_no_room(self, run: Run) -> None:
        async with run(max_sessions=1) as running:
            await running.create()
            reply = await running.client.post("/v1/sessions", json=WORDS)
            assert is_problem(reply, 503, "overloaded").retry_after_seconds == 1
            assert reply.headers["retry-after"] == "1"
            is_problem(await running.client.get("/readyz"), 503, "overloaded")

    async def test_a_stop_gives_the_stopped_session_and_a_second_changes_nothing(
        self, run: Run, audio: Callable[..., bytes]
    ) -> None:
        async with run() as running:
            session_id = await running.create(metadata={"recording_enabled": True})
            await running.service.dispatch_audio_chunk(session_id, audio(16_000))
            stopped = (await running.client.post(f"/v1/sessions/{session_id}/stop")).json()
            assert (stopped["durable"], stopped["problem"]) == (True, None)
            result = stopped["session"]["result"]
            assert (result["reason"], result["frames"]["accepted"]) == ("stopped", 50)
            assert result["recording"]["samples"] == 16_000
            assert "path" not in result["recording"]
            again = await running.client.post(f"/v1/sessions/{session_id}/stop")
            assert (again.status_code, again.json()) == (200, stopped)
            reply = await running.client.post(f"/v1/sessions/{session_id}/stream-tickets")
            assert is_problem(reply, 409, "invalid-state").state is VoiceSessionState.STOPPED

    @pytest.mark.parametrize(
        ("trusted", "header", "scheme"),
        [
            ("127.0.0.1", ("X-Forwarded-Proto", "https"), "wss"),
            ("127.0.0.1", ("Forwarded", "for=192.0.2.7;proto=https"), "wss"),
            ("127.0.0.1", ("X-Forwarded-Proto", "http"), "ws"),
            ("10.0.0.1", ("X-Forwarded-Proto", "https"), "ws"),
            ("10.0.0.1", ("Forwarded", "for=192.0.2.7;proto=https"), "ws"),
        ],
    )
    async def test_the_url_of_a_ticket_is_of_tls_where_a_trusted_proxy_says_so(
        self, run: Run, trusted: str, header: tuple[str, str], scheme: str
    ) -> None:
        async with run(authentication=True, trusted_proxies=trusted) as running:
            headers = {**running.token(Role.ADMIN), "Host": "voice.example"}
            made = await running.client.post("/v1/sessions", json={"project_id": "p"}, headers=headers)
            tickets = f"{made.headers['location']}/stream-tickets"
            reply = await running.client.post(tickets, headers={**headers, **dict([header])})
            assert reply.json()["url"] == f"{scheme}://voice.example/v1/stream"
            insecure = {**headers, **dict([header]), "Origin": "http://voice.example"}
            status = (await running.client.post(tickets, headers=insecure)).status_code
            assert status == (403 if scheme == "wss" else 201)

    async def test_a_session_of_another_process_can_be_seen_and_not_stopped(
        self, run: Run, make_settings: Callable[..., Any]
    ) -> None:
        async with run() as running, AsyncVoiceService(make_settings()) as other:
            session = await other.create_session("demo", *HOW)
            reply = await running.client.get(f"/v1/sessions/{session.session_id}")
            assert reply.json()["state"] == "created"
            reply = await running.client.post(f"/v1/sessions/{session.session_id}/stop")
            assert "another process" in is_problem(reply, 409, "invalid-state").detail

    async def test_a_stop_whose_record_is_not_stored_says_where_it_waits(self, run: Run, home: Path) -> None:
        async with run(store_busy_timeout_seconds=0.05, evidence_timeout_seconds=2) as running:
            session_id = await running.create()
            with closing(sqlite3.connect(home / "voice.db", isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                reply = await running.client.post(f"/v1/sessions/{session_id}/stop")
                database.execute("ROLLBACK")
            assert reply.status_code == 202
            stopped = reply.json()
            assert (stopped["durable"], stopped["session"]["state"]) == (False, "stopped")
            assert stopped["problem"]["type"].endswith("evidence-not-durable")
            assert stopped["problem"]["spilled"] is True

    async def test_a_store_that_fails_is_a_problem_without_its_path(self, run: Run, home: Path) -> None:
        async with run() as running:
            running.service.voice_store().close()
            reply = await running.client.get("/v1/sessions")
            is_problem(reply, 503, "store-unavailable")
            assert str(home) not in reply.text

    async def test_a_ticket_opens_the_stream_of_its_session(self, run: Run) -> None:
        async with run() as running:
            session_id = await running.create()
            reply = await running.client.post(f"/v1/sessions/{session_id}/stream-tickets")
            assert reply.status_code == 201
            ticket = reply.json()
            assert ticket["url"] == "ws://127.0.0.1:8000/v1/stream"
            assert ticket["ticket"] not in ticket["url"]
            opened = await running.app.state.credentials.open(ticket["ticket"])
            assert opened.session_id == session_id


@pytest.mark.anyio
class TestAgain:
    async def test_a_creation_with_a_key_makes_one_session(self, run: Run) -> None:
        async with run() as running:
            key = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
            first = await running.client.post("/v1/sessions", json=WORDS, headers=key)
            again = await running.client.post("/v1/sessions", json=WORDS, headers=key)
            assert (first.status_code, again.status_code) == (201, 201)
            assert first.content == again.content
            assert first.headers["location"] == again.headers["location"]
            assert REPLAYED not in first.headers
            assert again.headers[REPLAYED] == "true"
            assert len((await running.client.get("/v1/sessions")).json()["sessions"]) == 1

    async def test_a_key_is_for_one_request(self, run: Run) -> None:
        async with run() as running:
            key = {"Idempotency-Key": "k"}
            assert (await running.client.post("/v1/sessions", json=WORDS, headers=key)).status_code == 201
            reply = await running.client.post("/v1/sessions", json={**WORDS, "project_id": "p"}, headers=key)
            is_problem(reply, 422, "key-reused")
            reply = await running.client.post("/v1/sessions", json=WORDS, headers={"Idempotency-Key": "a b"})
            assert is_problem(reply, 422, "invalid-request").field == "Idempotency-Key"

    async def test_a_denial_is_an_answer_and_is_in_evidence_once(self, run: Run) -> None:
        async with run() as running:
            asked = {**WORDS, "metadata": {"requires_data_access": True}}
            key = {"Idempotency-Key": "k"}
            first = await running.client.post("/v1/sessions", json=asked, headers=key)
            again = await running.client.post("/v1/sessions", json=asked, headers=key)
            assert is_problem(first, 403, "policy-denied") == is_problem(again, 403, "policy-denied")
            assert (await running.client.get("/v1/evidence/verification")).json()["records"] == 1

    async def test_what_failed_may_be_tried_again_with_its_key(self, run: Run) -> None:
        async with run(max_sessions=1) as running:
            held, key = await running.create(), {"Idempotency-Key": "k"}
            is_problem(await running.client.post("/v1/sessions", json=WORDS, headers=key), 503, "overloaded")
            await running.client.post(f"/v1/sessions/{held}/stop")
            assert (await running.client.post("/v1/sessions", json=WORDS, headers=key)).status_code == 201

    async def test_a_stop_with_a_key_is_answered_the_same(self, run: Run) -> None:
        async with run() as running:
            session_id, key = await running.create(), {"Idempotency-Key": "k"}
            first = await running.client.post(f"/v1/sessions/{session_id}/stop", headers=key)
            again = await running.client.post(f"/v1/sessions/{session_id}/stop", headers=key)
            assert first.content == again.content
            assert again.headers[REPLAYED] == "true"


@pytest.mark.anyio
class TestMany:
    async def test_pages_have_every_session_once_while_others_come_and_end(self, run: Run) -> None:
        async with run() as running:
            made = [await running.create(project_id=f"p{at % 2}") for at in range(11)]
            seen, cursor = [], None
            chance = random.Random(3)
            while True:
                query: dict[str, Any] = {"limit": 3} if cursor is None else {"limit": 3, "cursor": cursor}
                page = (await running.client.get("/v1/sessions", params=query)).json()
                assert len(page["sessions"]) <= 3
                seen += [session["session_id"] for session in page["sessions"]]
                await running.create()  # newer than all: on none of the pages to come
                await running.client.post(f"/v1/sessions/{chance.choice(made)}/stop")
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            assert sorted(seen) == sorted(made)
            found = [(await running.client.get(f"/v1/sessions/{session_id}")).json() for session_id in seen]
            times = [
                datetime.fromisoformat(one["created_at"]) for one in found
            ]  # their texts have no fraction at whole seconds
            assert times == sorted(times, reverse=True)

    async def test_a_filter_holds_on_every_page(self, run: Run) -> None:
        async with run() as running:
            made = [await running.create(project_id=f"p{at % 2}") for at in range(8)]
            for session_id in made[:4]:
                await running.client.post(f"/v1/sessions/{session_id}/stop")
            for query, expected in (
                ({"project_id": "p1"}, made[1::2]),
                ({"state": "stopped"}, made[:4]),
                ({"state": "created"}, made[4:]),
                ({"state": "created", "project_id": "p0"}, made[4::2]),
                ({"state": "active"}, []),
                ({"project_id": "nobody's"}, []),
            ):
                assert sorted(await _all(running, query)) == sorted(expected)

    async def test_sessions_of_the_same_millisecond_are_not_lost_between_pages(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with run() as running:
            monkeypatch.setattr(
                "agentos.core.communication.voice.running.request.utc_now_ms", lambda: 1_772_366_400_125
            )
            made = [await running.create() for _ in range(5)]
            assert await _all(running, {}, limit=1) == sorted(made, reverse=True)

    async def test_what_the_running_service_knows_goes_before_what_is_stored(self, run: Run) -> None:
        async with run() as running:
            session_id = await running.create()
            await running.service.dispatch_audio_chunk(session_id, bytes(640))
            while (await running.client.get(f"/v1/sessions/{session_id}")).json()["state"] != "active":
                await anyio.sleep(0.001)
            assert await _all(running, {"state": "active"}) == [session_id]
            assert await _all(running, {"state": "created"}) == []

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=501", "limit=x", "state=gone", "cursor=x", "cursor=", "offset=3", "limit=1&limit=2"]
    )
    async def test_a_question_that_makes_no_sense(self, run: Run, query: str) -> None:
        async with run() as running:
            reply = await running.client.get(f"/v1/sessions?{query}")
            assert is_problem(reply, 422, "invalid-request").field == query.partition("=")[0]


async def _all(running: Running, query: dict[str, Any], limit: int = 2) -> list[str]:
    seen: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while True:
        cursor = {} if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
        page = (await running.client.get("/v1/sessions", params={**query, **cursor, "limit": limit})).json()
        seen += [session["session_id"] for session in page["sessions"]]
        if page["next_cursor"] is None:
            return seen


@pytest.mark.anyio
class TestWhoMay:
    async def test_nobody_without_a_token(self, run: Run) -> None:
        async with run(authentication=True) as running:
            for method, path in (
                ("GET", "/v1/sessions"),
                ("POST", "/v1/sessions"),
                ("GET", "/v1/sessions/voice-0"),
                ("POST", "/v1/sessions/voice-0/stop"),
                ("GET", "/v1/sessions/voice-0/events"),
                ("GET", "/v1/sessions/voice-0/recording"),
                ("HEAD", "/v1/sessions/voice-0/recording"),
                ("GET", "/v1/sessions/voice-0/transcript"),
                ("GET", "/v1/sessions/voice-0/evidence"),
                ("GET", "/v1/sessions/voice-0/verdict"),
                ("POST", "/v1/sessions/voice-0/stream-tickets"),
                ("POST", "/v1/policy/explanations"),
                ("GET", "/v1/evidence/verification"),
                ("GET", "/v1/statistics"),
                ("GET", "/v1/inspection"),
                ("POST", "/v1/drain"),
                ("GET", "/metrics"),
            ):
                reply = await running.client.request(method, path, json=WORDS if path == "/v1/sessions" else None)
                assert reply.status_code == 401, (method, path)
                assert reply.headers["www-authenticate"].startswith("Bearer")
            for path in ("/healthz", "/readyz", "/openapi.json"):
                assert (await running.client.get(path)).status_code == 200

    @pytest.mark.parametrize(
        ("role", "refused"),
        [
            (Role.ADMIN, ()),
            (Role.OPERATOR, ("evidence", "verification")),
            (Role.AUDITOR, ("create", "stop", "ticket", "drain")),
            (Role.PROJECT, ("evidence", "verification", "statistics", "inspection", "metrics", "drain")),
        ],
    )
    async def test_a_role_may_what_is_its(self, run: Run, role: Role, refused: tuple[str, ...]) -> None:
        async with run(authentication=True) as running:
            token = running.token(role, "demo" if role is Role.PROJECT else None)
            session = await running.service.create_session("demo", *HOW)
            here = f"/v1/sessions/{session.session_id}"
            for what, method, path in (
                ("list", "GET", "/v1/sessions"),
                ("get", "GET", here),
                ("events", "GET", f"{here}/events"),
                ("transcript", "GET", f"{here}/transcript"),
                ("verdict", "GET", f"{here}/verdict"),
                ("evidence", "GET", f"{here}/evidence"),
                ("verification", "GET", "/v1/evidence/verification"),
                ("statistics", "GET", "/v1/statistics"),
                ("inspection", "GET", "/v1/inspection"),
                ("metrics", "GET", "/metrics"),
                ("explain", "POST", "/v1/policy/explanations"),
                ("ticket", "POST", f"{here}/stream-tickets"),
                ("create", "POST", "/v1/sessions"),
                ("stop", "POST", f"{here}/stop"),
                ("drain", "POST", "/v1/drain"),
            ):
                body = {"project_id": "demo"} if what in {"explain", "create"} else None
                reply = await running.client.request(method, path, json=body, headers=token)
                if what in refused:
                    assert is_problem(reply, 403, "forbidden").reason == "role"
                else:
                    assert reply.is_success, (what, reply.text)

    async def test_a_project_sees_its_own_sessions_and_no_others(self, run: Run) -> None:
        async with run(authentication=True) as running:
            token = running.token(Role.PROJECT, "mine")
            mine = (await running.service.create_session("mine", *HOW)).session_id
            others = (await running.service.create_session("theirs", *HOW)).session_id
            found = (await running.client.get("/v1/sessions", headers=token)).json()["sessions"]
            assert [session["session_id"] for session in found] == [mine]
            for path in ("", "/events", "/transcript", "/recording", "/verdict"):
                reply = await running.client.get(f"/v1/sessions/{others}{path}", headers=token)
                is_problem(reply, 404, "session-not-found")
            for path in ("/stop", "/stream-tickets"):
                reply = await running.client.post(f"/v1/sessions/{others}{path}", headers=token)
                is_problem(reply, 404, "session-not-found")
            for method, path in (("GET", "/v1/sessions?project_id=theirs"), ("POST", "/v1/sessions")):
                body = {**WORDS, "project_id": "theirs"} if method == "POST" else None
                reply = await running.client.request(method, path, headers=token, json=body)
                assert is_problem(reply, 403, "forbidden").reason == "project"
            session = await running.service.get_session(others)
            assert session is not None
            assert session.state is VoiceSessionState.CREATED

    async def test_the_refusal_of_anothers_request_is_not_told(self, run: Run) -> None:
        async with run(authentication=True) as running:
            asked = {**WORDS, "project_id": "theirs", "metadata": {"requires_data_access": True}}
            denied = await running.client.post("/v1/sessions", json=asked, headers=running.token(Role.OPERATOR))
            path = f"/v1/sessions/{denied.json()['session_id']}/verdict"
            assert (await running.client.get(path, headers=running.token(Role.AUDITOR))).status_code == 200
            reply = await running.client.get(path, headers=running.token(Role.PROJECT, "mine"))
            is_problem(reply, 404, "session-not-found")

    async def test_a_drain_is_told_once_and_refuses_new_calls(self, run: Run) -> None:
        async with run(drain_timeout_seconds=60) as running:
            session_id = await running.create()
            for _ in range(2):
                reply = await running.client.post("/v1/drain")
                assert (reply.status_code, reply.json()) == (202, {"draining": True, "sessions": 1})
            is_problem(await running.client.post("/v1/sessions", json=WORDS), 503, "draining")
            is_problem(await running.client.get("/readyz"), 503, "draining")
            assert (await running.client.get(f"/v1/sessions/{session_id}")).json()["state"] == "created"
            stopped = await running.client.post(f"/v1/sessions/{session_id}/stop")
            assert stopped.json()["session"]["result"]["reason"] == EndReason.STOPPED.value
            await running.service.wait_closed()
