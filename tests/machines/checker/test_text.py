"""Values as text: the same in every run, and short enough."""

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from msgspec import Struct

from machines.checker import Model
from machines.checker.text import Change, changes, named_fields, shortened, shown, slug
from machines.frozen import FrozenMap


class Colour(Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int
    y: Any


class Pair(Struct, frozen=True):
    left: str
    right: Any


class Token(Struct, frozen=True):
    secret: str

    def __repr__(self) -> str:
        return "<token>"


class Basket(NamedTuple):
    items: int


@dataclass(frozen=True)
class Line:
    start: Point


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (frozenset({"b", "a", "c"}), "{'a', 'b', 'c'}"),
        (MappingProxyType({"k": {2, 1}}), "{'k': {1, 2}}"),
        (Point(1, frozenset({"b", "a"})), "Point(x=1, y={'a', 'b'})"),
        ((Colour.RED,), "(Colour.RED,)"),
        ([(), "x"], "[(), 'x']"),
        (Pair("x", {Colour.RED}), "Pair(left='x', right={Colour.RED})"),
        (Line(Point(1, 2)), "Line(start=Point(x=1, y=2))"),
        ((Token("s"),), "(<token>,)"),
        (Basket(1), "Basket(items=1)"),
    ],
)
def test_values_are_shown_in_an_order_that_is_always_the_same(value: Any, text: str) -> None:
    assert shown(value) == text


def test_addresses_are_left_out() -> None:
    assert shown([object()]) == "[<object object>]"


def test_long_text_loses_its_middle() -> None:
    assert shortened("abcdefghij", 9) == "abc … hij"
    assert shortened("abcdefghij", 10) == "abcdefghij"


def test_a_field_that_is_a_mapping_is_taken_apart() -> None:
    class One(Model[int, str]):
        def fields(self, state: int) -> dict[str, Any]:
            return {"a": {"b": {"c": state}, "d": "up"}, "empty": {}, "numbers": {1: 2}}

    assert named_fields(One(), 1) == {"a.b.c": "1", "a.d": "up", "empty": "{}", "numbers": "{1: 2}"}


def test_changes_are_what_differs_with_what_comes_and_goes() -> None:
    assert changes({"a": 1, "b": "up", "c": 3}, {"b": "down", "c": 3, "d": ""}) == [
        Change("a", "1", "(none)"),
        Change("b", "up", "down"),
        Change("d", "(none)", "''"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ({"k": {"l": 1, "m": 2}}, {"k": {"l": 1, "m": 3}}, Change("a.k.m", "2", "3")),
        ({1: "x"}, {1: "x", 2: "y"}, Change("a[2]", "(none)", "y")),
        (FrozenMap[str, int]().with_item("k", 1), FrozenMap[str, int]().with_item("k", 2), Change("a.k", "1", "2")),
        ((Point(1, 2), 3), (Point(1, 4), 3), Change("a[0].y", "2", "4")),
        ((("x", 1), ("y", 2)), (("y", 2), ("x", 1)), Change("a", "(('x', 1), ('y', 2))", "(('y', 2), ('x', 1))")),
        ((1,), (1, 2), Change("a", "(1,)", "(1, 2)")),
        (Pair("x", Colour.RED), Pair("x", Colour.BLUE), Change("a.right", "Colour.RED", "Colour.BLUE")),
        (Line(Point(1, 2)), Line(Point(1, 3)), Change("a.start.y", "2", "3")),
        (Basket(1), Basket(2), Change("a.items", "1", "2")),
        (Point(1, 2), Pair("1", 2), Change("a", "Point(x=1, y=2)", "Pair(left='1', right=2)")),
        (frozenset({1}), frozenset({1, 2}), Change("a", "{1}", "{1, 2}")),
    ],
)
def test_a_change_is_told_as_deep_inside_as_it_is(old: Any, new: Any, change: Change) -> None:
    assert changes({"a": old, "b": old}, {"a": new, "b": old}) == [change]


def test_what_reads_the_same_is_no_change() -> None:
    assert changes({"a": object()}, {"a": object()}) == []


def test_long_values_are_cut_to_where_they_differ() -> None:
    [(_, old, new)] = changes({"a": "x" * 500 + "1" + "y" * 500}, {"a": "x" * 500 + "22" + "y" * 500})
    assert old == "… " + "x" * 24 + "1" + "y" * 24 + " …"
    assert new == "… " + "x" * 24 + "22" + "y" * 24 + " …"


@pytest.mark.parametrize(
    ("text", "name"), [("P2: Stop ends it!", "p2_stop_ends_it"), ("日本", "unnamed"), ("a" * 99, "a" * 60)]
)
def test_a_slug_is_a_name(text: str, name: str) -> None:
    assert slug(text) == name
