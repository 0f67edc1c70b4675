"""A token that is sent where none belongs is refused, and stands neither in the reply nor in the log nor on the disk."""

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agentos.core.communication.voice.storage.tokens import Role
from tests.voice.gateway.conftest import Run

pytestmark = pytest.mark.anyio

SECRET = "x0-_" * 10 + "abc"
TOKEN = "avt_" + SECRET
HIDDEN = "".join(f"%{ord(letter):02x}" for letter in TOKEN)  # as nobody would write it, but a reader understands it

BODY = {"project_id": "demo", "stt_provider": "whisper_local"}
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "project": ("POST", "/v1/sessions", {"json": {**BODY, "project_id": f"of {TOKEN}"}}),
    "metadata": ("POST", "/v1/sessions", {"json": {**BODY, "metadata": {"note": f"Bearer {TOKEN}"}}}),
    "a key": ("POST", "/v1/sessions", {"json": {**BODY, "metadata": {f"a {TOKEN}": 1}}}),
    "a field": ("POST", "/v1/sessions", {"json": {**BODY, TOKEN: 1}}),
    "a field that comes twice": ("POST", "/v1/sessions", {"content": f'{{"{TOKEN}": 1, "{TOKEN}": 2}}'}),
    "an enum": ("POST", "/v1/sessions", {"json": {**BODY, "provider": TOKEN}}),
    "an explanation": ("POST", "/v1/policy/explanations", {"json": {**BODY, "project_id": TOKEN}}),
    "an idempotency key": ("POST", "/v1/sessions", {"json": BODY, "headers": {"Idempotency-Key": f"a-{TOKEN}"}}),
    "a path": ("GET", f"/v1/sessions/{TOKEN}", {}),
    "a path in other letters": ("POST", f"/v1/sessions/{HIDDEN}/stop", {}),
    "no path": ("GET", f"/{TOKEN}", {}),
    "a query": ("GET", f"/v1/sessions?cursor={TOKEN}", {}),
    "a query in other letters": ("GET", f"/v1/sessions?cursor={HIDDEN}", {}),
    "the name of a query": ("GET", f"/v1/sessions?{quote(TOKEN)}=1&{quote(TOKEN)}=2", {}),
    "an origin": ("POST", "/v1/sessions", {"json": BODY, "headers": {"Origin": f"https://{TOKEN}.example"}}),
    "a proxy": ("GET", "/v1/sessions", {"headers": {"X-Forwarded-For": TOKEN}}),
    "an event": ("GET", "/v1/sessions/voice-1/events/stream", {"headers": {"Last-Event-ID": TOKEN}}),
}


@pytest.mark.parametrize("place", REQUESTS)
async def test_a_token_out_of_place_is_told_nowhere(
    run: Run, place: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    method, path, more = REQUESTS[place]
    networks = {"trusted_proxies": "127.0.0.1"}
    async with run(authentication=True, **networks) as running:
        headers = {**running.token(Role.ADMIN), **more.get("headers", {})}
        reply = await running.client.request(method, path, **{**more, "headers": headers})
        assert 400 <= reply.status_code < 500, reply.text
        assert SECRET[:8] not in reply.text + repr(reply.headers)
    assert SECRET[:8] not in "".join(text for text in caplog.messages if "HTTP Request" not in text)
    kept = [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []
