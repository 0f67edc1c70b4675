"""The voice service's promises are worth something: take away what keeps one, and the checker says which.

Each mutant is a patch to a file that ships. Without it the promise holds, with it that promise fails, in the smallest model
that shows it; so no promise holds for nothing, and no guard is there for nothing. Of a model with a patch the checker is asked
for that promise alone, so that it ends as soon as this one fails.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.actors.fresh import ROOT, fresh
from tests.actors.mutants.patches import Answer, Patch, checked, patches

PATCHES = patches()
AT_ONCE = 2
SCARS = {1, 3, 7}
WITHOUT_A_PATH = {  # nothing can show what is never reached
    "a call that has fallen silent ends",
    "a call outlasts its silence when somebody speaks",
}


class Answers(NamedTuple):
    """What the checkers say, as it comes: of the code as it ships, by model, and with a patch, by the patch's name."""

    unpatched: Mapping[str, Future[Answer]]
    patched: Mapping[str, Future[Answer]]


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest) -> Iterator[Answers]:
    """All checkers that are needed, two at a time, in the order in which the tests ask for them."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    needed = [
        item.callspec.params["patch"] for item in items if "answers" in item.fixturenames and item.path == request.path
    ]
    promises: dict[str, set[str]] = {}
    for patch in needed:
        promises.setdefault(patch.arguments, set()).add(patch.promise)
    pool = ThreadPoolExecutor(AT_ONCE)
    unpatched: dict[str, Future[Answer]] = {}
    patched: dict[str, Future[Answer]] = {}
    with fresh(AT_ONCE) as ask:
        for patch in needed:
            model = patch.arguments
            if model not in unpatched:
                unpatched[model] = pool.submit(checked, ask, model, {}, sorted(promises[model]))
            patched[patch.name] = pool.submit(checked, ask, model, patch.changes, [patch.promise])
        yield Answers(unpatched, patched)
        pool.shutdown(cancel_futures=True)


def named(patch: Patch) -> str:
    return f"{Path(patch.file).stem}: {patch.name}"


@pytest.mark.parametrize("patch", PATCHES, ids=named)
def test_what_is_patched_stands_in_the_file_exactly_once(patch: Patch) -> None:
    assert (ROOT / patch.file).read_text().count(patch.old) == 1


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(600)
@pytest.mark.parametrize("patch", PATCHES, ids=named)
def test_the_checker_names_the_promise_that_a_patch_breaks(patch: Patch, answers: Answers) -> None:
    without, with_it = answers.unpatched[patch.arguments].result(), answers.patched[patch.name].result()

    assert (without.error, without.outcomes.get(patch.promise)) == ("", "holds")
    assert (with_it.error, with_it.outcomes.get(patch.promise)) == ("", "fails")
    assert (patch.promise in with_it.paths) is (patch.promise not in WITHOUT_A_PATH)


def test_there_are_thirty_and_each_has_its_own_name() -> None:
    assert len(PATCHES) >= 30
    assert [name for name, times in Counter(patch.name for patch in PATCHES).items() if times > 1] == []


def test_the_known_scars_of_other_systems_are_among_them() -> None:
    assert {patch.scar for patch in PATCHES if patch.scar} == SCARS
