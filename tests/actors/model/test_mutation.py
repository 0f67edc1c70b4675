"""Actors that change in place what is part of a state: refused where that can be told beforehand, noticed where not."""

from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import Choice, Part
from actors.runtime.actor import Actor, Out
from machines.checker import NotRepeatable, UnhashableState, check


class Note(NamedTuple):
    """A record with JSON in it."""

    fields: dict[str, int]


class Told(NamedTuple):
    note: Note


class Basket:
    """Known by its identity alone, whatever is in it."""

    def __init__(self) -> None:
        self.content: list[int] = []


class Clerk(Actor):
    """Keeps the latest note, and writes on it: on a copy, or on the very one."""

    __slots__ = ("how", "note")
    wiring = ("how",)
    state = ("note",)
    handles: ClassVar = {Told: "told"}

    def __init__(self, how: str) -> None:
        self.how = how
        self.note = Note({"read": 0})

    def told(self, message: Told, _: Out) -> None:
        old = self.note if self.how == "its own" else message.note
        if self.how != "a copy":
            old.fields["read"] += 1
        self.note = Note({**old.fields})


class Sender(Part):
    """Tells the clerk something, three times."""

    clerk: Any = None

    def initial(self) -> int:
        return 0

    def choices(self, state: int) -> list[Choice]:
        return [Choice("tell", state + 1, tells=((self.clerk, Told(Note({"read": 7}))),))] if state < 3 else []


def office(how: str) -> ActorModel:
    sender = Sender("sender")

    def setup(scene: Scene) -> None:
        sender.clerk = scene.spawn(Clerk(how), "clerk")

    model = ActorModel("office", setup, parts=[sender])
    model.always("it is read", lambda clerk: clerk.note.fields["read"] >= 0, of=["clerk"])
    return model


def test_json_that_nobody_changes_may_be_part_of_a_state() -> None:
    assert check(office("a copy")).complete


@pytest.mark.parametrize("how", ["its own", "the message's"])
@pytest.mark.parametrize("options", [{}, {"strategy": "walk", "walks": 1}], ids=str)
def test_json_that_is_changed_in_place_is_noticed_at_the_step(how: str, options: dict[str, Any]) -> None:
    with pytest.raises(NotRepeatable, match=r"Clerk.*Told"):
        check(office(how), **options)


@pytest.mark.parametrize("options", [{}, {"max_states": 2}, {"strategy": "walk", "walks": 1}], ids=str)
def test_json_that_is_changed_from_outside_is_noticed_in_the_end(options: dict[str, Any]) -> None:
    kept = Note({"read": 9})

    class Forger(Sender):
        def choices(self, state: int) -> list[Choice]:
            return [Choice("tell", state + 1, tells=((self.clerk, Told(kept)),))] if state < 2 else []

    forger = Forger("forger")

    def setup(scene: Scene) -> None:
        forger.clerk = scene.spawn(Clerk("a copy"), "clerk")

    def forges(clerk: Any) -> bool:
        if clerk.note.fields["read"] == 9:  # the message was taken
            kept.fields["read"] = 5
        return bool(clerk.alive)

    model = ActorModel("forged", setup, parts=[forger])
    model.always("it lives", forges, of=["clerk"])
    with pytest.raises(NotRepeatable, match=r"a dict was changed in place.*\{'read': 5\}"):
        check(model, **options)


def test_what_is_known_by_its_identity_and_can_change_is_refused_by_actor_and_field() -> None:
    class Carrier(Clerk):
        __slots__ = ("basket",)
        state = ("note", "basket")

        def __init__(self, how: str) -> None:
            super().__init__(how)
            self.basket = Basket()

    model = ActorModel("carrier", lambda scene: scene.spawn(Carrier("a copy"), "carrier"))
    with pytest.raises(UnhashableState, match=r"Carrier\.basket: Basket can't be part of a state.*a NamedTuple"):
        check(model)


def test_a_child_that_carries_such_a_thing_is_refused_and_no_crash_of_its_parent() -> None:
    class Parent(Actor):
        __slots__ = ()
        handles: ClassVar = {Told: "told"}

        def told(self, _: Told, out: Out) -> None:
            out.spawn(Clerk(Basket()), "clerk")  # type: ignore[arg-type]

    sender = Sender("sender")

    def setup(scene: Scene) -> None:
        sender.clerk = scene.spawn(Parent(), "parent")

    with pytest.raises(UnhashableState, match=r"Parent at Told.*Clerk\.how: Basket can't be part of a state"):
        check(ActorModel("parent", setup, parts=[sender]))
