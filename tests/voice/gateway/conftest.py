"""A service with the app in front of it, in this process, on the loop of the test."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.gateway import voice_app
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.tokens import Role
from tests.loops import TRIO, UVLOOP, loops

anyio_backend = loops(UVLOOP, TRIO)  # those that the server runs on

BASE = "http://127.0.0.1:8000"


@dataclass
class Running:
    """A service that runs, its app, and a client of it whom nobody asks who they are."""

    service: AsyncVoiceService
    app: FastAPI
    client: httpx2.AsyncClient

    async def create(self, **fields: Any) -> str:
        """The id of a new session."""
        body = {"project_id": "demo", "stt_provider": "whisper_local", **fields}
        reply = await self.client.post("/v1/sessions", json=body)
        assert reply.status_code == 201, reply.text
        session_id: str = reply.json()["session_id"]
        return session_id

    async def recorded(self, audio: bytes, **fields: Any) -> str:
        """The id of a session that has this audio, recorded, and has stopped; its recording is ready."""
        session_id = await self.create(metadata={"recording_enabled": True}, **fields)
        await self.service.dispatch_audio_chunk(session_id, audio)
        assert (await self.client.post(f"/v1/sessions/{session_id}/stop")).status_code == 200
        await self.service.recording(session_id)
        return session_id

    def token(self, role: Role, project: str | None = None) -> dict[str, str]:
        """The header of a new token."""
        token = self.service.token_store().create("a test", role=role, project=project)
        return {"Authorization": f"Bearer {token}"}


MakeSettings = Callable[..., VoiceSettings]
Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def run(make_settings: MakeSettings) -> Run:
    """`async with run(authentication=…, **settings) as running:`."""

    @asynccontextmanager
    async def start(*, authentication: bool = False, **settings: Any) -> AsyncIterator[Running]:
        async with AsyncVoiceService(make_settings(**settings)) as service:
            app = voice_app(service, authentication=authentication)
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                yield Running(service, app, client)

    return start
