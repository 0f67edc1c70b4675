"""Node, and the client's module in a form that every version of it takes for one."""

import shutil
from pathlib import Path

import pytest

from agentos.core.communication.voice import gateway

MODULE = Path(gateway.__path__[0]) / "console" / "agentos-voice.js"


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A copy that is called `.mjs`, since older versions take a `.js` for a script."""
    return Path(shutil.copy(MODULE, tmp_path / "agentos-voice.mjs"))
