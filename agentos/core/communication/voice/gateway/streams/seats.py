"""Who has the way into a session: one client at a time, through all its connections, and of these one.

A seat is taken with a ticket and goes on with a resume token. It remembers what outlives a connection: the newest attempt of
the client, the decoder of its audio, where its frames lie in the session, since when nobody is there.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.audio.door import Door
from agentos.core.communication.voice.gateway.streams.marks import KeptMarks
from agentos.core.communication.voice.gateway.streams.opus import OpusStream, opus_formats
from agentos.core.communication.voice.resources import MEDIA
from machines.audio import AudioEncoding, AudioFormat
from machines.losses import Losses, Lost
from machines.session import VoiceSession
from machines.stream_messages import StreamCode, StreamFormat, StreamViolation
from machines.stream_time import StreamTime

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


def can_be_resumed(service: AsyncVoiceService, session: VoiceSession) -> bool:
    """Whether another process may go on with a session when this one dies."""
    return session.resumable and service.settings.resume_window_seconds > 0


class Fate(NamedTuple):
    """What became of a session's frames: those below `durable` will not be asked for again, as `Welcome` has it, and `lost` are
    lost for good."""

    durable: int | None
    lost: tuple[Lost, ...]


def fate_of(service: AsyncVoiceService, session: VoiceSession, door: Door) -> Callable[[int], Fate]:
    """Asks what became of the frames of a running session; of losses below a frame nothing is said.

    A recording has those that are written, since the kernel has them; but only those count that the session has in its account,
    so that no end of it declares them lost. Without one, those count as durable that the last account in evidence has, in a
    session that can be resumed: nobody asks for them again. Otherwise its audio is kept nowhere.
    """
    resources, session_id = service.resources(), session.session_id
    media, directory, accounted_below = resources.media, resources.directory, resources.store_port.accounted_below
    losses: Losses | None = None
    recorded, resumable = session.recording_enabled, can_be_resumed(service, session)

    def fate(known: int) -> Fate:
        nonlocal losses
        losses = losses or media.losses(session_id)  # after the end of its work the port has forgotten the session
        if losses is None:
            return Fate(0 if recorded or resumable else None, ())
        astray = door.astray(MEDIA)
        settled = min(directory.accounted_below(session_id), losses.known_below, astray.known_below)
        durable = settled if recorded else min(settled, accounted_below(session_id)) if resumable else None
        lost, more = losses.between(known, settled), astray.between(known, settled)
        return Fate(durable, tuple(sorted((*lost, *more))) if more else lost)

    return fate
