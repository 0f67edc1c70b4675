"""No personal content stands in a record, only its hash with a salt; what stands beside the chain is what was sealed."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.evidence import canonical_json
from machines.sealing import PARTS, SALT_BYTES, SHAPES, Content, commitment, fault_of, seal, seals, split, unsealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["metadata", "transcript", "error", "hint", "reason", "state", "sealed", "result", "project_id", "client", "caller"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MEMBERS = st.dictionaries(NAMES, JSON, max_size=5)
RECORDS = st.fixed_dictionaries(
    {
        "id": st.just("ev-a-1"),
        "request_id": st.just("voice-1"),
        "operation": st.sampled_from([*SHAPES, "of a host"]),
        "request_summary": MEMBERS,
        "response_summary": st.none() | MEMBERS,
        "metadata": MEMBERS,
    }
)


def salts(n: int) -> list[bytes]:
    return [bytes([at]) * SALT_BYTES for at in range(n)]


def sealed(record: dict[str, Any]) -> tuple[dict[str, Any], list[Content]]:
    plain, apart = split(record)
    values = {part: canonical_json(members) for part, members in apart.items()}
    return plain, seal(plain, values, salts(len(values)))


def call(operation: str = "session_stopped") -> dict[str, Any]:
    return {
        "id": "ev-a-final",
        "request_id": "voice-1",
        "operation": operation,
        "request_summary": {"session_id": "voice-1", "project_id": "shop", "metadata": {"caller": "Ada", "+43 660": 1}},
        "response_summary": {
            "state": "stopped",
            "error": "ValueError: Ada is not known",
            "hint": "Ada may not",
            "reason": "stopped",
            "result": {"transcript": "my name is Ada", "drained": True, "frames": {"accepted": 3}, "recording": None},
        },
        "metadata": {"audit_trace_id": "audit-1", "risk_tier": "low", "number": 4, "verdict": "FINE"},
    }


def test_neither_metadata_nor_words_nor_texts_of_errors_stand_in_the_record_of_a_call() -> None:
    plain, contents = sealed(call())
    text = canonical_json(plain)
    assert "Ada" not in text
    assert "660" not in text
    assert [content.part for content in contents] == ["request_summary", "response_summary.result", "response_summary"]
    assert plain["response_summary"]["result"] == {
        "drained": True,
        "frames": {"accepted": 3},
        "recording": None,
        "sealed": commitment(contents[1].salt, '{"transcript":"my name is Ada"}'),
    }
    assert plain["metadata"] == call()["metadata"]


def test_the_seal_is_the_documented_formula() -> None:
    assert commitment(b"s" * 32, '{"a":"ä"}') == hashlib.sha256(b"s" * 32 + '{"a":"ä"}'.encode()).hexdigest()


def test_what_a_host_logs_by_itself_is_sealed_with_its_keys_all_but_trace_and_tier() -> None:
    record = {
        "id": "ev-1",
        "request_id": "mail-1",
        "operation": "fetch",
        "request_summary": {"session_id": "Ada", "state": "Ada"},
        "response_summary": {"Ada": 1},
        "metadata": {"audit_trace_id": "audit-1", "risk_tier": "low", "Ada": "Ada", "number": 43},
    }
    plain, _ = sealed(record)
    assert "Ada" not in canonical_json(plain)
    assert plain["metadata"].keys() == {"audit_trace_id", "risk_tier", "sealed"}


@pytest.mark.parametrize("operation", ["access_refused", "access_refusals"])
def test_addresses_and_what_was_sent_are_sealed_at_the_door(operation: str) -> None:
    asked = {
        "client": "192.0.2.7",
        "clients": {"192.0.2.7": 3},
        "detail": "ada.example",
        "session_id": "Ada",
        "route": "/Ada",
    }
    record = {"operation": operation, "request_summary": {"reason": "token", "who": "tok-1", **asked}, "metadata": {}}
    plain, _ = sealed(record)
    assert plain["request_summary"].keys() == {"reason", "who", "sealed"}


@pytest.mark.parametrize("name", ["reason", "refused"])
def test_a_reason_that_is_no_code_is_sealed(name: str) -> None:
    record = call()
    record["response_summary"] = {name: "Ada has no permission"}
    plain, _ = sealed(record)
    assert plain["response_summary"].keys() == {"sealed"}


def test_what_is_empty_needs_no_seal() -> None:
    record = call()
    record["request_summary"]["metadata"] = {}
    record["response_summary"] = {"state": "stopped", "error": "", "result": {"transcript": ""}}
    assert sealed(record) == (record, [])


@given(RECORDS)
def test_a_record_is_whole_again_with_its_contents(record: dict[str, Any]) -> None:
    before = canonical_json(record)
    plain, contents = sealed(record)
    assert canonical_json(record) == before
    assert {content.part for content in contents} == seals(plain).keys()
    assert fault_of(plain, contents) is None
    assert canonical_json(unsealed(json.loads(canonical_json(plain)), contents)) == before


@given(RECORDS, st.data())
def test_what_is_erased_is_no_fault_and_the_rest_is_whole(record: dict[str, Any], data: st.DataObject) -> None:
    plain, contents = sealed(record)
    kept = [content for content in contents if data.draw(st.booleans())]
    assert fault_of(plain, kept) is None
    text = canonical_json(plain)
    left = unsealed(json.loads(text), kept)
    gone = {content.part for content in contents} - {content.part for content in kept}
    assert {part: seals(json.loads(text))[part] for part in gone}.items() <= seals(left).items()


def test_a_value_or_a_salt_that_was_edited_is_found() -> None:
    plain, contents = sealed(call())
    for at, content in enumerate(contents):
        others = [one for place, one in enumerate(contents) if place != at]
        for forged in (
            content._replace(value=content.value.replace("Ada", "Eve")),
            content._replace(salt=content.salt[:-1] + b"x"),
            content._replace(salt=content.salt + content.value[:1].encode(), value=content.value[1:]),
            content._replace(salt=content.salt[:-1], value=content.salt[-1:].decode("latin-1") + content.value),
            content._replace(value=content.value + "\ud800"),
        ):
            assert "is not the one that was sealed" in (fault_of(plain, [*others, forged]) or ""), forged


def test_contents_that_changed_places_are_found() -> None:
    plain, (one, other, _) = sealed(call())
    assert fault_of(plain, [one._replace(part=other.part), other._replace(part=one.part)]) is not None


@pytest.mark.parametrize("part", ["metadata", "response_summary.result.frames", "nowhere", ""])
def test_a_content_where_nothing_is_sealed_is_found(part: str) -> None:
    plain, contents = sealed(call())
    assert "nothing is sealed" in (fault_of(plain, [*contents, Content(part, bytes(32), "{}")]) or "")


def test_parts_are_named_behind_what_they_stand_in() -> None:
    assert list(PARTS) == sorted(PARTS, key=lambda part: (PARTS.index(part.split(".")[0]), len(part)))


def test_audio_that_does_not_fit_its_clock_names_nobody_and_is_not_sealed() -> None:
    said = {"state": "active", "reason": "too_much_audio", "audio_ms": 2_000, "media_ms": 1_000}
    chained, apart = split({"operation": "audio_mismatched", "response_summary": said})
    assert (chained["response_summary"], apart) == (said, {})
