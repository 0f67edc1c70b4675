"""The dispatcher: whose step runs when, and what nobody may ever see."""

# ruff: noqa: RUF012 - a table on an actor class is never changed

from typing import Any

import pytest

from actors.runtime.actor import DEFER, Actor, Out
from actors.runtime.mailbox import AUDIO, AUDIO_BOUND, CONTROL, CONTROL_BOUND, SYSTEM, Ref
from actors.runtime.system import BUDGET, ActorSystem, SlowStep, SlowSteps


class RecordingPort:
    """Notes the work it gets, and does `then` in the middle of a step's effects."""

    def __init__(self, then: Any = None) -> None:
        self.log: list[Any] = []
        self.then = then

    def submit(self, work: Any) -> None:
        self.log.append(work)
        if self.then is not None:
            self.then(work)


# --- in whose turn -----------------------------------------------------------------------------------------------------


def test_an_idle_actor_runs_in_the_turn_of_whoever_tells_it(stage: Any) -> None:
    ref = stage.doer()
    stage.do(ref, "a")
    assert stage.log(ref) == ("start", "a")


def test_everything_that_follows_from_a_tell_has_happened_when_it_returns(stage: Any) -> None:
    first, second = stage.doer("first"), stage.doer("second")
    stage.do(
        first, "a", lambda me, out: out.tell(second, stage.Do("b", lambda me, out: out.tell(first, stage.Do("c"))))
    )
    assert (stage.log(first), stage.log(second)) == (("start", "a", "c"), ("start", "b"))


def test_nobody_sees_the_world_between_two_effects_of_one_step(stage: Any) -> None:
    seen = []
    port = RecordingPort()
    receiver = stage.doer("receiver")

    def look(_: Any, __: Out) -> None:
        seen.append(list(port.log))

    def step(_: Any, out: Out) -> None:
        out.port(port, 1)
        out.tell(receiver, stage.Do("look", look))
        out.port(port, 2)
        out.tell(receiver, stage.Do("look", look))
        out.port(port, 3)

    stage.do(stage.doer(), "step", step)
    assert seen == [[1, 2, 3], [1, 2, 3]]


def test_a_tell_while_effects_are_carried_out_only_enqueues(stage: Any) -> None:
    target = stage.doer("target")
    logs = []

    def tell_from_outside(_: Any) -> None:
        stage.do(target, "told")
        logs.append(stage.log(target))

    port = RecordingPort(tell_from_outside)
    stage.do(stage.doer(), "step", lambda me, out: out.port(port, "work"))
    assert logs == [("start",)]
    assert stage.log(target) == ("start", "told")


def test_a_tell_while_a_step_runs_only_enqueues(stage: Any) -> None:
    target = stage.doer("target")
    logs = []

    def step(_: Any, __: Out) -> None:
        stage.do(target, "told")
        logs.append(stage.log(target))

    stage.do(stage.doer(), "step", step)
    assert logs == [("start",)]
    assert stage.log(target) == ("start", "told")


def test_an_actor_that_tells_itself_goes_on_behind_what_waits_already(stage: Any) -> None:
    one, other = stage.doer("one"), stage.doer("other")
    order = []

    def note(name: str) -> Any:
        return stage.Do(name, lambda me, out: order.append(name))

    def step(_: Any, out: Out) -> None:
        out.tell(other, note("other"))
        out.tell(one, note("one"))

    stage.do(one, "step", step)
    assert order == ["other", "one"]


def test_actors_with_mail_take_turns_one_message_each(stage: Any) -> None:
    one, other = stage.doer("one"), stage.doer("other")
    order: list[str] = []
    with stage.system.held_back():
        for number in range(3):
            for ref in (one, other):
                name = f"{ref.name}{number}"
                stage.do(ref, name, lambda me, out, name=name: order.append(name))
    assert order == ["one0", "other0", "one1", "other1", "one2", "other2"]


def test_higher_lanes_go_first_whatever_came_first(stage: Any) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        for name, lane in [
            ("a1", AUDIO),
            ("c1", CONTROL),
            ("a2", AUDIO),
            ("s1", SYSTEM),
            ("c2", CONTROL),
            ("s2", SYSTEM),
        ]:
            stage.do(ref, name, lane=lane)
    assert stage.log(ref) == ("start", "s1", "s2", "c1", "c2", "a1", "a2")


# --- the budget --------------------------------------------------------------------------------------------------------


def endless(stage: Any, ref: Ref) -> Any:
    """A message that sends itself again for ever."""

    def again(_: Any, out: Out) -> None:
        out.tell(ref, stage.Do("again", again))

    return stage.Do("again", again)


def test_an_endless_exchange_is_cut_at_the_budget_and_goes_on_in_the_next_turn(new_stage: Any) -> None:
    stage = new_stage(budget=10)
    ref = stage.doer()
    stage.system.tell(ref, endless(stage, ref))
    assert len(stage.log(ref)) == 1 + 10
    assert stage.system.has_work()
    assert stage.system.statistics().cut == 1
    stage.system.turn()
    assert len(stage.log(ref)) == 1 + 20


def test_while_a_cut_drain_waits_nobody_outside_overtakes_it(new_stage: Any) -> None:
    stage = new_stage(budget=5)
    busy, waiting, idle = stage.doer("busy"), stage.doer("waiting"), stage.doer("idle")
    order: list[str] = []
    with stage.system.held_back():
        stage.system.tell(busy, endless(stage, busy))
        for number in range(20):
            stage.do(waiting, f"{number}", lambda me, out, number=number: order.append(f"waiting {number}"))
    assert 0 < len(order) < 20
    stage.do(idle, "late", lambda me, out: order.append("idle"))
    assert "idle" not in order, "the queue is not empty, so a tell only enqueues"
    for _ in range(20):
        stage.system.turn()
    assert order.index("idle") > 2
    assert [name for name in order if name != "idle"] == [f"waiting {number}" for number in range(20)]


def test_the_budget_is_large_enough_for_a_turn_and_small_enough_for_the_loop() -> None:
    assert 100 <= BUDGET <= 1000


# --- inline and queued -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
def test_one_script_gives_the_same_state_and_the_same_effects_inline_and_queued(stage: Any, queued: bool) -> None:
    port = RecordingPort()
    one, other = stage.doer("one"), stage.doer("other")

    def relay(name: str) -> Any:
        def step(_: Any, out: Out) -> None:
            out.port(port, f"from {name}")
            out.tell(other, stage.Do(f"re {name}", lambda me, out: out.port(port, f"about {name}")))
            out.set_timer(name, 5.0)

        return step

    for name in ("a", "b", "c"):
        if queued:
            with stage.system.held_back():
                stage.do(one, name, relay(name))
        else:
            stage.do(one, name, relay(name))
    assert stage.log(one) == ("start", "a", "b", "c")
    assert stage.log(other) == ("start", "re a", "re b", "re c")
    assert port.log == [f"{word} {name}" for name in "abc" for word in ("from", "about")]
    assert stage.system.statistics().timers == 3


def test_held_back_may_be_nested_and_drains_at_the_outer_end(stage: Any) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        with stage.system.held_back():
            stage.do(ref, "a")
        assert stage.log(ref) == ("start",)
    assert stage.log(ref) == ("start", "a")


def test_a_step_that_blocks_is_told_with_its_actor_and_its_message_and_counted() -> None:
    time, told = [0.0], []

    class Sleeper(Actor):
        __slots__ = ("child", "log")
        state = ("child", "log")
        handles = {str: "say", float: "sleep"}

        def start(self, out: Out) -> None:
            time[0] += 3.0
            self.child = None

        def say(self, _: str, out: Out) -> None:
            self.child = out.spawn(Sleeper(), "child")

        def sleep(self, seconds: float, _: Out) -> None:
            time[0] += seconds

    system = ActorSystem(slow_steps=SlowSteps(lambda: time[0], 2.0, told.append))
    ref = system.spawn(Sleeper(), "sleeper")
    for seconds in (2.0, 2.5, 0.0):
        system.tell(ref, seconds)
    assert told == [SlowStep("sleeper", "start", 3.0), SlowStep("sleeper", "float", 2.5)]
    system.tell(ref, "have a child")
    assert told[2:] == [SlowStep("sleeper/child", "start", 3.0)], "and not the step before it"
    assert system.statistics().slow_steps == 3


# --- bounds ------------------------------------------------------------------------------------------------------------


def test_full_audio_drops_the_oldest_and_counts_it(stage: Any) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        for number in range(AUDIO_BOUND + 3):
            stage.do(ref, str(number), lane=AUDIO)
    stage.drain()
    assert stage.log(ref)[1:] == tuple(str(number) for number in range(3, AUDIO_BOUND + 3))
    statistics = stage.system.statistics()
    assert (statistics.overflowed, statistics.dead_letters, statistics.crashes) == (3, {"overflow": 3}, 0)


def test_full_control_is_a_failure_of_the_receiver_told_to_its_supervisor(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    with stage.system.held_back():
        for number in range(CONTROL_BOUND + 2):
            stage.do(child, str(number))
    stage.drain()
    assert stage.system.statistics().dead_letters == {"overflow": 2}
    (told,) = [line for line in stage.log(keeper) if line.startswith("exited")]
    assert "more than 10000 control messages wait" in told
    assert stage.log(child) == ("start",), "it is held, its mail with it"
    stage.do(keeper, "restart", lambda me, out: out.restart(child))
    stage.drain()
    assert len(stage.log(child)) == 2 + CONTROL_BOUND


# --- deferred and refused ----------------------------------------------------------------------------------------------


class Word:
    def __init__(self, text: str) -> None:
        self.text = text


class Turn:
    """Go on to the next phase."""

    lane = SYSTEM


class Patient(Actor):
    """Keeps words until it listens; then defers again when it is told to."""

    __slots__ = ("heard", "phase")
    state = journal = ("phase", "heard")
    handles = {"deaf": {Word: DEFER, Turn: "listen"}, "listening": {Word: "hear", Turn: "close"}}

    def __init__(self) -> None:
        self.phase = "deaf"
        self.heard: tuple[str, ...] = ()

    def listen(self, _: Turn, out: Out) -> None:
        self.phase = "listening"

    def close(self, _: Turn, out: Out) -> None:
        self.phase = "deaf"

    def hear(self, message: Word, out: Out) -> None:
        self.heard = (*self.heard, message.text)
        if message.text == "crash":
            raise ValueError(message.text)


def test_deferred_mail_is_taken_when_the_phase_changes_before_newer_mail(stage: Any) -> None:
    ref = stage.system.spawn(Patient(), "patient")
    stage.system.tell(ref, Word("one"))
    stage.system.tell(ref, Word("two"))
    assert ref.actor.heard == ()
    with stage.system.held_back():
        stage.system.tell(ref, Turn())
        stage.system.tell(ref, Word("three"))
    assert ref.actor.heard == ("one", "two", "three")
    assert stage.letters() == []


def test_what_is_deferred_in_the_new_phase_too_waits_on_in_its_order(stage: Any) -> None:
    ref = stage.system.spawn(Patient(), "patient")
    stage.system.tell(ref, Word("one"))
    stage.system.tell(ref, Word("two"))
    with stage.system.held_back():
        stage.system.tell(ref, Turn())
        stage.system.tell(ref, Turn())
    assert (ref.actor.phase, ref.actor.heard) == ("deaf", ())
    assert dict(stage.system.refs())[ref] == 2
    stage.system.tell(ref, Turn())
    assert ref.actor.heard == ("one", "two")


def test_deferred_mail_survives_a_crash_and_becomes_dead_letters_at_a_stop(stage: Any) -> None:
    ref = stage.system.spawn(Patient(), "patient")
    stage.system.tell(ref, Word("one"))
    stage.system.tell(ref, Word("crash"))
    stage.system.tell(ref, Turn())
    assert ref.actor.heard == ("one",)
    stage.system.tell(ref, Turn())
    stage.system.tell(ref, Word("two"))
    stage.system.stop(ref)
    assert stage.letters() == [("patient", "Word", "killed its actor twice"), ("patient", "Word", "stopped")]


def test_more_deferred_mail_than_the_bound_is_a_failure_of_the_receiver(new_stage: Any) -> None:
    stage = new_stage()
    ref = stage.system.spawn(Patient(), "patient")
    for number in range(CONTROL_BOUND):
        stage.system.tell(ref, Word(str(number)))
    assert stage.system.statistics().crashes == 0
    stage.system.tell(ref, Word("one too many"))
    assert stage.system.statistics().crashes == 1
    assert stage.letters() == [("patient", "Word", "overflow")]


def test_a_message_that_nobody_declared_is_a_dead_letter_and_changes_nothing(stage: Any) -> None:
    ref = stage.doer()
    before = ref.actor.freeze()
    stage.system.tell(ref, Word("?"))
    assert stage.letters() == [("doer", "Word", "unhandled")]
    assert ref.actor.freeze() == before
    assert stage.system.statistics().dead_letters == {"unhandled": 1}


def test_mail_to_one_who_was_never_started_or_is_gone_is_a_dead_letter(stage: Any) -> None:
    unborn, gone = Ref(stage.Doer(), "unborn", None), stage.doer("gone")
    stage.system.stop(gone)
    stage.do(unborn, "a")
    stage.do(gone, "b")
    assert stage.letters() == [("unborn", "Do", "stopped"), ("gone", "Do", "stopped")]


def test_only_the_last_dead_letters_are_kept_and_all_are_counted(stage: Any) -> None:
    ref = stage.doer()
    for _ in range(150):
        stage.system.tell(ref, Word("?"))
    assert len(stage.system.dead_letters) == 100
    assert stage.system.statistics().dead_letters == {"unhandled": 150}


# --- beginning and end -------------------------------------------------------------------------------------------------


def test_the_first_step_of_an_actor_comes_before_its_first_message(stage: Any) -> None:
    with stage.system.held_back():
        ref = stage.doer()
        stage.do(ref, "a", lane=SYSTEM)
    assert stage.log(ref) == ("start", "a")


def test_a_child_is_started_when_the_effect_is_carried_out_and_gets_mail_of_the_same_step(stage: Any) -> None:
    keeper = stage.keeper()

    def step(me: Any, out: Out) -> None:
        me.adopt("child", stage.Doer, out)
        out.tell(me.children["child"], stage.Do("hello"))

    stage.do(keeper, "step", step)
    child = keeper.actor.children["child"]
    assert stage.log(child) == ("start", "hello")
    assert child.parent is keeper


def test_a_stop_stops_children_first_in_reverse_order_and_tells_each_watcher_once(stage: Any) -> None:
    watcher, keeper = stage.doer("watcher"), stage.keeper("keeper")
    first, second = stage.child(keeper, "first"), stage.child(keeper, "second")
    for ref in (keeper, first, second, first):
        stage.do(watcher, "watch", lambda me, out, ref=ref: out.watch(ref))
    stage.system.stop(keeper)
    gone = [line for line in stage.log(watcher) if line.startswith("gone")]
    assert gone == ["gone second", "gone first", "gone keeper"]
    stage.system.stop(keeper)
    assert [line for line in stage.log(watcher) if line.startswith("gone")] == gone


def test_after_a_stop_nothing_of_it_is_left(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.do(child, "arm", lambda me, out: out.set_timer("tick", 5.0))
    with stage.system.held_back():
        stage.do(child, "waits")
        stage.system.stop(keeper)
    statistics = stage.system.statistics()
    assert (statistics.actors, statistics.timers, statistics.held, statistics.ready) == (0, 0, 0, 0)
    assert stage.letters() == [("child", "Do", "stopped")]
    assert child.actor is None
    stage.clock.now += 10
    assert stage.system.turn() is None
    assert stage.system.statistics().dead_letters == {"stopped": 1}


def test_who_watches_one_that_is_gone_is_told_at_once(stage: Any) -> None:
    watcher, other = stage.doer("watcher"), stage.doer("other")
    stage.system.stop(other)
    stage.do(watcher, "watch", lambda me, out: out.watch(other))
    assert stage.log(watcher)[-1] == "gone other"


def test_who_watches_no_longer_is_not_told(stage: Any) -> None:
    watcher, other = stage.doer("watcher"), stage.doer("other")
    stage.do(watcher, "watch", lambda me, out: out.watch(other))
    stage.do(watcher, "unwatch", lambda me, out: out.unwatch(other))
    stage.system.stop(other)
    assert "gone other" not in stage.log(watcher)


def test_an_actor_that_stops_itself_carries_out_the_rest_of_its_step_and_tells_its_parent(stage: Any) -> None:
    keeper, other = stage.keeper(), stage.doer("other")
    child = stage.child(keeper, "child")

    def leave(_: Any, out: Out) -> None:
        out.stop()
        out.tell(other, stage.Do("last words"))

    stage.do(child, "leave", leave)
    assert stage.log(other)[-1] == "last words"
    assert stage.log(keeper)[-1] == "exited child: None"
    assert stage.system.statistics().crashes == 0


def test_a_child_that_its_parent_stops_tells_nobody_that_it_exited(stage: Any) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.do(keeper, "stop it", lambda me, out: out.stop(child))
    assert stage.log(keeper)[-1] == "stop it"


def test_a_child_asked_for_by_one_that_stops_in_the_same_step_never_begins(stage: Any) -> None:
    keeper = stage.keeper()
    spawned = []

    def step(_: Any, out: Out) -> None:
        out.stop()
        spawned.append(out.spawn(stage.Doer(), "child"))

    stage.do(keeper, "step", step)
    stage.do(spawned[0], "hello")
    assert stage.system.statistics().actors == 0
    assert stage.letters() == [("child", "Do", "stopped")]


def test_statistics_count_steps_and_refs_show_who_waits(stage: Any) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "a")
        stage.do(ref, "b")
        assert stage.system.statistics().ready == 1
        assert dict(stage.system.refs()) == {ref: 2}
    assert stage.system.statistics().steps == 3
