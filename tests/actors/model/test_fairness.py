"""Timers that are armed again for ever, as by watchdogs, leases and heartbeats: nothing promises that they come due."""

from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene, Schedule, Timers
from actors.model.parts import Choice, Part
from actors.runtime.actor import Actor, Out
from actors.simulation.runner import Simulation, World
from machines.checker import Outcome, check
from machines.checker.on_path import holds_on
from machines.checker.result import Path, Step

SECONDS = 30.0


class Ping(NamedTuple):
    pass


class Silence(NamedTuple):
    pass


class Watchdog(Actor):
    """Barks when no ping came for a while; each is answered."""

    __slots__ = ("phase", "source")
    wiring = ("source",)
    state = ("phase",)
    journal = state
    handles: ClassVar = {phase: {Ping: "pinged", Silence: "silent"} for phase in ("quiet", "barks")}

    def __init__(self, source: Any) -> None:
        self.source = source
        self.phase = "quiet"

    def start(self, out: Out) -> None:
        out.set_timer("bark", SECONDS)

    def pinged(self, message: Ping, out: Out) -> None:
        out.set_timer("bark", SECONDS)
        out.port(self.source, "heard")

    def silent(self, message: Silence, out: Out) -> None:
        out.port(self.source, "heard")

    def timeout(self, timer: str, out: Out) -> None:
        self.phase = "barks"


class Deaf(Watchdog):
    """Takes pings for nothing."""

    __slots__ = ()

    def pinged(self, message: Ping, out: Out) -> None:
        out.port(self.source, "heard")


class Lease(Watchdog):
    """Is held by a ping and let go at the silence behind it: the timer is cancelled, and armed again."""

    __slots__ = ()

    def pinged(self, message: Ping, out: Out) -> None:
        out.cancel_timer("bark")
        out.port(self.source, "heard")

    def silent(self, message: Silence, out: Out) -> None:
        out.set_timer("bark", SECONDS)
        out.port(self.source, "heard")


class Source(Part):
    """Sends its messages, each when the one before was heard: `endless`ly round and round, or each once."""

    dog: Any = None

    def __init__(self, *messages: Any, endless: bool = True) -> None:
        super().__init__("source")
        self.messages = messages or (Ping(),)
        self.endless = endless

    def initial(self) -> tuple[int, bool]:
        return 0, True

    def submit(self, state: tuple[int, bool], work: Any) -> tuple[int, bool]:
        return state[0], True

    def choices(self, state: tuple[int, bool]) -> Any:
        number, heard = state
        if heard and number < len(self.messages):
            after = (number + 1) % len(self.messages) if self.endless else number + 1
            yield Choice("pings", (after, False), ((self.dog, self.messages[number]),))


def watched(kind: type[Watchdog], source: Source, **options: Any) -> ActorModel:
    def setup(scene: Scene) -> None:
        source.dog = scene.spawn(kind(scene.port(source)), "dog")

    model = ActorModel("watched", setup, parts=[source], **options)
    model.leads_to("it barks in the end", lambda _: True, lambda dog: dog.phase == "barks", of=["dog"])
    return model


SCHEDULES = pytest.mark.parametrize("schedule", Schedule)
TIMERS = pytest.mark.parametrize("timers", Timers)
SEARCHES = pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"visited": "fingerprint"}], ids=str)


@SCHEDULES
@TIMERS
@SEARCHES
def test_a_watchdog_that_is_always_pinged_never_barks(
    schedule: Schedule, timers: Timers, options: dict[str, Any]
) -> None:
    model = watched(Watchdog, Source(), schedule=schedule, timers=timers)
    found = check(model, **options).verdict("it barks in the end")
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.loop is not None
    assert not any(model.timers_in(action) for action in found.path.actions)
    assert not holds_on(model, found.name, found.path)


@SCHEDULES
@TIMERS
def test_a_watchdog_that_is_no_longer_pinged_barks(schedule: Schedule, timers: Timers) -> None:
    source = Source(Ping(), Ping(), endless=False)
    report = check(watched(Watchdog, source, schedule=schedule, timers=timers))
    assert report.verdict("it barks in the end").outcome is Outcome.HOLDS


@SCHEDULES
@TIMERS
@SEARCHES
def test_a_timer_that_stays_armed_comes_due_whatever_else_goes_on_for_ever(
    schedule: Schedule, timers: Timers, options: dict[str, Any]
) -> None:
    model = watched(Deaf, Source(), schedule=schedule, timers=timers)
    assert check(model, **options).verdict("it barks in the end").outcome is Outcome.HOLDS


def test_the_simulator_says_the_same_of_an_hour() -> None:
    """Pings come within twenty seconds of each other."""

    def barks_in(kind: type[Watchdog]) -> bool:
        source = Source()

        def setup(world: World) -> None:
            source.dog = world.spawn(kind(world.port(source)), "dog")

        simulation = Simulation("watched", setup, parts=[source], faults={})
        simulation.always("quiet", lambda dog: dog.phase == "quiet", of=["dog"])
        return simulation.run(1, hours=1.0).failure is not None

    assert not barks_in(Watchdog)
    assert barks_in(Deaf)


def test_a_run_that_only_puts_off_what_stays_armed_is_no_counterexample() -> None:
    model = watched(Deaf, Source())
    (state,) = model.initial()
    action, after = next(one for one in model.successors(state) if model.event(one[0]) == ("source", "pings"))
    around = Path(state, (Step(action, after),), loop=0)
    assert after == state
    assert holds_on(model, "it barks in the end", around)
    assert list(model.renews(state, action)) == []


@SCHEDULES
def test_a_lease_that_is_cancelled_and_taken_again_never_ends(schedule: Schedule) -> None:
    model = watched(Lease, Source(Ping(), Silence()), schedule=schedule)
    assert check(model).verdict("it barks in the end").outcome is Outcome.FAILS


class Two(Actor):
    """Two timers, each armed again whenever it comes due."""

    __slots__ = ("last",)
    state = ("last",)

    def __init__(self) -> None:
        self.last = ""

    def start(self, out: Out) -> None:
        out.set_timer("one", 1.0)
        out.set_timer("two", 1.0)

    def timeout(self, timer: str, out: Out) -> None:
        self.last = timer
        out.set_timer(timer, 1.0)


def test_two_timers_that_come_due_at_once_have_both_come_due_and_need_not_do_so() -> None:
    model = ActorModel("two timers", lambda scene: scene.spawn(Two(), "two"))
    for name in ("one", "two"):
        model.leads_to(f"{name} is the last", lambda _: True, lambda two, name=name: two.last == name, of=["two"])
    for found in check(model).verdicts[-2:]:
        assert found.outcome is Outcome.FAILS
        assert found.path is not None
        assert found.path.loop is not None
        around = found.path.actions[found.path.loop :]
        assert [len(model.timers_in(action)) for action in around] == [2] * len(around)
    (state,) = model.initial()
    timers = {tuple(key for _, key in model.timers_in(action)): action for action, _ in model.successors(state)}
    both, one = timers["one", "two"], timers["one",]
    assert (model.is_fair(both), model.is_strongly_fair(both)) == (False, False)
    assert (model.is_fair(one), model.is_strongly_fair(one)) == (True, True)
    renewed = list(model.renews(state, both))
    assert one in renewed
    assert [model.timers_in(action) for action in renewed] == [[("two", "one")], [("two", "two")]]
