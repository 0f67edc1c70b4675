"""Timers: due in their order, void once replaced, cancelled, or orphaned, even when they are on their way already."""

from typing import Any, ClassVar

import anyio
import pytest
import trio
from trio.testing import MockClock

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import Choice, Part
from actors.runtime.actor import IGNORE, Actor, Exited, Out
from actors.runtime.system import ActorSystem


def arm(stage: Any, ref: Any, key: str, seconds: float) -> None:
    """Have `ref` set a timer."""
    stage.do(ref, f"arm {key}", lambda me, out: out.set_timer(key, seconds))


def timeouts(stage: Any, ref: Any) -> list[str]:
    """The timers that fired at `ref`, in order."""
    return [line.removeprefix("timeout ") for line in stage.log(ref) if line.startswith("timeout")]


def turn(stage: Any, seconds: float = 0.0) -> Any:
    """Let seconds pass and take one turn, as the driver does."""
    stage.clock.now += seconds
    return stage.system.turn()


def test_a_timer_fires_when_its_time_has_come_and_once(stage: Any) -> None:
    ref = stage.doer()
    arm(stage, ref, "tick", 5.0)
    assert turn(stage, 4.9) == pytest.approx(0.1)
    assert timeouts(stage, ref) == []
    assert turn(stage, 0.2) is None
    assert timeouts(stage, ref) == ["tick"]
    turn(stage, 100)
    assert timeouts(stage, ref) == ["tick"]
    assert stage.system.statistics().timers == 0


def test_timers_fire_in_the_order_of_their_times_and_then_of_their_setting(stage: Any) -> None:
    ref = stage.doer()
    for key, seconds in [("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)]:
        arm(stage, ref, key, seconds)
    turn(stage, 10)
    assert timeouts(stage, ref) == ["a", "b1", "b2", "c"]


def test_a_timer_set_again_counts_from_then(stage: Any) -> None:
    ref = stage.doer()
    arm(stage, ref, "tick", 5.0)
    turn(stage, 3)
    arm(stage, ref, "tick", 5.0)
    assert stage.system.statistics().timers == 1
    turn(stage, 3)
    assert timeouts(stage, ref) == []
    turn(stage, 3)
    assert timeouts(stage, ref) == ["tick"]


def test_a_cancelled_timer_never_fires_and_cancelling_none_is_nothing(stage: Any) -> None:
    ref = stage.doer()
    arm(stage, ref, "tick", 5.0)
    for _ in range(2):
        stage.do(ref, "cancel", lambda me, out: out.cancel_timer("tick"))
    assert stage.system.statistics().timers == 0
    turn(stage, 10)
    assert timeouts(stage, ref) == []


def on_its_way(stage: Any, ref: Any, then: Any) -> None:
    """A timer that is due, behind a step of its own actor that does `then`."""
    arm(stage, ref, "tick", 5.0)
    stage.clock.now += 6
    with stage.system.held_back():
        stage.do(ref, "then", then, lane=0)
        stage.system.turn()  # it is due, and waits behind
    stage.drain()


def test_a_timer_that_is_on_its_way_fires_when_nobody_minds(stage: Any) -> None:
    ref = stage.doer()
    on_its_way(stage, ref, None)
    assert timeouts(stage, ref) == ["tick"]


def test_a_timer_cancelled_on_its_way_does_not_fire(stage: Any) -> None:
    ref = stage.doer()
    on_its_way(stage, ref, lambda me, out: out.cancel_timer("tick"))
    assert timeouts(stage, ref) == []
    assert stage.system.statistics().timers == 0


def test_a_timer_replaced_on_its_way_fires_once_at_its_new_time(stage: Any) -> None:
    ref = stage.doer()
    on_its_way(stage, ref, lambda me, out: out.set_timer("tick", 5.0))
    assert timeouts(stage, ref) == []
    assert stage.system.statistics().timers == 1
    turn(stage, 5)
    assert timeouts(stage, ref) == ["tick"]
    assert stage.system.statistics().timers == 0


def test_a_timer_of_a_dead_incarnation_never_fires_not_even_when_it_was_on_its_way(stage: Any) -> None:
    ref = stage.doer()
    arm(stage, ref, "later", 50.0)

    def fail(_: Any, __: Out) -> None:
        raise ValueError("poison")

    on_its_way(stage, ref, fail)
    assert stage.log(ref) == ("start", "arm later", "arm tick", "restarted", "restarted")
    turn(stage, 100)
    assert timeouts(stage, ref) == []
    assert stage.system.statistics().timers == 0


def lasting(stage: Any) -> Any:
    """One whose timer "tick" lasts, kept for 5 s by each life; its step fails as often as `fails` says."""

    class Lasting(stage.Doer):
        __slots__ = ()
        lasting = ("tick",)
        fails: ClassVar[list[str]] = []

        def restarted(self, out: Out) -> None:
            super().restarted(out)
            out.keep_timer("tick", 5.0)

        def timeout(self, timer: str, out: Out) -> None:
            if self.fails:
                raise ValueError(self.fails.pop())
            super().timeout(timer, out)

    return stage.system.spawn(Lasting(), "lasting")


def crash(stage: Any, ref: Any) -> None:
    """Have a step of `ref` fail halfway through its effects, which is not tried again."""
    stage.do(ref, "crash", lambda me, out: out.port(None, "nothing takes this"))
    stage.drain()


def test_a_timer_that_lasts_keeps_its_moment_through_crashes(stage: Any) -> None:
    ref = lasting(stage)
    arm(stage, ref, "tick", 5.0)
    arm(stage, ref, "other", 5.0)
    turn(stage, 3)
    crash(stage, ref)
    assert stage.system.statistics().timers == 1
    assert turn(stage, 1) == pytest.approx(1.0)
    crash(stage, ref)
    turn(stage, 1)
    assert timeouts(stage, ref) == ["tick"]
    turn(stage, 100)
    assert timeouts(stage, ref) == ["tick"]
    assert stage.system.statistics().timers == 0


def test_a_timer_that_lasts_and_is_not_there_is_armed_by_the_next_life(stage: Any) -> None:
    ref = lasting(stage)
    crash(stage, ref)
    assert turn(stage) == pytest.approx(5.0)
    assert stage.system.statistics().timers == 1


def test_a_timer_that_lasts_on_its_way_fires_in_the_next_life(stage: Any) -> None:
    ref = lasting(stage)
    on_its_way(stage, ref, lambda me, out: out.port(None, "nothing takes this"))
    assert stage.log(ref)[-2:] == ("restarted", "timeout tick")
    turn(stage, 100)
    assert timeouts(stage, ref) == ["tick"]


def test_a_timer_that_lasts_and_was_cancelled_on_its_way_does_not_come_back(stage: Any) -> None:
    ref = lasting(stage)

    def cancel_and_crash(_: Any, out: Out) -> None:
        out.cancel_timer("tick")
        out.port(None, "nothing takes this")

    on_its_way(stage, ref, cancel_and_crash)
    assert timeouts(stage, ref) == []
    assert turn(stage, 4.9) == pytest.approx(0.1)  # its next life armed it anew
    turn(stage, 1)
    assert timeouts(stage, ref) == ["tick"]


def test_a_timer_that_lasts_is_tried_until_a_step_of_it_is_whole(stage: Any) -> None:
    ref = lasting(stage)
    type(ref.actor).fails.extend(["once", "twice", "three times"])
    arm(stage, ref, "tick", 5.0)
    turn(stage, 5)
    stage.drain()
    assert stage.system.statistics().crashes == 3
    assert stage.log(ref)[-2:] == ("restarted", "timeout tick")
    assert stage.letters() == []
    assert stage.system.statistics().timers == 0


def test_the_next_life_may_set_a_timer_anew_that_lasts_and_is_on_its_way(stage: Any) -> None:
    class Anew(stage.Doer):
        __slots__ = ()
        lasting = ("tick",)

        def restarted(self, out: Out) -> None:
            out.set_timer("tick", 5.0)

    ref = stage.system.spawn(Anew(), "anew")
    on_its_way(stage, ref, lambda me, out: out.port(None, "nothing takes this"))
    assert timeouts(stage, ref) == []
    turn(stage, 5)
    assert timeouts(stage, ref) == ["tick"]


def test_of_many_timers_those_that_last_are_left_by_a_crash(stage: Any) -> None:
    class Several(stage.Doer):
        __slots__ = ()
        lasting = ("b", "d")

        def restarted(self, out: Out) -> None:
            out.keep_timer("b", 50.0)
            out.keep_timer("d", 50.0)

    ref = stage.system.spawn(Several(), "several")
    for number, key in enumerate("abcde"):
        arm(stage, ref, key, 5.0 + number)
    crash(stage, ref)
    assert stage.system.statistics().timers == 2
    arm(stage, ref, "f", 1.0)
    stage.do(ref, "cancel", lambda me, out: out.cancel_timer("d"))
    turn(stage, 30)
    assert timeouts(stage, ref) == ["f", "b"]


class Held(Actor):
    """Arms a timer in its first life, and notes which of its lives a timer fires in."""

    __slots__ = ("lives",)
    wiring = ("lives",)
    lasting = ("tick",)
    handles: ClassVar[dict[Any, Any]] = {}

    def __init__(self, lives: list[str]) -> None:
        self.lives = lives

    def start(self, out: Out) -> None:
        self.lives.append("begins")
        if len(self.lives) == 1:
            out.set_timer("tick", 5.0)

    def timeout(self, timer: str, out: Out) -> None:
        self.lives.append(timer)


class Holder(Actor):
    """Ends its child while that runs, and begins it again."""

    __slots__ = ("child", "lives")
    wiring = ("lives",)
    state = ("child",)
    handles: ClassVar[dict[Any, Any]] = {str: "asked"}

    def __init__(self, lives: list[str]) -> None:
        self.lives = lives
        self.child: Any = None

    def start(self, out: Out) -> None:
        self.child = out.spawn(Held(self.lives), "held")

    def asked(self, message: str, out: Out) -> None:
        if message == "hold":
            out.hold(self.child)
        else:
            out.restart(self.child)


@pytest.mark.parametrize("waits", [0.0, 10.0], ids=["begun again at once", "begun again when it would have been due"])
def test_a_timer_of_an_actor_that_was_held_does_not_fire_in_its_next_life(waits: float) -> None:
    now = 0.0
    lives: list[str] = []
    system = ActorSystem(clock=lambda: now)
    holder = system.spawn(Holder(lives), "holder")
    system.tell(holder, "hold")
    assert system.statistics().timers == 0
    now += waits
    system.turn()
    system.tell(holder, "restart")
    now += 20.0
    system.turn()
    assert lives == ["begins", "begins"]


def test_a_timer_whose_step_fails_is_not_tried_again(stage: Any) -> None:
    class Bomb(stage.Doer):
        __slots__ = ()

        def timeout(self, timer: str, out: Out) -> None:
            raise ValueError(timer)

    ref = stage.system.spawn(Bomb(), "bomb")
    arm(stage, ref, "tick", 1.0)
    turn(stage, 2)
    stage.drain()
    assert stage.system.statistics().crashes == 1
    assert stage.log(ref)[-1] == "restarted"
    assert stage.letters() == []


def test_a_step_may_set_the_timer_again_that_has_just_fired(stage: Any) -> None:
    class Metronome(stage.Doer):
        __slots__ = ()

        def timeout(self, timer: str, out: Out) -> None:
            self.log = (*self.log, f"timeout {timer}")
            out.set_timer(timer, 1.0)

    ref = stage.system.spawn(Metronome(), "metronome")
    arm(stage, ref, "tick", 1.0)
    for _ in range(5):
        turn(stage, 1)
    assert timeouts(stage, ref) == ["tick"] * 5
    assert stage.system.statistics().timers == 1


def test_void_timers_do_not_pile_up(stage: Any) -> None:
    ref = stage.doer()
    for _ in range(5000):
        arm(stage, ref, "tick", 5.0)
    assert len(stage.system._timers) < 100
    turn(stage, 6)
    assert timeouts(stage, ref) == ["tick"]


def test_timers_that_are_live_survive_the_sweep(stage: Any) -> None:
    ref, other = stage.doer(), stage.doer("other")
    for number in range(20):
        arm(stage, other, str(number), 1.0 + number)
    for _ in range(500):
        arm(stage, ref, "tick", 0.5)
    turn(stage, 30)
    assert timeouts(stage, other) == [str(number) for number in range(20)]


# --- on a loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_the_driver_sleeps_until_the_next_timer_on_the_loops_clock(
    stage: Any, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    stage.system = ActorSystem()
    times: list[float] = []

    class Watch(stage.Doer):
        __slots__ = ()

        def timeout(self, timer: str, out: Out) -> None:
            times.append(trio.current_time())

    ref = stage.system.spawn(Watch(), "watch")
    arm(stage, ref, "before the run", 7.0)
    await trio.sleep(100)
    begin = trio.current_time()
    await nursery.start(stage.system.run)
    arm(stage, ref, "a", 3600.0)
    arm(stage, ref, "b", 60.0)
    await trio.sleep(4000)
    assert [at - begin for at in times] == pytest.approx([7.0, 60.0, 3600.0])
    nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_timer_that_is_sooner_than_the_drivers_sleep_wakes_it(
    stage: Any, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    stage.system = ActorSystem()
    ref = stage.doer()
    await nursery.start(stage.system.run)
    arm(stage, ref, "late", 1000.0)
    await trio.sleep(1)
    arm(stage, ref, "soon", 1.0)
    await trio.sleep(1.5)
    assert timeouts(stage, ref) == ["soon"]
    nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_timers_set_before_the_run_keep_their_time_when_the_clock_was_given(
    new_stage: Any, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    stage = new_stage()
    stage.system = ActorSystem(clock=trio.current_time)
    await trio.sleep(500)
    ref = stage.doer()
    arm(stage, ref, "tick", 5.0)
    await nursery.start(stage.system.run)
    await trio.sleep(6)
    assert timeouts(stage, ref) == ["tick"]
    nursery.cancel_scope.cancel()


@pytest.mark.anyio
async def test_timers_fire_in_real_time_on_every_loop(stage: Any) -> None:
    # Real time: asyncio has no virtual clock, and the driver's sleep on it has to be seen once.
    stage.system = ActorSystem()
    ref, fired = stage.doer(), anyio.Event()

    class Bell(stage.Doer):
        __slots__ = ()

        def timeout(self, timer: str, out: Out) -> None:
            fired.set()

    ref = stage.system.spawn(Bell(), "bell")
    async with anyio.create_task_group() as group:
        await group.start(stage.system.run)
        arm(stage, ref, "tick", 0.02)
        with anyio.fail_after(10):
            await fired.wait()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_timer_set_behind_its_own_stop_is_no_timer_and_a_child_none_either(keeps: bool) -> None:
    """The same in the system and in the model; with a parent that keeps its children, for whom a stop is no end."""

    class Child(Actor):
        __slots__ = ()
        handles: ClassVar = {str: "end"}

        def end(self, message: str, out: Out) -> None:
            out.stop()
            out.set_timer("late", 1.0)
            out.spawn(Grandchild(), "grandchild")

    class Grandchild(Actor):
        __slots__ = ()

    class Parent(Actor):
        __slots__ = ("child",)
        state = ("child",)
        handles: ClassVar = {Exited: IGNORE}
        holds_children = keeps

        def __init__(self) -> None:
            self.child: Any = None

        def start(self, out: Out) -> None:
            self.child = out.spawn(Child(), "child")

    system = ActorSystem(clock=lambda: 0.0)
    parent = system.spawn(Parent(), "parent")
    system.tell(parent.youngest, "end")  # type: ignore[arg-type]
    assert system.statistics().timers == 0
    assert system.turn() is None
    assert [ref.name for ref, _ in system.refs()] == ["parent", "child"][: 1 + keeps]

    class Teller(Part):
        child: Any = None

        def initial(self) -> int:
            return 1

        def choices(self, left: int) -> Any:
            if left:
                yield Choice("tells", 0, ((self.child, "end"),))

    teller = Teller("teller")

    def setup(scene: Scene) -> None:
        scene.spawn(Parent(), "parent")
        teller.child = scene.find("parent/child")

    model = ActorModel("late", setup, parts=[teller])
    (state,) = model.initial()
    ((_, after),) = model.successors(state)
    assert model.armed(after) == ()
    assert [path for path, _ in model.actors(after)] == ["parent", "parent/child"][: 1 + keeps]
    assert model.successors(after) == []
