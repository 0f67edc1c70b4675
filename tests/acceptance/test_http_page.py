"""The commands of the page on HTTP can be run as they stand, against a real server; its program mounts the app."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice.gateway.problems import KINDS
from tests.voice.gateway.serving import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text()
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PROGRAM = """
agentos-voice() { "$PYTHON" -m agentos.core.communication.voice.cli "$@"; }
python3() { "$PYTHON" "$@"; }
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_command_of_the_page_works_one_after_the_other_from_a_clean_home(
    backend: str, home: Path, tmp_path: Path
) -> None:
    assert not home.exists()
    assert sum(block.count("curl ") for block in COMMANDS) > 15
    page = "".join(COMMANDS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert page.count("8080") == 2
    script = PROGRAM + page.replace("8080", str(port)).replace("serve ", f"serve --backend {backend} ", 1)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "AGENTOS_VOICE_DRAIN_TIMEOUT_SECONDS": "1",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith(("curl: (7)", "Warning: "))]
    assert (done.returncode, said) == (0, []), done.stderr
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
