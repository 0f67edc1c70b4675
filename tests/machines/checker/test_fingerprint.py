"""Fingerprints depend on values alone: not on the process, not on how equal values came about."""

import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, defstruct

from machines.checker import UnhashableState, check
from machines.checker.fingerprint import collision_bound, fingerprint
from machines.checker.selfcheck import rebuilt
from tests.machines.checker.examples.graphs import Drawn


class Phase(Enum):
    OPEN = 1
    CLOSED = 2


class Word(str, Enum):
    OPEN = "open"


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Door:
    phase: Phase
    names: frozenset[str]


class Lock(Struct, frozen=True):
    keys: tuple[int, ...]


STATE = ("open", frozenset({"a", "b", "c"}), 3, None, (True, 1.5, b"x"), -1)
PARTS = ["names", "a longer text", "ä", "", *map(str, range(20))]


def test_it_is_the_same_in_every_process() -> None:
    """Text hashes differently in each of these, and sets of text are in different orders."""
    told = set()
    for seed in ("1", "2", "3"):
        program = f"from machines.checker.fingerprint import fingerprint; print(fingerprint({STATE!r}))"
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
        )
        told.add(int(done.stdout))
    assert told == {fingerprint(STATE)}


values = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.binary(max_size=2), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)),
    max_leaves=8,
)


@given(values, values)
def test_equal_values_have_the_same_and_different_ones_another(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(rebuilt(one))
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
    assert 0 <= fingerprint(one) < 2**64


def test_a_text_has_the_same_whether_it_is_interned_or_not() -> None:
    made, again = (b"an open door".decode() for _ in range(2))
    assert made is not again
    assert fingerprint((made, made)) == fingerprint((made, again)) == fingerprint((sys.intern(made),) * 2)


def test_named_tuples_and_texts_have_that_of_what_they_equal() -> None:
    assert fingerprint(Pair(1, ("a",))) == fingerprint((1, ("a",)))
    assert fingerprint((Word.OPEN,)) == fingerprint(("open",))


def test_enums_dataclasses_and_structs_are_told_apart_by_class_and_value() -> None:
    states = [
        Phase.OPEN,
        Phase.CLOSED,
        Door(Phase.OPEN, frozenset()),
        Door(Phase.CLOSED, frozenset()),
        Door(Phase.OPEN, frozenset("a")),
        Lock((1, 2)),
        Lock((1, 3)),
        (1, 2),
    ]
    assert len({fingerprint(state) for state in states}) == len(states)
    assert fingerprint(Door(Phase.OPEN, frozenset(PARTS))) == fingerprint(Door(Phase.OPEN, frozenset(PARTS[::-1])))


@pytest.mark.parametrize("module", ["a", "b"])
def test_classes_of_one_name_from_two_modules_are_told_apart(module: str) -> None:
    """As two messages called `Stop` are, each from the module of its own actor."""
    other = {"a": "b", "b": "a"}[module]
    made = [
        (
            dataclass(frozen=True)(type("Stop", (), {"__module__": name, "__annotations__": {"n": int}}))(1),
            defstruct("Halt", [("n", int)], frozen=True, module=name)(1),
            Enum("Word", ["END"], module=name)["END"],  # type: ignore[attr-defined,call-overload]
        )
        for name in (module, module, other)
    ]
    for one, again, elsewhere in zip(*made, strict=True):
        assert fingerprint(one) == fingerprint(again)
        assert fingerprint(one) != fingerprint(elsewhere)


def test_numbers_are_told_apart_by_type_also_where_they_are_equal() -> None:
    assert len({fingerprint(state) for state in (True, 1, 1.0)}) == 3


def test_what_has_no_lasting_fingerprint_is_refused() -> None:
    with pytest.raises(UnhashableState, match="of type object has no fingerprint"):
        fingerprint((1, object()))


def test_a_search_names_a_state_that_has_none() -> None:
    class Objects(Drawn):
        def successors(self, state: Any) -> Any:
            return [("a", object())]

    with pytest.raises(UnhashableState):
        check(Objects({0: []}), visited="fingerprint", self_check=False)


def test_the_bound_is_that_of_the_birthday_problem() -> None:
    assert collision_bound(1) == 0
    assert collision_bound(2**32) == pytest.approx(0.5, rel=1e-6)
    assert collision_bound(2**40) == 1
