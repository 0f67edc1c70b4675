"""The simulator is worth something: put a bug into supervision or recovery, and it is found within two hundred seeds.

Each bug is a patch to a file that ships, in one of the tables beside this file. Days of the voice simulation run on a copy with
the patch, in an interpreter that has seen no other, until one of them breaks a promise.
"""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.actors.mutants.patches import ROOT, copy_with

HERE = Path(__file__).parent
AT_ONCE = 2
SEEDS = 200
LEAST = 15


class Bug(NamedTuple):
    """`old`, which stands in `file` exactly once, becomes `new`; what that `breaks` in life. `seed` is the first of all that
    found it when it was written down: the search begins there, and still ends when two hundred have found nothing."""

    file: str
    name: str
    breaks: str
    old: str
    new: str
    seed: int = 0


def bugs() -> list[Bug]:
    found: list[Bug] = []
    for path in sorted(HERE.glob("*.toml")):
        content = tomllib.loads(path.read_text())
        found += [Bug(content["file"], **row) for row in content["bug"]]
    return found


BUGS = bugs()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[dict[str, Any]]]]:
    """All searches, two at a time, in the order in which the tests ask for them."""
    pool = ThreadPoolExecutor(AT_ONCE)
    yield {bug.name: pool.submit(searched, bug, tmp_path_factory.mktemp("bug")) for bug in BUGS}
    pool.shutdown(cancel_futures=True)


def searched(bug: Bug, folder: Path) -> dict[str, Any]:
    text = (ROOT / bug.file).read_text()
    copy = copy_with({bug.file: text.replace(bug.old, bug.new)}, folder)
    done = subprocess.run(
        [sys.executable, str(HERE / "find_one.py"), str(bug.seed), str(SEEDS)],
        env={"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def named(bug: Bug) -> str:
    return f"{Path(bug.file).stem}: {bug.name}"


@pytest.mark.parametrize("bug", BUGS, ids=named)
def test_what_is_patched_stands_in_the_file_exactly_once(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text().count(bug.old) == 1


@pytest.mark.slow  # the same on every Python
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS, ids=named)
def test_a_bug_in_supervision_or_recovery_is_found(bug: Bug, answers: Mapping[str, Future[dict[str, Any]]]) -> None:
    found = answers[bug.name].result()
    assert found["seed"] is not None
    assert found["promise"] or found["error"]


def test_there_are_enough_of_them_each_with_its_own_name() -> None:
    assert len(BUGS) >= LEAST
    assert [name for name, times in Counter(bug.name for bug in BUGS).items() if times > 1] == []
