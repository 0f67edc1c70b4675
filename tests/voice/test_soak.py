"""A service that has run many sessions is as it was: the short form of `python -m benchmarks soak`, and that it would tell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAKING = """
import anyio
from benchmarks import soak

kept = []
call = soak._call

async def leaking(service, **options):
    await call(service, **options)
    kept.append([object() for _ in range(5)])

soak._call = leaking
found = anyio.run(soak.soak, soak.load_settings(on_stt_unavailable="record_only"), 300, 10)
print(found.blocks.each, found.ok)
"""


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(250)
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_thousand_sessions_and_three_hundred_at_once_leave_nothing(loop: str) -> None:
    row = run("-m", "benchmarks", "soak", "--quick", "--loop", loop)
    assert "1,000 sessions and 300 at once" in row
    assert row.rstrip().endswith(" ok"), row


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_six_objects_a_session_are_noticed() -> None:
    each, ok = run("-c", LEAKING).split()
    assert 4 < float(each) < 9
    assert ok == "False"
