"""The simulator is worth something: put a bug into supervision or recovery, and it is found within two hundred seeds.

Each bug is a patch to a file that ships, in one of the tables beside this file. Days of the voice simulation run with the
patch, in a process that has seen no other code, until one of them breaks a promise. A change of the actors or of a
day moves the seeds: `first_seeds.py` writes them down anew.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.actors.fresh import ROOT, fresh
from tests.actors.simulation_bugs.search import Bug, bugs, search

AT_ONCE = 2
SECONDS = 850
LEAST = 15


BUGS = bugs()


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[dict[str, Any]]]]:
    """All searches that are needed, two at a time, in the order in which the tests ask for them."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    needed = [
        item.callspec.params["bug"] for item in items if "answers" in item.fixturenames and item.path == request.path
    ]
    pool = ThreadPoolExecutor(AT_ONCE)
    with fresh(AT_ONCE) as ask:
        yield {bug.name: pool.submit(search, ask, bug, bug.seed, SECONDS) for bug in needed}
        pool.shutdown(cancel_futures=True)


def named(bug: Bug) -> str:
    return f"{Path(bug.file).stem}: {bug.name}"


@pytest.mark.parametrize("bug", BUGS, ids=named)
def test_what_is_patched_stands_in_the_file_exactly_once(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text().count(bug.old) == 1


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=named)
def test_a_bug_in_supervision_or_recovery_is_found(bug: Bug, answers: Mapping[str, Future[dict[str, Any]]]) -> None:
    found = answers[bug.name].result()
    assert found["seed"] is not None
    assert found["promise"] or found["error"]


def test_there_are_enough_of_them_each_with_its_own_name() -> None:
    assert len(BUGS) >= LEAST
    assert [name for name, times in Counter(bug.name for bug in BUGS).items() if times > 1] == []
