"""The fields of events and results: all that the code has, and in the documents with their meaning."""

import re
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from pathlib import Path

import msgspec
import pytest

from machines.events import VoiceEvent, VoiceEventType
from machines.payloads import (
    END_REASONS,
    ERRORS,
    EVENTS,
    FRAMES,
    OF_A_PART,
    QUALITY,
    RECORDING,
    RESULT,
    Field,
    Payload,
)
from machines.recording import RecordingInfo
from machines.session import EndReason, FrameAccount, Quality, SessionResult

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()


def rows(fields: tuple[Field, ...]) -> str:
    return "".join(f"| `{field.name}` | {field.kind} | {field.meaning} |\n" for field in fields)


def test_every_type_and_every_reason_for_an_end_has_its_definition() -> None:
    assert set(EVENTS) == set(VoiceEventType)
    assert set(END_REASONS) == set(EndReason)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.value)
def test_the_page_has_each_type_with_its_fields_and_no_others(kind: VoiceEventType) -> None:
    text = re.search(rf"^### `{kind.value}`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert text is not None
    assert f"\nTold {EVENTS[kind].when}.\n" in text[1]
    assert text[1].endswith(rows(EVENTS[kind].fields) + "\n")
    assert text[1].count("\n| `") == len(EVENTS[kind].fields)


@pytest.mark.parametrize(
    ("part", "payload"),
    [
        *((f"`{part}`", payload) for part, payloads in ERRORS.items() for payload in payloads),
        *(("another name", payload) for payload in OF_A_PART),
    ],
)
def test_the_page_has_each_error_with_its_fields(part: str, payload: Payload) -> None:
    fields = "; ".join(f"`{field.name}`: {field.meaning}" for field in payload.fields)
    assert f"| {part} | {payload.when} | {fields} |\n" in PAGE


def test_the_page_has_each_reason_for_an_end() -> None:
    for reason, meaning in END_REASONS.items():
        assert f"| `{reason.value}` | {meaning} |\n" in PAGE


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(SessionResult, RESULT), (FrameAccount, FRAMES), (RecordingInfo, RECORDING), (Quality, QUALITY)],
)
def test_the_fields_of_a_result_are_those_of_the_code_and_on_the_page(kind: type, fields: tuple[Field, ...]) -> None:
    has = dataclass_fields(kind) if is_dataclass(kind) else msgspec.structs.fields(kind)
    assert [field.name for field in fields] == [field.name for field in has]
    assert rows(fields) in PAGE


def test_the_page_has_what_every_event_has() -> None:
    for name in VoiceEvent.model_fields:
        assert f"| `{name}` | " in PAGE
