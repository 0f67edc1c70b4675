"""A machine is linted when it is built, and moves only where its declaration says."""

import itertools
from enum import Enum
from typing import Any

import pytest

from machines.lifecycle import IllegalMove, Lifecycle, LifecycleError, Move
from machines.session import SESSION


class Door(str, Enum):
    OPEN = "open"
    CLOSED = "closed"
    GONE = "gone"


MOVES = (
    Move("close", Door.OPEN, Door.CLOSED, "someone closed it"),
    Move("open", Door.CLOSED, Door.OPEN, "someone opened it"),
    Move("remove", Door.CLOSED, Door.GONE, "the house came down"),
)


def door(**changes: Any) -> Lifecycle[Door]:
    declaration: dict[str, Any] = {"states": Door, "initial": Door.OPEN, "final": [Door.GONE], "moves": MOVES}
    return Lifecycle("door", **{**declaration, **changes})


def transitions_table(lifecycle: Lifecycle[Any]) -> set[tuple[str, str, str]]:
    return {
        (transition.source, trigger, str(transition.dest))
        for trigger in lifecycle.machine.events
        for transition in lifecycle.machine.get_transitions(trigger)
    }


@pytest.mark.parametrize("lifecycle", [door(), SESSION], ids=lambda lifecycle: lifecycle.name)
def test_the_table_is_that_of_the_transitions_machine(lifecycle: Lifecycle[Any]) -> None:
    table = {(state.value, trigger, dest.value) for (state, trigger), dest in lifecycle.table.items()}
    assert table == transitions_table(lifecycle)
    assert table == {(move.source.value, move.trigger, move.dest.value) for move in lifecycle.moves}


@pytest.mark.parametrize("lifecycle", [door(), SESSION], ids=lambda lifecycle: lifecycle.name)
def test_the_shared_machine_has_no_automatic_moves_and_no_models(lifecycle: Lifecycle[Any]) -> None:
    assert set(lifecycle.machine.events) == {move.trigger for move in lifecycle.moves}
    assert not lifecycle.machine.models


def test_a_legal_move_gives_the_state_it_leads_to_as_its_enum_member() -> None:
    assert door().fire(Door.OPEN, "close") is Door.CLOSED


@pytest.mark.parametrize(
    ("state", "trigger", "legal"),
    [
        (Door.OPEN, "open", ("close",)),
        (Door.OPEN, "remove", ("close",)),
        (Door.GONE, "open", ()),
        (Door.CLOSED, "no such trigger", ("open", "remove")),
    ],
)
def test_an_illegal_move_is_refused_by_name_and_changes_nothing(
    state: Door, trigger: str, legal: tuple[str, ...]
) -> None:
    lifecycle = door()
    before = dict(lifecycle.table)
    with pytest.raises(IllegalMove) as refusal:
        lifecycle.fire(state, trigger)
    assert (refusal.value.machine, refusal.value.state, refusal.value.trigger) == ("door", state.value, trigger)
    assert refusal.value.legal == legal == lifecycle.legal(state)
    assert trigger in str(refusal.value)
    assert isinstance(refusal.value, ValueError)
    assert lifecycle.table == before
    assert transitions_table(lifecycle) == transitions_table(door())
    assert lifecycle.fire(Door.OPEN, "close") is Door.CLOSED


def test_every_pair_moves_as_declared_or_is_refused() -> None:
    lifecycle = door()
    for state, trigger in itertools.product(Door, ("open", "close", "remove")):
        if (state, trigger) in lifecycle.table:
            assert lifecycle.fire(state, trigger) is lifecycle.table[state, trigger]
        else:
            with pytest.raises(IllegalMove):
                lifecycle.fire(state, trigger)


def test_table_and_deadlines_are_read_only() -> None:
    lifecycle = door(deadlines={Door.CLOSED: "remove"})
    assert lifecycle.deadlines == {Door.CLOSED: "remove"}
    with pytest.raises(TypeError):
        lifecycle.table[Door.OPEN, "remove"] = Door.GONE  # type: ignore[index]
    with pytest.raises(TypeError):
        lifecycle.deadlines[Door.OPEN] = "close"  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"states": [*Door, Door.OPEN]}, "declared twice"),
        ({"states": [Door.CLOSED, Door.GONE], "moves": MOVES[2:]}, "initial or a final state is not declared"),
        ({"final": ["burnt"]}, "initial or a final state is not declared"),
        ({"moves": (*MOVES, Move("burn", Door.OPEN, "burnt", "fire"))}, "'burn' names a state that is not declared"),
        ({"moves": (*MOVES, Move("douse", "burnt", Door.OPEN, "rain"))}, "'douse' names a state that is not declared"),
        ({"moves": (*MOVES, Move("rebuild", Door.GONE, Door.OPEN, "new"))}, "'rebuild' leaves the final state"),
        ({"moves": (*MOVES, Move("close", Door.OPEN, Door.GONE, "again"))}, "'close' is declared twice from"),
        ({"deadlines": {Door.OPEN: "remove"}}, "fires 'remove', which is no move from there"),
        ({"deadlines": {Door.GONE: "close"}}, "fires 'close', which is no move from there"),
        ({"initial": Door.CLOSED, "moves": MOVES[2:]}, "never reached: open"),
        ({"moves": MOVES[:2]}, "never reached: gone"),
        (
            {"moves": (Move("close", Door.OPEN, Door.CLOSED, "trap"), Move("remove", Door.OPEN, Door.GONE, "bang"))},
            "no way to the end from: closed",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_machine_is_built(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LifecycleError, match=f"^door: .*{complaint}"):
        door(**changes)
