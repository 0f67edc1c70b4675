"""A value is a struct inside and a pydantic field at the border."""

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from machines.frozen import FrozenDict
from machines.recording import RecordingInfo
from machines.session import EndReason, FrameAccount, Quality, SessionResult
from machines.value import Value

RECORDING = RecordingInfo("a.flac", 16_000, 1, 640, 0.04, 1, ((320, 320),))
RESULT = SessionResult(EndReason.STOPPED, frames=FrameAccount(3, dropped=FrozenDict(late=1)), recording=RECORDING)


class Other(Value, frozen=True):
    """As a `Quality` is, but for its name."""

    level_dbfs: float | None = None
    peak_dbfs: float | None = None
    clipped_share: float = 0.0
    silent_share: float = 0.0
    longest_pause_ms: int = 0


class Model(BaseModel):
    """A model of the border with a value in it."""

    result: SessionResult


def test_a_value_can_be_hashed_with_all_that_is_in_it() -> None:
    again = SessionResult(EndReason.STOPPED, frames=FrameAccount(3, dropped=FrozenDict(late=1)), recording=RECORDING)
    assert len({RESULT, again, SessionResult(EndReason.IDLE)}) == 2


def test_a_value_is_never_equal_to_one_of_another_type() -> None:
    other: object = Other()
    assert Quality() != other
    assert Quality() == Quality()


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RESULT.drained = False  # type: ignore[misc]
    with pytest.raises(TypeError, match="frozen snapshot"):
        RESULT.frames.dropped["late"] = 2


def test_a_value_is_dumped_with_the_values_in_it() -> None:
    dumped = RESULT.model_dump(mode="json")
    assert dumped["reason"] == "stopped"
    assert dumped["frames"]["dropped"] == {"late": 1}
    assert dumped["recording"]["gaps"] == [[320, 320]]
    assert RESULT.model_dump()["reason"] is EndReason.STOPPED


def test_a_value_survives_json_in_a_model_and_alone() -> None:
    model = Model(result=RESULT)
    assert model.result is RESULT
    again = Model.model_validate_json(model.model_dump_json())
    assert again == model
    assert hash(again.result) == hash(RESULT)
    assert TypeAdapter(SessionResult).validate_python(RESULT.model_dump()) == RESULT


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reason": "tired"}, "result.reason"),
        ({"more": 1}, "result.more"),
        ({"frames": {"dropped": {"late": "x"}}}, "result.frames.dropped.late"),
        ({"recording": {"path": "a"}}, "result.recording.segments"),
    ],
)
def test_what_is_wrong_in_a_value_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"result": {"reason": "idle", **change}})
    assert field in {".".join(map(str, error["loc"])) for error in caught.value.errors()}


def test_a_value_has_a_json_schema() -> None:
    schema = Model.model_json_schema()["properties"]["result"]
    assert schema["required"] == ["reason"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["frames"]["properties"]["accepted"]["type"] == "integer"
