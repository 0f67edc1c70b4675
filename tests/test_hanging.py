"""A test that swallows its time limit ends the run all the same, and the run names it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import hanging

TESTS = """
import time

def test_before():
    pass

def test_that_hangs():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def test_behind():
    pass
"""


@pytest.mark.slow  # it starts pytest twice
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_hangs_ends_with_the_name_of_the_test(tmp_path: Path, workers: int) -> None:
    (tmp_path / "test_hung.py").write_text(TESTS)
    (tmp_path / "test_more.py").write_text("def test_more():\n    pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.hanging",
        "-n",
        str(workers),
        "--dist=loadfile",
        "--max-worker-restart=0",
        "--timeout=0.5",
        "--rootdir=.",
    ]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "test_hung.py", "test_more.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HANGING_GRACE_SECONDS": "0.5"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "test_that_hangs" in done.stdout + done.stderr
    if workers:
        assert "crashed while running 'test_hung.py::test_that_hangs'" in done.stdout
        assert "1 failed, 2 passed" in done.stdout  # what the other worker has ends


@pytest.mark.timeout(33)
def test_the_mark_of_a_test_goes_before_what_was_asked_for_the_run(request: pytest.FixtureRequest) -> None:
    assert hanging.limit_of(request.node) == 33


@pytest.mark.timeout(timeout=34)
def test_a_mark_may_name_its_limit(request: pytest.FixtureRequest) -> None:
    assert hanging.limit_of(request.node) == 34


def test_what_was_asked_for_the_run_goes_before_the_setting(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request.config.option, "timeout", 7.0)
    assert hanging.limit_of(request.node) == 7
    monkeypatch.setattr(request.config.option, "timeout", None)
    assert hanging.limit_of(request.node) == float(request.config.getini("timeout"))


@pytest.mark.timeout(35)
def test_the_last_resort_is_for_one_test_and_its_own_limit(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    stand_in = SimpleNamespace(
        dump_traceback_later=lambda seconds, **_: done.append(seconds),
        cancel_dump_traceback_later=lambda: done.append("off"),
    )
    monkeypatch.setattr(hanging, "faulthandler", stand_in)
    run = hanging.pytest_runtest_protocol(request.node)
    next(run)
    assert done == [35 + hanging.GRACE_SECONDS]
    with pytest.raises(StopIteration) as ended:
        run.send(True)
    assert ended.value.value is True
    assert done == [35 + hanging.GRACE_SECONDS, "off"]
