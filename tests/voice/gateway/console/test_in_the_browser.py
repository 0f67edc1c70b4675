"""The console in headless Chromium: the tests of `tests/browser/`, in a pytest of their own."""

import os
import re
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

TESTS = [path for path in sorted((Path(__file__).parents[3] / "browser").glob("*.py")) if path.name != "conftest.py"]
VIEWS = ["sign-in", "sessions", "new-call", "call", "session"]
LOOKS = {"not slow": ["1180-light", "360-dark"], "slow": ["1180-dark", "360-light"]}
LIMIT_SECONDS = 600


@pytest.mark.timeout(LIMIT_SECONDS + 30)
@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_console_in_a_browser(marked: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    shots = Path(os.environ.get("BROWSER_ARTIFACTS", tmp_path / "screenshots"))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", marked]
    with subprocess.Popen(
        [*command, "--basetemp", str(tmp_path / "browser"), *map(str, TESTS)],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "BROWSER_ARTIFACTS": str(shots)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its servers can be ended with it
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    if skipped := re.findall(r"^SKIPPED \[\d+\] \S+: (.+)$", output, re.MULTILINE):
        pytest.skip("; ".join(dict.fromkeys(skipped)))
    assert {f"{view}-{look}.png" for view, look in product(VIEWS, LOOKS[marked])} <= {
        shot.name for shot in shots.iterdir()
    }
