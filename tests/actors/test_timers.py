"""Timers: due in their order, void once replaced, cancelled, or orphaned, even when they are on their way already."""

from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from actors.actor import Out
from actors.system import ActorSystem


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
