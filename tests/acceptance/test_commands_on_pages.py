"""Each command and program on a page is run, in the order in which a reader would, from a clean home.

The blocks of a page become one script: `bash` is run as it stands; of `console` the lines behind a `$`; Python whose first line
names a file is saved under that name, for the commands that follow; other Python is run by itself. What can't be run here, and
what another test runs, stands in a table with its reason.
"""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]}
DATA = {"json", "text", "nginx", "caddyfile", "ini", "toml", "dockerfile", "html", "json client", "json server"}
TIMEOUT_SECONDS = 200

BY_OTHER_TESTS = {
    "add-a-part.md": "tests/voice/extensions/test_parts.py",
    "browser-stream.md": "tests/acceptance/test_browser_stream_page.py",
    "build-an-agent.md": "tests/acceptance/test_build_an_agent_page.py",
    "check-your-own-actors.md": "tests/acceptance/test_own_actors.py",
    "embedding.md": "tests/acceptance/test_docs.py",
    "extend.md": "tests/acceptance/test_extend_page.py",
    "http.md": "tests/acceptance/test_http_page.py",
    "javascript-client.md": "tests/browser/client_page.py",
    "python-client.md": "tests/acceptance/test_python_client_page.py",
    "simulate.md": "tests/acceptance/test_simulate_page.py",
    "store.md": "tests/acceptance/test_store_page.py",
    "supervision.md": "tests/acceptance/test_own_actors.py",
}
"""Pages with tests of their own, which run the blocks as well."""

FRAGMENTS = {
    "embedding.md": {"async for call in service.calls():": "tests/voice/test_calls.py"},
    "python-client.md": {"async with VoiceClient(url, token) as client:": "tests/voice/client/test_client.py"},
    "supervision.md": {"class Order(Actor):": "tests/actors/runtime/test_timers.py"},
}
"""Parts of programs on these pages, by their first line, and the tests that run such a thing."""

NOT_RUN = {
    "README.md": {
        "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . &&": "tests/acceptance/test_wheel.py installs",
        ".venv/bin/pip install -q -c constraints.txt '.[server]' &&": "the page on the console has that command",
        "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[test]' &&": ".ci/run begins with it",
    },
    "CONTRIBUTING.md": {
        "python3 -m venv": ".ci/run makes the environment",
        ".venv/bin/pip install": ".ci/run makes the environment",
        ".venv/bin/pre-commit": "needs a repository of its own; .ci/run has the same checks",
        ".venv/bin/pytest": ".ci/run runs it",
        ".venv/bin/coverage": ".ci/run runs it",
        "COVERAGE_CORE=sysmon": ".ci/run runs it",
    },
    "benchmarks.md": {"python -m benchmarks": ".ci/run runs the quick form; minutes of figures"},
    "deploy.md": {
        "sudo -u agentos-voice": "needs a user of its own; token create runs on other pages",
        "podman ": "needs podman; test_deploy_page.py runs the commands of the file",
    },
    "inspection.md": {"agentos-voice top   ": "goes on until a key is pressed; tests/voice/cli presses one"},
    "model-checking.md": {"agentos-voice check": "minutes of searches; tests/voice/cli runs the command"},
}
"""Commands that are not run, by how they begin."""

STANDS_FOR = {
    "access.md": {"tok-…": "$(agentos-voice token list --json | grep -o 'tok-[0-9a-z]*' | tail -n 1)"},
    "first-call.md": {
        "agentos-voice evidence verify copy-of-voice.db": (
            "cp $AGENTOS_VOICE_HOME/voice.db copy-of-voice.db && agentos-voice evidence verify copy-of-voice.db"
        ),
        "voice-…": "$(agentos-voice sessions --json | grep -o 'voice-[0-9a-z]*' | tail -n 1)",
    },
    "inspection.md": {'"silence_timeout_seconds": 9': '"silence_timeout_seconds": 25'},  # `trace` starts within it
}
"""What a reader puts in the place of a word."""

PRELUDE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
sleep() {  # as long as it takes until a service answers on the home, on a machine that is busy
    for _ in {1..600}; do compgen -G "$AGENTOS_VOICE_HOME/run/*.sock" >/dev/null && break; command sleep 0.1; done
    command sleep "$1"
}
"""


class Block(NamedTuple):
    """A fenced block: its language, and its text."""

    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r"^```([^\n]+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a block of `bash` or `console`, each with its continued lines."""
    text = block.text
    if block.language == "console":
        text = "".join(re.findall(r"^\$ (.*\n)", text, re.MULTILINE))
    for command in re.findall(r"(?:.*\\\n)*.*\n", text):
        if command.strip() and not command.lstrip().startswith("#"):
            yield command


def script_of(name: str) -> str:
    """All of a page that can be run, as one script."""
    parts = []
    for block in blocks_of(PAGES[name]):
        if block.language in {"bash", "console"}:
            for command in commands_of(block):
                if not any(command.startswith(begin) for begin in NOT_RUN.get(name, {})):
                    for word, instead in STANDS_FOR.get(name, {}).items():
                        command = command.replace(word, instead)  # noqa: PLW2901
                    parts.append(command)
        elif block.language == "python":
            program = re.match(r"# (\S+\.py)\b", block.text)
            if program:
                parts.append(f"cat >{program[1]} <<'END OF FILE'\n{block.text}END OF FILE\n")
            else:
                parts.append(f"python3 -W error - <<'END OF FILE'\n{block.text}END OF FILE\n")
    return "".join(parts)


RUN = [name for name in sorted(PAGES) if name not in BY_OTHER_TESTS and script_of(name)]
QUICK = {"README.md", "first-call.md", "overload.md"}  # the others run with the slow tests
RUN_MARKED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUN]


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with the commands that an installation brings, of this environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, module in (
        ("agentos-voice", "-m agentos.core.communication.voice.cli"),
        ("python3", ""),
        ("pytest", "-m pytest -p no:cacheprovider -p no:asyncio"),
    ):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    return folder


@pytest.mark.timeout(TIMEOUT_SECONDS + 40)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", RUN_MARKED)
def test_the_commands_of_a_page_work_one_after_the_other(name: str, home: Path, commands: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = script_of(name).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    script = re.sub(r"agentos-voice serve(?: --port 8080)?", f"agentos-voice serve --port {port}", script)
    done = subprocess.run(
        ["bash", "-c", PRELUDE + script],
        cwd=folder,
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    for told in re.findall(r"It prints\n\n```text\n(.*?)```", PAGES[name].read_text(), re.DOTALL):
        assert told in done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_are_commands_programs_or_data(name: str) -> None:
    assert {block.language for block in blocks_of(PAGES[name])} <= {"bash", "console", "python", *DATA}


def test_what_is_not_run_is_on_its_page_and_other_tests_are_there() -> None:
    for name, begins in NOT_RUN.items():
        commands = [command for block in blocks_of(PAGES[name]) for command in commands_of(block)]
        for begin in begins:
            assert any(command.startswith(begin) for command in commands), (name, begin)
    for name, words in STANDS_FOR.items():
        for word in words:
            assert word in PAGES[name].read_text(), (name, word)
    for name, test in BY_OTHER_TESTS.items():
        assert name in (ROOT / test).read_text(), name
        assert blocks_of(PAGES[name]), name


@pytest.mark.parametrize("name", RUN)
def test_each_program_of_a_page_is_run_by_a_command_behind_it(name: str) -> None:
    saved: list[str] = []
    for block in blocks_of(PAGES[name]):
        if block.language in {"bash", "console"}:
            saved = [program for program in saved if program not in block.text]
        elif block.language == "python":
            saved += re.findall(r"^# (\S+\.py)\b", block.text)
    assert saved == []


@pytest.mark.parametrize("name", BY_OTHER_TESTS)
def test_python_on_a_page_of_another_test_is_a_whole_program_or_a_known_part_of_one(name: str) -> None:
    parts = dict(FRAGMENTS.get(name, {}))
    for block in blocks_of(PAGES[name]):
        if block.language == "python" and not re.match(r"# \S+\.py\b", block.text):
            test = parts.pop(block.text.partition("\n")[0])
            assert (ROOT / test).is_file()
            ast.parse("async def part():\n" + textwrap.indent(block.text, "    "))
    assert parts == {}
