"""The account of one worker process: what it was given, what it owes, and until when it must have answered.

Pure bookkeeping but for the requests, which go to the process's pipe.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agentos.core.communication.voice.stt.process import WorkerProcess
from agentos.core.communication.voice.stt.protocol import (
    Alive,
    Answer,
    Drop,
    Open,
    StreamAudio,
    StreamBroken,
    StreamEnd,
    StreamOpened,
    StreamProgress,
    WorkerPing,
)
from agentos.core.communication.voice.stt.stream import Stream

SUSPECT_SECONDS: Final = 0.25  # an answer may be in the pipe already, when it was this process that slept
_KILL_SECONDS: Final = 2.0


@dataclass(eq=False)
class WorkerAccount:
    """A worker process, the streams that it has, and what it owes."""

    process: WorkerProcess
    since: float  # when it last answered, or began to owe something
    streams: dict[int, Stream] = field(default_factory=dict)
    owed: Counter[int] = field(default_factory=Counter)  # answers, by stream number
    opening: set[int] = field(default_factory=set)
    ready: bool = False
    asked: bool = False
    suspect: bool = False
    doubted: bool = False
    hung: bool = False

    def send(self, request: Open | StreamAudio | StreamEnd | Drop, now: float) -> None:
        """Send a request; every one but `Drop` is owed an answer."""
        if not isinstance(request, Drop):
            if self.ready and not self.owed and not self.asked:
                self.since = now
            self.owed[request.stream] += 1
        self.process.send(request)

    def ask(self, now: float) -> None:
        """Have it show that it lives, when it owes nothing that would show it."""
        if self.ready and not self.owed and not self.asked and not self.hung:
            self.since, self.asked = now, True
            self.process.send(WorkerPing())

    def answered(self, answer: Answer, now: float) -> None:
        """Note that it has answered."""
        self.since = now
        self.suspect = self.doubted = False
        if isinstance(answer, Alive):
            self.asked = False
        if not isinstance(answer, StreamOpened | StreamProgress | StreamBroken):
            self.ready = True
            return
        self.opening.discard(answer.stream)
        self.owed[answer.stream] -= 1
        if isinstance(answer, StreamBroken) or self.owed[answer.stream] <= 0:
            del self.owed[answer.stream]

    def working_seconds(self, now: float) -> float:
        """For how long it has been at the audio that it was given last, without an answer; nothing while it starts or loads an
        engine."""
        return max(0.0, now - self.since) if self.ready and self.owed and not self.opening else 0.0

    def silent_at(self, silent_after: float) -> float:
        """When a call that ends need not wait for it any longer: one that is ready, and has answered nothing for so long."""
        if not self.ready or not self.owed or self.opening:
            return float("inf")
        return self.since + silent_after + (SUSPECT_SECONDS if self.doubted else 0.0)

    def waited_for(self) -> list[Stream]:
        """The streams that end, and were not told that they need not wait."""
        return [stream for stream in self.streams.values() if stream.finishing and not stream.told_silent]

    def deadline(self, start_timeout: float, hang_timeout: float, silent_after: float) -> float:
        """When it has to have answered, as things stand. One that has nothing to do can answer sooner than one that decodes."""
        if self.hung:
            return self.since + _KILL_SECONDS
        if self.ready and not self.owed:
            return (
                self.since + silent_after + (SUSPECT_SECONDS if self.suspect else 0.0) if self.asked else float("inf")
            )
        patience = hang_timeout if self.ready and not self.opening else start_timeout
        return self.since + patience + (SUSPECT_SECONDS if self.suspect else 0.0)
