"""The audio that a client keeps: cut into frames, until the server has them for good or newer ones need the room."""

from collections import deque

from machines.audio import FRAMES_PER_SECOND
from machines.stream import ClientStream, Run
from machines.stream_messages import Audio, StreamFormat, write_audio

BYTES = {"pcm_s16le": 2, "mulaw": 1}
FRAME_MS = 1000 // FRAMES_PER_SECOND


class AudioRing:
    """The frames that `stream` counts as kept, in `audio_format`. For one task at a time."""

    def __init__(self, stream: ClientStream, audio_format: StreamFormat) -> None:
        self._stream = stream
        self._frames: deque[bytes] = deque()
        self._carry = b""
        self._origin = stream.next  # the first frame of this client, captured at 0 ms
        self._packets = audio_format.encoding == "opus"
        self.sample_bytes = 1 if self._packets else BYTES[audio_format.encoding] * audio_format.channels
        self.frame_bytes = audio_format.sample_rate // FRAMES_PER_SECOND * self.sample_bytes

    def frames_in(self, data: bytes) -> int:
        """How many frames would come of these bytes."""
        return 1 if self._packets else (len(self._carry) + len(data)) // self.frame_bytes

    def put(self, data: bytes) -> int:
        """Keep what was captured: for Opus one packet of 20 ms, otherwise any number of bytes. How many old frames fell
        off for it."""
        if self._packets:
            self._frames.append(data)
            return self._captured(1)
        data = self._carry + data
        count = len(data) // self.frame_bytes
        cut = count * self.frame_bytes
        self._frames.extend(data[at : at + self.frame_bytes] for at in range(0, cut, self.frame_bytes))
        self._carry = data[cut:]
        return self._captured(count) if count else 0

    def finish(self) -> int:
        """No more follows: what is left becomes a last, short frame of whole samples. How many old frames fell off for
        it."""
        rest = self._carry[: len(self._carry) - len(self._carry) % self.sample_bytes]
        self._carry = b""
        fell = 0
        if rest:
            self._frames.append(rest)
            fell = self._captured(1)
        self._stream.finish(short=bool(rest))
        return fell

    def message(self, run: Run) -> bytes:
        """The binary message with these frames."""
        at = run.first - self._stream.kept
        payload = b"".join([self._frames[number] for number in range(at, at + run.count)])
        return write_audio(Audio(run.first, run.count, (run.first - self._origin) * FRAME_MS, run.last, payload))

    def tidy(self) -> None:
        """Forget what the stream keeps no longer."""
        for _ in range(len(self._frames) - (self._stream.next - self._stream.kept)):
            self._frames.popleft()

    def _captured(self, count: int) -> int:
        fell = self._stream.capture(count)
        self.tidy()
        return fell
