"""The programs of the page on the Python client run as they are printed, against a real server that asks for tokens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import client
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from tests.voice.gateway.serving import ROOT, serving

PAGE = (ROOT / "docs" / "python-client.md").read_text()
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_has_one_program_for_each_loop() -> None:
    assert sorted(PROGRAMS) == ["speak.py", "speak_trio.py"]
    assert "asyncio.run(main" in PROGRAMS["speak.py"]
    assert "trio.run(main" in PROGRAMS["speak_trio.py"]


@pytest.mark.parametrize(("name", "backend"), [("speak.py", "trio"), ("speak_trio.py", "asyncio")])
def test_a_program_of_the_page_runs(name: str, backend: str, home: Path, tmp_path: Path) -> None:
    assert len(PROGRAMS[name].strip().splitlines()) < 40
    script, speech = tmp_path / name, tmp_path / "speech.wav"
    script.write_text(PROGRAMS[name])
    soundfile.write(speech, *soundfile.read(SAMPLE, dtype="int16"), subtype="PCM_16")
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        token = TokenStore(store).create("speaker", role=Role.PROJECT, project="demo")
    with serving("--backend", backend) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script), server.url, token, str(speech)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert server.end() == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "heard: go forward ten meters\nover: stopped\n"


def test_what_the_page_says_in_numbers_is_so() -> None:
    assert f"`ring_seconds` ({client.stream.RING_SECONDS:g})" in PAGE
    assert f"`patience_seconds` ({client.stream.PATIENCE_SECONDS:g})" in PAGE
    assert f"the oldest of {client.stream.EVENTS_KEPT:,}" in PAGE
