"""The voice service's promises are worth something: take away what keeps one, and the checker says which.

Each mutant is a patch to a file that ships. Without it the promise holds, with it that promise fails, in the smallest model
that shows it; so no promise holds for nothing, and no guard is there for nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.actors.mutants.patches import ROOT, Answer, Patch, checked, copy_with, patches

PATCHES = patches()
AT_ONCE = 2
SCARS = {1, 3, 7}
WITHOUT_A_PATH = {"a call that has fallen silent ends"}  # nothing can show what is never reached


class Answers(NamedTuple):
    """What the checkers say, as it comes: of the code as it ships, by model, and with a patch, by the patch's name."""

    unpatched: Mapping[str, Future[Answer]]
    patched: Mapping[str, Future[Answer]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """All checkers, each in an interpreter of its own, two at a time, in the order in which the tests ask for them."""
    plain = copy_with({}, tmp_path_factory.mktemp("unpatched"))
    pool = ThreadPoolExecutor(AT_ONCE)
    unpatched: dict[str, Future[Answer]] = {}
    patched: dict[str, Future[Answer]] = {}
    for patch in PATCHES:
        if patch.arguments not in unpatched:
            unpatched[patch.arguments] = pool.submit(checked, plain, patch.arguments)
        patched[patch.name] = pool.submit(_with_patch, patch, tmp_path_factory.mktemp("patched"))
    yield Answers(unpatched, patched)
    pool.shutdown(cancel_futures=True)


def _with_patch(patch: Patch, folder: Path) -> Answer:
    text = (ROOT / patch.file).read_text()
    return checked(copy_with({patch.file: text.replace(patch.old, patch.new)}, folder), patch.arguments)


def named(patch: Patch) -> str:
    return f"{Path(patch.file).stem}: {patch.name}"


@pytest.mark.parametrize("patch", PATCHES, ids=named)
def test_what_is_patched_stands_in_the_file_exactly_once(patch: Patch) -> None:
    assert (ROOT / patch.file).read_text().count(patch.old) == 1


@pytest.mark.slow  # the same on every Python
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
