"""The client's audio ring: it keeps frames until the server has them for good, or newer frames need the room."""

from collections import deque

from machines.audio import FRAME_MS, FRAMES_PER_SECOND
from machines.stream.ends import WRAP_MS, ClientStream, FrameRun
from machines.stream.media_time import JITTER_US, SLEW
from machines.stream.messages import Audio, StreamFormat, write_audio

BYTES = {"pcm_s16le": 2, "mulaw": 1}
JITTER_MS = JITTER_US // 1_000


class AudioRing:
    """The bytes of the frames that `stream` keeps, in `audio_format`. For one task at a time."""

    def __init__(self, stream: ClientStream, audio_format: StreamFormat) -> None:
        self._stream = stream
        self._frames: deque[tuple[bytes, int]] = deque()  # each frame with its media time
        self._carry = b""
        self._origin = stream.next  # the first frame of this client, captured at 0 ms
        self._began_ms: float | None = None  # when that was on the program's clock
        self._ahead_ms = 0.0  # by which the program's clock is ahead of the count of frames
        self._media_ms = 0
        self._silence = b"\xff" if audio_format.encoding == "mulaw" else b"\0"
        self._packets = audio_format.encoding == "opus"
        self.sample_bytes = 1 if self._packets else BYTES[audio_format.encoding] * audio_format.channels
        self.frame_bytes = audio_format.sample_rate // FRAMES_PER_SECOND * self.sample_bytes

    def frames_in(self, data: bytes) -> int:
        """How many whole frames there would be with these bytes."""
        return 1 if self._packets else (len(self._carry) + len(data)) // self.frame_bytes

    def put(self, data: bytes, media_ms: float | None = None) -> int:
        """Keep captured audio: for Opus one packet of 20 ms, otherwise any number of bytes. `media_ms` is its capture time, if
        known; a pause before it is skipped. Returns how many old frames fell off the ring."""
        fell = 0 if media_ms is None else self._catch_up(media_ms, len(data))
        if self._packets:
            return fell + self._captured([data])
        data = self._carry + data
        cut = len(data) - len(data) % self.frame_bytes
        self._carry = data[cut:]
        return fell + self._captured([data[at : at + self.frame_bytes] for at in range(0, cut, self.frame_bytes)])

    def finish(self, media_ms: float | None = None) -> int:
        """End the audio, at `media_ms`, if known: the rest becomes a last, short frame of whole samples. Returns how many old
        frames fell off the ring."""
        fell = 0 if media_ms is None else self._catch_up(media_ms, 0)
        rest = self._carry[: len(self._carry) - len(self._carry) % self.sample_bytes]
        self._carry = b""
        if rest:
            fell += self._captured([rest])
        self._stream.finish(short=bool(rest))
        return fell

    def message(self, run: FrameRun) -> bytes:
        """The binary message with these frames."""
        at = self._stream.captured(self._stream.kept, run.first)
        payload = b"".join([self._frames[number][0] for number in range(at, at + run.count)])
        return write_audio(Audio(run.first, run.count, self._frames[at][1] % WRAP_MS, run.last, payload))

    def tidy(self) -> None:
        """Drop the frames that the stream does not keep any more."""
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
        """Skip a pause before `size` bytes that begin at `media_ms`; a slow clock is followed."""
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
        if self._carry:  # the beginning of an unfinished frame
            silence = self._silence * (self.frame_bytes - len(self._carry))
            fell, pause = self._captured([self._carry + silence]), pause - 1
            self._carry = b""
        self._stream.skip(pause)
        self._ahead_ms = ahead_ms % FRAME_MS
        return fell
