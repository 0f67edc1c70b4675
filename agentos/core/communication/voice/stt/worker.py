"""A worker process: engines behind a pipe. Run as `python -m agentos.core.communication.voice.stt.worker`.

Requests come on standard input, answers go out on what was standard output; whatever else writes to standard output goes to
standard error. The process ends when its input ends, so it never outlives its parent; Ctrl-C at the terminal is the
parent's affair. Streams are served in the order of their requests, each with an engine of its own, kept for sessions that ask
for the same.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from actors.voice.messages import Word
from agentos.core.communication.voice.audio.convert import Converter
from agentos.core.communication.voice.stt.base import SAMPLE_RATE, Engine, FinalText, PartialText, Result, make_engine
from agentos.core.communication.voice.stt.protocol import (
    Alive,
    Answer,
    Drop,
    FinishedUtterance,
    Open,
    PacketReader,
    Ready,
    Request,
    StreamAudio,
    StreamBroken,
    StreamEnd,
    StreamOpened,
    StreamProgress,
    WorkerPing,
    packet,
)
from machines.audio import FRAME_MS, AudioFormat

_READ_BYTES: Final = 1 << 16
_IDLE_ENGINES: Final = 4  # of one kind; an engine is tens of megabytes and half a second to load
_IDLE_KINDS: Final = 4  # sessions may differ in their options


class MediaTime:
    """Where the engine's time lies in the call: frames that were lost are a jump in the one and nothing in the other."""

    def __init__(self) -> None:
        self._jumps: deque[tuple[float, int]] = deque()  # (engine's time, media time) where a run began
        self._fed_ms = 0.0
        self._next = -1

    def fed(self, first: int, count: int, duration_ms: float) -> None:
        """`count` frames from `first` on go to the engine; they last `duration_ms` (the last one may be short)."""
        if first != self._next:
            self._jumps.append((self._fed_ms, first * FRAME_MS))
        self._next = first + count
        self._fed_ms += duration_ms

    def of(self, engine_ms: float) -> int:
        """The media time of the engine's `engine_ms`."""
        base, media = 0.0, 0
        for jump in self._jumps:
            if jump[0] > engine_ms:
                break
            base, media = jump
        return media + round(engine_ms - base)

    def end_of(self, engine_ms: float) -> int:
        """The media time of an end at `engine_ms`: before a jump, not behind it."""
        return self.of(engine_ms - 1) + 1

    def settled_frame(self, engine_ms: float) -> int:
        """The first frame that is not wholly before the engine's `engine_ms`; forgets the jumps before the last one."""
        while len(self._jumps) > 1 and self._jumps[1][0] <= engine_ms:
            self._jumps.popleft()
        if not self._jumps:
            return 0
        base, media = self._jumps[0]
        return (media + int(engine_ms - base)) // FRAME_MS

    @property
    def next_frame(self) -> int:
        """The frame behind the last one that was fed."""
        return max(self._next, 0)


class _Stream:
    """One session's audio on its way into an engine."""

    def __init__(self, request: Open, engine: Engine) -> None:
        self.number = request.stream
        self.kind = _kind(request)
        self.engine = engine
        audio_format = AudioFormat(
            encoding=request.encoding, sample_rate=request.sample_rate, channels=request.channels
        )
        self._bytes_per_ms = audio_format.sample_rate * audio_format.sample_bytes / 1000
        self._converter = Converter(audio_format, SAMPLE_RATE)
        self._time = MediaTime()
        engine.start(request.session_id)

    def feed(self, request: StreamAudio) -> StreamProgress:
        self._time.fed(request.first, request.count, len(request.data) / self._bytes_per_ms)
        results = self.engine.feed(self._converter.convert(request.data))
        return self._progress(results, ended=False)

    def end(self) -> StreamProgress:
        rest = self._converter.finish()
        results = self.engine.feed(rest) if rest else []
        return self._progress([*results, *self.engine.finish()], ended=True)

    def _progress(self, results: list[Result], *, ended: bool) -> StreamProgress:
        finals = tuple(self._in_media_time(result) for result in results if isinstance(result, FinalText))
        last = results[-1] if results else None
        taken = self._time.next_frame
        settled = taken if ended else min(taken, self._time.settled_frame(self.engine.settled_ms))
        partial = last.text if isinstance(last, PartialText) else None
        return StreamProgress(self.number, taken, settled, finals, partial, ended)

    def _in_media_time(self, result: FinalText) -> FinishedUtterance:
        begin, end = self._time.of, self._time.end_of
        words = tuple(Word(word.text, begin(word.start_ms), end(word.end_ms), word.confidence) for word in result.words)
        return FinishedUtterance(result.text, begin(result.start_ms), end(result.end_ms), words)


class Worker:
    """The streams of this process; `answer` sends. An engine that raises breaks its stream and no other."""

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        self._answer = answer
        self._streams: dict[int, _Stream] = {}
        self._idle: dict[bytes, list[Engine]] = {}  # by kind, the one that was used last at the end

    def do(self, request: Request) -> None:
        """Carry out one request and answer it. What is asked of a stream that is not there means nothing."""
        if isinstance(request, WorkerPing):
            self._answer(Alive())
            return
        try:
            if isinstance(request, Open):
                self._open(request)
            elif request.stream in self._streams:
                self._go_on(self._streams[request.stream], request)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it is told, and the engine thrown away
            self._streams.pop(request.stream, None)
            self._answer(StreamBroken(request.stream, f"{type(error).__name__}: {error}"))

    def _open(self, request: Open) -> None:
        idle = self._idle.get(_kind(request))
        engine = idle.pop() if idle else make_engine(request.factory, request.configuration, request.options)
        self._streams[request.stream] = _Stream(request, engine)
        self._answer(StreamOpened(request.stream))

    def _go_on(self, stream: _Stream, request: StreamAudio | StreamEnd | Drop) -> None:
        if isinstance(request, StreamAudio):
            self._answer(stream.feed(request))
            return
        if isinstance(request, StreamEnd):
            progress = stream.end()
            self._release(stream)
            self._answer(progress)
        else:
            stream.engine.abort()
            self._release(stream)

    def _release(self, stream: _Stream) -> None:
        del self._streams[stream.number]
        idle = self._idle.pop(stream.kind, [])
        if len(idle) < _IDLE_ENGINES:
            idle.append(stream.engine)
        self._idle[stream.kind] = idle
        if len(self._idle) > _IDLE_KINDS:
            del self._idle[next(iter(self._idle))]


def _kind(request: Open) -> bytes:
    """The same for sessions that may use each other's engines."""
    return msgspec.json.encode((request.factory, request.configuration, request.options), order="deterministic")


def _own_stdout() -> int:
    """What was standard output, for the answers alone; file descriptor 1 is standard error from now on."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def main(wedge_seconds: int) -> None:
    """Serve requests until the input ends. A single request that takes longer than `wedge_seconds` ends the process.

    The parent kills a worker that hangs; this alarm is for the one whose parent is gone. It is the kernel's, so it also
    ends native code that never lets go of the interpreter.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = _own_stdout()
    worker = Worker(lambda answer: _write(answers, packet(answer)))
    requests: PacketReader[Request] = PacketReader(Request)
    try:
        _write(answers, packet(Ready()))
        while data := os.read(0, _READ_BYTES):
            for request in requests.feed(data):
                signal.alarm(wedge_seconds)
                worker.do(request)
                signal.alarm(0)
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
