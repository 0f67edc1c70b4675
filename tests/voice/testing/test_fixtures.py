"""The fixtures run in a real pytest with each plugin, also where tests or teardowns fail, or leave tasks behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentos.core.communication.voice.storage.opening import open_to_read
from machines.session import VoiceSessionState

ROOT = Path(__file__).parents[3]
TESTING = "agentos.core.communication.voice.testing"
PLUGINS = {
    "anyio": ("fixtures", ["-p", "no:asyncio", "-p", "no:trio"]),
    "trio": ("fixtures", ["-p", "no:asyncio"]),
    "asyncio": ("asyncio_fixtures", ["-p", "no:trio", "-o", "asyncio_default_fixture_loop_scope=function"]),
}
CONFTEST = """
import pytest

pytest_plugins = ["{testing}.{module}"]

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
TESTS = """
import pytest
{imports}
from {testing}.callers import calling
from {testing}.network import calling_over
from {testing}.sounds import tone

pytestmark = pytest.mark.{plugin}

@{fixture}
async def greeted(voice_service):
    async with calling(voice_service, stt_provider="google") as caller:
        await caller.say(tone(0.1))
    yield caller
    raise RuntimeError("this teardown fails")

async def test_passes(voice_service):
    async with calling(voice_service, stt_provider="google") as caller:
        assert await caller.say(tone(0.1)) == range(5)
    session = await voice_service.get_session(caller.session_id)
    assert session.result.frames.accepted == 5

async def test_fails_in_a_call(voice_service):
    async with calling(voice_service, stt_provider="google") as caller:
        await caller.say(tone(0.1))
        assert caller.frames == 6

async def test_has_a_teardown_that_fails(greeted):
    assert greeted.frames == 5

async def test_skips_in_a_call(voice_service):
    async with calling(voice_service, stt_provider="google"):
        pytest.skip("an outcome")

async def test_reaches_the_server(voice_server):
    async with voice_server.client() as client:
        async with calling_over(client, stt_provider="google") as caller:
            await caller.say(tone(0.1))
    assert (await voice_server.service.transcript(caller.session_id)).text == ""

{leak}
    await voice_service.create_session("p", "local", "google")
"""
LEAK = """
async def follow(service):
    async for call in service.calls():
        await call.wait_ended()
"""
LEAKS = {
    "asyncio": LEAK
    + "\nasync def test_leaves_a_task(voice_service):\n    asyncio.create_task(follow(voice_service))\n",
    "anyio": LEAK + "\nasync def test_leaves_a_task(voice_service):\n    asyncio.create_task(follow(voice_service))\n",
    "trio": LEAK
    + "\nasync def test_leaves_a_task(voice_service, nursery):\n    nursery.start_soon(follow, voice_service)\n",
}
FIXTURES = {"anyio": "pytest.fixture", "trio": "pytest.fixture", "asyncio": "pytest_asyncio.fixture"}
IMPORTS = {"anyio": "import asyncio", "trio": "", "asyncio": "import asyncio, pytest_asyncio"}


def run(folder: Path, *options: str) -> tuple[int, str]:
    """pytest, in a process and a folder of its own."""
    command = [sys.executable, "-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider", "-W", "error", *options]
    done = subprocess.run(
        [*command, "--basetemp", str(folder / "base"), "-c", str(folder / "pytest.ini"), str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_gets_a_service_that_ends_whatever_becomes_of_its_tests(plugin: str, tmp_path: Path) -> None:
    module, options = PLUGINS[plugin]
    names = {"testing": TESTING, "module": module, "plugin": plugin, "fixture": FIXTURES[plugin]}
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST.format(**names))
    source = TESTS.format(**names, imports=IMPORTS[plugin], leak=LEAKS[plugin].strip())
    (tmp_path / "test_calls.py").write_text(source)
    code, said = run(tmp_path, *options)
    told = {(kind, test) for kind, test in re.findall(r"^(PASSED|FAILED|ERROR).*?::(test_\w+)", said, re.MULTILINE)}
    name = "test_has_a_teardown_that_fails"
    broken = {kind for kind, test in told if test == name}
    assert {(kind, test) for kind, test in told if test != name} == {
        ("PASSED", "test_passes"),
        ("FAILED", "test_fails_in_a_call"),
        ("PASSED", "test_reaches_the_server"),
        ("PASSED", "test_leaves_a_task"),
    }, said
    assert broken == ({"FAILED"} if plugin == "trio" else {"PASSED", "ERROR"})  # pytest-trio tears down within the test
    assert "this teardown fails" in said
    assert "assert 5 == 6" in said
    assert code == 1
    homes = sorted((tmp_path / "base").glob("*0/voice-home/voice.db"))
    assert len(homes) == 6
    for home in homes:
        with open_to_read(home) as store:
            assert [session.state for session in store.sessions(None)] == [VoiceSessionState.STOPPED]
            assert store.verify().ok
            assert store.cross_check() == []
