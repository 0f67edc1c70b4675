"""What properties read of a model of actors: whole things, or aspects of them."""

from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from actors.model.actor_model import ActorModel, Aspect, Scene
from actors.model.parts import Choice, Part
from actors.runtime.actor import Actor, Out
from machines.checker import ModelError, Outcome, PropertyRaised, Report, check, replay
from machines.checker.assertion import CheckFailed, assert_holds
from machines.checker.on_path import holds_on
from machines.checker.stateful import state_machine

MOST = 4


class Press(NamedTuple):
    pass


class Counter(Actor):
    """Counts how often it was pressed, and leaves a child behind each time."""

    __slots__ = ("count",)
    state = ("count",)
    journal = state
    handles: ClassVar = {Press: "pressed"}

    def __init__(self) -> None:
        self.count = 0

    def pressed(self, _: Press, out: Out) -> None:
        self.count += 1
        out.spawn(Mark(self.count), "mark")


class Mark(Actor):
    __slots__ = ("number",)
    wiring = ("number",)
    handles: ClassVar = {Press: "pressed"}

    def __init__(self, number: int) -> None:
        self.number = number

    def pressed(self, _: Press, __: Out) -> None:
        raise AssertionError("nobody presses a mark")


class Finger(Part):
    """Presses the counter, a few times."""

    counter: Any = None

    def initial(self) -> int:
        return 0

    def choices(self, state: int) -> list[Choice]:
        return [Choice("press", state + 1, tells=((self.counter, Press()),))] if state < MOST else []


def counter() -> ActorModel:
    finger = Finger("finger")

    def setup(scene: Scene) -> None:
        finger.counter = scene.spawn(Counter(), "counter")

    return ActorModel("counter", setup, parts=[finger])


def claimed(model: ActorModel, seen: Any, presses: Any) -> Report:
    """One claim of each kind, of a count and a number of presses, however these are read."""
    both = [seen, presses]
    model.always("as often", lambda count, pressed: count == pressed, of=both)
    model.always("below three", lambda count: count < 3, of=[seen])
    model.always_step("up", lambda before, after: before <= after <= before + 1, of=[seen])
    model.always_step("never three", lambda _, after: after != 3, of=[seen])
    model.sometimes("twice", lambda count: count == 2, of=[seen])
    model.can_always_reach("the end", lambda count: count == MOST, of=[seen])
    model.leads_to("on", lambda count, _: count == 1, lambda _, pressed: pressed == MOST, of=both)
    return check(model)


def test_a_property_of_an_aspect_is_decided_as_one_that_reads_it_from_the_whole() -> None:
    by_aspect = claimed(counter(), Aspect("counter", lambda it: it.count), Aspect("finger", lambda state: state))

    outcomes = {verdict.name: verdict.outcome for verdict in by_aspect.verdicts}
    assert {name for name, outcome in outcomes.items() if outcome is Outcome.FAILS} == {"below three", "never three"}
    for verdict in by_aspect.verdicts:
        if verdict.name in {"below three", "never three"}:
            assert verdict.path is not None
            assert len(verdict.path.steps) == 3


def test_a_property_may_read_a_whole_thing_beside_an_aspect_of_another() -> None:
    model = counter()
    model.always("as often", lambda it, pressed: it.count == pressed, of=["counter", Aspect("finger", int)])

    assert check(model).outcome is Outcome.HOLDS


def test_an_actor_that_may_be_spawned_in_several_ways_is_found_where_it_lives() -> None:
    """Each mark has other wiring, and so an address of its own; all have one path."""
    model = counter()
    model.always("the last", lambda it, mark: mark.unborn or mark.number == it.count, of=["counter", "counter/mark"])
    model.sometimes("there", lambda born: born, of=[Aspect("counter/mark", lambda mark: mark.alive)])

    assert check(model).outcome is Outcome.HOLDS


def test_an_aspect_is_taken_once_for_each_thing() -> None:
    taken: list[int] = []

    def count(it: Any) -> int:
        taken.append(it.count)
        return int(it.count)

    model = counter()
    model.always("small", lambda count: count <= MOST, of=[Aspect("counter", count)])
    check(model, self_check=False)

    assert taken == list(range(MOST + 1))


# --- names that name nothing ---------------------------------------------------------------------------------------------


CLAIMS: list[Any] = [
    lambda model, of: model.always("it", lambda *_: True, of=of),
    lambda model, of: model.always_step("it", lambda *_: True, of=of),
    lambda model, of: model.sometimes("it", lambda *_: True, of=of),
    lambda model, of: model.can_always_reach("it", lambda *_: True, of=of),
    lambda model, of: model.leads_to("it", lambda *_: True, lambda *_: True, of=of),
    lambda model, of: model.no_deadlock("it", lambda *_: True, of=of),
]


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(
    ("of", "text"),
    [
        ("finger", r"of=\['finger'\] perhaps"),
        (Aspect("finger", int), "`of` is a list"),
        ([], "must say what it reads"),
        (["@timer"], "there is no '@timer'; there are '@early', '@faults', .*'@timers'"),
        (["@mistakes"], "there is no '@mistakes'"),
        ([Aspect("@fault", int)], "there is no '@fault'"),
        ([3], "not 3"),
        ([Aspect("finger", "count")], "not Aspect"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_can_not_be_read_is_refused_when_it_is_claimed(claim: Any, of: Any, text: str) -> None:
    with pytest.raises(ModelError, match=f"'it': .*{text}"):
        claim(counter(), of)


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("read", ["countre", Aspect("countre", lambda actor: actor.alive)], ids=["whole", "aspect"])
def test_what_reads_of_nobody_is_not_decided_and_told_who_is_like_it(claim: Any, read: Any) -> None:
    model = counter()
    claim(model, ["finger", read])
    report = check(model)

    assert report.complete
    assert report.outcome is Outcome.NOT_DECIDED
    assert report.verdict("it").outcome is Outcome.NOT_DECIDED
    assert "'countre'" in report.verdict("it").why
    assert "did you mean 'counter'" in report.verdict("it").why


def test_what_reads_of_nobody_and_fails_says_both() -> None:
    model = counter()
    model.always("there", lambda finger: finger.alive, of=["fingers"])
    verdict = check(model).verdict("there")

    assert verdict.outcome is Outcome.FAILS
    assert verdict.why.startswith("the last state breaks it; and no part is called 'fingers'")


def test_an_assertion_that_is_not_decided_says_why() -> None:
    model = counter()
    model.always("quiet", lambda it: it.unborn, of=["nobody"])

    with pytest.raises(CheckFailed, match=r"not decided: quiet: no part is called 'nobody'.*there are '@early'"):
        assert_holds(model)


def test_who_may_be_unborn_is_said_to_be() -> None:
    model = counter()
    model.always("none", lambda mark: mark.unborn, of=["counter/other"])
    model.may_be_unborn("counter/other")

    assert check(model).outcome is Outcome.HOLDS


def test_a_child_is_found_by_its_path_though_it_is_born_late() -> None:
    model = counter()
    model.always("a mark has a number", lambda mark: mark.unborn or mark.number, of=["counter/mark"])

    assert check(model).outcome is Outcome.HOLDS


@pytest.mark.parametrize("name", ["counter", "counter/mark"])
def test_a_part_that_is_called_as_an_actor_is_refused(name: str) -> None:
    finger = Finger("finger")

    def setup(scene: Scene) -> None:
        finger.counter = scene.spawn(Counter(), "counter")

    with pytest.raises(ModelError, match=f"one name: {name}"):
        check(ActorModel("twice", setup, parts=[finger, Part(name)]))


def test_a_part_that_is_called_as_what_every_model_has_is_refused() -> None:
    with pytest.raises(ModelError, match="'@timers'"):
        ActorModel("at", lambda scene: None, parts=[Part("@timers")])


# --- aspects that can't be had -------------------------------------------------------------------------------------------


def broken_at_two(it: Any) -> Any:
    return 1 // (2 - it.count)


def listed_at_two(it: Any) -> Any:
    return [it.count] if it.count == 2 else it.count


ASPECTS = pytest.mark.parametrize(
    ("what", "text"),
    [(broken_at_two, "ZeroDivisionError"), (listed_at_two, r"an aspect of 'counter' can't be hashed: \[2\]")],
)


@ASPECTS
@pytest.mark.parametrize("claim", [*CLAIMS[:2], *CLAIMS[3:5]])
@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"workers": 2}], ids=str)
def test_an_aspect_that_raises_or_can_not_be_hashed_names_the_property_and_where(
    what: Any, text: str, claim: Any, options: dict[str, Any]
) -> None:
    model = counter()
    claim(model, ["finger", Aspect("counter", what)])
    with pytest.raises(PropertyRaised, match=f"the property 'it' raised .*{text}") as caught:
        check(model, **options)
    assert caught.value.state is not None
    assert model.label(caught.value.action) == "finger: press"
    told = str(caught.value)
    assert "; in the state {faults left: 0, " in told
    assert f"counter.count: {model.fields(caught.value.state)['counter.count']}" in told
    assert told.endswith("; at the action finger: press")
    assert repr(caught.value.state) not in told


@ASPECTS
def test_it_does_so_where_each_state_is_asked_by_itself(what: Any, text: str) -> None:
    model = counter()
    model.always("it", lambda _: True, of=[Aspect("counter", what)])
    path = replay(model, [0, 0, 0])
    for ask in (
        lambda: check(model, strategy="walk", walks=1),
        lambda: holds_on(model, "it", path),
        lambda: run_state_machine_as_test(
            state_machine(model), settings=settings(max_examples=50, derandomize=True, database=None, deadline=None)
        ),
    ):
        with pytest.raises(PropertyRaised, match=f"the property 'it' raised .*{text}") as caught:
            ask()
        assert model.fields(caught.value.state)["counter.count"] == 2
        assert "counter.count: 2" in str(caught.value)
