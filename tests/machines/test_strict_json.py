"""JSON that everybody reads in the same way, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.strict_json import AmbiguousJson, read_strictly, write_strictly

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_everybody_reads_in_one_way_is_read_so(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert read_strictly(text) == read_strictly(text.encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 1}', "a name stands twice in one object"),
        ('{"a": 1, "\\u0061": 2}', "a name stands twice in one object"),
        ('[{"deep": {"b": 1, "c": 2, "b": 3}}]', "a name stands twice in one object"),
        (b'{"a": "\xff"}', "it is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "it is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(AmbiguousJson) as raised:
        read_strictly(text)
    assert str(raised.value) == why


@given(JSON.filter(lambda value: "\\ud" not in json.dumps(value)))
def test_what_is_written_reads_the_same(value: object) -> None:
    assert read_strictly(write_strictly(value)) == value


HOLDS_ITSELF: list[object] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


@pytest.mark.parametrize("value", [object(), b"", {1}, float("nan"), [float("inf")], "\ud800", HOLDS_ITSELF])
def test_what_is_no_json_is_not_written(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        write_strictly(value)


@pytest.mark.parametrize("text", ["", "{", "\ufeff1", "1" * 10_000, "[" * 100_000])
def test_what_nobody_reads_is_refused_as_json_does(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)) as raised:
        read_strictly(text)
    assert not isinstance(raised.value, AmbiguousJson)
