"""What properties read of a model of actors: whole things, or aspects of them."""

from typing import Any, ClassVar, NamedTuple

import pytest

from actors.actor import Actor, Out
from actors.model import ActorModel, Aspect, Scene
from actors.model_parts import Choice, Part
from machines.checker import ModelError, Outcome, Report, check

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

    assert taken == sorted(2 * list(range(MOST + 1)))  # once to tell the reading, once to ask


def test_what_reads_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="must say what it reads"):
        counter().always("nothing", lambda: True, of=[])
