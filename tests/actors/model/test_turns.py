"""Each scene is played twice, by the model and by a real system, and after each line both must stand the same.

Its actors are puppets: a message tells them what to do in their step.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene
from actors.model.lockstep import Lockstep
from actors.model.parts import Answer, Choice, Faults, Part
from actors.runtime.actor import DEFER, Actor, Exited, Gone, Out, Timer
from actors.runtime.mailbox import AUDIO, SYSTEM, Ref
from actors.runtime.timers import TimerQueue


class Do(NamedTuple):
    orders: tuple[tuple[Any, ...], ...]


class Note(NamedTuple):
    text: str


class Sound(NamedTuple):
    text: str
    lane = AUDIO


class Urgent(NamedTuple):
    text: str
    lane = SYSTEM


class Boom(Exception):
    pass


class Puppet(Actor):
    """`needs` are the timers that it keeps when it begins again."""

    __slots__ = ("children", "kept", "log", "loose", "needs", "phase", "port")
    wiring = ("port",)
    state = ("phase", "log", "kept", "loose", "children", "needs")
    journal = ("phase", "log", "kept", "children", "needs")
    lasting = ("last", "late", "once")
    handles: ClassVar = {
        "calm": {Do: "do", Note: "note", Sound: "note", Urgent: "note", Gone: "gone"},
        "busy": {Do: "do", Note: DEFER, Sound: "note", Urgent: "note", Gone: "gone"},
    }

    def __init__(self, port: Any) -> None:
        self.port = port
        self.phase = "calm"
        self.log: tuple[str, ...] = ()
        self.kept = self.loose = 0
        self.children: tuple[tuple[str, Any], ...] = ()
        self.needs: tuple[str, ...] = ()

    def start(self, out: Out) -> None:
        self.log += ("start",)

    def restarted(self, out: Out) -> None:
        self.log += ("restarted",)
        for key in self.needs:
            out.keep_timer(key, 5.0)

    def note(self, message: Any, out: Out) -> None:
        self.log += (message.text,)

    def gone(self, message: Gone, out: Out) -> None:
        self.log += (f"gone {self._name_of(message.ref)}",)

    def exited(self, message: Exited, out: Out) -> None:
        told = "" if message.dropped is None else f", dropped {len(message.dropped.orders)}"
        self.log += (f"exited {self._name_of(message.ref)}: {'crash' if message.error else 'stop'}{told}",)
        if message.error:
            out.restart(message.ref)

    def timeout(self, timer: str, out: Out) -> None:
        self.log += (f"timer {timer}",)
        what, _, other = timer.partition(" ")
        if what == "cancel":
            out.cancel_timer(other)
        elif what == "again":
            out.set_timer(other, 5.0)
        elif what == "once" and self.log[-2] != "restarted":
            raise Boom

    def do(self, message: Do, out: Out) -> None:
        for order, *given in message.orders:
            getattr(self, f"_{order}")(out, *given)

    def _find(self, ref: Any) -> Any:
        return dict(self.children)[ref] if isinstance(ref, str) else ref

    def _name_of(self, ref: Any) -> str:
        return next((name for name, child in self.children if child is ref), "somebody")

    def _tell(self, out: Out, ref: Any, message: Any) -> None:
        out.tell(self._find(ref), message)

    def _reply(self, out: Out, token: Any, value: Any) -> None:
        out.reply(token, value)

    def _work(self, out: Out, work: Any) -> None:
        out.port(self.port, work)

    def _timer(self, out: Out, key: str, seconds: float) -> None:
        out.set_timer(key, seconds)

    def _need(self, out: Out, key: str, seconds: float = 0.0) -> None:
        """From now on; set it as well, if it is given seconds."""
        self.needs = (*[other for other in self.needs if other != key], key)
        if seconds:
            out.set_timer(key, seconds)

    def _keep_timer(self, out: Out, key: str, seconds: float) -> None:
        out.keep_timer(key, seconds)

    def _cancel(self, out: Out, key: str) -> None:
        out.cancel_timer(key)

    def _spawn(self, out: Out, name: str, kind: type[Actor] | None = None) -> None:
        self.children = (*self.children, (name, out.spawn((kind or Puppet)(self.port), name)))

    def _adopt(self, out: Out, ref: Any) -> None:
        out.adopt(self._find(ref))

    def _restart(self, out: Out, ref: Any) -> None:
        out.restart(self._find(ref))

    def _hold(self, out: Out, ref: Any) -> None:
        out.hold(self._find(ref))

    def _stop(self, out: Out, ref: Any = None) -> None:
        out.stop(None if ref is None else self._find(ref))

    def _watch(self, out: Out, ref: Any) -> None:
        out.watch(self._find(ref))

    def _unwatch(self, out: Out, ref: Any) -> None:
        out.unwatch(self._find(ref))

    def _go(self, out: Out, phase: str) -> None:
        self.phase = phase

    def _keep(self, out: Out) -> None:
        self.kept += 1

    def _count(self, out: Out) -> None:
        self.loose += 1

    def _raise(self, out: Out) -> None:
        raise Boom


class Keeper(Puppet):
    """One that is told of its children's ends, and begins those that crashed again."""

    __slots__ = ()
    handles: ClassVar = {phase: {**table, Exited: "exited"} for phase, table in Puppet.handles.items()}


class Nurse(Puppet):
    """One that restarts nobody: what crashed below it stays held."""

    __slots__ = ()
    handles: ClassVar = {phase: {**table, Exited: "exited"} for phase, table in Puppet.handles.items()}

    def exited(self, message: Exited, out: Out) -> None:
        self.log += ("exited",)


class Script(Part):
    """Tells the lines of a script, in their order; takes work and answers, and refuses the work "bad"."""

    def __init__(self, lines: Callable[[Any], list[tuple[Any, Any]]]) -> None:
        super().__init__("script")
        self.lines = lines
        self.told: list[tuple[Any, Any]] = []

    def initial(self) -> Any:
        return 0, ()

    def submit(self, state: Any, work: Any) -> Any:
        if work == "bad":
            raise Boom
        return state[0], (*state[1], f"{work.key}={work.value}" if isinstance(work, Answer) else work)

    def choices(self, state: Any) -> Any:
        line, taken = state
        self.told = self.told or self.lines(self)
        if line < len(self.told):
            tell = self.told[line]
            yield Choice(f"line {line}", (line + 1, taken), tells=tell if isinstance(tell[0], tuple) else (tell,))


class Play:
    """A scene that is being played, on both."""

    def __init__(self, *lines: Any, kind: type[Actor] = Keeper, audio_bound: int = 100, **faults: Any) -> None:
        def make() -> ActorModel:
            script = Script(lambda part: [self.line(part, line) for line in lines])

            def setup(scene: Scene) -> None:
                script.top = scene.spawn(kind(scene.port(script)), "top")  # type: ignore[attr-defined]

            return ActorModel(
                "play",
                setup,
                parts=[script],
                faults=Faults(**faults or {"total": 0}),
                errors=(Boom,),
                audio_bound=audio_bound,
            )

        self.steps = Lockstep(make)
        self.model = self.steps.model

    @staticmethod
    def line(part: Any, line: Any) -> Any:
        """A line is what the one at the top is told, or a function of the script that gives all that is told at once."""
        told = line(part) if callable(line) else (line if isinstance(line, tuple) and type(line) is tuple else (line,))
        return tuple([(part.top, message) for message in told])

    def go(self, *labels: str) -> "Play":
        """Take the events with these labels, or the only ones there are."""
        for label in labels:
            found = {self.model.label(action): action for action in self.steps.choices()}
            assert label in found, sorted(found)
            self.steps.take(found[label])
        return self

    def rest(self) -> "Play":
        """Take every line that is left."""
        while self.lines():
            self.go(self.lines()[0])
        return self

    def lines(self) -> list[str]:
        labels = [self.model.label(action) for action in self.steps.choices()]
        return [label for label in labels if label.startswith("script: line") and ";" not in label]

    def labels(self) -> list[str]:
        return [self.model.label(action) for action in self.steps.choices()]

    def actor(self, path: str = "top") -> Any:
        return dict(self.model.actors(self.steps.state))[path]

    @property
    def living(self) -> list[str]:
        return sorted(path for path, _ in self.model.actors(self.steps.state))

    @property
    def log(self) -> tuple[str, ...]:
        return tuple(self.actor().log)

    @property
    def timers(self) -> list[str]:
        return [key for _, key in self.model.armed(self.steps.state)]

    @property
    def work(self) -> tuple[str, ...]:
        return tuple(self.model.states_of_parts(self.steps.state)["script"][1])

    def holds(self, name: str) -> bool:
        claim = next(claim for claim in self.model.properties() if claim.name == name)
        return claim.holds(self.steps.state)


def do(*orders: tuple[Any, ...]) -> Do:
    return Do(orders)


# ---------------------------------------------------------------------------------------------------------------- mail


def test_the_first_step_comes_before_everything() -> None:
    assert Play(Note("a")).rest().log == ("start", "a")


def test_a_child_gets_what_it_is_told_behind_its_first_step() -> None:
    play = Play(do(("spawn", "a"), ("tell", "a", Note("hello")))).rest()

    assert play.actor("top/a").log == ("start", "hello")


def test_mail_is_first_in_first_out() -> None:
    assert Play((Note("a"), Note("b"), Note("c"))).rest().log == ("start", "a", "b", "c")


def test_system_mail_comes_before_control_and_control_before_audio() -> None:
    assert Play((Sound("s"), Note("n"), Urgent("u"), Sound("s2"), Note("n2"))).rest().log[1:] == (
        "u",
        "n",
        "n2",
        "s",
        "s2",
    )


def test_a_full_audio_lane_drops_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.runtime.mailbox.AUDIO_BOUND", 2)
    monkeypatch.setattr("actors.runtime.system.AUDIO_BOUND", 2)

    assert Play((Note("n"), Sound("1"), Sound("2"), Sound("3")), audio_bound=2).rest().log[1:] == ("n", "2", "3")


def test_what_is_told_to_one_that_stopped_is_lost() -> None:
    play = Play(do(("spawn", "a"), ("stop", "a"), ("tell", "a", Note("hello"))), Note("still here")).rest()

    assert play.living == ["top"]
    assert play.log[-1] == "still here"


def test_what_is_told_to_one_whose_spawn_never_came_is_lost() -> None:
    cut = do(("spawn", "a"), ("keep",))
    play = Play(cut, do(("tell", "a", Note("hello"))), total=1, kinds={"crash": 1})

    play.go("script: line 0; top crashes after 0 effects of its step (the turn's step 1)").rest()

    assert play.living == ["top"]
    assert play.actor().kept == 1  # the journal was committed before the first effect


# ------------------------------------------------------------------------------------------------------ ports and asks


def test_work_goes_to_the_port_in_order() -> None:
    assert Play(do(("work", "a"), ("work", "b"))).rest().work == ("a", "b")


def test_a_port_that_raises_crashes_its_actor_halfway_through_its_effects() -> None:
    play = Play(do(("keep",), ("count",), ("work", "a"), ("work", "bad"), ("work", "b"))).rest()

    assert play.work == ("a",)
    assert play.log == ("start", "restarted")
    assert (play.actor().kept, play.actor().loose) == (1, 0)


def test_a_reply_reaches_who_asked_once() -> None:
    def asks(part: Any) -> tuple[Do, ...]:
        return (do(("reply", part.token("q"), 1), ("reply", part.token("q"), 2)), do(("reply", part.token("q"), 3)))

    assert Play(asks, lambda part: (do(("reply", part.token("q"), 4), ("reply", part.token("q"), 5)),)).rest().work == (
        "q=1",
    )


# --------------------------------------------------------------------------------------------------------------- timers


def test_a_timer_comes_due() -> None:
    play = Play(do(("timer", "t", 5.0))).rest()
    assert play.timers == ["t"]

    assert play.go("top: timer 't' comes due").log[-1] == "timer t"
    assert play.timers == []


def test_a_timer_of_no_seconds_comes_due_too() -> None:
    play = Play(do(("timer", "t", 0.0))).rest()

    assert play.timers == ["t"]
    assert play.go("top: timer 't' comes due").log[-1] == "timer t"


def test_a_cancelled_timer_never_comes() -> None:
    play = Play(do(("timer", "t", 5.0)), do(("cancel", "t"))).rest()

    assert play.timers == []
    assert play.labels() == []


def test_a_timer_that_is_set_again_comes_once_and_later() -> None:
    play = Play(do(("timer", "t", 5.0), ("timer", "u", 6.0)), do(("timer", "t", 7.0))).rest()

    assert play.timers == ["u", "t"]
    assert play.go("top: timer 'u' comes due", "top: timer 't' comes due").log[1:] == ("timer u", "timer t")
    assert play.labels() == []


def test_two_timers_of_one_moment_come_due_at_once() -> None:
    play = Play(do(("timer", "t", 5.0), ("timer", "u", 5.0))).rest()

    assert play.go("top: timer 't' comes due, with 'u' of top").log[1:] == ("timer t", "timer u")


def test_a_timer_that_is_cancelled_when_it_was_due_already_does_nothing() -> None:
    play = Play(do(("timer", "cancel u", 5.0), ("timer", "u", 5.0))).rest()

    assert play.go("top: timer 'cancel u' comes due, with 'u' of top").log == ("start", "timer cancel u")
    assert play.labels() == []


def test_a_timer_that_is_set_again_when_it_was_due_already_comes_once() -> None:
    play = Play(do(("timer", "again u", 5.0), ("timer", "u", 5.0))).rest()
    play.go("top: timer 'again u' comes due, with 'u' of top")
    assert play.timers == ["u"]

    assert play.go("top: timer 'u' comes due").log == ("start", "timer again u", "timer u")


def test_a_void_timer_is_still_taken_in_its_turn() -> None:
    play = Play(do(("timer", "cancel u", 5.0), ("timer", "u", 5.0)), total=1, kinds={"cut": 1}).rest()
    play.go("top: timer 'cancel u' comes due, with 'u' of top; the turn is cut after 1 steps")
    assert play.actor().unread == 1
    assert play.model.pending(play.steps.state) == {"top": ["timer that is void"]}

    play.go("dispatcher: goes on")
    assert play.actor().unread == 0


def test_a_timer_dies_with_its_incarnation() -> None:
    play = Play(do(("timer", "t", 5.0)), do(("raise",))).rest()

    assert play.timers == []
    assert play.log == ("start", "restarted", "restarted")


# ------------------------------------------------------------------------------------------------- timers that last


def test_a_timer_that_lasts_keeps_its_moment_through_a_crash() -> None:
    play = Play(do(("need", "late", 6.0), ("need", "last", 5.0), ("timer", "t", 5.0)), do(("work", "bad"))).rest()
    assert play.timers == [
        "late",
        "last",
    ]  # in the order of their arming; whole again they would come the other way round

    assert play.go("top: timer 'last' comes due", "top: timer 'late' comes due").log[1:] == (
        "restarted",
        "timer last",
        "timer late",
    )


def test_a_timer_whose_arming_was_lost_in_a_crash_is_armed_then() -> None:
    play = Play(do(("need", "last", 5.0)), total=1, kinds={"crash": 1})
    play.go("script: line 0; top crashes after 0 effects of its step (the turn's step 1)")

    assert play.timers == ["last"]
    assert play.go("top: timer 'last' comes due").log == ("start", "restarted", "timer last")


def test_a_timer_that_lasts_and_is_not_needed_ends_with_the_first_step() -> None:
    play = Play(do(("timer", "last", 5.0)), do(("work", "bad"))).rest()

    assert play.timers == []
    assert play.labels() == []


def test_a_timer_that_lasts_is_kept_as_it_is_and_one_that_is_none_is_armed() -> None:
    play = Play(do(("timer", "late", 6.0), ("timer", "last", 7.0)), do(("keep_timer", "late", 8.0))).rest()
    assert play.timers == ["late", "last"]

    assert play.go("top: timer 'late' comes due", "top: timer 'last' comes due").timers == []
    again = Play(do(("keep_timer", "late", 5.0)), do(("stop",), ("keep_timer", "last", 5.0))).go("script: line 0")
    assert again.timers == ["late"]
    assert again.rest().timers == []


def test_a_timer_that_lasts_and_was_due_comes_behind_the_first_step() -> None:
    play = Play(do(("timer", "t", 5.0), ("need", "last", 5.0)), total=1, kinds={"crash": 1}).rest()
    play.go("top: timer 't' comes due, with 'last' of top; top crashes before its step (the turn's step 1)")

    assert play.log == ("start", "restarted", "timer last")
    assert play.timers == []


def test_a_timer_that_lasts_and_was_due_is_void_when_it_is_not_needed() -> None:
    play = Play(do(("timer", "t", 5.0), ("timer", "last", 5.0)), total=1, kinds={"crash": 1}).rest()
    play.go("top: timer 't' comes due, with 'last' of top; top crashes before its step (the turn's step 1)")

    assert play.log == ("start", "restarted")
    assert play.labels() == []


def held(*more: Any) -> Play:
    """A child whose lasting timer is armed, that crashed, and that is held."""
    return Play(
        do(("spawn", "a")),
        do(("tell", "a", do(("need", "last", 5.0), ("timer", "t", 4.0)))),
        do(("tell", "a", do(("work", "bad")))),
        *more,
        kind=Nurse,
    ).go("script: line 0", "script: line 1", "script: line 2")


def test_a_timer_that_lasts_comes_due_while_its_actor_is_held() -> None:
    play = held(do(("restart", "a")))
    assert play.timers == ["last"]

    play.go("top/a: timer 'last' comes due")
    assert (play.timers, play.actor("top/a").unread) == ([], 1)
    assert play.rest().actor("top/a").log == ("start", "restarted", "timer last")
    assert play.labels() == []


@pytest.mark.parametrize("due", [False, True])
def test_a_hold_ends_the_timers_that_last_too(due: bool) -> None:
    play = held(do(("hold", "a")), do(("restart", "a")))
    if due:
        play.go("top/a: timer 'last' comes due")

    play.rest()
    assert play.actor("top/a").log == ("restarted",)
    assert play.timers == []
    assert play.labels() == []


def test_a_stop_ends_the_timers_that_last_too() -> None:
    play = held(do(("stop", "a"))).rest()

    assert play.timers == []
    assert play.labels() == []


def test_a_timer_that_lasts_is_tried_again_when_its_step_raised() -> None:
    play = Play(do(("need", "once", 5.0)), Note("n")).go("script: line 0", "top: timer 'once' comes due")

    assert play.log == ("start", "restarted", "timer once")
    assert play.timers == []


def test_a_timer_that_lasts_is_tried_again_however_often_it_kills_its_actor() -> None:
    play = Play(do(("need", "last", 5.0)), total=1, kinds={"poison": 1}).go("script: line 0")
    play.go(
        "top: timer 'last' comes due; top crashes before its step, and when its message is tried again (the turn's step 1)"
    )

    assert play.log == ("start", "restarted", "restarted", "timer last")
    assert play.timers == []


def test_a_timer_that_lasts_has_come_when_its_step_was_whole() -> None:
    play = Play(do(("need", "last", 5.0)), total=1, kinds={"crash": 1}).go("script: line 0")
    play.go("top: timer 'last' comes due; top crashes after 0 effects of its step (the turn's step 1)")

    assert play.log == ("start", "timer last", "restarted")
    assert play.timers == ["last"]  # it is needed still, so it is armed anew


def dies_at_a_crash(self: TimerQueue, ref: Ref, but: tuple[str, ...] = ()) -> None:
    CANCEL_ALL(self, ref)


def dies_when_due(self: TimerQueue, ref: Ref, but: tuple[str, ...] = ()) -> None:
    timer = ref.timers
    while timer is not None:
        if timer.due:
            self.cancel(ref, timer.key)
        timer = timer.earlier
    CANCEL_ALL(self, ref, but)


def outlasts_a_hold(self: TimerQueue, ref: Ref, but: tuple[str, ...] = ()) -> None:
    CANCEL_ALL(self, ref, but or Puppet.lasting)


CANCEL_ALL = TimerQueue.cancel_all


@pytest.mark.parametrize(
    ("where", "name", "fault", "scene"),
    [
        (TimerQueue, "cancel_all", dies_at_a_crash, test_a_timer_that_lasts_keeps_its_moment_through_a_crash),
        (TimerQueue, "keep", TimerQueue.set, test_a_timer_that_lasts_keeps_its_moment_through_a_crash),
        (TimerQueue, "cancel_all", dies_when_due, test_a_timer_that_lasts_and_was_due_comes_behind_the_first_step),
        (Timer, "rejoin_chain", lambda _: None, test_a_timer_that_lasts_is_tried_again_when_its_step_raised),
        (TimerQueue, "cancel_all", outlasts_a_hold, partial(test_a_hold_ends_the_timers_that_last_too, due=False)),
    ],
    ids=["dies at a crash", "is armed whole", "dies when due", "comes once, done or not", "outlasts a hold"],
)
def test_a_scene_shows_what_may_not_happen_to_a_timer_that_lasts(
    where: type, name: str, fault: Any, scene: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, fault)

    with pytest.raises(AssertionError):
        scene()


# ------------------------------------------------------------------------------------------------------------- children


def test_spawning_one_name_twice_makes_two_actors() -> None:
    play = Play(
        do(
            ("spawn", "a"),
        ),
        do(("tell", "a", Note("first"))),
        do(
            ("spawn", "a"),
        ),
        do(("tell", "a", Note("second"))),
    ).rest()

    assert sorted(seen.log for path, seen in play.model.actors(play.steps.state) if path == "top/a") == [
        ("start", "first"),
        ("start", "second"),
    ]


def test_two_of_one_name_have_events_of_their_own() -> None:
    one = do(("spawn", "a"), ("tell", "a", do(("timer", "t", 5.0))))
    play = Play(one, do(("spawn", "a"), ("tell", "a", do(("timer", "t", 6.0))))).rest()

    actions = [action for action, _ in play.model.successors(play.steps.state)]
    assert len(actions) == len(set(actions)) == 2  # the first alone, or both at once


def test_adopting_one_that_lives_changes_nothing() -> None:
    play = Play(do(("spawn", "a")), do(("adopt", "a"))).rest()

    assert play.actor("top/a").log == ("start",)


def test_adopting_starts_one_whose_spawn_never_came() -> None:
    play = Play(do(("spawn", "a")), do(("adopt", "a")), total=1, kinds={"crash": 1})
    play.go("script: line 0; top crashes after 0 effects of its step (the turn's step 1)")
    assert play.living == ["top"]

    play.go("script: line 1")
    assert play.actor("top/a").log == ("start",)


def test_a_stop_takes_the_children_along() -> None:
    play = Play(
        do(("spawn", "a")),
        do(("tell", "a", do(("spawn", "b"), ("timer", "t", 5.0)))),
        do(("watch", "a"), ("stop", "a")),
    ).rest()

    assert play.living == ["top"]
    assert play.timers == []
    assert play.log == ("start", "gone a")


def test_one_that_stops_itself_is_told_to_its_parent() -> None:
    play = Play(do(("spawn", "a")), do(("tell", "a", do(("stop",), ("work", "last"))))).rest()

    assert play.log == ("start", "exited a: stop")
    assert play.work == ("last",)  # the rest of its effects is still carried out


def test_watching_tells_once_and_unwatching_never() -> None:
    play = Play(
        do(("spawn", "a"), ("watch", "a"), ("watch", "a"), ("spawn", "b"), ("watch", "b")), do(("unwatch", "b"))
    ).rest()
    assert play.living == ["top", "top/a", "top/b"]

    again = Play(
        do(("spawn", "a"), ("watch", "a"), ("watch", "a"), ("spawn", "b"), ("watch", "b")),
        do(("unwatch", "b"), ("stop", "a"), ("stop", "b")),
    ).rest()
    assert again.log == ("start", "gone a")


def test_watching_one_that_is_gone_tells_at_once() -> None:
    assert Play(do(("spawn", "a"), ("stop", "a"), ("watch", "a"))).rest().log == ("start", "gone a")


def test_one_who_watches_before_the_spawn_is_told_of_the_end_too() -> None:
    play = Play(do(("spawn", "a")), do(("watch", "a")), do(("stop", "a")), total=1, kinds={"crash": 1})
    play.go("script: line 0; top crashes after 0 effects of its step (the turn's step 1)", "script: line 1")
    assert play.living == ["top"]

    assert play.go("script: line 2").log[-1] == "gone a"
    assert play.living == ["top"]


# ------------------------------------------------------------------------------------------------------------- deferring


def test_what_is_deferred_comes_back_first_when_the_phase_changes() -> None:
    play = Play(do(("go", "busy")), Note("a"), Note("b"), (do(("go", "calm")), Note("c")))
    play.go("script: line 0", "script: line 1", "script: line 2")
    assert play.log == ("start",)
    assert play.actor().unread == 2

    assert play.go("script: line 3").log == ("start", "a", "b", "c")
    assert play.actor().unread == 0


def test_what_is_deferred_survives_a_crash() -> None:
    play = Play(do(("go", "busy")), Note("a"), do(("go", "calm"), ("work", "bad"))).rest()

    assert play.log == ("start", "restarted", "a")


def test_what_no_table_names_is_refused_and_noted() -> None:
    play = Play(Choice("no message of a puppet", 0)).rest()

    assert play.log == ("start",)
    assert not play.holds("every message is handled")
    assert play.holds("no step raises")


# --------------------------------------------------------------------------------------------------------------- crashes


def test_a_message_that_crashed_its_actor_is_tried_again() -> None:
    play = Play(Note("a"), total=1, kinds={"crash": 1})
    play.go("script: line 0; top crashes before its step (the turn's step 1)")

    assert play.log == ("start", "restarted", "a")


def test_a_message_that_kills_twice_is_set_aside_and_told_to_the_parent() -> None:
    play = Play(do(("spawn", "a")), do(("tell", "a", do(("raise",), ("keep",))), ("tell", "a", Note("next")))).rest()

    assert play.log == ("start", "exited a: crash", "exited a: crash, dropped 2")
    assert play.actor("top/a").log == ("start", "restarted", "restarted", "next")
    assert play.actor("top/a").kept == 0


def test_poison_kills_twice_is_set_aside_and_told_to_the_parent() -> None:
    lines = do(("spawn", "a")), do(("tell", "a", do(("keep",))), ("tell", "a", Note("next")))
    play = Play(*lines, total=1, kinds={"poison": 1})
    play.go("script: line 0")
    play.go(
        "script: line 1; top/a crashes before its step, and when its message is tried again (the turn's step 2)",
    )

    assert play.log == ("start", "exited a: crash", "exited a: crash, dropped 1")
    assert play.actor("top/a").log == ("start", "restarted", "restarted", "next")
    assert play.actor("top/a").kept == 0


def test_poison_at_the_top_is_set_aside_with_nobody_to_tell() -> None:
    play = Play((Note("a"), Note("b")), total=1, kinds={"poison": 1})
    play.go("script: line 0; top crashes before its step, and when its message is tried again (the turn's step 1)")

    assert play.log == ("start", "restarted", "restarted", "b")


def test_poison_is_of_messages_that_are_tried_again_and_not_of_starts_and_timers_that_do_not_last() -> None:
    play = Play(do(("timer", "t", 5.0)), do(("spawn", "a")), total=1, kinds={"poison": 1}).rest()
    assert [label for label in play.labels() if "comes due" in label] == ["top: timer 't' comes due"]

    second = Play(do(("spawn", "a")), total=1, kinds={"poison": 1})
    assert [label.partition("; ")[2] for label in second.labels()] == [
        "",
        "top crashes before its step, and when its message is tried again (the turn's step 1)",
    ]


def test_poison_that_a_cut_turn_keeps_from_being_tried_again_is_a_crash() -> None:
    play = Play((Note("a"), Note("b")), total=2, kinds={"poison": 1, "cut": 1})
    play.go(
        "script: line 0; top crashes before its step, and when its message is tried again (the turn's step 1); "
        "the turn is cut after 1 steps",
        "dispatcher: goes on",
    )

    assert play.log == ("start", "restarted", "a", "b")


def test_a_turn_has_as_many_crashes_as_the_budget_allows_and_a_cut_behind_them() -> None:
    play = Play((Note("a"), Note("b")), total=3, kinds={"crash": 2, "cut": 1})
    play.go(
        "script: line 0; top crashes before its step (the turn's step 1); "
        "top crashes after 0 effects of its step (the turn's step 3); the turn is cut after 4 steps",
    )
    assert play.log == ("start", "restarted", "a", "restarted")

    assert play.go("dispatcher: goes on").log == ("start", "restarted", "a", "restarted", "b")


def test_a_budget_of_one_fault_gives_a_turn_no_second() -> None:
    play = Play((Note("a"), Note("b")), total=1)

    assert max(label.count("; ") for label in play.labels()) == 1


@pytest.mark.parametrize("effects", [0, 1, 2])
def test_a_crash_after_some_effects_keeps_the_journal_and_does_not_try_again(effects: int) -> None:
    play = Play(do(("keep",), ("count",), ("work", "a"), ("work", "b")), total=1, kinds={"crash": 1})
    play.go(f"script: line 0; top crashes after {effects} effects of its step (the turn's step 1)")

    assert play.work == ("a", "b")[:effects]
    assert (play.actor().kept, play.actor().loose) == (1, 0)
    assert play.log == ("start", "restarted")


def test_a_crash_goes_up_to_the_first_who_handles_it() -> None:
    play = Play(
        do(("spawn", "a")),
        do(("tell", "a", do(("spawn", "b"), ("keep",)))),
        do(("tell", "a", do(("tell", "b", do(("raise",)))))),
    ).rest()

    assert play.log[1] == "exited a: crash"  # `a` does not handle its child's end, and fails with it
    assert play.actor("top/a").log[:2] == ("start", "restarted")
    assert play.actor("top/a/b").log[:2] == ("start", "restarted")  # held too, and begun again with its parent


def test_one_that_is_held_keeps_its_mail() -> None:
    play = Play(do(("spawn", "a")), do(("tell", "a", do(("raise",)))), do(("tell", "a", Note("x"))), kind=Nurse).rest()
    assert play.actor("top/a").held
    assert play.actor("top/a").unread == 2

    later = Play(
        do(("spawn", "a")),
        do(("tell", "a", do(("work", "bad")))),
        do(("tell", "a", Note("x"))),
        do(("restart", "a")),
        kind=Nurse,
    ).rest()
    assert later.actor("top/a").log == ("start", "restarted", "x")


def test_one_at_the_top_that_crashes_too_often_fails_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Any] = []
    monkeypatch.setattr("sys.excepthook", lambda *error: failures.append(error))
    bad = do(("work", "bad"))
    play = Play(*[bad] * 7).go(*[f"script: line {line}" for line in range(5)])
    assert play.holds("the system never fails")
    assert not failures

    play.go("script: line 5")
    assert not play.holds("the system never fails")
    assert play.labels() == []  # nothing happens any more
    assert len(failures) == 1


def test_a_tell_to_no_address_is_a_crash_halfway_that_nobody_meant() -> None:
    play = Play(do(("keep",), ("work", "a"), ("tell", None, Note("x")), ("work", "b"))).rest()

    assert play.work == ("a",)
    assert play.actor().kept == 1
    assert not play.holds("no step raises")


def test_a_cut_turn_is_gone_on_with_by_the_driver() -> None:
    play = Play((Note("a"), Note("b"), Note("c")), Note("d"), total=1, kinds={"cut": 1})
    play.go("script: line 0; the turn is cut after 1 steps")
    assert play.log == ("start", "a")

    play.go("script: line 1")  # it only waits behind the others
    assert play.log == ("start", "a")
    assert play.go("dispatcher: goes on").log == ("start", "a", "b", "c", "d")


# ------------------------------------------------------------------------------------------------------------ anything


def random_order(draw: random.Random, depth: int) -> tuple[Any, ...]:
    child = draw.choice("ab")
    orders: list[tuple[Any, ...]] = [
        ("work", draw.choice(["x", "y", "bad"])),
        ("timer", draw.choice(["t", "u", "cancel t", "again u"]), draw.choice([5.0, 5.0, 6.0])),
        ("timer", draw.choice(["t", "u", "cancel t", "again u"]), 5.0),
        ("timer", draw.choice(["last", "late", "once", "cancel last"]), draw.choice([5.0, 6.0])),
        ("need", draw.choice(["last", "late", "once"]), draw.choice([0.0, 5.0, 6.0])),
        ("keep_timer", draw.choice(["last", "late", "t"]), draw.choice([5.0, 6.0])),
        ("cancel", draw.choice(["t", "u", "last"])),
        ("spawn", child, draw.choice([Puppet, Keeper])),
        ("keep",),
        ("count",),
        ("raise",),
        ("go", draw.choice(["busy", "calm"])),
    ]
    if depth:
        orders += [("spawn", child, draw.choice([Puppet, Keeper]))] * 2
        orders += [(order, child) for order in ("adopt", "restart", "hold", "stop", "watch", "unwatch")]
        below = do(*[random_order(draw, depth - 1) for _ in range(draw.randrange(1, 4))])
        orders += [("tell", child, draw.choice([below, Note("n"), Sound("s"), Urgent("u")]))] * 6
    else:
        orders += [("stop",)]
    return draw.choice(orders)


def random_line(draw: random.Random) -> tuple[Any, ...]:
    some = [Note("n"), Sound("s"), Urgent("u"), do(*[random_order(draw, 2) for _ in range(draw.randrange(1, 6))])]
    return tuple([draw.choice([*some, some[3], some[3]]) for _ in range(draw.randrange(1, 4))])


def random_play(seed: int) -> int:
    """Play a drawn scene to its end, with drawn faults; how many steps were compared."""
    draw = random.Random(seed)
    lines = [(do(("spawn", "a", draw.choice([Puppet, Keeper])), ("spawn", "b")),)] + [
        random_line(draw) for _ in range(8)
    ]
    play = Play(*lines, kind=draw.choice([Keeper, Puppet]), total=2)
    count = 0
    while choices := play.steps.choices():
        whole = [action for action in choices if play.model.is_fair(action)]
        play.steps.take(draw.choice(choices if draw.random() < 0.3 or not whole else whole))
        count += 1
    return count


@pytest.mark.search
@pytest.mark.parametrize(
    "seeds",
    [range(16), *[pytest.param(range(at, at + 64), marks=pytest.mark.slow) for at in range(16, 400, 64)]],
    ids=lambda seeds: f"{seeds.start}",
)
def test_whatever_is_asked_for_comes_to_the_same_in_the_system(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.excepthook", lambda *error: None)  # a system that failed says so there

    assert sum(random_play(seed) for seed in seeds) > 100
