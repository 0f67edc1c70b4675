"""The example of "Simulate" runs exactly as it is printed, and finds what it is broken by."""

import re
from pathlib import Path

import pytest

from tests.acceptance.test_own_actors import run

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
EXAMPLE = re.search(r"```python\n# test_courier\.py\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    assert EXAMPLE is not None
    file = tmp_path / "test_courier.py"
    file.write_text(EXAMPLE.group(1))
    return file


def pytest_run(folder: Path) -> "tuple[int, str]":
    plugins = run(folder, "pytest", "-p", "no:asyncio", "--help").stdout
    entry = () if "--simulation-seeds" in plugins else ("-p", "actors.pytest_plugin")
    done = run(folder, "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *entry, "test_courier.py")
    return done.returncode, done.stdout


def simulate(folder: Path, *options: str) -> "tuple[int, str, str]":
    made = ("simulate", "test_courier:courier_simulation", "--hours", "0.1", "--processes", "1")
    done = run(folder, "agentos.core.communication.voice.cli", *made, *options)
    return done.returncode, done.stdout, done.stderr


def test_the_example_passes_as_a_test_and_as_a_command(example: Path) -> None:
    code, text = pytest_run(example.parent)
    assert (code, "1 passed" in text) == (0, True)
    code, text, problem = simulate(example.parent, "--seeds", "100")
    assert (code, problem) == (0, "")
    assert "every promise holds" in text


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        pytest.param(
            "        if message.number not in self.taken:",
            "        if True:",
            "no parcel is taken twice",
            marks=pytest.mark.slow,
        ),
        ('        out.set_timer("again", 30.0)', "        pass", "every parcel arrives"),
    ],
)
def test_a_mistake_in_it_is_found(old: str, new: str, broken: str, example: Path) -> None:
    whole = example.read_text()
    assert whole.count(old) == 1
    example.write_text(whole.replace(old, new))
    code, text, problem = simulate(example.parent, "--seeds", "50")
    assert code == 6
    assert "seeds break a promise" in problem
    assert broken in text
    assert "again: agentos-voice simulate test_courier:courier_simulation --seed" in text
    assert pytest_run(example.parent)[0] == 1
