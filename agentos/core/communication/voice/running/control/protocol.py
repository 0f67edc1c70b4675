"""What is said on the control socket of a service: one JSON object a line, requests one way and answers the other.

    {"request": "inspect", "most_actors": 100}        ->  {"answer": "picture", "picture": {…}}
    {"request": "trace", "session_id": "voice-…"}     ->  {"answer": "tracing", …}, then {"answer": "step", "line": {…}}
                                                          for each step, then {"answer": "ended", "lost": 0}
    anything else                                     ->  {"answer": "refused", "kind": "…", "message": "…"}

A connection takes one request after the other; a trace ends when its reader hangs up or says anything.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice.running.inspection import ServicePicture
from machines.strict_json import read_strictly

MAX_REQUEST_BYTES: Final = 4096
MAX_ACTORS: Final = 10_000  # in one picture: three megabytes, and half a second of the service's loop


class Inspect(Struct, frozen=True, tag_field="request", tag="inspect", forbid_unknown_fields=True):
    """Asks for a picture with at most so many actors, those in the worst trouble."""

    most_actors: Annotated[int, Meta(ge=0, le=MAX_ACTORS)]


class Follow(Struct, frozen=True, tag_field="request", tag="trace", forbid_unknown_fields=True):
    """Asks for every step of a running session's actors from now on."""

    session_id: str


class Picture(Struct, frozen=True, tag_field="answer", tag="picture"):
    """The service now."""

    picture: ServicePicture


class Tracing(Struct, frozen=True, tag_field="answer", tag="tracing"):
    """The trace has begun, at `started_at`; its steps follow."""

    session_id: str
    started_at: datetime


class TraceStep(Struct, frozen=True, tag_field="answer", tag="step"):
    """One step of the trace."""

    line: TraceLine


class TraceEnded(Struct, frozen=True, tag_field="answer", tag="ended"):
    """The session has stopped; `lost` steps were not told because the reader was slow."""

    lost: int


class Refused(Struct, frozen=True, tag_field="answer", tag="refused"):
    """The request was not done; `kind` is the type of the error."""

    kind: str
    message: str


Request = Inspect | Follow
Answer = Picture | Tracing | TraceStep | TraceEnded | Refused

encode: Final = msgspec.json.Encoder().encode
_decode_request: Final[Callable[[bytes], Request]] = msgspec.json.Decoder(Request).decode
decode_answer: Final[Callable[[bytes], Answer]] = msgspec.json.Decoder(Answer).decode


def decode_request(line: bytes) -> Request:
    """A request. Raises `ValueError` (msgspec's errors are such) or `RecursionError` for anything that is none."""
    request = _decode_request(line)
    read_strictly(line)
    return request
