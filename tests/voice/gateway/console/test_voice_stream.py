"""The JavaScript client's `VoiceStream`, `Resampler` and `Cutter` in node, and whether all of the console is JavaScript."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agentos.core.communication.voice import gateway

CONSOLE = Path(gateway.__path__[0]) / "console"
TESTS = Path(__file__).with_name("voice_stream.test.mjs")


def test_the_stream_and_the_sound_do_what_they_should(node: str, module: Path) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", TESTS],
        env={**os.environ, "MODULE": module.as_uri()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout


@pytest.mark.parametrize("script", sorted(CONSOLE.glob("*.js")), ids=lambda script: script.name)
def test_every_script_is_one(node: str, script: Path, tmp_path: Path) -> None:
    module = shutil.copy(script, tmp_path / "script.mjs")
    done = subprocess.run([node, "--check", module], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
