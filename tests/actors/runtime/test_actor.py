"""An actor declares its fields and its messages; a wrong declaration is an error when the class is made."""

# ruff: noqa: RUF012 - a table on an actor class is never changed

from decimal import Decimal
from functools import wraps
from math import inf, nan
from typing import Annotated, Any, NewType, Optional, Protocol, TypeVar, Union

import pytest

from actors.model.parts import Part
from actors.runtime.actor import (
    CANCEL_TIMER,
    DEFER,
    IGNORE,
    KEEP_TIMER,
    LONGEST_TIMER_SECONDS,
    POSTPONE,
    REFUSE,
    SET_TIMER,
    START_AGAIN,
    TELL,
    Actor,
    ActorDeclarationError,
    HandlerMismatch,
    Out,
    TimerError,
)
from actors.runtime.mailbox import Ref


class Ping:
    pass


class Open:
    pass


class Door(Actor):
    """Two phases, one field of each kind."""

    __slots__ = ("count", "phase", "seen", "to")
    wiring = ("to",)
    state = ("phase", "count", "seen")
    journal = ("phase", "count")
    handles = {"shut": {Ping: DEFER, Open: "open"}, "open": {Ping: "ping", Open: IGNORE}}

    def __init__(self, to: Any) -> None:
        self.to = to
        self.phase = "shut"
        self.count = 0
        self.seen: tuple[str, ...] = ()

    def open(self, _: Open, out: Out) -> None:
        self.phase = "open"
        self.seen = (*self.seen, "open")

    def ping(self, message: Ping, out: Out) -> None:
        self.count += 1
        out.tell(self.to, message)


def make(**declaration: Any) -> type[Actor]:
    """An actor class with this body."""

    def nothing(self: Any, message: Any, out: Any) -> None:
        """A step."""

    return type(Actor)("Made", (Actor,), {"__slots__": (), "step": nothing} | declaration)


def init(*names: str) -> Any:
    """An `__init__` with these parameters."""
    space: dict[str, Any] = {}
    exec(f"def __init__(self, {', '.join(names)}): pass", space)
    return space["__init__"]


def test_the_smallest_actor_declares_nothing() -> None:
    assert make().handles == {}


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        ({"__slots__": ("a",)}, "each slot is either wiring or state, once; look at a"),
        ({"state": ("a",)}, "each slot is either wiring or state, once; look at a"),
        (
            {"__slots__": ("a",), "state": ("a",), "wiring": ("a",), "__init__": init("a")},
            "each slot is either wiring or state, once; look at a",
        ),
        ({"__slots__": ("a",), "state": ("a",), "journal": ("b",)}, "the journal is a part of the state"),
        ({"__slots__": ("a",), "wiring": ("a",)}, r"__init__ takes \(.*\), the wiring is \('a',\)"),
        (
            {"__slots__": ("a", "b"), "wiring": ("a", "b"), "__init__": init("b", "a")},
            r"__init__ takes \('b', 'a'\), the wiring is \('a', 'b'\)",
        ),
        ({"handles": {Ping: "step_2"}}, "no method 'step_2'"),
        ({"handles": {Ping: "state"}}, "no method 'state'"),
        ({"handles": {Ping: Open}}, "no method <class .*Open'>"),
        (
            {"__slots__": ("phase",), "state": ("phase",), "handles": {"a": {Ping: "step"}, "b": {Open: "step"}}},
            "phase 'a' says nothing of Open",
        ),
        ({"handles": {"a": {Ping: "step"}}}, "a table by phase needs `phase` in the state"),
        ({"__slots__": ("phase",), "state": ("phase",), "handles": {Ping: "step"}}, "any other must not have it"),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_class_is_made(declaration: dict[str, Any], problem: str) -> None:
    with pytest.raises(ActorDeclarationError, match=f"Made: .*{problem}"):
        make(**declaration)


class Knock(Ping):
    pass


class Rings(Protocol):
    def ring(self) -> None: ...


Call = TypeVar("Call", bound=Ping)
Either = TypeVar("Either", Ping, Open)
Many = TypeVar("Many")


def takes(annotation: Any) -> Any:
    """A step whose message parameter has this annotation."""

    def step(self: Any, message: Any, out: Any) -> None:
        """A step."""

    step.__annotations__["message"] = annotation
    return step


PING_IS_TAKEN = [
    Ping, object, Any, "Ping", "Ping | Open", "'Ping'", Ping | Open, Union[Open, "Ping"], Optional["Ping"], Knock | Ping,
    Annotated[Ping, "one"], Annotated["Open | Ping", "one"], Call, Either, Many, Rings, NewType("New", Ping),
]  # fmt: skip
PING_IS_NOT_TAKEN = [
    Open, Knock, "Open", "'Open'", Knock | Open, Optional["Open"], Annotated[Open, "Ping"], list[Ping], None,
    TypeVar("Opened", bound=Open),
]  # fmt: skip


@pytest.mark.parametrize("annotation", PING_IS_TAKEN, ids=str)
def test_a_method_is_named_for_a_message_that_its_annotation_takes(annotation: Any) -> None:
    assert make(handles={Ping: "step"}, step=takes(annotation)).compiled["any"][Ping]


@pytest.mark.parametrize("annotation", PING_IS_NOT_TAKEN, ids=str)
def test_a_message_that_the_annotation_does_not_take_is_refused_when_the_class_is_made(annotation: Any) -> None:
    with pytest.raises(
        HandlerMismatch, match=r"Made: step\(\) is named for Ping, but its parameter 'message' takes"
    ) as caught:
        make(handles={Ping: "step"}, step=takes(annotation))
    error = caught.value
    assert (error.actor.__name__, error.phase, error.message, error.method) == ("Made", None, Ping, "step")
    assert error.annotation == annotation


def test_the_refusal_names_the_phase() -> None:
    table = {"shut": {Ping: IGNORE, Open: "step"}, "open": {Ping: "step", Open: IGNORE}}
    with pytest.raises(HandlerMismatch, match=r"Made: phase 'open': step\(\) is named for Ping") as caught:
        make(__slots__=("phase",), state=("phase",), handles=table, step=takes(Open))
    assert caught.value.phase == "open"


def test_an_inherited_method_is_held_against_the_table_of_the_subclass() -> None:
    with pytest.raises(HandlerMismatch, match=r"Later: phase 'shut': ping\(\) is named for Open"):

        class Later(Door):
            __slots__ = ()
            handles = {"shut": {Ping: DEFER, Open: "ping"}, "open": {Ping: "ping", Open: IGNORE}}


def test_without_an_annotation_nothing_is_checked() -> None:
    def bare(self, message, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pass

    def any_number(self: Any, *of: Open) -> None:
        pass

    for step in (bare, any_number):
        assert make(handles={Ping: "step"}, step=step).compiled["any"][Ping] is step


def test_the_text_of_an_annotation_is_looked_up_where_its_function_was_made_and_then_in_the_table() -> None:
    class Local:
        pass

    assert make(handles={Local: "step"}, step=takes("Local | Open")).compiled["any"][Local]
    with pytest.raises(HandlerMismatch, match="takes Open"):
        make(handles={Local: "step"}, step=takes("Open"))


@pytest.mark.parametrize("annotation", ["Nowhere", "Ping | Nowhere", "Ping |", "Ping.Nowhere"])
def test_an_annotation_that_can_not_be_resolved_is_refused(annotation: str) -> None:
    with pytest.raises(HandlerMismatch, match=r"step\(\) is named for Ping, and its annotation .* can't be resolved"):
        make(handles={Ping: "step"}, step=takes(annotation))


async def waits(self: Any, *of: Any) -> None:
    """Never awaited."""


async def yields_later(self: Any, *of: Any) -> Any:
    yield


def yields(self: Any, *of: Any) -> Any:
    yield


@wraps(waits)
def wrapped(self: Any, *of: Any) -> Any:
    return waits(self, *of)


@pytest.mark.parametrize("name", ["step", "start", "restarted", "timeout", "last_words", "receive", "recover"])
@pytest.mark.parametrize("method", [waits, yields_later, yields, wrapped])
def test_a_step_that_would_have_to_be_awaited_is_refused_when_the_class_is_made(name: str, method: Any) -> None:
    with pytest.raises(ActorDeclarationError, match=rf"Made\.{name} is an async function or has a yield"):
        make(**{"handles": {Ping: "step"}, name: method})


@pytest.mark.parametrize("name", ["initial", "submit", "choices"])
def test_a_part_that_would_have_to_be_awaited_is_refused_too(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Made\.{name} is an async function"):
        type("Made", (Part,), {name: waits})
    assert type("Fine", (Part,), {"choices": yields})("fine")


@pytest.mark.parametrize(
    "seconds",
    [nan, inf, -inf, -1, -1e-9, True, False, None, "1", Decimal(1), 1j, 10**400, LONGEST_TIMER_SECONDS * 1.01],
    ids=repr,
)
def test_a_timer_is_set_for_a_number_of_seconds_that_means_something(out: Out, seconds: Any) -> None:
    with pytest.raises(TimerError, match="the timer 'tick' can't be set for") as caught:
        out.set_timer("tick", seconds)
    assert isinstance(caught.value, ValueError)
    assert caught.value.key == "tick"
    assert out.effects == []


@pytest.mark.parametrize("seconds", [0, 0.0, 1, 1.5, LONGEST_TIMER_SECONDS])
def test_it_may_be_set_for_none_and_for_a_century(out: Out, seconds: float) -> None:
    out.set_timer("tick", seconds)
    assert out.effects == [(SET_TIMER, "tick", seconds)]


def test_a_timer_is_kept_for_seconds_that_mean_something_too(out: Out) -> None:
    with pytest.raises(TimerError, match="the timer 'tick' can't be set for"):
        out.keep_timer("tick", nan)
    assert out.effects == []
    out.keep_timer("tick", 1.5)
    assert out.effects == [(KEEP_TIMER, "tick", 1.5)]


@pytest.mark.parametrize("lasting", ["tick", ["tick"], ("",), (1,), ("tick", "tock", "tick")], ids=repr)
def test_timers_that_last_are_declared_by_their_keys_each_once(lasting: Any) -> None:
    with pytest.raises(ActorDeclarationError, match="Made: lasting"):
        make(lasting=lasting)


def test_a_restart_ends_the_lasting_timers_that_it_does_not_ask_for(out: Out) -> None:
    class Lasts(Actor):
        __slots__ = ()
        lasting = ("kept", "set", "over")

        def restarted(self, out: Out) -> None:
            out.keep_timer("kept", 1.0)
            out.set_timer("set", 2.0)

    Lasts().receive(START_AGAIN, out)
    assert out.effects == [(CANCEL_TIMER, "over", None), (KEEP_TIMER, "kept", 1.0), (SET_TIMER, "set", 2.0)]


def test_fields_outside_slots_are_refused() -> None:
    with pytest.raises(ActorDeclarationError, match="declare __slots__"):

        class Loose(Actor):
            pass


def test_an_abstract_base_is_checked_only_where_it_is_made_concrete() -> None:
    class Base(Actor, abstract=True):
        __slots__ = ("a",)

    with pytest.raises(ActorDeclarationError, match="look at a"):

        class Wrong(Base):
            __slots__ = ()

    class Right(Base):
        __slots__ = ()
        state = ("a",)

    assert Right.frozen_of is not Base.frozen_of


@pytest.fixture
def out() -> Out:
    """An empty list of effects, with an address of its own."""
    out = Out(Ref)
    out.me = Ref(Door(None), "me", None)
    return out


def test_a_step_changes_state_and_asks_for_effects_in_order(out: Out) -> None:
    door = Door(out.me)
    door.receive(Open(), out)
    ping = Ping()
    door.receive(ping, out)
    assert (door.phase, door.count) == ("open", 1)
    assert out.effects == [(TELL, out.me, ping)]


def test_a_deferred_message_is_an_effect_and_changes_nothing(out: Out) -> None:
    door = Door(None)
    before, ping = door.freeze(), Ping()
    door.receive(ping, out)
    assert out.effects == [(POSTPONE, ping, None)]
    assert door.freeze() == before


def test_an_ignored_message_does_nothing_at_all(out: Out) -> None:
    door = Door(None)
    door.receive(Open(), out)
    before = door.freeze()
    door.receive(Open(), out)
    assert door.freeze() == before
    assert out.effects == []


def test_a_message_without_a_place_in_the_table_is_refused_and_changes_nothing(out: Out) -> None:
    door = Door(None)
    before = door.freeze()
    door.receive("what?", out)
    assert out.effects == [(REFUSE, "what?", None)]
    assert door.freeze() == before


def test_a_subclass_of_a_message_is_another_message(out: Out) -> None:
    class Louder(Ping):
        pass

    Door(None).receive(louder := Louder(), out)
    assert out.effects == [(REFUSE, louder, None)]


def test_what_freeze_gave_thaw_sets(out: Out) -> None:
    door, other = Door("x"), Door("x")
    door.receive(Open(), out)
    door.receive(Ping(), out)
    frozen = door.freeze()
    assert frozen == ("open", 1, ("open",))
    other.thaw(frozen)
    assert other.freeze() == frozen


def test_thaw_wants_every_field() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        Door(None).thaw(("open", 1))


def test_a_recovered_actor_has_the_wiring_the_journal_and_the_rest_as_new(out: Out) -> None:
    door = Door("wire")
    door.receive(Open(), out)
    door.receive(Ping(), out)
    fresh: Any = door.recover(("open", 1))
    assert fresh is not door
    assert fresh.to == "wire"
    assert fresh.freeze() == ("open", 1, ())


def test_an_actor_that_crashed_before_its_first_step_recovers_as_new() -> None:
    assert Door("wire").recover(()).freeze() == ("shut", 0, ())


def test_a_timer_without_a_timeout_method_says_so(out: Out) -> None:
    with pytest.raises(NotImplementedError, match="Door set the timer 'tick'"):
        Door(None).timeout("tick", out)


def test_every_voice_actor_has_a_method_or_a_word_for_each_message_in_each_phase(voice_actor: type[Actor]) -> None:
    tables = list(voice_actor.compiled.values())
    assert tables
    assert all(set(table) == set(tables[0]) for table in tables)
    assert set(voice_actor.journal) <= set(voice_actor.state)
