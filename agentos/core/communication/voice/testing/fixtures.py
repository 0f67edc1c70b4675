"""Fixtures for tests marked `anyio` (anyio's own pytest plugin) or `trio` (pytest-trio); `asyncio_fixtures` has the same for
pytest-asyncio.

    # conftest.py
    pytest_plugins = ["agentos.core.communication.voice.testing.fixtures"]

`voice_service` is a service that runs for one test, `voice_server` a server on loopback in front of it. `voice_settings` are
its settings, for a test suite to replace. Sessions that a test leaves running are stopped, with their last records durable.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.settings import VoiceSettings, load_settings

if TYPE_CHECKING:
    from agentos.core.communication.voice.testing.network import VoiceServer


@pytest.fixture
def voice_settings(tmp_path: Path) -> VoiceSettings:
    """A home of its own for each test; the rest is what the environment says."""
    return load_settings(home=tmp_path / "voice-home")


async def running_service(voice_settings: VoiceSettings) -> AsyncGenerator[AsyncVoiceService]:
    """A service that runs on `voice_settings` for one test."""
    async with AsyncVoiceService(voice_settings) as service:
        yield service


async def running_server(voice_service: AsyncVoiceService) -> "AsyncGenerator[VoiceServer]":
    """A server on loopback in front of `voice_service`, which asks nobody who they are."""
    from agentos.core.communication.voice.testing.network import VoiceServer  # noqa: PLC0415 - it needs more extras

    async with VoiceServer(voice_service) as server:
        yield server


voice_service = pytest.fixture(running_service, name="voice_service")
voice_server = pytest.fixture(running_server, name="voice_server")
