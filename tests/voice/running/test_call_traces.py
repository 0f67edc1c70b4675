"""OpenTelemetry: one trace for each call, with its states, found by its audit trace."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceService, VoiceSession
from agentos.core.communication.voice.running.call_traces import CallTraces, trace_id_of
from agentos.core.communication.voice.settings import VoiceSettings
from machines.events import VoiceEvent, VoiceEventType
from machines.session import EndReason, SessionResult, VoiceSessionState

MakeSettings = Callable[..., VoiceSettings]


class Traced:
    """A provider of the host's, and what it was given."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.mark.anyio
async def test_a_call_is_one_trace_with_a_span_for_each_state_and_none_for_a_frame(make_settings: MakeSettings) -> None:
    traced = Traced()
    async with AsyncVoiceService(make_settings(), tracer_provider=traced.provider) as service:
        session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.GOOGLE)
        for _ in range(100):
            await service.dispatch_audio_chunk(session.session_id, bytes(640))
        await anyio.lowlevel.checkpoint()
        assert traced.spans == [], "nothing is made while the call runs"
        await service.stop_session(session.session_id)
        stopped = await service.get_session(session.session_id)

    assert sorted(span.name for span in traced.spans) == [
        "voice.active",
        "voice.call",
        "voice.created",
        "voice.stopping",
    ]
    call = traced.named("voice.call")
    assert {span.context.trace_id for span in traced.spans} == {trace_id_of(session.audit_trace_id)}
    assert all(span.parent.span_id == call.context.span_id for span in traced.spans if span is not call)
    assert call.attributes is not None
    assert call.attributes["voice.session_id"] == session.session_id
    assert call.attributes["voice.frames.accepted"] == 100
    assert call.attributes["voice.end_reason"] == "stopped"
    assert call.status.status_code is StatusCode.UNSET
    assert stopped is not None
    order = [traced.named(f"voice.{state}") for state in ("created", "active", "stopping")]
    assert all(before.end_time == after.start_time for before, after in pairwise(order))
    assert call.end_time == order[-1].end_time


def test_the_blocking_service_traces_too(make_settings: MakeSettings) -> None:
    traced = Traced()
    with VoiceService(make_settings(), tracer_provider=traced.provider) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.GOOGLE)
        service.stop_session(session.session_id)
    assert sorted(span.name for span in traced.spans) == ["voice.call", "voice.created", "voice.stopping"]


def snapshot(session: VoiceSession, reason: EndReason) -> VoiceSession:
    return session.model_copy(update={"state": VoiceSessionState.STOPPED, "result": SessionResult(reason)})


def event(session: VoiceSession, number: int, kind: VoiceEventType, **payload: Any) -> VoiceEvent:
    return VoiceEvent(
        event_id=f"evt-{number}",
        session_id=session.session_id,
        event_type=kind,
        payload=payload,
        timestamp_ms=1_700_000_000_000 + number,
        number=number,
    )


def test_what_happened_stands_in_its_state_and_what_was_said_does_not(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.GOOGLE)
        service.stop_session(session.session_id)
    traced = Traced()
    CallTraces(traced.provider).ended(
        snapshot(session, EndReason.FAILED),
        [
            event(session, 1, VoiceEventType.SESSION_STARTED, state="created"),
            event(session, 2, VoiceEventType.STATE_CHANGED, state="active"),
            event(session, 3, VoiceEventType.STT_FINAL, text="my secret", start_ms=0, end_ms=20, words=()),
            event(session, 4, VoiceEventType.STATE_CHANGED, state="stopping"),
            event(session, 5, VoiceEventType.ERROR, problem="worker_died"),
            event(session, 6, VoiceEventType.SESSION_STOPPED, reason="failed"),
        ],
    )
    (heard,) = traced.named("voice.active").events
    assert (heard.name, dict(heard.attributes or {})) == ("stt_final", {"start_ms": 0, "end_ms": 20})
    (failed,) = traced.named("voice.stopping").events
    assert failed.name == "error"
    assert traced.named("voice.call").status.status_code is StatusCode.ERROR
    assert "my secret" not in "".join(span.to_json() for span in traced.spans)


def test_a_session_of_which_no_event_is_known_is_a_trace_without_states(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.GOOGLE)
        service.stop_session(session.session_id)
    traced = Traced()
    CallTraces(traced.provider).ended(session, [])
    assert [span.name for span in traced.spans] == ["voice.call"]
