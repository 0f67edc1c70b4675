"""The commands of the page on HTTP can be run as they stand, against a real server; its program mounts the app."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice.gateway.problems import KINDS
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import TokenStore
from tests.voice.gateway.serving import ROOT, serving

PAGE = (ROOT / "docs" / "http.md").read_text()
START, *COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
EXPORTS = re.compile(r"^export VOICE=\S+ TOKEN=\S+$", re.MULTILINE)
PROGRAM = """
agentos-voice() { "$PYTHON" -m agentos.core.communication.voice.cli "$@"; }
python3() { "$PYTHON" "$@"; }
set -euo pipefail
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_command_of_the_page_works(backend: str, home: Path, tmp_path: Path) -> None:
    assert re.findall(r"agentos-voice (\w+)", START) == ["token", "serve"]
    assert sum(block.count("curl ") for block in COMMANDS) > 15
    with VoiceStore.open(home / "voice.db", busy_timeout_seconds=5) as store:
        token = TokenStore(store).create("demo")
    with serving("--backend", backend, drain_timeout_seconds="1") as server:
        script = PROGRAM + "".join(EXPORTS.sub("", block) for block in COMMANDS)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHON": sys.executable,
                "PYTHONPATH": str(ROOT),
                "VOICE": server.url,
                "TOKEN": token,
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert server.process.wait(60) == 0, "the last command drains the server"
    assert "go forward ten meters" in done.stdout
    assert '"risk_level":"high"' in done.stdout
    assert "event: session_stopped" in done.stdout
    sound, rate = soundfile.read(tmp_path / "call.flac", dtype="int16")
    assert (rate, len(sound) > rate) == (16_000, True)
    assert (tmp_path / "beginning.flac").read_bytes() == (tmp_path / "call.flac").read_bytes()[:1024]
    with EvidenceLogger(home / "voice.db") as log:
        assert log.verify().ok


def test_every_problem_is_on_the_page() -> None:
    names = {kind.name for kind in KINDS.values() if kind.status != 202}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []
    for kind in KINDS.values():
        row = next((line for line in PAGE.splitlines() if line.startswith("| ") and f"`{kind.name}`" in line), "")
        assert kind.status == 202 or str(kind.status) in row, kind


@pytest.mark.anyio
async def test_the_program_mounts_the_app(home: Path) -> None:
    (program,) = re.findall(r"```python\n# host\.py\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(program, names)
    app = names["app"]
    async with app.router.lifespan_context(app):  # type: ignore[attr-defined]
        transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.example") as client:
            assert (await client.get("/voice/readyz")).status_code == 200
            assert (await client.get("/voice/v1/sessions")).status_code == 401
        async with httpx2.AsyncClient(transport=transport, base_url="http://evil.example") as client:
            assert (await client.get("/voice/readyz")).status_code == 403
    assert (home / "voice.db").is_file()
