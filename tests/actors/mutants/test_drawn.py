"""Ten mutants drawn by a seed: the promises notice each, or it stands here why nobody could."""

import ast
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.actors.mutants.drawn import Drawn, draw
from tests.actors.mutants.patches import ROOT, arguments_of, checked, copy_with

pytestmark = pytest.mark.slow  # the same on every Python

SEED = 3
AT_ONCE = 2

ANY_FAULT = {"crash": 1, "cut": 1, "late": 1, "cancel": 1, "store": 1, "spill": 1, "media": 1, "speech": 1}
MODELS: list[dict[str, Any]] = [
    {},
    {"frames": 2},
    {"stops": 2},
    {"refused": 1, "faults": {"total": 1, "kinds": ANY_FAULT}},
    {"sessions": 2, "frames": 0, "stops": 0, "faults": {"total": 1, "kinds": {"store": 1}}},
    {"faults": {"total": 1, "kinds": {"crash": 1}, "actors": ["recorder"]}},
    {"frames": 0, "stops": 0, "faults": {"total": 6, "in_a_turn": 1, "kinds": {"crash": 6}, "actors": ["voice-1"]}},
    {"frames": 0, "faults": {"total": 3, "in_a_turn": 1, "kinds": {"crash": 2, "cut": 1}, "actors": ["voice-1"]}},
    {"faults": {"total": 1, "kinds": ANY_FAULT}},
    {"frames": 2, "faults": {"total": 4, "in_a_turn": 1, "kinds": {"crash": 4}, "actors": ["recorder"]}},
    {"faults": {"total": 1, "kinds": {"poison": 1}}},
]


SURVIVORS: Mapping[str, str] = {
    "actors/recorder.py: in given_up, negate `if missing`": (
        "The session counts what its recorder does not account for, under a reason of its own, and no promise names reasons. "
        "The tests of the parts and of a port that is silent do."
    ),
}
"""Those that no promise notices, and why."""


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return draw(ROOT, SEED, 10)


@pytest.fixture(scope="module")
def survivors(drawn: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Those with which every model says what it says without them."""
    models = [arguments_of(model) for model in MODELS]
    plain = copy_with({}, tmp_path_factory.mktemp("plain"))

    def survives(mutant: Drawn) -> bool:
        copy = copy_with({mutant.file: mutant.text()}, tmp_path_factory.mktemp("drawn"))
        return all(seen(copy, model) == without[model] for model in models)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        without = dict(zip(models, pool.map(lambda model: seen(plain, model), models), strict=True))
        return {mutant.what for mutant, alive in zip(drawn, pool.map(survives, drawn), strict=True) if alive}


def seen(copy: Path, model: str) -> tuple[tuple[str, ...], str]:
    """What fails; and what kept the model from being checked."""
    answer = checked(copy, model)
    return answer.failed, answer.error


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_who_survives_is_explained(survivors: set[str]) -> None:
    assert survivors == set(SURVIVORS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_are_noticed_than_survive(survivors: set[str], drawn: list[Drawn]) -> None:
    assert 2 * len(survivors) < len(drawn) == 10


def test_a_seed_always_draws_the_same() -> None:
    assert [mutant.what for mutant in draw(ROOT, SEED, 10)] == [mutant.what for mutant in draw(ROOT, SEED, 10)]


def test_a_mutant_is_another_program_than_the_file() -> None:
    for mutant in draw(ROOT, SEED, 40):
        compile(mutant.text(), mutant.file, "exec")
        assert mutant.text() != ast.unparse(mutant.tree)
