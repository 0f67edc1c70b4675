"""The messages of a browser stream, sub-protocol `agentos-voice.v1`: JSON text both ways, and audio as binary messages.

A text message is one of the classes below, named by its `type`. Unknown fields, and values of another type, are refused. A
frame is 20 ms of the session's audio; frames are counted from 0, through all connections of a session; a limit is an exclusive
upper bound.

A binary message is audio, with a header of 12 bytes, big-endian, before the payload:

    0  u8   1, for audio          2  u16  count of frames, from 1       8  u32  media time, ms
    1  u8   flags: 1 = last       4  u32  number of the first frame     12      payload

The media time is the sender's capture clock at the first sample; it never falls. A message that says `last` ends the audio;
its last frame may be short.
"""

import re
from collections.abc import Callable
from struct import Struct as Layout
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from machines.losses import MAX_FRAME, Count, FrameNumber, Lost
from machines.session import VoiceSessionState
from machines.strict_json import read_strictly

SUBPROTOCOL: Final = "agentos-voice.v1"
AUDIO: Final = 1
LAST: Final = 1
HEADER: Final = Layout(">BBHII")
LAST_NUMBER: Final = 2**53 - 1  # the last that every JSON reader takes whole

M = TypeVar("M")

Milliseconds = Annotated[int, Meta(ge=0)]
Credential = Annotated[str, Meta(min_length=1, max_length=512)]


class StreamCode:
    """The close codes of a stream, the WebSocket's own (1000 to 1011) and those of this protocol.

    After a code in `COME_BACK` the session is unchanged, and the client comes back with its resume token.
    """

    DONE = 1000
    GOING_AWAY = 1001
    LOST = 1006  # never sent: the connection broke
    FAULT = 1011
    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    ENDED = 4404
    NO_COMMON_FORMAT = 4406
    TOO_SLOW = 4408
    FENCED = 4409
    REPLAYED = 4410
    OUT_OF_ORDER = 4411
    WRONG_SIZE = 4412
    TOO_LARGE = 4413
    BEYOND_LIMIT = 4414
    TOO_MANY = 4429
    UNAVAILABLE = 4503


COME_BACK: Final = frozenset(
    {
        1005,
        1012,
        1013,
        StreamCode.GOING_AWAY,
        StreamCode.LOST,
        StreamCode.FAULT,
        StreamCode.TOO_SLOW,
        StreamCode.TOO_MANY,
        StreamCode.UNAVAILABLE,
    }
)


class StreamViolation(Exception):
    """A message of the other side breaks the protocol, or can't be granted. The session stays as it was before.

    `code` is the close code, `reason` a sentence of at most 123 bytes, as WebSocket close reasons are.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:123].decode(errors="ignore")


# --- formats -------------------------------------------------------------------------------------------------------


class StreamFormat(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How audio is written: PCM of 16 bit little-endian, or one Opus packet a message, with its own sample rate."""

    encoding: Literal["pcm_s16le", "mulaw", "opus"]
    sample_rate: Annotated[int, Meta(ge=8_000, le=48_000)]
    channels: Annotated[int, Meta(ge=1, le=8)] = 1


# --- from the client -----------------------------------------------------------------------------------------------


class Hello(Struct, frozen=True, tag_field="type", tag="hello", forbid_unknown_fields=True, omit_defaults=True):
    """The client's first message: a `ticket` begins a new stream, a `resume` token continues one.

    `formats` are the formats that the client can send, best first. In a continued stream `first` is the oldest frame that the
    client can still send, and `next` the number of its next new frame. `attempt` counts the client's connections, so that a
    delayed hello does not fence a newer connection. `events` is the number of the last event that the client has seen, and
    `durable` the highest `durable` that it was told: it knows all losses below.
    """

    formats: Annotated[tuple[StreamFormat, ...], Meta(min_length=1, max_length=16)]
    attempt: Count
    ticket: Credential | UnsetType = UNSET
    resume: Credential | UnsetType = UNSET
    first: FrameNumber = 0
    next: FrameNumber = 0
    events: Annotated[int, Meta(ge=0, le=LAST_NUMBER)] = 0
    durable: FrameNumber = 0

    def __post_init__(self) -> None:
        if (self.ticket is UNSET) is (self.resume is UNSET):
            raise ValueError("hello has either a ticket or a resume token")
        if self.first > self.next:
            raise ValueError("first is the oldest frame kept, and not above next")
        if self.resume is UNSET and self.next:
            raise ValueError("a stream begins with frame 0")
        if self.durable > self.next:
            raise ValueError("durable is below next")


class Gap(Struct, frozen=True, tag_field="type", tag="gap", forbid_unknown_fields=True):
    """The client lost these frames: its ring was full (`ring`), or they were never captured (`capture`)."""

    first: FrameNumber
    count: Count
    reason: Literal["ring", "capture"]


class End(Struct, frozen=True, tag_field="type", tag="end", forbid_unknown_fields=True):
    """The client ends the audio behind frame `upto`, exclusive; the server stops the session."""

    upto: FrameNumber


class Pong(Struct, frozen=True, tag_field="type", tag="pong", forbid_unknown_fields=True):
    """The answer to a ping."""

    id: Annotated[int, Meta(ge=-LAST_NUMBER, le=LAST_NUMBER)]


class Audio(Struct, frozen=True, gc=False):
    """A binary message: `count` frames from `first` on, captured from `media_ms` on; `last` says that no more follow."""

    first: int
    count: int
    media_ms: int
    last: bool
    payload: bytes


# --- from the server -----------------------------------------------------------------------------------------------


class Welcome(Struct, frozen=True, tag_field="type", tag="welcome", forbid_unknown_fields=True, omit_defaults=True):
    """The stream is open. The client can come back with the token `resume`, until another ticket of the session is used.

    `expected` is the next frame that the session has not taken; the client may send frames below `limit` now. The server sends
    something at least every `heartbeat_ms`.

    Each frame below `durable` outlives the server's process, or is lost for good and was declared in `lost`, here or in an
    earlier `Ack`: the client need never send it again. `durable` is None if the session keeps no audio. `lost` has, in order,
    the lost frames below `received` that the client has not confirmed yet.
    """

    session_id: str
    resume: str
    format: StreamFormat
    expected: FrameNumber
    durable: FrameNumber | None
    limit: FrameNumber
    state: VoiceSessionState
    verdict: dict[str, Any]
    heartbeat_ms: Annotated[int, Meta(ge=1)]
    max_message_bytes: Annotated[int, Meta(ge=1)]
    lost: tuple[Lost, ...] = ()


class Ack(Struct, frozen=True, tag_field="type", tag="ack", forbid_unknown_fields=True, omit_defaults=True):
    """The session has taken the frames below `received`; `Welcome` explains the other fields."""

    received: FrameNumber
    durable: FrameNumber | None
    limit: FrameNumber
    lost: tuple[Lost, ...] = ()


class Event(Struct, frozen=True, tag_field="type", tag="event", forbid_unknown_fields=True):
    """Something happened in the session, as `VoiceEvent` tells it."""

    number: int
    event: str
    timestamp_ms: Milliseconds
    payload: dict[str, Any]


class Ping(Struct, frozen=True, tag_field="type", tag="ping", forbid_unknown_fields=True):
    """Asks for a pong with the same `id`."""

    id: int


class Bye(Struct, frozen=True, tag_field="type", tag="bye", forbid_unknown_fields=True):
    """The session has ended, for `reason`; the server closes the connection now."""

    state: VoiceSessionState
    reason: str


FromClient = Hello | Gap | End | Pong
FromServer = Welcome | Ack | Event | Ping | Bye

encode: Final = msgspec.json.Encoder().encode
_decode_client: Final[Callable[[str | bytes], FromClient]] = msgspec.json.Decoder(FromClient).decode
_decode_server: Final[Callable[[str | bytes], FromServer]] = msgspec.json.Decoder(FromServer).decode


def read_from_client(text: str | bytes) -> FromClient:
    """Read a text message of a client. Raises `StreamViolation` if the text is none."""
    message = _read(_decode_client, text)
    _read(read_strictly, text)  # refuses two values of one name; msgspec takes the last
    return message


def read_from_server(text: str | bytes) -> FromServer:
    """Read a text message of a server. Raises `StreamViolation` if the text is none."""
    return _read(_decode_server, text)


def read_audio(data: bytes) -> Audio:
    """Read a binary message. Raises `StreamViolation` if `data` is none; checks of the payload only that it is not empty."""
    if len(data) <= HEADER.size:
        raise StreamViolation(
            StreamCode.MALFORMED, f"a binary message has a header of {HEADER.size} bytes and a payload"
        )
    kind, flags, count, first, media_ms = HEADER.unpack_from(data)
    if kind != AUDIO or flags & ~LAST or not count or first + count > MAX_FRAME:
        raise StreamViolation(StreamCode.MALFORMED, "the header of a binary message is not that of audio")
    return Audio(first, count, media_ms, bool(flags), data[HEADER.size :])


def write_audio(audio: Audio) -> bytes:
    """Write a binary message."""
    return HEADER.pack(AUDIO, LAST if audio.last else 0, audio.count, audio.first, audio.media_ms) + audio.payload


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of all text messages, those of the client and those of the server."""
    shapes, components = msgspec.json.schema_components(
        (FromClient, FromServer),
        ref_template="#/$defs/{name}",
    )
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "$defs": {**components, "FromClient": shapes[0], "FromServer": shapes[1]},
        "anyOf": [{"$ref": "#/$defs/FromClient"}, {"$ref": "#/$defs/FromServer"}],
    }
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))
    return found


def _read(decode: Callable[[str | bytes], M], text: str | bytes) -> M:
    try:
        return decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StreamViolation(StreamCode.MALFORMED, f"not a message of {SUBPROTOCOL}: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    """The error in words, without Python's type names and without the client's values."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    said = _FIELD.sub("an unknown field", _SENT.sub("an unknown value", str(error)))
    return _TYPE.sub(lambda found: _WORDS.get(found[1], found[1]), said)


_SENT: Final = re.compile(r"Invalid (?:enum )?value (?:'.*'|-?[0-9]+)", re.DOTALL)
_FIELD: Final = re.compile("unknown field `.*`", re.DOTALL)
_TYPE: Final = re.compile("`(object|array|str|int|float|bool|null)`")
_WORDS: Final = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false"}
