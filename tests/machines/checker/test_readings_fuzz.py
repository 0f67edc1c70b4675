"""Random small models: a property that says what it reads gets the verdict of one that does not, however it is searched."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from machines.checker import (
    Model,
    ModelError,
    Outcome,
    Property,
    Report,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    sometimes,
)

State = tuple[int, tuple[tuple[int, int], ...]]  # what all share, and of each process its place and its ticks
PROCESSES, PLACES, SHARED, TICKS = 3, 3, 3, 1
Reads = Callable[[Sequence[State]], Sequence[Any]]


class Processes(Model[State, tuple[str, int]]):
    """Equal processes that go by one random table of places and of what they share; each ticks too, which nobody sees."""

    name = "processes"

    def __init__(self, seed: int, claims: Sequence[Property]) -> None:
        chance = Random(seed)
        self.claims = claims
        self.rules = {
            (shared, place): (chance.randrange(SHARED), chance.randrange(PLACES))
            for shared in range(SHARED)
            for place in range(PLACES)
            if chance.random() < 0.7
        }

    def initial(self) -> Sequence[State]:
        return [(0, ((0, 0),) * PROCESSES)]

    def actions(self, state: State) -> Sequence[tuple[str, int]]:
        shared, processes = state
        moves = [("move", at) for at, (place, _) in enumerate(processes) if (shared, place) in self.rules]
        return moves + [("tick", at) for at, (_, ticks) in enumerate(processes) if ticks < TICKS]

    def step(self, state: State, action: tuple[str, int]) -> State:
        shared, processes = state
        (kind, at), changed = action, list(processes)
        place, ticks = changed[at]
        if kind == "tick":
            changed[at] = place, ticks + 1
        else:
            shared, place = self.rules[shared, place]
            changed[at] = place, ticks
        return shared, tuple(changed)

    def properties(self) -> Sequence[Property]:
        return self.claims

    def canonical(self, state: State) -> State:
        return state[0], tuple(sorted(state[1]))

    def independent(self, state: State, action: tuple[str, int], other: tuple[str, int]) -> bool:
        return action[0] == "tick" and action != other


def seen(state: State) -> tuple[int, tuple[int, ...]]:
    """What properties speak of, the same for all states that are equal up to an exchange of processes."""
    return state[0], tuple(sorted(place for place, _ in state[1]))


def exactly(states: Sequence[State]) -> Sequence[Any]:
    return [seen(state) for state in states]


def with_ticks(states: Sequence[State]) -> Sequence[Any]:
    return [(state[0], tuple(sorted(state[1]))) for state in states]


def by_process(states: Sequence[State]) -> Sequence[Any]:
    """Tells states apart that the canonical form puts together; properties don't."""
    return list(states)


def claims(seed: int, reads: Reads | None, *, steps: bool, leads: bool) -> list[Property]:
    """Random properties of what is `seen`."""
    chance = Random(seed)

    def condition(share: float) -> Callable[[State], bool]:
        salt = chance.random()
        return lambda state: Random(f"{salt} {seen(state)}").random() < share

    def change(share: float) -> Callable[[State, Any, State], bool]:
        salt = chance.random()
        return lambda before, _, after: Random(f"{salt} {seen(before)} {seen(after)}").random() < share

    found = [
        *(always(f"always {n}", condition(share), reads=reads) for n, share in enumerate((0.99, 0.8))),
        *(sometimes(f"sometimes {n}", condition(share), reads=reads) for n, share in enumerate((0.02, 0.3))),
        *(can_always_reach(f"reach {n}", condition(share), reads=reads) for n, share in enumerate((0.05, 0.4))),
    ]
    if steps:
        found += [always_step(f"step {n}", change(share), reads=reads) for n, share in enumerate((0.99, 0.9))]
    if leads:
        found += [leads_to(f"leads {n}", condition(0.1), condition(0.3), reads=reads) for n in range(2)]
    return found


def outcomes(report: Report) -> dict[str, Outcome]:
    return {verdict.name: verdict.outcome for verdict in report.verdicts}


WAYS: list[dict[str, Any]] = [{}, {"strategy": "depth"}, {"workers": 2}, {"symmetry": True}, {"reduction": True}]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("reads", [exactly, with_ticks, by_process])
def test_a_reading_changes_no_verdict(options: dict[str, Any], reads: Reads) -> None:
    met = set()
    for seed in range(3 if "workers" in options else 8):
        kinds = {"steps": "reduction" not in options, "leads": not ({"symmetry", "reduction"} & set(options))}
        plain = check(Processes(seed, claims(seed, None, **kinds)))
        read = check(Processes(seed, claims(seed, reads, **kinds)), **options)
        alike = check(Processes(seed, claims(seed, None, **kinds)), **options)

        assert outcomes(read) == outcomes(plain), seed
        assert [verdict.path for verdict in read.verdicts] == [verdict.path for verdict in alike.verdicts], seed
        met |= {(verdict.kind, verdict.outcome) for verdict in read.verdicts}
    assert len(met) >= 8 - 2 * ("reduction" in options)  # of most kinds some hold and some fail


def test_the_reductions_leave_states_out() -> None:
    full, fewer, less = (check(Processes(1, ()), **options).states for options in ({}, WAYS[3], WAYS[4]))

    assert fewer < full
    assert less < full


# --- readings and properties that can't be trusted ------------------------------------------------------------------------


def shared_only(states: Sequence[State]) -> Sequence[Any]:
    return [shared for shared, _ in states]


LOOKS_AT_MORE: list[Property] = [
    always("more", lambda state: state[1][0] != (2, 1), reads=shared_only),
    sometimes("more", lambda state: state[1][0] == (2, 1), reads=shared_only),
    can_always_reach("more", lambda state: state[1][0][0] == 1, reads=shared_only),
    leads_to("more", lambda state: state[1][0][0] == 1, lambda state: state[0] == 1, reads=shared_only),
    always_step("more", lambda before, _, after: before[1][1] == after[1][1], reads=shared_only),
    always_step("more", lambda _, action, __: action != ("tick", 2), reads=shared_only),
]


def refused_or_right(claim: Property, seed: int, options: dict[str, Any]) -> str:
    """Why the model is refused; empty if it gets the verdict that the property has without readings and reductions."""
    honest = check(Processes(seed, [claim._replace(reads=None)]))
    try:
        report = check(Processes(seed, [claim]), **options)
    except ModelError as error:
        return str(error)
    assert outcomes(report) == outcomes(honest), seed
    return ""


@pytest.mark.parametrize("claim", LOOKS_AT_MORE, ids=lambda claim: claim.kind)
@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"workers": 2}, {"symmetry": True}], ids=str)
def test_a_property_that_looks_at_more_than_it_reads_gets_no_wrong_verdict(
    claim: Property, options: dict[str, Any]
) -> None:
    if claim.kind == "leads_to" and "symmetry" in options:
        with pytest.raises(ValueError, match="symmetry does not preserve leads_to"):
            check(Processes(0, [claim]), **options)
        return
    refused = [why for seed in range(8) if (why := refused_or_right(claim, seed, options))]

    assert refused
    assert all("looks at more than it reads" in why or "canonical form" in why for why in refused)


@pytest.mark.parametrize("reads", [None, by_process])
@pytest.mark.parametrize(
    "make",
    [
        lambda reads: always("one", lambda state: state[1][0][0] != 2, reads=reads),
        lambda reads: sometimes("one", lambda state: state[1][0][0] == 2, reads=reads),
        lambda reads: always_step("one", lambda before, _, after: before[1][0] == after[1][0], reads=reads),
    ],
)
def test_a_property_that_names_one_of_equal_processes_gets_no_wrong_verdict_under_symmetry(
    make: Any, reads: Any
) -> None:
    refused = [why for seed in range(12) if (why := refused_or_right(make(reads), seed, {"symmetry": True}))]

    assert refused
    assert all("tells" in why for why in refused)
