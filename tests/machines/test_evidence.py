"""A record has one text, a chain one order, and any change of either is found at its place."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.communication import ConnectorType
from machines.evidence import ChainRow, EvidenceRecord, canonical_json, link
from machines.heads import GENESIS
from machines.verification import verify

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.loads(json.dumps(value)))
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


def record(number: int, **metadata: Any) -> EvidenceRecord:
    return EvidenceRecord(
        id=f"ev-{number}",
        request_id=f"voice-{number % 2}",
        connector_type=ConnectorType.CUSTOM,
        operation="test",
        metadata={"audit_trace_id": "audit-1", "risk_tier": "low", **metadata},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def chain(records: list[EvidenceRecord]) -> list[ChainRow]:
    rows: list[ChainRow] = []
    previous = GENESIS
    for seq, entry in enumerate(records, 1):
        text = canonical_json(entry)
        rows.append(ChainRow(seq, entry.id, entry.request_id, text, previous, link(previous, text)))
        previous = rows[-1].hash
    return rows


def relinked(rows: list[ChainRow]) -> list[ChainRow]:
    """What a forger with all the hashes at hand would write: the same texts, numbered and chained anew."""
    previous, forged = GENESIS, []
    for seq, row in enumerate(rows, 1):
        forged.append(row._replace(seq=seq, previous=previous, hash=link(previous, row.record)))
        previous = forged[-1].hash
    return forged


def test_canonical_json_is_sorted_dense_utf8() -> None:
    assert canonical_json({"b": [1, {"z": None, "a": "ä"}], "a": 1.5}) == '{"a":1.5,"b":[1,{"a":"ä","z":null}]}'


@given(OBJECTS)
def test_canonical_json_is_one_text_whatever_the_order_of_keys(value: dict[str, Any]) -> None:
    text = canonical_json(value)
    assert canonical_json(dict(reversed(value.items()))) == text
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_cannot_count_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": number})


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"x": b"bytes"})


def test_a_record_survives_its_text() -> None:
    entry = record(1, deep={"list": [1, 2.5, None, "ü"]})
    assert EvidenceRecord.model_validate_json(canonical_json(entry)) == entry


def test_the_link_is_the_documented_formula() -> None:
    assert link(GENESIS, "{}") == hashlib.sha256(b"0" * 64 + b"\n{}").hexdigest()


def test_an_empty_chain_holds() -> None:
    result = verify([])
    assert result.ok
    assert (result.records, result.head, result.fault, result.at_seq) == (0, GENESIS, None, None)


def test_an_intact_chain_holds_and_tells_its_head() -> None:
    rows = chain([record(number) for number in range(5)])
    result = verify(iter(rows))
    assert result.ok
    assert (result.records, result.head) == (5, rows[-1].hash)


@given(st.integers(1, 8), st.data())
def test_any_changed_character_of_any_text_is_found_at_its_record(length: int, data: st.DataObject) -> None:
    rows = chain([record(number) for number in range(length)])
    at = data.draw(st.integers(0, length - 1))
    place = data.draw(st.integers(0, len(rows[at].record) - 1))
    other = data.draw(st.characters(exclude_characters=rows[at].record[place], exclude_categories=["Cs"]))
    rows[at] = rows[at]._replace(record=rows[at].record[:place] + other + rows[at].record[place + 1 :])
    result = verify(rows)
    assert result.at_seq == at + 1
    assert result.records == at
    assert "hash" in (result.fault or "")


@given(st.integers(2, 8), st.data())
def test_a_removed_record_is_found_unless_it_was_the_last(length: int, data: st.DataObject) -> None:
    rows = chain([record(number) for number in range(length)])
    at = data.draw(st.integers(0, length - 2))
    result = verify(rows[:at] + rows[at + 1 :])
    assert result.records == at
    assert f"record {at + 1} is missing" in (result.fault or "")


@given(st.integers(2, 8), st.data())
def test_a_removed_record_is_found_even_when_the_rest_is_renumbered(length: int, data: st.DataObject) -> None:
    rows = chain([record(number) for number in range(length)])
    at = data.draw(st.integers(0, length - 2))
    renumbered = [row._replace(seq=seq) for seq, row in enumerate(rows[:at] + rows[at + 1 :], 1)]
    result = verify(renumbered)
    assert result.at_seq == at + 1
    assert "link" in (result.fault or "")


@given(st.integers(2, 8), st.data())
def test_two_swapped_records_are_found_at_the_first_of_them(length: int, data: st.DataObject) -> None:
    rows = chain([record(number) for number in range(length)])
    first, second = sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=2, max_size=2)))
    swapped = list(rows)
    swapped[first], swapped[second] = rows[second]._replace(seq=first + 1), rows[first]._replace(seq=second + 1)
    assert verify(swapped).at_seq == first + 1


@given(st.integers(1, 8), st.data())
def test_an_inserted_record_is_found(length: int, data: st.DataObject) -> None:
    rows = chain([record(number) for number in range(length)])
    at = data.draw(st.integers(0, length - 1))
    text = canonical_json(record(99))
    previous = rows[at - 1].hash if at else GENESIS
    forged = ChainRow(at + 1, "ev-99", "voice-1", text, previous, link(previous, text))
    moved = [row._replace(seq=row.seq + 1) for row in rows[at:]]
    result = verify([*rows[:at], forged, *moved])
    assert result.at_seq == at + 2
    assert "link" in (result.fault or "")


@pytest.mark.parametrize("column", ["id", "request_id"])
def test_a_column_that_differs_from_the_text_is_found(column: str) -> None:
    rows = chain([record(number) for number in range(3)])
    rows[1] = ChainRow(**{**rows[1]._asdict(), column: "other"})
    result = verify(rows)
    assert (result.at_seq, result.fault) == (2, "its columns are not those of its text")


@pytest.mark.parametrize("column", ["previous", "hash"])
def test_a_changed_hash_is_found(column: str) -> None:
    rows = chain([record(number) for number in range(3)])
    rows[1] = ChainRow(**{**rows[1]._asdict(), column: "f" * 64})
    assert verify(rows).at_seq == 2


def test_the_same_id_twice_is_found_though_every_link_holds() -> None:
    result = verify(chain([record(1), record(2), record(1)]))
    assert result.at_seq == 3
    assert "ev-1 is there twice" in (result.fault or "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"request_id": "voice-1", "id": "ev-1"}', "not canonical"),
        ('{"request_id":"voice-1","id":"ev-1"}', "not canonical"),
        ('{"id":"ev-1"', "not JSON"),
        ('{"id":"ev-1","request_id":"voice-1","x":NaN}', "not JSON"),
    ],
)
def test_a_text_that_is_not_the_canonical_one_is_found_though_its_hash_fits(text: str, complaint: str) -> None:
    rows = relinked([ChainRow(1, "ev-1", "voice-1", text, "", "")])
    result = verify(rows)
    assert result.at_seq == 1
    assert complaint in (result.fault or "")


@pytest.mark.parametrize(
    "text",
    ["[]", '"ev-1"', "1", "null", "[" * 200_000, "\ud800"],
    ids=["list", "text", "number", "null", "deep", "surrogate"],
)
def test_a_text_that_is_no_record_at_all_is_a_fault_and_no_crash(text: str) -> None:
    digest = hashlib.sha256(f"{GENESIS}\n{text}".encode(errors="surrogatepass")).hexdigest()
    result = verify([ChainRow(1, "ev-1", "voice-1", text, GENESIS, digest)])
    assert (result.ok, result.records, result.at_seq) == (False, 0, 1)


def test_a_forger_who_rewrites_the_whole_rest_is_found_by_a_head_noted_elsewhere() -> None:
    rows = chain([record(number) for number in range(4)])
    noted = verify(rows).head
    forged = relinked(rows[:2])
    assert verify(forged).ok
    assert verify(forged).head != noted


def test_a_record_of_an_unknown_field_or_kind_is_refused() -> None:
    good = record(1).model_dump()
    for change in ({"extra": 1}, {"connector_type": "voice"}, {"created_at": "yesterday"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            EvidenceRecord(**{**good, **change})
