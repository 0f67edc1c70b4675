"""The stream of each session: one client at a time, through all its connections, of which one is live.

A ticket begins a session's stream, a resume token continues it. It keeps what outlives a connection: the client's newest
attempt, the decoder of its audio, the places of its frames in the session, and the time since when no connection is there.
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
class SessionStream:
    """The stream of one session, known by the `digest` of its resume token.

    `connection` is the live one; if there is none, the last ended at `gone_ms`. `time` is None until the client is welcome;
    `marks` are None if the session can't be resumed.
    """

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
        """Check that the token with this digest is still the stream's. Raises `StreamViolation`."""
        if digest != self.digest:
            raise StreamViolation(StreamCode.UNAUTHENTICATED, REPLACED)

    def attach(self, connection: "StreamConnection", attempt: int, chosen: StreamFormat) -> None:
        """Make this connection the live one, and fence the one before it."""
        older, self.connection, self.attempt = self.connection, connection, attempt
        if older is not None:
            older.fence()
        if chosen != self.format:
            self.format, self.decoder = chosen, None

    def detach(self, connection: "StreamConnection", now_ms: int) -> None:
        """Note that a connection has ended."""
        if self.connection is connection:
            self.connection, self.gone_ms = None, now_ms


class SessionStreams:
    """The streams of the sessions that run here; for one event loop."""

    def __init__(self) -> None:
        self._streams: dict[str, SessionStream] = {}

    def opened(self, session_id: str, token: str, now_ms: int) -> SessionStream:
        """The stream of a client that used a ticket. The session's earlier client can't come back."""
        stream = self._streams.setdefault(session_id, SessionStream(session_id, b"", now_ms))
        stream.digest, stream.attempt, stream.format = digest_of(token), 0, None
        stream.time = stream.marks = None
        return stream

    def resumed(self, session_id: str, token: str, now_ms: int) -> SessionStream:
        """The stream of a client that came back with a valid token.

        Raises `StreamViolation` if the token was replaced just now.
        """
        digest = digest_of(token)
        stream = self._streams.get(session_id)
        if stream is None:
            stream = self._streams[session_id] = SessionStream(session_id, digest, now_ms)
        stream.check(digest)
        return stream

    def drop(self, session_id: str) -> None:
        """Forget a stream whose client does not come back."""
        self._streams.pop(session_id, None)

    def detached(self) -> Iterator[SessionStream]:
        """The streams without a connection."""
        return iter([stream for stream in self._streams.values() if stream.connection is None])


def digest_of(token: str) -> bytes:
    """The hash of a resume token, under which its stream is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def formats_of(audio_format: AudioFormat) -> tuple[StreamFormat, ...]:
    """The stream formats that a session in this format takes, its own first."""
    mulaw = audio_format.encoding is AudioEncoding.MULAW
    own = StreamFormat("mulaw" if mulaw else "pcm_s16le", audio_format.sample_rate, audio_format.channels)
    return (own, *opus_formats(audio_format))
