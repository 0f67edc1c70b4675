"""A test that is skipped where nothing may be missing is a failure, not a green dot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPING = """
import pytest

def test_passes():
    assert True

def test_skips_itself():
    pytest.skip("flite is not installed")

@pytest.mark.skipif(True, reason="sox is not installed")
def test_is_skipped_by_mark():
    raise AssertionError

@pytest.mark.xfail(reason="known", raises=ZeroDivisionError)
def test_fails_as_expected():
    1 / 0
"""
SKIPPED_MODULE = """
import pytest

pytest.importorskip("no_such_module_anywhere")
"""


def run_pytest(folder: Path, workers: str, **variables: str) -> tuple[int, str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_skipping.py").write_text(SKIPPING)
    (folder / "test_skipped_module.py").write_text(SKIPPED_MODULE)
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-n",
            workers,
            "--continue-on-collection-errors",
            ".",
        ],
        cwd=folder,
        env=env | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


def test_in_ci_every_skip_fails_and_says_its_reason(tmp_path: Path) -> None:
    code, told = run_pytest(tmp_path, "1", CI="true")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in told  # a mark skips in the set-up, which is an "error"
    for reason in ("flite is not installed", "sox is not installed", "no_such_module_anywhere"):
        assert reason in told


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    code, told = run_pytest(tmp_path, "0")
    assert code == pytest.ExitCode.OK
    assert "1 passed, 3 skipped, 1 xfailed" in told
