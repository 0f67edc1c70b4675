"""The fixtures of `fixtures` for tests marked `asyncio` (pytest-asyncio, in its strict mode as well).

# conftest.py
pytest_plugins = ["agentos.core.communication.voice.testing.asyncio_fixtures"]
"""

import pytest_asyncio

from agentos.core.communication.voice.testing.fixtures import running_server, running_service, voice_settings

__all__ = ["voice_server", "voice_service", "voice_settings"]

voice_service = pytest_asyncio.fixture(running_service, name="voice_service")
voice_server = pytest_asyncio.fixture(running_server, name="voice_server")
