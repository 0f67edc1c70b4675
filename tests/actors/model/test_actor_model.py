import itertools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene, Schedule, Seen, Timers
from actors.model.parts import CRASH, CUT, LATE, POISON, Choice, Faults, Part
from actors.runtime.actor import IGNORE, Actor, Exited, Out
from actors.voice_lab.model import voice_model
from machines.checker import (
    ModelError,
    NoInitialState,
    NotRepeatable,
    Outcome,
    PropertyRaised,
    Report,
    UnhashableState,
    check,
)
from machines.checker.choices import choices
from machines.checker.regression import assert_mended, regression
from machines.checker.report import as_json, markdown


class Open(NamedTuple):
    n: int


class Done(NamedTuple):
    n: int


class Knock(NamedTuple):
    pass


class Door(Actor):
    """Opens when it is asked, and shuts when the lock says so or after a while."""

    __slots__ = ("count", "lock", "phase")
    wiring = ("lock",)
    state = ("phase", "count")
    journal = ("count",)
    handles: ClassVar = {"shut": {Open: "open", Done: IGNORE}, "open": {Open: IGNORE, Done: "done"}}

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.phase = "shut"
        self.count = 0

    def open(self, message: Open, out: Out) -> None:
        self.phase = "open"
        self.count += 1
        out.set_timer("shut", 5.0)
        out.port(self.lock, "unlock")

    def done(self, message: Done, out: Out) -> None:
        self.phase = "shut"
        out.cancel_timer("shut")

    def timeout(self, timer: str, out: Out) -> None:
        self.phase = "shut"


class LazyDoor(Door):
    """Faulty: it has no way to shut but the lock."""

    __slots__ = ()

    def open(self, message: Open, out: Out) -> None:
        self.phase = "open"
        self.count += 1
        out.port(self.lock, "unlock")


class Porter(Actor):
    __slots__ = ("door", "kind", "lock")
    wiring = ("lock", "kind")
    state = ("door",)
    journal = state
    handles: ClassVar = {Exited: "exited"}

    def __init__(self, lock: Any, kind: type[Door]) -> None:
        self.lock = lock
        self.kind = kind
        self.door: Any = None

    def start(self, out: Out) -> None:
        self.door = out.spawn(self.kind(self.lock), "door")

    def restarted(self, out: Out) -> None:
        if self.door is None:
            self.start(out)
        else:
            out.adopt(self.door)
            out.restart(self.door)

    def exited(self, message: Exited, out: Out) -> None:
        out.restart(message.ref)


class Lock(Part):
    door: Any = None

    def initial(self) -> int:
        return 0

    def submit(self, state: int, work: Any) -> int:
        return min(state + 1, 3)

    def choices(self, state: int) -> Any:
        if state:
            yield Choice("opens", state - 1, ((self.door, Done(1)),), prompt=True)
            yield Choice("jams", 0, fault="jam")


class Visitor(Part):
    door: Any = None

    def __init__(self, name: str, times: int, *, fair: bool = True) -> None:
        super().__init__(name)
        self.times = times
        self.fair = fair

    def initial(self) -> int:
        return self.times

    def choices(self, state: int) -> Any:
        if state:
            yield Choice("rings", state - 1, ((self.door, Open(state)),), fair=self.fair)


def door_model(kind: type[Door] = Door, times: int = 2, *, fair: bool = True, **options: Any) -> ActorModel:
    lock, visitor = Lock("lock"), Visitor("visitor", times, fair=fair)

    def setup(scene: Scene) -> None:
        scene.spawn(Porter(scene.port(lock), kind), "porter")
        lock.door = visitor.door = scene.find("porter/door")

    model = ActorModel("door", setup, parts=[lock, visitor], **options)
    model.can_always_reach("it can be shut", lambda door: door.alive and door.phase == "shut", of=["porter/door"])
    model.always("seldom open", lambda door: not door.alive or door.count <= times, of=["porter/door"])
    model.always_step("never counts back", lambda a, b: a.held or b.held or a.count <= b.count, of=["porter/door"])
    model.sometimes("it opens", lambda door: door.phase == "open", of=["porter/door"])
    model.no_deadlock("only at the end", lambda left: left == 0, of=["visitor"])
    model.leads_to("it shuts", lambda door: door.phase == "open", lambda door: door.phase == "shut", of=["porter/door"])
    return model


class Alone(Actor):
    """The base of actors that do one thing."""

    __slots__ = ("log",)
    state = ("log",)
    journal = ("log",)
    handles: ClassVar = {Knock: "knock"}

    def __init__(self) -> None:
        self.log: Any = ()

    def knock(self, message: Knock, out: Out) -> None:
        pass


class Knocker(Part):
    """Tells the one at the top a message, so many times; a message is made anew each time."""

    top: Any = None

    def __init__(self, make: Callable[[], Any] = Knock, times: int = 1) -> None:
        super().__init__("knocker")
        self.make = make
        self.times = times

    def initial(self) -> int:
        return self.times

    def choices(self, state: int) -> Any:
        if state:
            yield Choice("knocks", state - 1, ((self.top, self.make()),))


def alone(actor: type[Actor], make: Callable[[], Any] = Knock, *, times: int = 1, **options: Any) -> ActorModel:
    knocker = Knocker(make, times)

    def setup(scene: Scene) -> None:
        knocker.top = scene.spawn(actor(), "top")

    return ActorModel("alone", setup, parts=[knocker], **options)


def failing(report: Report) -> set[str]:
    return {verdict.name for verdict in report.verdicts if verdict.outcome is Outcome.FAILS}


def labels(model: ActorModel, state: bytes) -> list[str]:
    return [model.label(action) for action, _ in model.successors(state)]


def after(model: ActorModel, *chosen: str) -> bytes:
    """The state that these labels lead to from the beginning."""
    (state,) = model.initial()
    for label in chosen:
        found = {model.label(action): to for action, to in model.successors(state)}
        assert label in found, sorted(found)
        state = found[label]
    return state


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}], ids=["list", "dict", "set"])
def test_a_state_that_could_be_changed_is_refused_with_actor_message_and_field(value: Any) -> None:
    class Careless(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            self.log = value

    with pytest.raises(UnhashableState, match=rf"Careless at Knock\(\): Careless.log: {type(value).__name__} can't"):
        check(alone(Careless))


def test_a_message_that_could_be_changed_is_refused_with_the_actor_that_sends_it() -> None:
    class Careless(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            out.tell(out.me, [message])

    with pytest.raises(UnhashableState, match=r"Careless at Knock\(\): list can't be part of a state"):
        check(alone(Careless))


_counter = itertools.count()


@pytest.mark.parametrize(
    "whim",
    [lambda: next(_counter), object, lambda: 1000 + next(_counter) * 0.5],
    ids=["a counter", "id()", "a clock"],
)
def test_a_step_that_gives_two_results_is_named(whim: Callable[[], Any]) -> None:
    class Moody(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            self.log = (whim(),)

    with pytest.raises(NotRepeatable, match=r"Moody gave two different results for Knock\(\)"):
        check(alone(Moody))


def test_effects_that_differ_are_two_results_too() -> None:
    class Moody(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            out.set_timer("t", 1.0 + next(_counter))

    with pytest.raises(NotRepeatable, match="Moody"):
        check(alone(Moody))


def test_a_message_that_no_table_names_fails_and_the_counterexample_names_it() -> None:
    model = alone(Alone, lambda: Open(1))
    report = check(model)

    assert failing(report) == {"every message is handled"}
    verdict = report.verdict("every message is handled")
    assert verdict.path is not None
    assert model.fields(verdict.path.steps[-1].state)["mistakes"] == ("unhandled: Alone in 'any' at Open",)
    assert "unhandled: Alone in 'any' at Open" in markdown(model, report, verdict)


def test_what_is_not_handled_in_the_setup_already_fails_too() -> None:
    knocker = Knocker(times=0)

    def setup(scene: Scene) -> None:
        scene.tell(scene.spawn(Alone(), "top"), Open(1))

    assert failing(check(ActorModel("setup", setup, parts=[knocker]))) == {"every message is handled"}


class Bad(Alone):
    __slots__ = ()

    def knock(self, message: Knock, out: Out) -> None:
        raise KeyError("boom")


def test_a_step_that_raises_fails_unless_it_may() -> None:
    report = check(alone(Bad))

    assert failing(report) == {"no step raises"}
    path = report.verdict("no step raises").path
    assert path is not None
    assert len(path.steps) == 1
    assert failing(check(alone(Bad, errors=(LookupError,)))) == set()


def test_one_at_the_top_that_raises_for_ever_fails_the_system() -> None:
    class Worse(Bad):
        __slots__ = ()

        def restarted(self, out: Out) -> None:
            raise KeyError("again")

    assert failing(check(alone(Worse))) == {"no step raises", "the system never fails"}
    assert failing(check(alone(Worse, errors=(KeyError,)))) == {"the system never fails"}


@pytest.mark.parametrize(("times", "fails"), [(2, set()), (3, {"the system never fails"})])
def test_crashes_at_the_top_are_counted_over_the_whole_run(times: int, fails: set[str]) -> None:
    # each message crashes it twice, and at most five crashes are forgiven
    assert failing(check(alone(Bad, times=times, errors=(KeyError,)))) == fails


def test_an_endless_turn_is_an_error_that_names_the_actor() -> None:
    class Endless(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            out.tell(out.me, message)

    with pytest.raises(ModelError, match="more than 256 steps; the last one is at <top>"):
        check(alone(Endless))


def test_work_for_what_is_no_part_is_an_error() -> None:
    class Lost(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            out.port(None, "work")

    with pytest.raises(ModelError, match="None, which is no part of the model"):
        check(alone(Lost))


def test_a_setup_that_spawns_nobody_is_an_error() -> None:
    with pytest.raises(NoInitialState, match="'empty' spawns no actor"):
        check(ActorModel("empty", lambda scene: None))


def test_a_setup_that_looks_for_nobody_is_an_error() -> None:
    with pytest.raises(ModelError, match="no actor 'nobody' lives"):
        check(ActorModel("empty", lambda scene: scene.find("nobody")))


def test_a_property_that_reads_fields_of_one_that_is_not_born_is_an_error() -> None:
    model = door_model()
    model.always("odd", lambda nobody: nobody.count == 0, of=["porter/nobody"])

    with pytest.raises(PropertyRaised, match="an actor that is unborn has no 'count'"):
        check(model)


def test_a_property_says_what_it_reads() -> None:
    with pytest.raises(ModelError, match="must say what it reads"):
        door_model().always("nothing", lambda: True, of=[])


# --------------------------------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("faults", [0, 1, 2])
def test_a_sound_door_keeps_its_promises_with_any_faults(faults: int) -> None:
    report = check(door_model(faults=Faults(total=faults)))

    assert report.complete
    assert failing(report) == set()


def test_a_lazy_door_is_wedged_by_one_fault_of_the_lock_and_by_no_other() -> None:
    assert failing(check(door_model(LazyDoor))) == set()
    assert failing(check(door_model(LazyDoor, faults=Faults(1, {"jam": 1})))) >= {"it can be shut", "it shuts"}
    assert failing(check(door_model(LazyDoor, faults=Faults(1, {CUT: 1, LATE: 1})))) == set()


def fault_labels(model: ActorModel) -> set[str]:
    """The faults of all actions that the model has, by what their label says."""
    words = {"crashes": CRASH, "is cut": CUT, "before an answer": LATE, "jams": "jam"}
    seen, queue, found = set(model.initial()), list(model.initial()), set()
    while queue:
        for action, to in model.successors(queue.pop()):
            found |= {kind for word, kind in words.items() if word in model.label(action)}
            if to not in seen:
                seen.add(to)
                queue.append(to)
    return found


def test_the_budget_says_which_faults_there_are() -> None:
    assert fault_labels(door_model(faults=Faults())) == set()
    assert fault_labels(door_model(faults=Faults(total=1))) == {CRASH, LATE, "jam"}  # no turn of it has two steps
    for kind in (CRASH, LATE, "jam"):
        assert fault_labels(door_model(faults=Faults(2, {kind: 1}))) == {kind}


def most_faults(model: ActorModel) -> int:
    """The most faults in any run."""
    (first,) = model.initial()
    seen, queue = {first}, [first]
    left = model.fields(first)["faults left"]
    least = left
    while queue:
        state = queue.pop()
        least = min(least, model.fields(state)["faults left"])
        for _, to in model.successors(state):
            if to not in seen:
                seen.add(to)
                queue.append(to)
    return int(left - least)


@pytest.mark.parametrize(
    ("faults", "most"),
    [
        (Faults(), 0),
        (Faults(2), 2),
        (Faults(3, {"jam": 1}), 1),
        (Faults(3, {"jam": 1, LATE: 1}), 2),
        (Faults(1, {"jam": 5}), 1),
    ],
)
def test_no_run_has_more_faults_than_the_budget(faults: Faults, most: int) -> None:
    assert most_faults(door_model(faults=faults)) == most


def test_only_those_named_crash() -> None:
    model = door_model(faults=Faults(1, {CRASH: 1}, actors=frozenset({"porter"})))

    assert fault_labels(model) == set()  # a porter's only step is in the setup
    named = door_model(faults=Faults(1, {CRASH: 1}, actors=frozenset({"door"})))
    (state,) = named.initial()
    assert {label for label in labels(named, state) if "crashes" in label} == {
        f"visitor: rings; porter/door crashes {when} (the turn's step 1)"
        for when in (
            "before its step",
            "after 0 effects of its step",
            "after 1 effects of its step",
            "after 2 effects of its step",
        )
    }


def test_no_timer_comes_before_a_prompt_answer_unless_that_is_the_fault() -> None:
    sound, late = door_model(), door_model(faults=Faults(1, {LATE: 1}))

    assert labels(sound, after(sound, "visitor: rings")) == ["lock: opens", "visitor: rings"]
    assert labels(late, after(late, "visitor: rings"))[-1] == (
        "porter/door: timer 'shut' comes due, before an answer that was due"
    )


def test_a_cut_leaves_the_rest_to_the_driver() -> None:
    class Chatty(Alone):
        __slots__ = ()

        def knock(self, message: Knock, out: Out) -> None:
            self.log += ("knock",)
            if len(self.log) < 3:
                out.tell(out.me, message)

    model = alone(Chatty, faults=Faults(1, {CUT: 1}))
    state = after(model, "knocker: knocks; the turn is cut after 2 steps")
    assert dict(model.actors(state))["top"].log == ("knock", "knock")
    assert labels(model, state) == ["dispatcher: goes on"]
    ((_, done),) = model.successors(state)
    assert dict(model.actors(done))["top"].log == ("knock",) * 3


class Ticking(Visitor):
    """There is always something else that may happen."""

    def choices(self, state: int) -> Any:
        yield from super().choices(state)
        yield Choice("waits", state)


@pytest.mark.parametrize(("fair", "fails"), [(True, set()), (False, {"somebody rings"})])
def test_what_is_not_fair_need_never_happen(*, fair: bool, fails: set[str]) -> None:
    visitor = Ticking("visitor", 1, fair=fair)

    def setup(scene: Scene) -> None:
        visitor.door = scene.spawn(Quiet(), "door")

    model = ActorModel("ticking", setup, parts=[visitor])
    model.leads_to("somebody rings", lambda _: True, lambda door: door.got == (1,), of=["door"])
    assert failing(check(model)) == fails


# --------------------------------------------------------------------------------------------------------------- timers


class TwoTimers(Alone):
    __slots__ = ()

    def start(self, out: Out) -> None:
        out.set_timer("long", 9.0)
        out.set_timer("short", 3.0)
        out.set_timer("longer", 10.0)

    def timeout(self, timer: str, out: Out) -> None:
        self.log += (timer,)


def orders(timers: Timers) -> set[tuple[str, ...]]:
    model = alone(TwoTimers, times=0, timers=timers)
    (first,) = model.initial()
    found, queue = set(), [first]
    while queue:
        state = queue.pop()
        if not model.successors(state):
            found.add(dict(model.actors(state))["top"].log)
        queue += [to for _, to in model.successors(state)]
    return found


def test_timers_come_due_in_the_order_of_their_deadlines_where_time_counts() -> None:
    # "short" was armed later than "long", so each of them may be first; "longer" comes after both
    assert orders(Timers.DEADLINE) == {
        ("long", "short", "longer"),
        ("short", "long", "longer"),
    }


def test_timers_come_due_in_any_order_where_it_does_not() -> None:
    assert orders(Timers.ANY_TIME) == set(itertools.permutations(("long", "short", "longer")))


def test_two_timers_may_come_due_at_once() -> None:
    model = alone(TwoTimers, times=0)
    (state,) = model.initial()

    assert "top: timer 'short' comes due, with 'long' of top" in labels(model, state)
    assert len(labels(model, state)) == len(set(labels(model, state)))


# ------------------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("kind", [Door, LazyDoor])
@pytest.mark.parametrize("faults", [{}, {CRASH: 1}, {"jam": 1}], ids=str)
def test_turns_and_any_order_give_the_same_verdicts(kind: type[Door], faults: dict[str, int]) -> None:
    budget = Faults(sum(faults.values()), faults)
    turns = check(door_model(kind, faults=budget))
    any_order = check(door_model(kind, faults=budget, schedule=Schedule.ANY_ORDER))

    assert failing(turns) == failing(any_order)
    assert any_order.states > turns.states


def test_any_order_takes_any_mail_next() -> None:
    first, second = Visitor("first", 1), Visitor("second", 1)

    def setup(scene: Scene) -> None:
        first.door = scene.spawn(Quiet(), "a")
        second.door = scene.spawn(Quiet(), "b")

    model = ActorModel("two", setup, parts=[first, second], schedule=Schedule.ANY_ORDER)
    state = after(model, "first: rings", "second: rings")
    assert labels(model, state) == ["a: takes its mail", "b: takes its mail"]


class Quiet(Actor):
    __slots__ = ("got",)
    state = ("got",)
    handles: ClassVar = {Open: "open"}

    def __init__(self) -> None:
        self.got: tuple[int, ...] = ()

    def open(self, message: Open, out: Out) -> None:
        self.got += (message.n,)


# ------------------------------------------------------------------------------------------------------ remembered turns


class Spawner(Alone):
    """Spawns and stops without end of ideas: the turns that read which addresses there are."""

    __slots__ = ("child",)
    state = ("log", "child")
    journal = ("child",)
    handles: ClassVar = {Knock: "knock", Done: "stop_all", Open: "raise_it"}

    def __init__(self) -> None:
        self.log: Any = ()
        self.child: Any = None

    def knock(self, message: Knock, out: Out) -> None:
        self.log += ("knock",)
        self.child = out.spawn(Spawner(), "child")
        out.tell(self.child, Open(1))

    def stop_all(self, message: Done, out: Out) -> None:
        if self.child is not None:
            out.tell(self.child, Exited(self.child, None, 0.0))
            out.stop(self.child)

    def raise_it(self, message: Open, out: Out) -> None:
        if message.n == 2:
            raise KeyError


class Idea(Part):
    top: Any = None

    def initial(self) -> tuple[int, ...]:
        return (2, 2, 1)

    def choices(self, state: tuple[int, ...]) -> Any:
        for at, message in enumerate((Knock(), Done(1), Open(2))):
            if state[at]:
                rest = (*state[:at], state[at] - 1, *state[at + 1 :])
                yield Choice(type(message).__name__, rest, ((self.top, message),))


def ideas(**options: Any) -> ActorModel:
    idea = Idea("idea")

    def setup(scene: Scene) -> None:
        idea.top = scene.spawn(Spawner(), "top")

    return ActorModel("ideas", setup, parts=[idea], **options)


def compared(report: Report) -> Any:
    paths = [(verdict.name, verdict.outcome, verdict.path and len(verdict.path.steps)) for verdict in report.verdicts]
    return report.states, report.transitions, report.depth, report.complete, paths


@pytest.mark.parametrize(
    "make",
    [
        lambda remember: door_model(faults=Faults(2), remember_turns=remember),
        lambda remember: door_model(LazyDoor, faults=Faults(1), remember_turns=remember),
        lambda remember: door_model(faults=Faults(1), schedule=Schedule.ANY_ORDER, remember_turns=remember),
        lambda remember: alone(Bad, times=3, errors=(KeyError,), remember_turns=remember),
        lambda remember: alone(TwoTimers, times=2, faults=Faults(1), timers=Timers.ANY_TIME, remember_turns=remember),
        lambda remember: ideas(remember_turns=remember),
        lambda remember: ideas(faults=Faults(1), remember_turns=remember),
        lambda remember: ideas(faults=Faults(1), schedule=Schedule.ANY_ORDER, remember_turns=remember),
    ],
    ids=["door", "lazy door", "door in any order", "bad", "timers", "ideas", "ideas, crash", "ideas in any order"],
)
def test_remembered_turns_are_the_same_turns(make: Callable[[bool], ActorModel]) -> None:
    assert compared(check(make(True))) == compared(check(make(False)))


@pytest.mark.parametrize("faults", [0, 1])
def test_remembered_turns_are_the_same_turns_of_the_voice_service(faults: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def report() -> Report:
        model = voice_model(sessions=2, refused=1, faults=Faults(total=faults))
        return check(model, max_states=None if faults == 0 else 8_000)

    remembered = report()
    monkeypatch.setattr("actors.model.actor_model.TurnMemory", lambda stage: None)
    assert compared(report()) == compared(remembered)
    assert remembered.complete == (faults == 0)


class Impatient(Actor):
    """Faulty: the second time it begins again it gives up for good."""

    __slots__ = ("begun",)
    state = ("begun",)
    journal = state
    handles: ClassVar = {Knock: "knock"}

    def __init__(self) -> None:
        self.begun = 0

    def restarted(self, out: Out) -> None:
        self.begun += 1

    def knock(self, message: Knock, out: Out) -> None:
        pass


class Once(Part):
    """Knocks, and never again."""

    door: Any = None

    def initial(self) -> bool:
        return False

    def choices(self, state: bool) -> Any:
        if not state:
            yield Choice("knocks", state=True, tells=((self.door, Knock()),))


def impatient_model(faults: Faults) -> ActorModel:
    visitor = Once("visitor")

    def setup(scene: Scene) -> None:
        visitor.door = scene.spawn(Impatient(), "door")

    model = ActorModel("impatient", setup, parts=[visitor], faults=faults)
    model.always("begins again once at most", lambda door: door.begun < 2, of=["door"])
    return model


@pytest.mark.parametrize("kinds", [{}, {CRASH: 2}])
def test_a_failure_that_needs_two_crashes_in_one_turn_is_found_with_two_faults(kinds: dict[str, int]) -> None:
    assert check(impatient_model(Faults(1, {CRASH: 1}))).outcome is Outcome.HOLDS

    model = impatient_model(Faults(2, kinds))
    report = check(model)
    verdict = report.verdict("begins again once at most")
    assert verdict.path is not None
    (label,) = [model.label(action) for action in verdict.path.actions]
    assert label.startswith("visitor: knocks; door crashes before its step (the turn's step 1); door crashes ")
    text = markdown(model, report, verdict)
    assert text.count("Note over p1: crashed") == 2
    module = regression("impatient_model()", ("from somewhere import impatient_model",), model, verdict)
    assert "door crashes before its step (the turn's step 1)" in module
    with pytest.raises(AssertionError, match="this run still breaks"):
        assert_mended(impatient_model(Faults(2, kinds)), verdict.name, choices(model, verdict.path), [label])


def test_a_counterexample_shows_what_poison_does() -> None:
    model = impatient_model(Faults(1, {POISON: 1}))
    report = check(model)
    verdict = report.verdict("begins again once at most")
    assert verdict.path is not None
    assert [model.label(action) for action in verdict.path.actions] == [
        "visitor: knocks; door crashes before its step, and when its message is tried again (the turn's step 1)"
    ]
    text = markdown(model, report, verdict)
    assert text.count("Note over p1: crashed") == 2
    assert "is set aside, it killed its actor twice" in text
    assert POISON in str(as_json(model, report)["configuration"]["of a kind"])


# -------------------------------------------------------------------------------------------------------------- reports


def test_labels_owners_and_fairness_of_actions() -> None:
    model = door_model(faults=Faults(1), fair=False)
    (state,) = model.initial()
    told = {model.label(action): action for action, _ in model.successors(state)}
    whole = told["visitor: rings"]
    crash = told["visitor: rings; porter/door crashes before its step (the turn's step 1)"]

    assert model.owner(whole) == model.owner(crash) == "visitor"
    assert not model.is_fair(whole)
    assert not model.is_fair(crash)
    assert model.event(whole) == ("visitor", "rings")
    assert model.faults_in(whole) == ((), 0)
    assert model.faults_in(crash) == (((0, "porter/door", 0, True, False),), 0)
    rung = after(model, "visitor: rings")
    fair = {
        model.label(action): (model.is_fair(action), model.is_strongly_fair(action))
        for action, _ in model.successors(rung)
    }
    assert fair["lock: opens"] == (True, False)
    assert fair["lock: jams"] == (False, False)
    assert fair["porter/door: timer 'shut' comes due, before an answer that was due"] == (False, False)
    jammed = after(model, "visitor: rings", "lock: jams")
    (timer,) = [action for action, _ in model.successors(jammed) if model.timers_in(action)]
    assert (model.is_fair(timer), model.is_strongly_fair(timer)) == (True, True)
    assert model.timers_in(timer) == [("porter/door", "shut")]


def test_fields_of_a_state_by_name() -> None:
    model = door_model(faults=Faults(3))
    fields = model.fields(after(model, "visitor: rings"))

    assert fields["faults left"] == 3
    assert fields["timers"] == (("porter/door", "shut"),)
    assert fields["lock"] == 1
    assert fields["visitor"] == 1
    assert fields["porter/door is"] == "alive"
    assert (fields["porter/door.phase"], fields["porter/door.count"]) == ("open", 1)
    assert repr(fields["porter.door"]) == "<porter/door>"


def test_pending_mail_of_a_state() -> None:
    model = door_model(schedule=Schedule.ANY_ORDER)
    (first,) = model.initial()

    assert model.pending(first) == {}
    assert model.pending(after(model, "visitor: rings", "visitor: rings")) == {
        "porter/door": ["Open(n=2)", "Open(n=1)"]
    }


def test_the_configuration_says_what_it_was_made_with() -> None:
    given = door_model(faults=Faults(2, {CRASH: 1}), timers=Timers.ANY_TIME).configuration()

    assert given["schedule"] == "turns"
    assert given["timers"] == "any time"
    assert given["faults in a run"] == 2
    assert given["of a kind"] == {CRASH: 1}
    assert given["parts"] == "lock, visitor"


def happenings(model: ActorModel, *chosen: str) -> list[tuple[str, str, str, str]]:
    """What went on in the last of these steps."""
    before = after(model, *chosen[:-1])
    action, to = next((action, to) for action, to in model.successors(before) if model.label(action) == chosen[-1])
    return [tuple(one) for one in model.happenings(before, action, to)]  # type: ignore[misc]


def test_what_went_on_in_a_step() -> None:
    model = door_model(faults=Faults(1))

    assert happenings(model, "visitor: rings") == [
        ("message", "visitor", "Open(n=2)", "porter/door"),
        ("message", "porter/door", "'unlock'", "lock"),
        ("note", "porter/door", "open", ""),
    ]
    assert ("note", "lock", "jams", "") in happenings(model, "visitor: rings", "lock: jams")
    assert happenings(model, "visitor: rings", "lock: jams", "porter/door: timer 'shut' comes due")[0] == (
        "timer",
        "porter/door",
        "shut",
        "",
    )
    crash = "visitor: rings; porter/door crashes after 0 effects of its step (the turn's step 1)"
    assert [one[:2] for one in happenings(model, crash)] == [
        ("message", "visitor"),
        ("crash", "porter/door"),
        ("restart", "porter/door"),
    ]


def test_coverage_has_a_row_for_each_phase_and_message() -> None:
    model = door_model(times=1)
    rows = {(row.actor, row.phase, row.message): row for row in model.coverage()}
    assert not rows  # no actor was seen yet

    check(model)
    rows = {(row.actor, row.phase, row.message): row for row in model.coverage()}
    assert set(rows) == {
        ("Porter", "any", "Exited"),
        *[("Door", phase, message) for phase in ("shut", "open") for message in ("Open", "Done")],
    }
    assert rows["Door", "shut", "Open"].effective
    assert rows["Door", "shut", "Open"].count >= 1
    assert rows["Door", "open", "Open"].ignored
    assert not rows["Porter", "any", "Exited"].count
    assert not rows["Porter", "any", "Exited"].is_covered


# ---------------------------------------------------------------------------------------------------------- what is seen


def test_an_actor_is_seen_with_its_fields_and_how_it_is() -> None:
    model = door_model()
    state = after(model, "visitor: rings")
    door: Seen = dict(model.actors(state))["porter/door"]

    assert (door.alive, door.held, door.unborn, door.stopped, door.unread) == (True, False, False, False, 0)
    assert door.phase == "open"
    assert door.values() == {"phase": "open", "count": 1}
    assert Seen(5, None, 0).unborn
    assert Seen(5, None, 0).values() == {}


def test_properties_read_timers_and_what_is_left_of_the_budget() -> None:
    model = door_model(faults=Faults(1))
    model.sometimes("a timer is armed", lambda timers: timers == (("porter/door", "shut"),), of=["@timers"])
    model.sometimes("a fault happened", lambda left, lock: left == 0 and lock == 0, of=["@faults", "lock"])

    report = check(model)
    assert report.verdict("a timer is armed").outcome is Outcome.HOLDS
    assert report.verdict("a fault happened").outcome is Outcome.HOLDS


@pytest.mark.parametrize(("kinds", "total"), [({POISON: 1}, 1), ({CRASH: 2}, 2)])
def test_properties_read_which_messages_were_set_aside_and_nothing_of_faults_that_set_none_aside(
    kinds: dict[str, int], total: int
) -> None:
    model = impatient_model(Faults(total, kinds))
    model.sometimes("its knock is set aside", lambda aside: aside == (("door", Knock()),), of=["@set_aside"])
    model.always("nothing else is", lambda aside: set(aside) <= {("door", Knock())}, of=["@set_aside"])
    model.always("not with one crash", lambda aside, left: not aside or left == 0, of=["@set_aside", "@faults"])

    report = check(model)
    assert {name: report.verdict(name).outcome for name in ("its knock is set aside", "nothing else is")} == {
        "its knock is set aside": Outcome.HOLDS,
        "nothing else is": Outcome.HOLDS,
    }
    assert report.verdict("not with one crash").outcome is Outcome.HOLDS


def test_properties_read_which_timers_came_before_an_answer_that_was_due() -> None:
    model = door_model(faults=Faults(1, {LATE: 1}))
    model.sometimes("the door gave up", lambda early: early == (("porter/door", "shut"),), of=["@early"])
    model.always("by that fault alone", lambda early, left: bool(early) == (left == 0), of=["@early", "@faults"])

    report = check(model)
    assert report.verdict("the door gave up").outcome is Outcome.HOLDS
    assert report.verdict("by that fault alone").outcome is Outcome.HOLDS
