"""The transcript of a session: its finished utterances, and the text that they make."""

from collections.abc import Iterable
from dataclasses import dataclass

from machines.events import VoiceEvent, VoiceEventType
from machines.session import VoiceSession


@dataclass(frozen=True, slots=True)
class Word:
    """A word, when it was said (milliseconds of the session's audio), and how sure the engine is, from 0 to 1, if it tells."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Utterance:
    """A finished utterance, and when it was said, in milliseconds of the session's audio. `number` is that of its event."""

    number: int
    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of a session so far. It is `complete` once the session has stopped and every frame of it was transcribed;
    the frames that were not are in the session's result, under `frames.untranscribed`."""

    session_id: str
    complete: bool
    text: str
    utterances: tuple[Utterance, ...]


def transcript_of(session: VoiceSession, events: Iterable[VoiceEvent]) -> Transcript:
    """The transcript of a session whose kept events are `events`. The text is that of its result once it has one."""
    utterances = tuple(_utterance(event) for event in events if event.event_type is VoiceEventType.STT_FINAL)
    result = session.result
    return Transcript(
        session_id=session.session_id,
        complete=result is not None and not result.frames.untranscribed,
        text=" ".join(utterance.text for utterance in utterances) if result is None else result.transcript,
        utterances=utterances,
    )


def _utterance(event: VoiceEvent) -> Utterance:
    said = event.payload
    words = tuple(Word(word["text"], word["start_ms"], word["end_ms"], word["confidence"]) for word in said["words"])
    return Utterance(event.number, said["text"], said["start_ms"], said["end_ms"], words)
