"""A part of a call that a host brings: it listens for shouting, tells listeners of it, and has its length in the result."""

import array
from typing import Any

from msgspec import Struct

from actors import Actor, Out, Ref
from actors.voice import CallAudio, CallPart, PartContext
from actors.voice.messages import Drain, Frames, PartAnswer, PartReport
from agentos.core.communication.voice import ThreadPort

LOUD = 20_000  # of the 32,767 that a sample can have


class Measure(Struct, frozen=True):
    """Work: measure these frames of a call. Without frames: answer once all before were measured."""

    call: PartContext
    reply_to: Ref
    frames: Frames | None = None


class Measured(Struct, frozen=True):
    """Fact: so many more frames were loud; the `last` one answers a `Measure` without frames."""

    loud: int
    last: bool


class LoudnessPort(ThreadPort):
    """Measures in a thread of its own."""

    def work(self, work: Measure) -> None:
        loud = 0
        if work.frames is not None and work.frames.count:
            samples = array.array("h", self.audio.take(work.call.facts.session_id, work.frames.first))
            loud = work.frames.count if max(samples) > LOUD else 0
        self.audio.tell(work.reply_to, Measured(loud, last=work.frames is None))


class ShoutingActor(Actor):
    """Counts the loud frames of one call."""

    __slots__ = ("call", "loud")
    wiring, state, journal = ("call",), ("loud",), ("loud",)
    handles = {Frames: "frames", Measured: "measured", Drain: "drain"}  # noqa: RUF012

    def __init__(self, call: PartContext) -> None:
        self.call, self.loud = call, 0

    def frames(self, message: Frames, out: Out) -> None:
        out.port(self.call.port, Measure(self.call, out.me, message))

    def drain(self, _: Drain, out: Out) -> None:
        out.port(self.call.port, Measure(self.call, out.me))

    def measured(self, message: Measured, out: Out) -> None:
        self.loud += message.loud
        if message.last:
            out.tell(self.call.session, PartAnswer(self.call.place, self.loud))
        elif message.loud:
            news = (self.call.event(loud_frames=self.loud),)
            out.tell(self.call.session, PartReport(self.call.place, self.loud, news))


class ShoutingPart(CallPart):
    """Listens for shouting; a call goes on without this part."""

    name, kind, port, essential = "shouting", ShoutingActor, "loudness", False

    def actor(self, context: PartContext) -> Actor:
        return ShoutingActor(context)

    def open_port(self, audio: CallAudio) -> LoudnessPort:
        return LoudnessPort(audio)

    def outcome(self, account: int | None) -> dict[str, Any]:
        return {"loud_ms": (account or 0) * 20}
