"""A step that fails did nothing; who fails is held until its parent decides; and the teller never notices."""

import sys
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import HELD, SYSTEM
from actors.runtime.system import SystemFailed


class BrokenPort:
    """Raises on the submissions with these numbers."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken
        self.log: list[Any] = []

    def submit(self, work: Any) -> None:
        self.log.append(work)
        if len(self.log) in self.broken:
            raise OSError(f"broken at {work}")


def fail_first(times: int) -> Any:
    """An action that raises the first `times` times."""
    left = [times]

    def action(_: Any, __: Out) -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError("not yet")

    return action


def test_a_step_that_raises_changes_nothing_and_none_of_its_effects_goes_out(stage: Any) -> None:
    keeper, other = stage.keeper(), stage.doer("other")
    child = stage.child(keeper, "child")
    port = BrokenPort()

    def step(me: Any, out: Out) -> None:
        out.tell(other, stage.Do("never"))
        out.port(port, "never")
        out.set_timer("never", 1.0)
        me.log = (*me.log, "half done")
        raise ValueError("no")

    stage.do(child, "good")
    stage.do(child, "bad", step)
    assert child.journal == (("start", "good"),)
    stage.do(keeper, "restart", lambda me, out: out.restart(child))
    assert stage.log(other) == ("start",)
    assert port.log == []
    assert stage.system.statistics().timers == 0


def test_the_teller_of_a_message_that_fails_notices_nothing(stage: Any) -> None:
    stage.crash(stage.doer())
    assert stage.system.statistics().crashes == 2


def test_a_message_is_tried_once_more_and_then_goes_on(stage: Any) -> None:
    ref = stage.doer()
    stage.do(ref, "shaky", fail_first(1))
    assert stage.log(ref) == ("start", "restarted", "shaky")
    assert stage.letters() == []


def test_a_message_that_kills_its_actor_twice_is_set_aside_with_its_error(stage: Any) -> None:
    ref = stage.doer()
    stage.crash(ref, "poison")
    stage.do(ref, "next")
    assert stage.log(ref) == ("start", "restarted", "restarted", "next")
    (letter,) = stage.system.dead_letters
    assert letter == ("doer", "Do", "killed its actor twice", "ValueError: poison")


def test_mail_behind_the_message_that_fails_is_kept_in_order(stage: Any) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "a")
        stage.do(ref, "shaky", fail_first(1))
        stage.do(ref, "b")
    assert stage.log(ref) == ("start", "a", "restarted", "shaky", "b")


def test_after_a_restart_the_journal_is_there_and_the_rest_is_new(stage: Any) -> None:
    ref = stage.doer()
    stage.do(ref, "a")
    stage.crash(ref)
    assert ref.actor.log[:2] == ("start", "a")
    assert ref.actor.scratch == ()


def test_a_restarted_actor_answers_at_the_same_address(stage: Any) -> None:
    ref = stage.doer()
    before = ref.actor
    stage.crash(ref)
    stage.do(ref, "hello")
    assert ref.actor is not before
    assert ref.incarnation == 2
    assert stage.log(ref)[-1] == "hello"


def test_the_first_step_after_a_crash_comes_before_all_mail(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.crash(child)
    stage.do(child, "urgent", lane=SYSTEM)
    stage.do(keeper, "restart", lambda me, out: out.restart(child))
    assert stage.log(child)[:3] == ("start", "restarted", "urgent")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_crash_halfway_through_the_effects_is_not_tried_again(stage: Any, k: int) -> None:
    ref, other = stage.doer(), stage.doer("other")
    port = BrokenPort(k)

    def step(_: Any, out: Out) -> None:
        for number in (1, 2, 3):
            out.port(port, number)
            out.tell(other, stage.Do(f"after {number}"))

    stage.do(ref, "step", step)
    assert port.log == list(range(1, k + 1))
    assert stage.log(other) == ("start", *(f"after {number}" for number in range(1, k)))
    assert stage.log(ref) == ("start", "step", "restarted"), "the journal was committed before the first effect"
    assert stage.system.statistics().crashes == 1
    assert stage.letters() == []


class Fragile(Actor):
    """Fails in its first steps as often as it is told."""

    __slots__ = ("steps", "times")
    wiring = ("times", "steps")

    def __init__(self, times: int, steps: list[str]) -> None:
        self.times = times
        self.steps = steps

    def start(self, out: Out) -> None:
        self.steps.append("start")
        if len(self.steps) <= self.times:
            raise ValueError("start")

    def restarted(self, out: Out) -> None:
        self.steps.append("restarted")
        if len(self.steps) <= self.times:
            raise ValueError("restart")


def test_a_first_step_that_fails_is_followed_by_one_first_step_after_a_crash(stage: Any) -> None:
    steps: list[str] = []
    stage.system.spawn(Fragile(3, steps), "fragile")
    assert steps == ["start", "restarted", "restarted", "restarted"]
    assert stage.letters() == []


def test_a_failing_restart_does_not_hide_which_message_kills(stage: Any) -> None:
    fails = iter([True])

    class Shaky(stage.Doer):
        __slots__ = ()

        def restarted(self, out: Out) -> None:
            if next(fails, False):
                raise ValueError("restart")
            self.log = (*self.log, "restarted")

    ref = stage.system.spawn(Shaky(), "shaky")
    stage.crash(ref, "poison")
    assert stage.log(ref) == ("start", "restarted", "restarted")
    assert [letter.reason for letter in stage.system.dead_letters] == ["killed its actor twice"]
    assert stage.system.statistics().crashes == 3


def test_the_parent_is_told_and_the_child_is_held_until_it_decides(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.do(child, "shaky", fail_first(1))
    stage.do(child, "waits")
    assert stage.log(keeper)[-1] == "exited child: ValueError: not yet"
    assert stage.system.statistics().held == 1
    stage.do(keeper, "restart", lambda me, out: out.restart(child))
    assert stage.log(child) == ("start", "restarted", "shaky", "waits")
    assert stage.system.statistics().held == 0


def test_a_restart_of_one_that_runs_does_nothing(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.do(keeper, "restart", lambda me, out: out.restart(child))
    assert stage.log(child) == ("start",)
    assert child.incarnation == 0


def test_a_held_child_that_is_stopped_gives_its_mail_back_as_dead_letters(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.crash(child)
    stage.do(child, "waits")
    stage.do(keeper, "stop", lambda me, out: out.stop(child))
    assert stage.letters() == [("child", "Do", "stopped"), ("child", "Do", "stopped")]
    assert stage.system.statistics().held == 0


def test_a_parent_that_does_not_handle_exits_fails_with_its_child_and_both_begin_again(stage: Any) -> None:
    keeper = stage.keeper("grandparent")
    parent = stage.child(keeper, "parent")
    children = []
    stage.do(parent, "spawn", lambda me, out: children.append(out.spawn(stage.Doer(), "child")))
    (child,) = children
    stage.do(child, "shaky", fail_first(1))
    assert stage.log(keeper)[-1] == "exited parent: ValueError: not yet"
    assert (parent.status, child.status) == (HELD, HELD)
    stage.do(keeper, "restart", lambda me, out: out.restart(parent))
    assert stage.log(parent)[-1] == "restarted"
    assert stage.log(child) == ("start", "restarted", "shaky")
    assert stage.system.statistics().held == 0


def test_at_the_top_the_system_restarts_within_an_intensity_and_then_fails(stage: Any) -> None:
    ref = stage.doer()
    for _ in range(2):
        stage.crash(ref)
    stage.clock.now += 61
    for _ in range(2):
        stage.crash(ref)
    assert ref.status != HELD
    hook, seen = sys.excepthook, []
    sys.excepthook = lambda kind, error, trace: seen.append(error)
    try:
        stage.crash(ref)
    finally:
        sys.excepthook = hook
    assert ref.status == HELD
    assert [type(error) for error in seen] == [SystemFailed]


@pytest.mark.anyio
async def test_beyond_the_intensity_the_failure_comes_out_of_run(new_stage: Any) -> None:
    stage = new_stage()
    ref = stage.doer("top")
    failed: list[SystemFailed] = []

    async def run() -> None:
        try:
            await stage.system.run()
        except SystemFailed as error:
            failed.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.lowlevel.checkpoint()
            for _ in range(3):
                stage.crash(ref, "storm")
    (error,) = failed
    assert str(error) == "top crashed more than 5 times: ValueError: storm"
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_an_inline_step_reaches_the_teller_and_leaves_the_system_usable(
    stage: Any, error: type[BaseException]
) -> None:
    ref, other = stage.doer(), stage.doer("other")

    def step(_: Any, out: Out) -> None:
        out.tell(other, stage.Do("never"))
        raise error

    with pytest.raises(error):
        stage.do(ref, "step", step)
    stage.drain()
    stage.do(ref, "after")
    stage.do(other, "after")
    assert stage.log(ref) == ("start", "restarted", "after")
    assert stage.log(other) == ("start", "after")
    assert stage.system.statistics().crashes == 1


def test_an_interrupt_between_effects_drops_the_rest_and_is_not_tried_again(stage: Any) -> None:
    ref, other = stage.doer(), stage.doer("other")

    class Interrupted:
        def submit(self, work: Any) -> None:
            raise KeyboardInterrupt

    def step(_: Any, out: Out) -> None:
        out.tell(other, stage.Do("before"))
        out.port(Interrupted(), None)
        out.tell(other, stage.Do("never"))

    with pytest.raises(KeyboardInterrupt):
        stage.do(ref, "step", step)
    stage.drain()
    assert stage.log(ref) == ("start", "step", "restarted")
    assert stage.log(other) == ("start", "before")


def test_a_crash_of_one_stopped_in_the_same_step_tells_nobody(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")

    def step(_: Any, out: Out) -> None:
        out.stop()
        out.port(BrokenPort(1), "work")

    stage.do(child, "step", step)
    assert stage.log(keeper)[-1] == "exited child: None"
    assert stage.system.statistics().held == 0
