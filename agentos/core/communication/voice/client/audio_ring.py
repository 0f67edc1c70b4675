"""The audio that a client keeps: cut into frames, until the server has them for good or newer ones need the room."""

from collections import deque

from machines.audio import FRAME_MS, FRAMES_PER_SECOND
from machines.stream.ends import WRAP_MS, ClientStream, Run
from machines.stream.media_time import JITTER_US, SLEW
from machines.stream.messages import Audio, StreamFormat, write_audio

BYTES = {"pcm_s16le": 2, "mulaw": 1}
JITTER_MS = JITTER_US // 1_000


class AudioRing:
    """The frames that `stream` counts as kept, in `audio_format`. For one task at a time."""

    def __init__(self, stream: ClientStream, audio_format: StreamFormat) -> None:
        self._stream = stream
        self._frames: deque[tuple[bytes, int]] = deque()  # each with its media time
        self._carry = b""
        self._origin = stream.next  # the first frame of this client, captured at 0 ms
        self._began_ms: float | None = None  # the same on the program's clock
        self._ahead_ms = 0.0  # of the count of frames is the program's clock
        self._media_ms = 0
        self._silence = b"\xff" if audio_format.encoding == "mulaw" else b"\0"
        self._packets = audio_format.encoding == "opus"
        self.sample_bytes = 1 if self._packets else BYTES[audio_format.encoding] * audio_format.channels
        self.frame_bytes = audio_format.sample_rate // FRAMES_PER_SECOND * self.sample_bytes

    def frames_in(self, data: bytes) -> int:
        """How many frames would come of these bytes."""
        return 1 if self._packets else (len(self._carry) + len(data)) // self.frame_bytes

    def put(self, data: bytes, media_ms: float | None = None) -> int:
        """Keep what was captured, from `media_ms` on where that is known: for Opus one packet of 20 ms, otherwise any number of
        bytes. What was not captured before is skipped. How many old frames fell off for it."""
        fell = 0 if media_ms is None else self._catch_up(media_ms, len(data))
        if self._packets:
            return fell + self._captured([data])
        data = self._carry + data
        cut = len(data) - len(data) % self.frame_bytes
        self._carry = data[cut:]
        return fell + self._captured([data[at : at + self.frame_bytes] for at in range(0, cut, self.frame_bytes)])

    def finish(self, media_ms: float | None = None) -> int:
        """No more follows, from `media_ms` on where that is known: what is left becomes a last, short frame of whole samples.
        How many old frames fell off for it."""
        fell = 0 if media_ms is None else self._catch_up(media_ms, 0)
        rest = self._carry[: len(self._carry) - len(self._carry) % self.sample_bytes]
        self._carry = b""
        if rest:
            fell += self._captured([rest])
        self._stream.finish(short=bool(rest))
        return fell

    def message(self, run: Run) -> bytes:
        """The binary message with these frames."""
        at = self._stream.captured(self._stream.kept, run.first)
        payload = b"".join([self._frames[number][0] for number in range(at, at + run.count)])
        return write_audio(Audio(run.first, run.count, self._frames[at][1] % WRAP_MS, run.last, payload))

    def tidy(self) -> None:
        """Forget what the stream keeps no longer."""
        for _ in range(len(self._frames) - self._stream.held):
            self._frames.popleft()

    def _captured(self, frames: list[bytes]) -> int:
        at_ms = (self._stream.next - self._origin) * FRAME_MS + self._ahead_ms
        for number, frame in enumerate(frames):
            self._media_ms = max(self._media_ms, round(at_ms) + number * FRAME_MS)
            self._frames.append((frame, self._media_ms))
        fell = self._stream.capture(len(frames)) if frames else 0
        self.tidy()
        return fell

    def _catch_up(self, media_ms: float, size: int) -> int:
        """Skip what was not captured before `size` bytes that begin at `media_ms`; slow clocks are followed."""
        begun_ms = len(self._carry) / self.frame_bytes * FRAME_MS
        due_ms = (self._stream.next - self._origin) * FRAME_MS + begun_ms
        if self._began_ms is None:
            self._began_ms = media_ms - due_ms
        ahead_ms = media_ms - self._began_ms - due_ms
        if ahead_ms <= JITTER_MS:
            length_ms = FRAME_MS if self._packets else size / self.frame_bytes * FRAME_MS
            slew_ms = min(abs(ahead_ms), SLEW * length_ms)
            self._began_ms += slew_ms if ahead_ms > 0 else -slew_ms
            self._ahead_ms = ahead_ms
            return 0
        fell, pause = 0, int(ahead_ms // FRAME_MS)
        if self._carry:  # the rest of a frame that was begun
            silence = self._silence * (self.frame_bytes - len(self._carry))
            fell, pause = self._captured([self._carry + silence]), pause - 1
            self._carry = b""
        self._stream.skip(pause)
        self._ahead_ms = ahead_ms % FRAME_MS
        return fell
