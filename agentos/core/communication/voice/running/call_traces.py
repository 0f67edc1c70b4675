"""One OpenTelemetry trace for each call, made when it has ended (extra `otel`).

A trace has one span for the call and one in it for each state that the session was in; what happened in between, errors,
finished utterances and a change of the engine, are events of these. Nothing is done while audio passes, and no span is made
for a frame. The trace's id follows from the session's `audit_trace_id`: from the evidence to the trace, and back.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from machines.events import VoiceEvent, VoiceEventType
from machines.names import text_of
from machines.session import EndReason, VoiceSession, VoiceSessionState

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

NAME: Final = "agentos-voice"
MOVES: Final = {
    VoiceEventType.SESSION_STARTED: VoiceSessionState.CREATED,
    VoiceEventType.SESSION_STOPPED: VoiceSessionState.STOPPED,
}
TOLD: Final = frozenset({VoiceEventType.ERROR, VoiceEventType.STT_FINAL, VoiceEventType.STT_FALLBACK})
WORDS: Final = frozenset({"text", "words"})  # what was said is in the transcript, and nowhere else
FAILED: Final = frozenset({EndReason.FAILED, EndReason.UNEVIDENCED})
NANOSECONDS_A_MS: Final = 1_000_000


def trace_id_of(audit_trace_id: str) -> int:
    """The trace's id, 128 bits: the first half of the SHA-256 of the session's `audit_trace_id`."""
    return int.from_bytes(hashlib.sha256(audit_trace_id.encode()).digest()[:16], "big") or 1


class CallTraces:
    """Makes the traces with a provider of the host's. Raises `ImportError` where OpenTelemetry is not installed."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra, imported only when it is used

        self._trace = trace
        self._tracer: Tracer = provider.get_tracer(NAME)

    def ended(self, session: VoiceSession, events: Sequence[VoiceEvent]) -> None:
        """Make the trace of a session that has stopped; `events` are those that were kept of it, in order."""
        times = [(state, event) for event in events if (state := _entered(event)) is not None]
        begun = round(session.created_at.timestamp() * 1000)
        over = events[-1].timestamp_ms if events else begun
        root = self._span("voice.call", self._beginning(session), begun, _facts(session))
        inside = self._trace.set_span_in_context(root)
        for (state, event), later in zip(times, [*(event for _, event in times[1:]), None], strict=False):
            if state is VoiceSessionState.STOPPED:
                break
            until = over if later is None else later.timestamp_ms
            span = self._span(f"voice.{state.value}", inside, event.timestamp_ms, {})
            for one in events:
                inside_of = one.number > event.number and (later is None or one.number < later.number)
                if one.event_type in TOLD and inside_of:
                    span.add_event(one.event_type.value, _attributes(one), one.timestamp_ms * NANOSECONDS_A_MS)
            span.end(until * NANOSECONDS_A_MS)
        result = session.result
        if result is not None and result.reason in FAILED:
            root.set_status(self._trace.StatusCode.ERROR, result.reason.value)
        root.end(over * NANOSECONDS_A_MS)

    def _beginning(self, session: VoiceSession) -> "Context":
        """A context in which the next span begins the trace of this session."""
        trace = self._trace
        number = trace_id_of(session.audit_trace_id)
        above = trace.SpanContext(
            trace_id=number,
            span_id=number & (2**64 - 1) or 1,
            is_remote=True,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        )
        context: Context = trace.set_span_in_context(trace.NonRecordingSpan(above))
        return context

    def _span(self, name: str, within: "Context", at_ms: int, attributes: dict[str, Any]) -> "Span":
        return self._tracer.start_span(name, within, start_time=at_ms * NANOSECONDS_A_MS, attributes=attributes)


def _entered(event: VoiceEvent) -> VoiceSessionState | None:
    """The state that the event tells."""
    if event.event_type is VoiceEventType.STATE_CHANGED:
        return VoiceSessionState(event.payload["state"])
    return MOVES.get(event.event_type)


def _facts(session: VoiceSession) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "voice.session_id": session.session_id,
        "voice.project_id": session.project_id,
        "voice.audit_trace_id": session.audit_trace_id,
        "voice.provider": text_of(session.provider),
        "voice.stt_engine": session.stt_engine,
        "voice.risk_tier": session.risk_tier.value,
    }
    result = session.result
    if result is not None:
        frames = result.frames
        facts |= {
            "voice.end_reason": result.reason.value,
            "voice.drained": result.drained,
            "voice.frames.accepted": frames.accepted,
            "voice.frames.recorded": frames.recorded,
            "voice.frames.transcribed": frames.transcribed,
            "voice.frames.dropped": sum(frames.dropped.values()),
        }
    return facts


def _attributes(event: VoiceEvent) -> dict[str, Any]:
    plain = (str, int, float, bool)
    return {key: value for key, value in event.payload.items() if key not in WORDS and isinstance(value, plain)}
