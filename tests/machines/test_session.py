"""CREATED -> ACTIVE -> STOPPING -> STOPPED, and nothing else."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.frozen import FrozenDict
from machines.lifecycle import IllegalMove
from machines.session import (
    END_TRIGGER,
    SESSION,
    EndReason,
    FrameAccount,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
)
from machines.session import VoiceSessionState as State

LEGAL = {
    (State.CREATED, "audio"): State.ACTIVE,
    (State.CREATED, "stop"): State.STOPPING,
    (State.CREATED, "fail"): State.STOPPING,
    (State.CREATED, "idle"): State.STOPPING,
    (State.CREATED, "silence"): State.STOPPING,
    (State.CREATED, "overrun"): State.STOPPING,
    (State.CREATED, "recover"): State.STOPPING,
    (State.CREATED, "resume"): State.ACTIVE,
    (State.ACTIVE, "stop"): State.STOPPING,
    (State.ACTIVE, "fail"): State.STOPPING,
    (State.ACTIVE, "idle"): State.STOPPING,
    (State.ACTIVE, "silence"): State.STOPPING,
    (State.ACTIVE, "overrun"): State.STOPPING,
    (State.ACTIVE, "recover"): State.STOPPING,
    (State.ACTIVE, "resume"): State.ACTIVE,
    (State.STOPPING, "drained"): State.STOPPED,
    (State.STOPPING, "drain_expired"): State.STOPPED,
}
TRIGGERS = ("audio", "stop", "fail", "idle", "silence", "overrun", "recover", "resume", "drained", "drain_expired")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def session(**changes: Any) -> VoiceSession:
    fields: dict[str, Any] = {
        "session_id": "voice-1",
        "project_id": "p",
        "provider": VoiceProvider.LOCAL,
        "stt_provider": STTProvider.WHISPER,
        "state": State.CREATED,
        "created_at": NOW,
        "last_activity_at": NOW,
        "risk_tier": RiskLevel.LOW,
        "policy_verdict": PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
        "audit_trace_id": "audit-1",
    }
    return VoiceSession(**{**fields, **changes})


def test_the_triggers_are_all_known_here() -> None:
    assert {move.trigger for move in SESSION.moves} == set(TRIGGERS)
    assert SESSION.initial is State.CREATED
    assert SESSION.final == {State.STOPPED}


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, TRIGGERS)))
def test_each_trigger_in_each_state_moves_as_listed_or_is_refused(state: State, trigger: str) -> None:
    if (state, trigger) in LEGAL:
        assert SESSION.fire(state, trigger) is LEGAL[state, trigger]
        return
    with pytest.raises(IllegalMove) as refusal:
        SESSION.fire(state, trigger)
    assert (refusal.value.state, refusal.value.trigger) == (state.value, trigger)


@pytest.mark.parametrize("state", [State.CREATED, State.ACTIVE])
@pytest.mark.parametrize("reason", EndReason)
def test_every_reason_to_end_is_a_legal_move_to_stopping(state: State, reason: EndReason) -> None:
    assert SESSION.fire(state, END_TRIGGER[reason]) is State.STOPPING


def test_stopping_and_only_stopping_has_a_deadline_and_it_ends_the_session() -> None:
    assert dict(SESSION.deadlines) == {State.STOPPING: "drain_expired"}
    assert SESSION.fire(State.STOPPING, SESSION.deadlines[State.STOPPING]) is State.STOPPED


def test_stopped_is_final() -> None:
    assert SESSION.legal(State.STOPPED) == ()


def test_a_session_is_a_frozen_snapshot_down_to_its_metadata() -> None:
    metadata = {"user": {"tags": ["a"]}}
    snapshot = session(metadata=metadata)
    metadata["user"]["tags"].append("b")
    assert snapshot.metadata == {"user": {"tags": ("a",)}}
    with pytest.raises(ValidationError, match="frozen"):
        snapshot.state = State.ACTIVE
    with pytest.raises(TypeError, match="frozen snapshot"):
        snapshot.metadata["user"] = {}
    with pytest.raises(TypeError, match="frozen snapshot"):
        snapshot.metadata["user"].clear()


def test_a_session_survives_json() -> None:
    result = SessionResult(
        reason=EndReason.STOPPED, frames=FrameAccount(accepted=3, dropped=FrozenDict(late=1)), stopped_at=NOW
    )
    snapshot = session(metadata={"deep": [{"x": 1}]}, state=State.STOPPED, result=result)
    again = VoiceSession.model_validate_json(snapshot.model_dump_json())
    assert again == snapshot
    assert json.loads(snapshot.model_dump_json())["stt_provider"] == "whisper_local"


@pytest.mark.parametrize(
    ("field", "value"), [("state", "paused"), ("provider", 7), ("risk_tier", "none"), ("extra", 1)]
)
def test_a_session_of_wrong_values_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        session(**{field: value})


def test_a_name_is_the_member_that_has_it_and_any_other_can_still_be_read() -> None:
    for provider, engine in (("local", "google"), (VoiceProvider.LOCAL, STTProvider.GOOGLE)):
        known = session(provider=provider, stt_provider=engine)
        assert (known.provider, known.stt_provider) == (VoiceProvider.LOCAL, STTProvider.GOOGLE)
        assert isinstance(known.provider, VoiceProvider)
        assert isinstance(known.stt_provider, STTProvider)
    gone = VoiceSession.model_validate_json(session(provider="sip", stt_provider="scribe").model_dump_json())
    assert (gone.provider, gone.stt_provider) == ("sip", "scribe")


def test_string_enums_have_the_values_of_the_specification() -> None:
    assert [provider.value for provider in VoiceProvider] == ["local", "twilio"]
    assert [stt.value for stt in STTProvider] == ["whisper_local", "google", "azure", "aws", "pocketsphinx"]
    assert [state.value for state in State] == ["created", "active", "stopping", "stopped"]


def test_a_result_of_a_version_that_noted_neither_mismatches_nor_further_parts_is_read() -> None:
    dumped = SessionResult(reason=EndReason.STOPPED).model_dump(mode="json")
    assert dumped.pop("mismatches") == []
    assert dumped.pop("parts") == {}
    read = TypeAdapter(SessionResult).validate_python(dumped)
    assert read == SessionResult(reason=EndReason.STOPPED)
