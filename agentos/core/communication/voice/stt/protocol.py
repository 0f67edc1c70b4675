"""What goes over the pipe between the port and a worker: length-prefixed MessagePack, one tagged struct a packet.

A stream is known by a number that is never used twice, so that an answer to a stream that was given up means nothing.
Frame numbers are those of the session; audio is in the session's own format.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from actors.voice.messages import Word
from machines.audio import AudioEncoding

MAX_PACKET_BYTES: Final = 1 << 26
_LENGTH_BYTES: Final = 4

T = TypeVar("T")


class Open(Struct, frozen=True, tag="open"):
    """To the worker: begin a stream for a session, with the engine that `factory` makes of `configuration` and `options`.
    Answered by `StreamOpened` or `StreamBroken`."""

    stream: int
    session_id: str
    factory: str
    configuration: Mapping[str, Any]
    options: Mapping[str, Any]
    encoding: AudioEncoding
    sample_rate: int
    channels: int


class StreamAudio(Struct, frozen=True, tag="feed"):
    """To the worker: `count` frames from `first` on. Answered by `StreamProgress` or `StreamBroken`."""

    stream: int
    first: int
    count: int
    data: bytes


class StreamEnd(Struct, frozen=True, tag="end"):
    """To the worker: no more frames. Answered by a last `StreamProgress`, with `ended` set, or `StreamBroken`."""

    stream: int


class Drop(Struct, frozen=True, tag="drop"):
    """To the worker: forget the stream. Not answered."""

    stream: int


class WorkerPing(Struct, frozen=True, tag="ping"):
    """To the worker: show that you live. Answered by `Alive`."""


class Ready(Struct, frozen=True, tag="ready"):
    """From the worker, once: it takes work."""


class Alive(Struct, frozen=True, tag="alive"):
    """From the worker: it has nothing else to do than to answer a `WorkerPing`."""


class StreamOpened(Struct, frozen=True, tag="opened"):
    """From the worker: the engine is loaded and listens."""

    stream: int


class FinishedUtterance(Struct, frozen=True):
    """A finished utterance, in milliseconds of media time."""

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...]


class StreamProgress(Struct, frozen=True, tag="progress"):
    """From the worker, for each `StreamAudio` and `StreamEnd`: what came of it.

    Every frame below `taken` was decoded; every frame below `settled` is in a final result told up to and with this one,
    or is no speech.
    """

    stream: int
    taken: int
    settled: int
    finals: tuple[FinishedUtterance, ...] = ()
    partial: str | None = None
    ended: bool = False


class StreamBroken(Struct, frozen=True, tag="broken"):
    """From the worker: the engine failed at this stream, which is forgotten."""

    stream: int
    error: str


Request = Open | StreamAudio | StreamEnd | Drop | WorkerPing
Answer = Ready | Alive | StreamOpened | StreamProgress | StreamBroken

_encoder: Final = msgspec.msgpack.Encoder()


class ProtocolError(Exception):
    """The other side sent what is no packet. The connection is of no more use."""


def packet(message: Request | Answer) -> bytes:
    """`message` as it goes over the pipe."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class PacketReader(Generic[T]):
    """Bytes in, in any pieces; messages out. `kind` is what may come: `Request` or `Answer`."""

    def __init__(self, kind: object) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that are whole with `data`. Raises `ProtocolError` for one that can't be read."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if length > MAX_PACKET_BYTES:
                raise ProtocolError(f"a packet of {length:,} bytes; at most {MAX_PACKET_BYTES:,} may come")
            if len(buffer) < _LENGTH_BYTES + length:
                return
            body = bytes(buffer[_LENGTH_BYTES : _LENGTH_BYTES + length])
            del buffer[: _LENGTH_BYTES + length]
            try:
                message = self._decoder.decode(body)
            except msgspec.MsgspecError as error:
                raise ProtocolError(str(error)) from error
            yield message
