"""Ten mutants drawn by a seed: the promises notice each, or it stands here why nobody could."""

import ast
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.actors.fresh import ROOT, Ask, fresh
from tests.actors.mutants.drawn import Drawn, draw
from tests.actors.mutants.patches import arguments_of, checked

SEED = 3
COUNT = 10
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
    {"silence": True, "stops": 0},
    {"silence": True, "stops": 0, "transcribed": False},
]


SURVIVORS: Mapping[str, str] = {
    "actors/recorder.py: in given_up, negate `if missing`": (
        "The session counts what its recorder does not account for, under a reason of its own, and no promise names reasons. "
        "The tests of the parts and of a port that is silent do."
    ),
    "actors/session.py: in _give_up, negate `if self.parts is not None`": (
        "Each part of these models is essential, and is never given up. The tests of a further part do."
    ),
    "actors/supervisor.py: in resume_session, without `self._spawn_session(facts, verdict, message.token, out, "
    "message.resumption)`": "Nothing is resumed in these models. The models of resumption notice it.",
}
"""Those that no promise notices, and why."""


DRAWN = draw(ROOT, SEED, COUNT)


@pytest.fixture(scope="module")
def survives(request: pytest.FixtureRequest) -> Iterator[Mapping[str, "Future[bool]"]]:
    """Of each mutant that is asked about, whether every model says with it what it says without."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    needed = [item.callspec.params["mutant"] for item in items if "survives" in item.fixturenames]
    models = [arguments_of(model) for model in MODELS]
    pool = ThreadPoolExecutor(AT_ONCE)
    with fresh(AT_ONCE) as ask:
        without = [pool.submit(seen, ask, model, {}) for model in models]

        def alive(mutant: Drawn) -> bool:
            changes = {mutant.file: mutant.text()}
            return all(
                seen(ask, model, changes) == plain.result() for model, plain in zip(models, without, strict=True)
            )

        yield {mutant.what: pool.submit(alive, mutant) for mutant in needed}
        pool.shutdown(cancel_futures=True)


def seen(ask: Ask, model: str, changes: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """The promise that fails first, and the error that kept the model from being checked."""
    answer = checked(ask, model, changes)
    return answer.failed, answer.error


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", DRAWN, ids=lambda mutant: mutant.what)
def test_a_promise_notices_it_or_it_is_explained(mutant: Drawn, survives: Mapping[str, "Future[bool]"]) -> None:
    assert survives[mutant.what].result() is (mutant.what in SURVIVORS)


def test_more_are_noticed_than_survive() -> None:
    assert {mutant.what for mutant in DRAWN} > {*SURVIVORS}
    assert 2 * len(SURVIVORS) < len(DRAWN) == COUNT


def test_a_seed_always_draws_the_same() -> None:
    assert [mutant.what for mutant in DRAWN] == [mutant.what for mutant in draw(ROOT, SEED, COUNT)]


def test_a_mutant_is_another_program_than_the_file() -> None:
    for mutant in draw(ROOT, SEED, 40):
        compile(mutant.text(), mutant.file, "exec")
        assert mutant.text() != ast.unparse(mutant.tree)
