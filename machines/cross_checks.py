"""Cross-checks of facts that are stored twice: in the session, in its records in the chain, and in its events.

A sound chain proves its records. It does not prove that the session stored beside it, or its events, agree with the records.
Every disagreement is a `Mismatch`. Values are compared as they were read from JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from machines.evidence import FINAL, secret_of
from machines.operations import OF_A_SESSION, SESSION_CREATED
from machines.recording import RecordingState
from machines.sealing import SEALED
from machines.session import VoiceSessionState

UNWRITABLE: Final = "unwritable"
"""Where a record says that it stands for one that could not be written as it was."""

_STATES: Final = [state.value for state in VoiceSessionState]  # in the order a session goes through them
_STOPPED: Final = VoiceSessionState.STOPPED.value
_FACTS: Final = ("project_id", "provider", "stt_provider", "stt_engine", "recording_enabled", "metadata")
_END: Final = "session_stopped"  # the event, and the operation of the last record
_READY: Final = RecordingState.READY.value
_STAYS: Final = ("sample_rate", "channels", "samples", "gaps", "digest", "recording_id")
_TRANSCRIPT: Final = "transcript_ready"
_UTTERANCE: Final = "stt_final"
TOLD_OF_AN_END: Final = (_END, _TRANSCRIPT, _UTTERANCE)
"""The events that are held against a session's end."""


class Mismatch(NamedTuple):
    """Two stored facts that disagree: a `kind` for programs, the session or folder concerned, and a sentence."""

    kind: str
    about: str
    text: str


class Disagreements(NamedTuple):
    """The `first` mismatches, and how many there are in all."""

    first: tuple[Mismatch, ...]
    total: int


class StoredSession(NamedTuple):
    """Everything stored of one session: the `session` itself, None if it is missing; its records in the chain's order,
    unsealed; its events of the kinds `TOLD_OF_AN_END`; and its row of `recordings`, None if it has none."""

    session: Mapping[str, Any] | None
    records: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    recording: Mapping[str, Any] | None = None


def mismatches(about: str, stored: StoredSession, *, spilled: bool) -> Iterator[Mismatch]:
    """The mismatches of the request or session `about`.

    `spilled` says that final records may still wait in spill files: then events may tell of an end without one.
    """
    records = [record for record in stored.records if record["operation"] in OF_A_SESSION]
    final = next((record for record in records if str(record["id"]).endswith(f"-{FINAL}")), None)
    for kind, text in (
        *_of_the_session(stored.session, records, final),
        *_of_the_order(records),
        *_of_the_events(stored, final, spilled=spilled),
        *_of_the_recording(stored),
    ):
        yield Mismatch(kind, about, text)


_Found = Iterator[tuple[str, str]]


def _of_the_session(
    session: Mapping[str, Any] | None, records: Sequence[Mapping[str, Any]], final: Mapping[str, Any] | None
) -> _Found:
    created = any(record["operation"] == SESSION_CREATED for record in records)
    if session is None:
        if created:
            yield "session-missing", "it has records, and is not stored"
        return
    if not records:
        yield "records-missing", "it is stored, and has no records"
        return
    state = session.get("state")
    if final is None and state == _STOPPED:
        yield "final-record-missing", "it is stored as stopped, and has no final record"
    elif final is not None and state != _STOPPED:
        yield "state-differs", f"it has a final record, and is stored as {state}"
    if any(UNWRITABLE in _said(record) for record in records):
        return  # the session and its events were written without the unwritable part too
    said = [_said(record).get("state") for record in records]
    furthest = max((_STATES.index(one) for one in said if one in _STATES), default=None)
    if final is None and state != _STOPPED and furthest is not None and state != _STATES[furthest]:
        yield "state-differs", f"its records say that it is {_STATES[furthest]}, and it is stored as {state}"
    facts: Mapping[str, Any] = records[0]["request_summary"]
    for name in _FACTS:
        if name in facts and facts[name] != session.get(name):
            yield "facts-differ", f"it is stored with another {name} than its first record has"
    if final is not None and state == _STOPPED:
        yield from _of_the_result(_said(final).get("result"), session.get("result"))


def _of_the_result(said: object, kept: object) -> _Found:
    if not isinstance(said, Mapping) or not isinstance(kept, Mapping):
        if said != kept:
            yield "result-differs", "its result is missing, in its final record or where it is stored"
        return
    for name, value in said.items():
        if name != SEALED and kept.get(name) != value:
            yield "result-differs", f"its result is stored with another {name} than its final record has"


def _of_the_order(records: Sequence[Mapping[str, Any]]) -> _Found:
    """A session's records must have its secret in their ids, and growing numbers; the final record must be the last."""
    number, secret = 0, None
    for at, record in enumerate(records):
        if secret is not None and secret_of(record["id"]) != secret:
            yield "record-foreign", f"its record {record['id']} has the id of another session's"
        secret = secret_of(record["id"]) if secret is None else secret
        if str(record["id"]).endswith(f"-{FINAL}"):  # a final record that was written without the actors has no number
            if at + 1 < len(records):
                yield "record-behind-final", f"its record {records[at + 1]['id']} stands behind its final one"
            continue
        own = record["metadata"].get("number")
        if not isinstance(own, int) or own <= number:
            yield "record-out-of-order", f"its record {record['id']} has the number {own}, behind {number}"
        number = own if isinstance(own, int) else number


def _of_the_events(stored: StoredSession, final: Mapping[str, Any] | None, *, spilled: bool) -> _Found:
    if stored.session is None and stored.events:
        yield "events-of-nobody", "it has events, and is not stored"
        return
    result = None if final is None else _said(final).get("result")
    heard_upto = 0  # position in the transcript, which must have every told utterance in order
    for event in stored.events:
        if final is None:
            if not spilled and event.get("event_type") != _UTTERANCE:
                yield "end-without-record", "its listeners were told of its end, and it has no final record"
                return
            continue
        if not isinstance(result, Mapping):
            continue
        if event.get("event_type") == _UTTERANCE:
            if "transcript" in result:
                text = str(event["payload"].get("text"))
                at = str(result["transcript"]).find(text, heard_upto)
                if at < 0:
                    yield "event-differs", "an event tells of words that are not in the transcript of its final record"
                    return
                heard_upto = at + len(text)
            continue
        name, member = ("reason", "reason") if event.get("event_type") == _END else ("text", "transcript")
        told = event["payload"].get(name)
        if member in result and told != result[member]:
            yield "event-differs", f"an event tells of another {member} than its final record"


def _of_the_recording(stored: StoredSession) -> _Found:
    """After its session's end a recording may only change its place and its state."""
    result = None if stored.session is None else stored.session.get("result")
    ended = result.get("recording") if isinstance(result, Mapping) else None
    became = stored.recording
    if became is None:
        if ended is not None and ended.get("state", _READY) != _READY:
            yield "recording-altered", "its recording was to be finished, and nothing is stored of it any more"
    elif ended is not None and any(became.get(name) != ended.get(name) for name in _STAYS):
        yield "recording-altered", "its recording is stored with another length, form or digest than its result has"


def _said(record: Mapping[str, Any]) -> Mapping[str, Any]:
    said = record.get("response_summary")
    return said if isinstance(said, Mapping) else {}
