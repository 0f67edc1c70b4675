"""A further part of a call: it is spawned, told of frames, drained, restarted, given up and modelled like the others."""

# ruff: noqa: RUF012 - a table on an actor class is never changed

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from msgspec import Struct

from actors.model.actor_model import ActorModel
from actors.model.parts import Choice, Faults, Part
from actors.runtime.actor import IGNORE, Actor, ActorDeclarationError, Out
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.call_part import CallPart, Hears, PartContext, check_parts
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice_lab.model import voice_model
from machines.checker import Outcome, Report, check
from machines.events import VoiceEventType
from machines.session import EndReason

OPEN, DRAINING, DONE = "open", "draining", "done"


class Count(Struct, frozen=True):
    """Work for the counting port: `frames` more, the `last` of them when it is set."""

    frames: int
    reply_to: Ref
    last: bool = False


class Counted(Struct, frozen=True):
    """Fact of the counting port: it has counted so many in all; `last` answers a last work."""

    frames: int
    last: bool = False


class CounterActor(Actor):
    """Has a port count the frames of its session."""

    __slots__ = ("context", "counted", "phase")
    wiring = ("context",)
    state = ("phase", "counted")
    journal = state
    handles = {
        OPEN: {m.Frames: "frames", m.Drain: "drain", Counted: "counted_some"},
        DRAINING: {m.Frames: IGNORE, m.Drain: IGNORE, Counted: "counted_all"},
        DONE: {m.Frames: IGNORE, m.Drain: "answer_again", Counted: IGNORE},
    }

    def __init__(self, context: PartContext) -> None:
        self.context = context
        self.phase = OPEN
        self.counted: int = context.account

    def restarted(self, out: Out) -> None:
        if self.phase == DRAINING:
            out.port(self.context.port, Count(0, out.me, last=True))
        if self.phase == DONE:
            self._answer(out)

    def frames(self, message: m.Frames, out: Out) -> None:
        out.port(self.context.port, Count(message.count, out.me))

    def counted_some(self, message: Counted, out: Out) -> None:
        self.counted = message.frames
        news = (m.Emit(self.context.facts.session_id, VoiceEventType.ERROR, (("counted", self.counted),)),)
        record = m.PartRecord("frames_counted", (("frames", self.counted),))
        out.tell(self.context.session, m.PartReport(self.context.place, self.counted, news, record))

    def drain(self, _: m.Drain, out: Out) -> None:
        self.phase = DRAINING
        out.port(self.context.port, Count(0, out.me, last=True))

    def counted_all(self, message: Counted, out: Out) -> None:
        self.counted = message.frames
        if message.last:
            self.phase = DONE
            self._answer(out)

    def answer_again(self, _: m.Drain, out: Out) -> None:
        self._answer(out)

    def _answer(self, out: Out) -> None:
        out.tell(self.context.session, m.PartAnswer(self.context.place, self.counted))


class CounterPart(CallPart):
    """Counts; a call can do without it."""

    name = "counter"
    kind = CounterActor
    port = "counting"
    after = ("transcriber",)
    essential = False

    def begins_with(self, resumption: m.Resumption | None) -> int:
        return 0

    def actor(self, context: PartContext) -> Actor:
        return CounterActor(context)

    def upto(self, account: int) -> int:
        return account

    def outcome(self, account: int) -> dict[str, Any]:
        return {"frames": account}


class CountingPort(Part):
    """Counts what it is given, in order; it may fall silent for ever."""

    faults = ("counting",)

    def initial(self) -> Any:
        return ((), 0, False)

    def submit(self, state: Any, work: Count) -> Any:
        waiting, counted, silent = state
        return ((*waiting, work), counted, silent)

    def choices(self, state: Any) -> Iterable[Choice]:
        waiting, counted, silent = state
        if waiting and not silent:
            work = waiting[0]
            counted += work.frames
            fact = Counted(counted, work.last)
            yield Choice("counts", (waiting[1:], counted, silent), ((work.reply_to, fact),), prompt=True)
            yield Choice("falls silent", (waiting, counted - work.frames, True), fault="counting")


PARTS = (*STANDARD_PARTS, CounterPart())


def counting_model(faults: Faults | None = None) -> ActorModel:
    return voice_model(call_parts=PARTS, more_ports=(CountingPort("counting"),), faults=faults)


def broken(report: Report) -> list[str]:
    return [v.name for v in report.verdicts if v.outcome is not Outcome.HOLDS and v.kind != "sometimes"]


@pytest.mark.parametrize(
    "faults",
    [None, Faults(1, {"crash": 1}, frozenset({"counter"})), Faults(1, {"counting": 1})],
    ids=["sound", "a crash", "a silent port"],
)
def test_a_model_covers_a_further_part_with_its_port(faults: Faults | None) -> None:
    model = counting_model(faults)
    assert broken(check(model)) == []
    assert "CounterActor" in {row[0] for row in model.coverage()}


@pytest.mark.slow
@pytest.mark.search
def test_a_model_of_a_part_that_crashes_for_good_says_that_the_call_goes_on_without_it() -> None:
    model = counting_model(Faults(4, {"crash": 4}, frozenset({"counter"}), in_a_turn=1))
    model.always(
        "no call fails for it",
        lambda callers: all(call.result is None or call.result.reason is not EndReason.FAILED for call in callers),
        of=["callers"],
    )
    report = check(model)
    assert report.verdict("no call fails for it").outcome is Outcome.HOLDS
    assert broken(report) == []


class Counting:
    """The counting port of a test, which answers when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Count] = []
        self.counted = 0

    def submit(self, work: Count) -> None:
        self.waiting.append(work)

    def answer(self, world: Any) -> None:
        """Answer all work."""
        while self.waiting:
            work = self.waiting.pop(0)
            self.counted += work.frames
            world.tell(work.reply_to, Counted(self.counted, work.last))
        world.settle()


def test_a_part_reports_with_news_and_evidence_and_stands_in_the_result(new_world: Callable[..., Any]) -> None:
    world = new_world(call_parts=PARTS, more_ports={"counting": (port := Counting())})
    world.open()
    world.frames(3)
    port.answer(world)
    assert [dict(work.payload) for work in world.directory.log if isinstance(work, m.Emit)][-1] == {"counted": 3}
    assert "frames_counted" in world.operations()
    world.stop()
    assert not world.finals(), "the part has not answered"
    port.answer(world)
    result = world.check_ended()
    assert (result.drained, result.parts) == (True, {"counter": {"frames": 3}})


def test_a_part_that_never_answers_stands_in_the_result_as_far_as_it_told(new_world: Callable[..., Any]) -> None:
    world = new_world(call_parts=PARTS, more_ports={"counting": (port := Counting())})
    world.open()
    world.frames(3)
    port.answer(world)
    world.stop()
    world.advance(11)
    result = world.check_ended()
    assert (result.drained, result.parts, result.frames.accounted) == (False, {"counter": {"frames": 3}}, 3)


@pytest.mark.parametrize("stopped_before", [False, True])
def test_a_call_goes_on_without_a_part_that_is_not_essential(
    new_world: Callable[..., Any], *, stopped_before: bool
) -> None:
    with new_world().crashing(CounterActor, frozenset(range(1, 100))):
        world = new_world(call_parts=PARTS, more_ports={"counting": Counting()})
        world.open()
        if stopped_before:
            world.frames(1)
            world.stop()
        for _ in range(5):
            world.frames(1)
        world.settle()
        emitted = [dict(work.payload) for work in world.directory.log if isinstance(work, m.Emit)]
        assert [one["restarted"] for one in emitted if one.get("part") == "counter"][-1] is False
        if not stopped_before:
            world.stop()
        result = world.check_ended()
    assert (result.reason, result.drained) == (EndReason.STOPPED, True)
    assert result.frames.accounted == (1 if stopped_before else 5)


def test_parts_of_one_name_or_that_wait_for_each_other_are_refused() -> None:
    class Other(CounterPart):
        after = ("another",)

    class Another(CounterPart):
        name = "another"
        after = ("counter",)

    check_parts((*PARTS, Another()))
    with pytest.raises(ActorDeclarationError, match=r"have one name: .*counter, counter"):
        check_parts((*PARTS, CounterPart()))
    with pytest.raises(ActorDeclarationError, match=r"never drain.*: counter, another"):
        check_parts((*STANDARD_PARTS, Other(), Another()))
    with pytest.raises(ActorDeclarationError, match=r"never drain.*: counter"):
        check_parts((Other(),))


def test_an_actor_that_takes_no_drain_is_refused_as_a_part() -> None:
    class Deaf(Actor):
        __slots__ = ()
        handles = {m.Frames: IGNORE}

    with pytest.raises(ActorDeclarationError, match=r"Deaf is the actor of the part 'deaf' and must handle Drain"):

        class DeafPart(CallPart):
            name = "deaf"
            kind = Deaf


def test_a_part_that_hears_voice_keeps_a_silent_call_alive(
    new_world: Callable[..., Any], facts: Callable[..., m.Facts]
) -> None:
    class Listener(CounterPart):
        name = "listener"
        hears = Hears.VOICE
        after = ()

    world = new_world(call_parts=(*STANDARD_PARTS, Listener()), more_ports={"counting": (port := Counting())})
    world.speaks = False
    world.ask(facts(silence_seconds=20.0, stt_engine=None))
    world.frames(2)
    port.answer(world)
    world.advance(19)
    world.tell(world.routes["voice-1"], m.PartReport(2, 2, spoken=True))
    world.advance(19)
    assert not world.finals()
    world.advance(2)
    port.answer(world)
    assert world.check_ended().reason is EndReason.SILENCE
