"""What is frozen refuses to be changed, and a changed copy leaves the first as it was."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from machines.frozen import FrozenDict, FrozenMap, frozen


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 2),
        lambda d: d.__delitem__("a"),
        lambda d: d.clear(),
        lambda d: d.pop("a"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("b", 1),
        lambda d: d.update(b=1),
        lambda d: d.__ior__({"b": 1}),
    ],
)
def test_every_way_to_change_a_frozen_dict_is_refused(change: Callable[[Any], object]) -> None:
    value = FrozenDict(a=1)
    with pytest.raises(TypeError, match="frozen snapshot; copy it"):
        change(value)
    assert value == {"a": 1}


def test_every_changing_method_of_dict_is_overridden() -> None:
    reading = {"copy", "fromkeys", "get", "items", "keys", "values"}
    public = {name for name in vars(dict) if not name.startswith("_")}
    assert public - reading == {name for name in vars(FrozenDict) if not name.startswith("_")}


def test_a_frozen_dict_is_a_dict_for_json_pickle_copy_and_equality() -> None:
    value = FrozenDict(a=1, b="x")
    assert json.loads(json.dumps(value)) == {"a": 1, "b": "x"} == value
    for again in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert again == value
        assert type(again) is FrozenDict
    assert hash(value) == hash(FrozenDict(b="x", a=1))


def test_a_plain_copy_of_a_frozen_dict_can_be_changed() -> None:
    plain = dict(FrozenDict(a=1))
    plain["a"] = 2
    assert plain == {"a": 2}


def test_frozen_is_deep_and_apart_from_what_it_was_made_of() -> None:
    source = {"list": [1, {"x": [2]}], 3: "number"}
    value = frozen(source)
    source["list"].append(4)  # type: ignore[attr-defined]
    assert value == {"list": (1, {"x": (2,)}), "3": "number"}
    assert type(value["list"][1]) is FrozenDict
    hash(value)


KEYS = st.integers(0, 200) | st.text(max_size=3)


class FrozenMapAgainstDict(RuleBasedStateMachine):
    """The same changes to a `FrozenMap` and a dict; every version ever made stays what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.map: FrozenMap[int | str, int] = FrozenMap()
        self.dict: dict[int | str, int] = {}
        self.versions: list[tuple[FrozenMap[int | str, int], dict[int | str, int]]] = []

    @rule(key=KEYS, value=st.integers())
    def put(self, key: int | str, value: int) -> None:
        self.versions.append((self.map, dict(self.dict)))
        self.map = self.map.with_item(key, value)
        self.dict[key] = value

    @rule(key=KEYS)
    def remove(self, key: int | str) -> None:
        self.versions.append((self.map, dict(self.dict)))
        self.map = self.map.without(key)
        self.dict.pop(key, None)

    @rule(key=KEYS)
    def look(self, key: int | str) -> None:
        assert self.map.get(key) == self.dict.get(key)
        assert (key in self.map) == (key in self.dict)

    @invariant()
    def same(self) -> None:
        assert dict(self.map.items()) == self.dict
        assert len(self.map) == len(self.dict)

    def teardown(self) -> None:
        for version, content in self.versions:
            assert dict(version.items()) == content
            assert len(version) == len(content)


TestFrozenMapAgainstDict = FrozenMapAgainstDict.TestCase


@given(st.dictionaries(st.integers(), st.integers(), max_size=200), st.randoms(use_true_random=False))
def test_maps_are_equal_and_hash_alike_whatever_the_order_of_their_making(content: dict[int, int], chance: Any) -> None:
    maps = []
    for _ in range(2):
        items = list(content.items())
        chance.shuffle(items)
        made: FrozenMap[int, int] = FrozenMap()
        for key, value in items:
            made = made.with_item(key, value)
        maps.append(made)
    assert maps[0] == maps[1]
    assert hash(maps[0]) == hash(maps[1])
    assert maps[0] != maps[0].with_item(2**70, 1)


def test_removing_what_is_not_there_gives_the_same_map() -> None:
    empty: FrozenMap[str, int] = FrozenMap()
    assert empty.without("x") is empty
    assert empty.get("x") is None


def test_a_map_is_not_a_dict() -> None:
    empty: FrozenMap[str, int] = FrozenMap()
    assert empty != {}
    assert repr(empty.with_item("a", 1)) == "FrozenMap({'a': 1})"
