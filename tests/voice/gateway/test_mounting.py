"""The app in a host's own: under a path, beside the host's routes, with the service's life left to the host."""

import anyio.to_thread
import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.gateway import voice_app
from tests.loops import ASYNCIO, TRIO, UVLOOP, loops
from tests.voice.gateway.conftest import MakeSettings, Run
from tests.voice.gateway.test_problems import is_problem

anyio_backend = loops(ASYNCIO, UVLOOP, TRIO)  # those that a host may run on

WORDS = {"project_id": "demo", "stt_provider": "whisper_local"}

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
async def test_it_answers_under_its_path(run: Run, kind: str) -> None:
    async with run() as running:
        if kind == "fastapi":
            host: Starlette = FastAPI()
            host.mount("/voice", running.app)
        else:
            host = Starlette(routes=[Mount("/voice", running.app)])
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
            made = await client.post("/voice/v1/sessions", json=WORDS)
            assert made.status_code == 201
            location = made.headers["location"]
            assert location == f"/voice/v1/sessions/{made.json()['session_id']}"
            assert (await client.get(location)).json()["state"] == "created"
            ticket = (await client.post(f"{location}/stream-tickets")).json()
            assert ticket["url"] == "ws://localhost:9000/voice/v1/stream"
            is_problem(await client.get("/voice/v1/nothing"), 404, "not-found")
            assert (await client.get("/v1/sessions")).status_code == 404
            assert "x-frame-options" not in (await client.get("/")).headers
        assert running.service.ready


async def test_the_app_may_be_made_before_its_service_runs(make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(make_settings())
    app = voice_app(service, authentication=False)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/v1/sessions", "/readyz", "/metrics"):
            is_problem(await client.get(path), 503, "service-closed")
        async with service:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/v1/sessions", json=WORDS)).status_code == 201
        is_problem(await client.get("/v1/sessions"), 503, "service-closed")


async def test_the_lifespan_writes_what_was_refused(run: Run) -> None:
    async with run(authentication=True) as running:
        async with running.app.router.lifespan_context(running.app):
            for _ in range(15):
                assert (await running.client.get("/v1/sessions")).status_code == 401
        await anyio.to_thread.run_sync(running.service._runtime.resources().store_port.writer.flush, 10)
        evidence = await running.service.evidence("gateway")
        assert [link.record.operation for link in evidence] == ["access_refused"] * 10 + ["access_refusals"]
        assert evidence[-1].record.request_summary["refusals"] == 5


async def test_pages_of_other_sites_may_not_use_it(run: Run, make_settings: MakeSettings) -> None:
    async with run() as running:
        for origin, status in (("http://127.0.0.1:8000", 201), ("https://evil.example", 403), ("null", 403)):
            reply = await running.client.post("/v1/sessions", json=WORDS, headers={"origin": origin})
            assert reply.status_code == status
            assert "access-control-allow-origin" not in reply.headers
        reply = await running.client.get("/v1/sessions", headers={"host": "evil.example"})
        assert is_problem(reply, 403, "forbidden").reason == "host"
    with pytest.raises(InvalidRequest):
        voice_app(AsyncVoiceService(make_settings()), origins=["*"])
