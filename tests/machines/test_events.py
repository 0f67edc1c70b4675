"""An event is a frozen record of something that happened."""

import pytest
from pydantic import ValidationError

from machines.events import VoiceEvent, VoiceEventType


def event(**changes: object) -> VoiceEvent:
    fields = {"event_id": "evt-1", "session_id": "voice-1", "event_type": "stt_final", "timestamp_ms": 1, **changes}
    return VoiceEvent.model_validate(fields)


def test_an_event_cannot_be_changed_nor_can_its_payload() -> None:
    source = {"words": [{"text": "go"}]}
    told = event(payload=source)
    source["words"].clear()
    assert told.payload == {"words": ({"text": "go"},)}
    with pytest.raises(ValidationError, match="frozen"):
        told.number = 2
    with pytest.raises(TypeError, match="frozen snapshot"):
        told.payload["words"] = ()


def test_an_event_survives_json() -> None:
    told = event(payload={"a": [1, {"b": None}]}, metadata={"x": 1}, number=7)
    assert VoiceEvent.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize(("field", "value"), [("event_type", "gossip"), ("timestamp_ms", "now"), ("extra", 1)])
def test_an_event_of_wrong_values_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        event(**{field: value})


def test_the_kinds_of_the_specification_are_there() -> None:
    kinds = {kind.name for kind in VoiceEventType}
    assert kinds >= {
        "SESSION_STARTED",
        "SESSION_STOPPED",
        "ERROR",
        "AUDIO_RECEIVED",
        "TRANSCRIPT_READY",
        "STT_PARTIAL",
        "STT_FINAL",
    }
