"""Who noted a head sees that the tail was cut, that all was removed, and that the chain was made anew behind an edit."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.communication import ConnectorType
from machines.evidence import ChainRow, EvidenceRecord, canonical_json, link
from machines.heads import GENESIS, Head, HeadState, read_head, read_heads
from machines.verification import Beside, examine, verify


def chain(operations: list[str]) -> list[ChainRow]:
    rows: list[ChainRow] = []
    previous = GENESIS
    for seq, operation in enumerate(operations, 1):
        record = EvidenceRecord(
            id=f"ev-{seq}",
            request_id="voice-1",
            connector_type=ConnectorType.CUSTOM,
            operation=operation,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        text = canonical_json(record)
        rows.append(ChainRow(seq, record.id, record.request_id, text, previous, link(previous, text)))
        previous = rows[-1].hash
    return rows


def head(rows: list[ChainRow]) -> Head:
    return Head(rows[-1].seq, rows[-1].hash) if rows else Head()


def states(rows: list[ChainRow], *heads: Head) -> list[HeadState]:
    return [check.state for check in examine(rows, Beside(), heads).heads]


@given(st.lists(st.sampled_from("abc"), max_size=6), st.data())
def test_a_chain_goes_on_from_every_head_that_it_had(operations: list[str], data: st.DataObject) -> None:
    rows = chain(operations)
    noted = [head(rows[:at]) for at in range(len(rows) + 1)]
    assert states(rows, *data.draw(st.permutations(noted))) == [HeadState.HOLDS] * len(noted)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.data())
def test_a_tail_that_was_cut_is_seen_though_every_link_holds(operations: list[str], data: st.DataObject) -> None:
    rows = chain(operations)
    left = rows[: data.draw(st.integers(0, len(rows) - 1))]
    assert verify(left).ok
    assert states(left, head(rows)) == [HeadState.CUT]


def test_all_removed_and_a_new_chain_begun_is_seen() -> None:
    rows = chain(["a", "b", "c"])
    assert states([], head(rows)) == [HeadState.CUT]
    assert states(chain(["x"]), head(rows)) == [HeadState.CUT]
    assert states(chain(["x"] * 5), head(rows), head(rows[:1])) == [HeadState.DIFFERS, HeadState.DIFFERS]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.data())
def test_an_edit_with_the_chain_made_anew_behind_it_is_seen_by_every_head_from_there_on(
    operations: list[str], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(operations) - 1))
    edited = [*operations[:at], "edited", *operations[at + 1 :]]
    rows, forged = chain(operations), chain(edited)
    assert verify(forged).ok
    noted = [head(rows[:place]) for place in range(len(rows) + 1)]
    expected = [HeadState.HOLDS if place <= at else HeadState.DIFFERS for place in range(len(rows) + 1)]
    assert states(forged, *noted) == expected


def test_a_forged_record_at_the_end_is_seen_by_who_noted_the_head_that_came_there() -> None:
    honest, forged = chain(["a", "b", "c"]), [*chain(["a", "b"]), *chain(["a", "b", "forged"])[2:]]
    assert verify(forged).ok
    assert states(forged, head(honest), head(honest[:2])) == [HeadState.DIFFERS, HeadState.HOLDS]


def test_behind_a_break_nothing_is_said_of_a_head() -> None:
    rows = chain(["a", "b", "c"])
    broken = [rows[0], rows[1]._replace(hash="f" * 64), rows[2]]
    assert states(broken, head(rows[:1]), head(rows)) == [HeadState.HOLDS, HeadState.NOT_REACHED]


def test_a_head_is_written_and_read() -> None:
    assert Head().text == f"0:{GENESIS}"
    assert read_head(Head(7, "ab" * 32).text) == Head(7, "ab" * 32)
    assert read_head(Head().text) == Head()


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "7", f"7:{'A' * 64}", f"7:{'a' * 63}", f"-1:{'a' * 64}", f" 7:{'a' * 64}", f"7:{'a' * 64}\n"),
        *(f"0:{'a' * 64}", f"7:{GENESIS}", f"{2**63}:{'a' * 64}", f"7:{'a' * 64}:"),
    ],
)
def test_anything_else_is_no_head(text: str) -> None:
    with pytest.raises(ValueError, match="PLACE:HASH"):
        read_head(text)


def test_lines_that_are_no_heads_are_given_back() -> None:
    good = Head(7, "ab" * 32)
    assert list(read_heads(["# noted in 2026\n", "\n", f"{good.text}\r\n", "7:ab\n"])) == [good, "7:ab"]


def test_each_state_says_what_it_means() -> None:
    assert all(state.meaning for state in HeadState)
