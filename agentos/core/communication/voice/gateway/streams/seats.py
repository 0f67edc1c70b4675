"""Who has the way into a session: one client at a time, through all its connections, and of these one.

A seat is taken with a ticket and goes on with a resume token. It remembers what outlives a connection: the newest attempt of
the client, the decoder of its audio, where its frames lie in the session, since when nobody is there.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentos.core.communication.voice.gateway.streams.marks import KeptMarks
from agentos.core.communication.voice.gateway.streams.opus import OpusStream, opus_formats
from machines.audio import AudioEncoding, AudioFormat
from machines.stream.media_time import StreamTime
from machines.stream.messages import StreamCode, StreamFormat, StreamViolation

if TYPE_CHECKING:
    from agentos.core.communication.voice.gateway.streams.connection import StreamConnection

REPLACED: Final = "a newer ticket of this session was used"


@dataclass(slots=True, eq=False)
class Seat:
    """The stream of one session. `connection` is the live one; without any, nobody is there since `gone_ms`. `time` is None
    until its client is let in; `marks` are those of it that have to outlive the process, if any do."""

    session_id: str
    digest: bytes
    gone_ms: int
    attempt: int = 0
    connection: "StreamConnection | None" = None
    decoder: OpusStream | None = None
    format: StreamFormat | None = None
    time: StreamTime | None = None
    marks: KeptMarks | None = None

    def check(self, digest: bytes) -> None:
        """The client with this token still has the seat. Raises `StreamViolation`."""
        if digest != self.digest:
            raise StreamViolation(StreamCode.UNAUTHENTICATED, REPLACED)

    def taken(self, connection: "StreamConnection", attempt: int, chosen: StreamFormat) -> None:
        """This connection is the live one from now on; the one before it takes nothing more."""
        older, self.connection, self.attempt = self.connection, connection, attempt
        if older is not None:
            older.fence()
        if chosen != self.format:
            self.format, self.decoder = chosen, None

    def left(self, connection: "StreamConnection", now_ms: int) -> None:
        """The connection has ended."""
        if self.connection is connection:
            self.connection, self.gone_ms = None, now_ms


class Seats:
    """The seats of the sessions that run here; for one event loop."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}

    def new(self, session_id: str, token: str, now_ms: int) -> Seat:
        """A ticket was used: its client takes the seat as soon as it is welcome. The one before can't come back."""
        seat = self._seats.setdefault(session_id, Seat(session_id, b"", now_ms))
        seat.digest, seat.attempt, seat.format = digest_of(token), 0, None
        seat.time = seat.marks = None
        return seat

    def again(self, session_id: str, token: str, now_ms: int) -> Seat:
        """A client comes back with a token that is good. Raises `StreamViolation` when it was replaced just now."""
        digest = digest_of(token)
        seat = self._seats.get(session_id)
        if seat is None:
            seat = self._seats[session_id] = Seat(session_id, digest, now_ms)
        seat.check(digest)
        return seat

    def drop(self, session_id: str) -> None:
        """Its client does not come back."""
        self._seats.pop(session_id, None)

    def empty(self) -> Iterator[Seat]:
        """Those that nobody is in now."""
        return iter([seat for seat in self._seats.values() if seat.connection is None])


def digest_of(token: str) -> bytes:
    """What is remembered of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def formats_of(audio_format: AudioFormat) -> tuple[StreamFormat, ...]:
    """What a session in this format takes, its own first."""
    mulaw = audio_format.encoding is AudioEncoding.MULAW
    own = StreamFormat("mulaw" if mulaw else "pcm_s16le", audio_format.sample_rate, audio_format.channels)
    return (own, *opus_formats(audio_format))
