"""The example of "Check your own actors" runs exactly as it is printed, and fails as the page says when it is broken."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "check-your-own-actors.md").read_text()
EXAMPLE = re.search(r"```python\n# test_payment\.py\n(.*?)```", PAGE, re.DOTALL)
INSTALLED = "machines.pytest_plugin" in [point.value for point in entry_points(group="pytest11")]
PLUGIN = () if INSTALLED else ("-p", "machines.pytest_plugin")
RESTARTED = re.compile(r"    def restarted\(self, out\):\n        [^\n]*\n\n")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    assert EXAMPLE is not None
    file = tmp_path / "test_payment.py"
    file.write_text(EXAMPLE.group(1))
    return file


def run(folder: Path, *command: str, timeout_seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    paths = [str(Path(path).absolute()) for path in sys.path if path]
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def pytest_run(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *PLUGIN, *options, "test_payment.py")


def test_the_example_is_short_and_passes_with_all_its_pairs_covered(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 60
    done = pytest_run(example.parent, "--model-coverage-fail-under", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Payment +3 +100\.0%", done.stdout)


def test_the_command_checks_it_with_more_faults(example: Path) -> None:
    done = run(
        example.parent,
        "agentos.core.communication.voice.cli",
        "check",
        "test_payment:payment_model",
        "--faults=3",
        "--json",
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["outcome"], found["configuration"]["faults in a run"]) == (0, "holds", 3)
    assert "nobody pays twice" in [verdict["property"] for verdict in found["verdicts"]]


@pytest.mark.slow
def test_without_restarted_the_page_shows_what_is_found(example: Path) -> None:
    broken, count = RESTARTED.subn("", example.read_text())
    assert count == 1
    example.write_text(broken)
    done = run(example.parent, "agentos.core.communication.voice.cli", "check", "test_payment:payment_model")
    assert done.returncode == 6
    assert done.stderr == "agentos-voice: 1 of 6 properties fail: nobody pays twice\n"
    shown = re.search(r"```text\n(nobody pays twice.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    assert shown.group(1) in done.stdout
    assert pytest_run(example.parent).returncode == 1


@pytest.mark.parametrize(
    ("old", "new", "fails"),
    [
        ('if self.phase == "over":', "if False:", "no loss"),
        ('        if self.phase == "asked":', "        if True:", "no step raises"),
    ],
)
def test_other_mistakes_in_it_are_found_too(old: str, new: str, fails: str, example: Path) -> None:
    whole = example.read_text()
    assert whole.count(old) == 1
    example.write_text(whole.replace(old, new))
    done = run(example.parent, "agentos.core.communication.voice.cli", "check", "test_payment:payment_model")
    assert done.returncode == 6
    assert fails in done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    page = (Path(__file__).parents[2] / "docs" / "supervision.md").read_text()
    example = re.search(r"```python\n# test_shop\.py\n(.*?)```", page, re.DOTALL)
    assert example is not None
    (tmp_path / "test_shop.py").write_text(example.group(1))
    return tmp_path


def test_the_example_of_supervision_holds_too(shop: Path) -> None:
    assert run(shop, "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *PLUGIN, "test_shop.py").returncode == 0


@pytest.mark.slow
def test_the_command_checks_the_example_of_supervision_with_more_faults(shop: Path) -> None:
    command = ("agentos.core.communication.voice.cli", "check", "test_shop:shop_model", "--faults=3", "--json")
    done = run(shop, *command, timeout_seconds=500)
    found = json.loads(done.stdout)
    assert (done.returncode, found["outcome"], found["configuration"]["faults in a run"]) == (0, "holds", 3)
