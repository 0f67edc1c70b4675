"""The store of the page `store.md`, written by a host in under 80 lines: it passes the conformance suite, and serves calls."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "store.md"
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))
PATIENCE_SECONDS = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder outside the project, with the programs of the page."""
    for name, program in PROGRAMS.items():
        (tmp_path / name).write_text(program)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_store_takes_less_than_eighty_lines() -> None:
    assert sorted(PROGRAMS) == ["call.py", "one_file.py", "test_one_file.py"]
    assert len([line for line in PROGRAMS["one_file.py"].splitlines() if line.strip()]) < 80


def test_a_call_runs_on_it(folder: Path) -> None:
    said = run(folder, "call.py")
    assert re.search(r"^stored: [4-9] records$", said, re.MULTILINE)
    assert "the chain holds: True" in said


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_SECONDS)
def test_it_passes_the_conformance_suite(folder: Path) -> None:
    said = run(
        folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:xdist", "test_one_file.py"
    )
    assert re.search(r"^\d+ passed", said.splitlines()[-1]), said
