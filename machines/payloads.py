"""The fields of events and of results, as data: the name of each, its type in JSON and its meaning.

The documents are held against these tables, and so are the events that a running service tells.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from machines.events import VoiceEventType
from machines.session import EndReason

TEXT: Final = "text"
WHOLE: Final = "whole number"
NUMBER: Final = "number"
NUMBER_OR_NULL: Final = "number or null"
FLAG: Final = "true or false"
LIST: Final = "list"
OBJECT: Final = "object"
OBJECT_OR_NULL: Final = "object or null"
TEXT_OR_NULL: Final = "text or null"


class Field(NamedTuple):
    """One field; `always` is False where it may be missing."""

    name: str
    kind: str
    meaning: str
    always: bool = True


class Payload(NamedTuple):
    """When an event is told, and its fields; with `more` it has further ones, by whoever tells it."""

    when: str
    fields: tuple[Field, ...]
    more: bool = False


_REASON: Final = Field("reason", TEXT, "why: one of the [reasons](evidence.md#why-audio-was-lost-or-not-transcribed)")

EVENTS: Final[Mapping[VoiceEventType, Payload]] = {
    VoiceEventType.SESSION_STARTED: Payload(
        "once, as the first event, when the session's creation is durable",
        (
            Field("state", TEXT, "`created`"),
            Field("stt_engine", TEXT, "the engine that transcribes the call, or `none`"),
        ),
    ),
    VoiceEventType.STT_FALLBACK: Payload(
        "once, after `session_started`, when another engine transcribes than the one that was asked for",
        (
            Field("asked", TEXT, "the engine that was asked for"),
            Field("runs", TEXT, "the engine that transcribes, or `none`"),
            Field("reason", TEXT, "why, as a sentence"),
        ),
    ),
    VoiceEventType.STATE_CHANGED: Payload(
        "when the record of a move is durable, but for the first and the last state",
        (Field("state", TEXT, "the new state: `active` or `stopping`"),),
    ),
    VoiceEventType.AUDIO_RECEIVED: Payload(
        "a few times a second while audio comes and somebody listens; not stored",
        (
            Field("frames", WHOLE, "frames of 20 ms since the last event of this type"),
            Field("upto_frame", WHOLE, "frames below this number are accounted"),
            Field("level_dbfs", NUMBER_OR_NULL, "their level in dB below full scale; null for digital silence"),
            Field("peak_dbfs", NUMBER_OR_NULL, "their loudest sample, likewise"),
        ),
    ),
    VoiceEventType.STT_PARTIAL: Payload(
        "while somebody speaks and somebody listens: a preview that may change; not stored",
        (Field("text", TEXT, "the words of the utterance so far"),),
    ),
    VoiceEventType.STT_FINAL: Payload(
        "when an utterance is finished, and stored",
        (
            Field("text", TEXT, "the words of the utterance"),
            Field("start_ms", WHOLE, "its begin, in milliseconds of the call's audio"),
            Field("end_ms", WHOLE, "its end, likewise"),
            Field(
                "words", LIST, "its words, each with `text`, `start_ms`, `end_ms` and `confidence` (0 to 1, or null)"
            ),
            Field(
                "stored",
                FLAG,
                "false where the store did not take it in time: it may not outlive the process",
                always=False,
            ),
        ),
    ),
    VoiceEventType.PART_REPORTED: Payload(
        "when a further part of the call, which a host brings, found something",
        (Field("part", TEXT, "the name of the part; the other fields are its own"),),
        more=True,
    ),
    VoiceEventType.TRANSCRIPT_READY: Payload(
        "once, before `session_stopped`, when the final record is durable or spilled",
        (Field("text", TEXT, "the whole transcript"),),
    ),
    VoiceEventType.SESSION_STOPPED: Payload(
        "once, as the last event",
        (Field("reason", TEXT, "why the session ended: one of the [reasons for an end](#reasons-for-an-end)"),),
    ),
    VoiceEventType.ERROR: Payload(
        "when a part failed, or audio was lost; `part` says which of the [errors](#errors) it is",
        (Field("part", TEXT, "the part that the error is about"),),
    ),
}
"""Each type of event, in the order in which a call tells them first."""

END_REASONS: Final[Mapping[EndReason, str]] = {
    EndReason.STOPPED: "somebody asked for it",
    EndReason.CALLER_GONE: "its caller vanished without a word, and did not come back",
    EndReason.IDLE: "no audio came for `idle_timeout_seconds`",
    EndReason.SILENCE: "nobody spoke for its silence timeout",
    EndReason.OVERRUN: "its longest duration was over",
    EndReason.FAILED: "a part failed more often than it may be restarted",
    EndReason.UNEVIDENCED: "its creation could not be made durable: it never began, and no listener is told",
    EndReason.SHUTDOWN: "the service was closed",
    EndReason.RECOVERED: "its process died, and another one ended it",
}
"""Why a session ended."""

_CRASH: Final = (
    Field("error", TEXT, "the type of the exception, or what happened"),
    Field("restarted", FLAG, "whether the part goes on; if not, the call goes on without it, or ends as `failed`"),
)

OF_A_PART: Final = (
    Payload("a part of the call, by its name (`recorder`, `transcriber`, `quality`, …), crashed", _CRASH),
    Payload("the port of a further part, by its name, hung", (_REASON,)),
)
"""The errors of a part of the call."""

ERRORS: Final[Mapping[str, tuple[Payload, ...]]] = {
    "session": (Payload("the session itself fails", _CRASH),),
    "process": (Payload("another process goes on with the session", _CRASH),),
    "media": (Payload("the media port hung", (_REASON,)),),
    "speech": (
        Payload("the speech-to-text port, or its worker, hung", (_REASON,)),
        Payload(
            "audio will not be transcribed",
            (
                _REASON,
                Field("first_frame", WHOLE, "the first frame that was lost"),
                Field("frames", WHOLE, "how many were lost"),
            ),
        ),
    ),
    "stream": (
        Payload(
            "far more or less audio came than its clock had time for",
            (
                Field("reason", TEXT, "`too_much_audio` or `too_little_audio`"),
                Field("audio_ms", WHOLE, "how much audio came"),
                Field("media_ms", WHOLE, "in how much time, by the clock of its capture"),
            ),
        ),
    ),
    "evidence": (
        Payload(
            "a record can't be written as it is",
            (
                Field("operation", TEXT, "the [operation](evidence.md#the-operations) of the record"),
                Field("reason", TEXT, "why, as a sentence"),
            ),
        ),
    ),
}
"""What else an error is about, by its `part`, with its fields beside `part`."""

RESULT: Final = (
    Field("reason", TEXT, "why the session ended"),
    Field("drained", FLAG, "whether all parts of the call answered within the drain deadline"),
    Field("frames", OBJECT, "where each frame of 20 ms went, below"),
    Field("transcript", TEXT, "the whole transcript"),
    Field("recording", OBJECT_OR_NULL, "the recording, below; null without one"),
    Field("quality", OBJECT, "how the audio was, below"),
    Field("stopped_at", TEXT_OR_NULL, "when the session stopped, ISO 8601"),
    Field("mismatches", LIST, "audio that did not fit its clock: `reason`, `audio_ms`, `media_ms`"),
    Field("parts", OBJECT, "what further parts of the call found, by the name of each"),
)
"""The fields of a result, as in the final record of a session."""

FRAMES: Final = (
    Field(
        "accepted", WHOLE, "frames that came in: `accounted` + all `dropped`, and `transcribed` + all `untranscribed`"
    ),
    Field("accounted", WHOLE, "frames that are in the digest"),
    Field("recorded", WHOLE, "frames that are in the recording"),
    Field("transcribed", WHOLE, "frames that an engine heard"),
    Field("dropped", OBJECT, "frames that were lost, by reason"),
    Field("untranscribed", OBJECT, "frames that no engine heard, by reason"),
    Field("bytes", WHOLE, "bytes of the accounted frames"),
    Field("leftover_bytes", WHOLE, "bytes at the very end that made no whole sample"),
    Field("digest", TEXT, "SHA-256 of the accounted bytes"),
)
"""`frames` of a result."""

RECORDING: Final = (
    Field("path", TEXT, "the file, which is there once `state` is `ready`"),
    Field("sample_rate", WHOLE, "samples a second"),
    Field("channels", WHOLE, "channels"),
    Field("samples", WHOLE, "its length, in samples of one channel"),
    Field("seconds", NUMBER, "its length"),
    Field("segments", WHOLE, "how many segments it was written in"),
    Field("gaps", LIST, "silence in the place of lost audio: first sample and number of samples of each"),
    Field("state", TEXT, "`finishing`, `ready` or `failed`"),
    Field("digest", TEXT, "SHA-256 of the samples outside gaps, as signed 16 bit little-endian"),
    Field("recording_id", TEXT, "the request under which evidence has `recording_ready` or `recording_failed`"),
)
"""`recording` of a result."""

QUALITY: Final = (
    Field("level_dbfs", NUMBER_OR_NULL, "level in dB below full scale; null without audio, or for digital silence"),
    Field("peak_dbfs", NUMBER_OR_NULL, "loudest sample, likewise"),
    Field("clipped_share", NUMBER, "share of frames with clipped samples, 0 to 1"),
    Field("silent_share", NUMBER, "share of silent frames, 0 to 1"),
    Field("longest_pause_ms", WHOLE, "longest pause between two arrivals"),
)
"""`quality` of a result."""
