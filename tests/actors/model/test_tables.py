import dataclasses
import datetime as dt
import itertools
import random
import uuid
from typing import Any, NamedTuple

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict

from actors.model.parts import Part
from actors.model.tables import Table, TupleTable, packed, unpacked
from actors.runtime.actor import Exited
from machines.checker.model import NotRepeatable, UnhashableState
from machines.frozen import FrozenMap, frozen


class Metres(NamedTuple):
    n: int


class Feet(NamedTuple):
    n: int


class Letter(msgspec.Struct, frozen=True):
    to: str
    words: tuple[str, ...] = ()


class Draft(msgspec.Struct):
    words: str


@dataclasses.dataclass(frozen=True)
class Point:
    x: float


@dataclasses.dataclass
class Cursor:
    x: int


class Request(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str


class Form(BaseModel):
    name: str


class Sheet(msgspec.Struct, eq=False):
    words: str


@dataclasses.dataclass(eq=False)
class Counter:
    x: int


@dataclasses.dataclass(unsafe_hash=True)
class Trusting:
    x: int


class Box:
    def __init__(self) -> None:
        self.x = 1


class Slot:
    __slots__ = ("x",)


class Marked(tuple[int, ...]):  # noqa: SLOT001 - that is the point
    """A tuple with a field of its own."""


class ByValue:
    """Brings its own hash."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __hash__(self) -> int:
        return hash(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByValue) and self.x == other.x


class Nobody:
    """A sentinel: it is itself, and has no fields."""


def marked() -> Marked:
    made = Marked((1, 2))
    made.more = 3  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1], "list"),
        ({"a": 1}, "dict"),
        ({1}, "set"),
        (bytearray(b"a"), "bytearray"),
        ((1, ("deep", [2])), "list"),
        (Point([1]), "list"),  # type: ignore[arg-type]
        (Letter("you", ["hello"]), "list"),  # type: ignore[arg-type]
        (Metres({1}), "set"),  # type: ignore[arg-type]
        (Draft("hello"), "Draft"),
        (Cursor(1), "Cursor"),
        (Form(name="a"), "Form"),
        (Sheet("hello"), "Sheet"),
        (Counter(1), "Counter"),
        (Trusting(1), "Trusting"),
        (Box(), "Box"),
        ((1, Box()), "Box"),
        (Slot(), "Slot"),
        (iter([1]), "list_iterator"),
        (itertools.count(), "count"),
        (random.Random(1), "Random"),
        (marked(), "Marked"),
    ],
)
def test_a_value_that_could_be_changed_is_refused_and_named(value: Any, kind: str) -> None:
    with pytest.raises(UnhashableState, match=f"^{kind} can't be part of a state"):
        Table().number(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (1, 1.0),
        (0, False),
        (Metres(1), Feet(1)),
        (Metres(1), (1,)),
        ((True,), (1,)),
        (Letter("a"), Letter("a", ("b",))),
        (Point(1), Point(True)),
        (frozenset({1}), frozenset({True})),
        ("a", b"a"),
        (None, ()),
        (Exited(None, "boom", 0.0, "a"), Exited(None, "boom", 0.0, "b")),  # type: ignore[arg-type]
        (frozen({"a": 1}), frozen({"a": True})),
    ],
)
def test_values_are_told_apart_with_their_types_deep_down(one: Any, other: Any) -> None:
    table = Table()

    assert table.number(one) != table.number(other)
    assert len(table) >= 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: tuple([1, tuple(["a", 2.5])]),  # noqa: C409 - a literal would be one object
        lambda: Metres(7),
        lambda: Letter("a", ("b", "c")),
        lambda: Point(1.5),
        lambda: frozenset({"a", "b"}),
        lambda: FrozenMap().with_item("a", (1,)).with_item("b", ()),
        lambda: frozen({"a": [1, {"b": 2}]}),
        lambda: Request(name="a"),
        lambda: Exited(None, "boom", 0.0, ("a",)),  # type: ignore[arg-type]
        lambda: (1, Letter("a")),
    ],
)
def test_equal_values_are_one_object(make: Any) -> None:
    table = Table()
    first, second = make(), make()

    assert first is not second
    assert table.number(first) == table.number(second)
    assert table.one(second) is first
    assert table.values[table.number(second)] is first


def test_a_plain_value_stands_for_itself() -> None:
    table = Table()

    assert table.one(5) == 5
    assert table.one("five") == "five"
    assert len(table) == 0


def test_numbers_begin_at_one_since_0_is_no_value() -> None:
    table = Table()

    assert table.number("a") == 1
    assert table.number("b") == 2
    assert table.number("a") == 1
    assert table.values == [None, "a", "b"]


def test_a_dict_within_an_immutable_value_counts_by_its_content() -> None:
    table = Table()

    assert table.number(Point({"a": 1})) == table.number(Point({"a": 1}))  # type: ignore[arg-type]
    assert table.number(Point({"a": 1})) != table.number(Point({"a": 2}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [len, random.random, Point, Part("port"), Nobody(), Marked((1, 2)), dt.timedelta(1), uuid.UUID(int=1)],
)
def test_what_has_nothing_that_changes_is_taken(value: Any) -> None:
    table = Table()

    assert table.number((value,)) == table.number((value,))
    table.look_again()


def change_deep(value: Any) -> None:
    value.x["a"]["b"] = 2


def change_list(value: Any) -> None:
    value.x["a"] = [1]


def change_field(value: Any) -> None:
    value.x = 2


def give_field(value: Any) -> None:
    value[0].x = 2


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: Point({"a": {"b": 1}}), change_deep),  # type: ignore[arg-type]
        (lambda: Point({"a": {"b": 1}}), change_list),  # type: ignore[arg-type]
        (lambda: ByValue(1), change_field),
        (lambda: (Nobody(),), give_field),
    ],
)
def test_a_value_that_is_changed_in_place_is_noticed(make: Any, change: Any) -> None:
    table = Table()
    value = make()
    number = table.number(value)
    table.look_again()
    change(value)

    assert table.number(value) == number  # which is why it must be noticed
    with pytest.raises(NotRepeatable, match="was changed in place after it had become part of a state"):
        table.look_again()


@pytest.mark.parametrize(
    ("make", "change"),
    [(lambda: {"a": 1}, lambda it: it.update(a=2)), (lambda: ByValue(1), lambda it: setattr(it, "x", 2))],
)
@pytest.mark.parametrize("which", [0, 1])
def test_it_is_noticed_in_each_of_two_values_that_hold_equal_ones(make: Any, change: Any, which: int) -> None:
    table = Table()
    equal = make(), make()
    values = Point(equal[0]), Metres(equal[1])
    for value in values:
        table.number(value)
    table.look_again()
    change(equal[which])

    with pytest.raises(NotRepeatable, match="changed in place"):
        table.look_again()


def test_some_are_looked_at_each_time_until_all_were() -> None:
    table = Table()
    values = [ByValue(x) for x in range(10)]
    for value in values:
        table.number(value)
    values[7].x = 70

    with pytest.raises(NotRepeatable, match="ByValue"):
        for _ in range(4):
            table.look_again(3)


def test_an_object_without_fields_of_its_own_is_itself() -> None:
    table = Table()
    one, other = object(), object()

    assert table.number(one) == table.number(one)
    assert table.number(one) != table.number(other)


def test_a_tuple_table_knows_the_empty_tuple_as_0() -> None:
    table = TupleTable()

    assert table.number(()) == 0
    assert table.number((1, "a")) == 1
    assert table.number((1, "a")) == 1
    assert table.values == [(), (1, "a")]
    assert len(table) == 1


@pytest.mark.parametrize("numbers", [[1], [7, 0, 65_535], [0, 65_536, 3], [2**32 - 1]])
def test_a_state_is_its_numbers_however_large(numbers: list[int]) -> None:
    assert unpacked(packed(numbers)) == numbers


def test_a_state_does_not_tell_how_many_actors_were_not_yet_born() -> None:
    assert packed([4, 0, 9, 0, 0]) == packed([4, 0, 9])
    assert packed([4, 0, 70_000, 0]) == packed([4, 0, 70_000])
