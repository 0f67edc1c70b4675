import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import CRASH, CUT, LATE, Choice, Connection, Faults, ModelToken, Outside, Part, path_of
from actors.runtime.actor import Actor, Out
from machines.checker import ModelError, NotRepeatable, Outcome, UnhashableState, check


class Put(NamedTuple):
    n: int


class Lost(NamedTuple):
    pass


class Sender(Actor):
    """Sends so many numbers over a channel; when it is told that some got lost, all of them again."""

    __slots__ = ("again", "channel", "count", "to")
    wiring = ("channel", "to", "count")
    state = ("again",)
    handles: ClassVar = {Lost: "lost"}

    def __init__(self, channel: Any, to: Any, count: int) -> None:
        self.channel, self.to, self.count = channel, to, count
        self.again = 0

    def start(self, out: Out) -> None:
        for n in range(1, self.count + 1):
            out.port(self.channel, (self.to, Put(n)))

    def lost(self, message: Lost, out: Out) -> None:
        self.again += 1
        self.start(out)


class Receiver(Actor):
    __slots__ = ("got",)
    state = ("got",)
    handles: ClassVar = {Put: "put"}

    def __init__(self) -> None:
        self.got: tuple[int, ...] = ()

    def put(self, message: Put, out: Out) -> None:
        self.got += (message.n,)


def sending(channel: Part, count: int = 2, **faults: int) -> ActorModel:
    def setup(scene: Scene) -> None:
        receiver = scene.spawn(Receiver(), "receiver")
        sender = scene.spawn(Sender(scene.port(channel), receiver, count), "sender")
        if isinstance(channel, Connection):
            channel._lost = ((sender, Lost()),)

    total = sum(faults.values())
    kinds = {kind.replace("_", " "): limit for kind, limit in faults.items()}
    model = ActorModel("sending", setup, parts=[channel], faults=Faults(total, kinds))
    model.always("in order", lambda receiver: list(receiver.got) == sorted(receiver.got), of=["receiver"])
    model.always("nothing twice", lambda receiver: len(set(receiver.got)) == len(receiver.got), of=["receiver"])
    model.leads_to(
        "all arrive", lambda _: True, lambda receiver: {*receiver.got} == {*range(1, count + 1)}, of=["receiver"]
    )
    return model


def failing(model: ActorModel) -> set[str]:
    report = check(model)
    assert report.complete
    return {verdict.name for verdict in report.verdicts if verdict.outcome is Outcome.FAILS}


# ------------------------------------------------------------------------------------------------------------- channels


def test_an_uncut_connection_keeps_order_and_loses_nothing() -> None:
    assert failing(sending(Connection("wire"), count=3)) == set()


def test_a_cut_connection_loses_a_suffix_and_what_is_sent_again_comes_twice() -> None:
    # never a later one before an earlier one, which the outside does
    assert failing(sending(Connection("wire"), cut_off=1)) == {"nothing twice"}


def test_a_connection_without_word_of_its_loss_is_never_made_good() -> None:
    class Silent(Connection):
        def choices(self, state: Any) -> Any:
            return [
                choice._replace(tells=choice.tells[:-1]) if choice.fault else choice
                for choice in super().choices(state)
            ]

    assert failing(sending(Silent("wire"), cut_off=1)) == {"all arrive"}


def test_the_outside_reorders_without_any_fault_which_a_connection_never_does() -> None:
    assert failing(sending(Outside("air"))) == {"in order"}
    assert failing(sending(Connection("wire"))) == set()


def test_the_outside_loses_without_word_which_a_connection_never_does() -> None:
    assert failing(sending(Outside("air"), count=1, lost=1)) == {"all arrive"}
    assert failing(sending(Connection("wire"), count=1, cut_off=1)) == set()


def test_the_outside_duplicates_what_was_sent_once_which_a_connection_never_does() -> None:
    assert failing(sending(Outside("air"), count=1, duplicated=1)) == {"nothing twice"}


def test_a_connection_delivers_the_first_alone() -> None:
    wire = Connection("wire")
    state = wire.submit(wire.submit(wire.initial(), ("a", 1)), ("b", 2))

    whole, *cuts = wire.choices(state)
    assert (whole.tells, whole.state, whole.fault) == ((("a", 1),), (("b", 2),), "")
    assert [(cut.tells, cut.state) for cut in cuts] == [((), ()), ((("a", 1),), ())]
    assert {cut.fault for cut in cuts} == {"cut off"}
    assert list(wire.choices(())) == []


def test_what_is_under_way_outside_has_no_order() -> None:
    class Somebody(NamedTuple):
        name: str
        parent: Any = None

    air, ref = Outside("air"), Somebody("a")
    one = air.submit(air.submit((), (ref, 1)), (ref, 2))

    assert one == air.submit(air.submit((), (ref, 2)), (ref, 1))
    assert [choice.label for choice in air.choices(air.submit(one, (ref, 2)))] == [
        f"{what} {n} to a{more}"
        for n in (1, 2)
        for what, more in (("delivers", ""), ("loses", ""), ("delivers", ", and again later"))
    ]


def test_the_path_of_an_address_begins_at_the_top() -> None:
    class Somebody(NamedTuple):
        name: str
        parent: Any = None

    assert path_of(Somebody("c", Somebody("b", Somebody("a")))) == "a/b/c"


# --------------------------------------------------------------------------------------------------------------- tokens


def test_tokens_of_one_part_and_key_are_one() -> None:
    part, other = Part("a"), Part("b")

    assert part.token(1) == part.token(1)
    assert len({part.token(1), part.token(1), part.token(2), other.token(1)}) == 3
    assert isinstance(part.token(1), ModelToken)
    assert repr(part.token(1)) == "<token a:1>"


# --------------------------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("budget", [{"total": -1}, {"total": 1, "kinds": {CRASH: -1}}])
def test_a_budget_is_never_negative(budget: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Faults(**budget)


def test_a_budget_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Faults().total = 1  # type: ignore[misc]
    assert (CRASH, CUT, LATE) == ("crash", "cut", "late")


# ------------------------------------------------------------------------------------------------------------- bad parts


class Single(Part):
    """A part of one function."""

    receiver: Any = None

    def __init__(self, choices: Callable[[Any], Any], submit: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__("single")
        self._choices = choices
        if submit is not None:
            self.submit = submit  # type: ignore[method-assign]

    def initial(self) -> Any:
        return 0

    def choices(self, state: Any) -> Any:
        return self._choices(state)


def single(part: Part, *more: Part) -> ActorModel:
    def setup(scene: Scene) -> None:
        part.receiver = scene.spawn(Receiver(), "receiver")  # type: ignore[attr-defined]

    return ActorModel("single", setup, parts=[part, *more])


def test_a_part_that_raises_when_asked_for_choices_is_named() -> None:
    with pytest.raises(ModelError, match=r"<part single> raised ZeroDivisionError.* in the state 0") as caught:
        check(single(Single(lambda state: 1 / state)))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_part_whose_choices_differ_each_time_is_named() -> None:
    counted = iter(range(1_000_000))

    with pytest.raises(NotRepeatable, match=r"<part single> gave two different lists of choices"):
        check(single(Single(lambda state: [Choice(f"choice {next(counted)}", 0)])))


def test_two_choices_of_one_label_are_refused() -> None:
    with pytest.raises(ModelError, match="several choices with one label: a"):
        check(single(Single(lambda state: [Choice("a", 1), Choice("b", 1), Choice("a", 2)])))


def test_a_part_whose_state_could_be_changed_is_named() -> None:
    with pytest.raises(UnhashableState, match=r"<part single>: list can't be part of a state"):
        check(single(Single(lambda state: [Choice("a", [])])))


def test_a_choice_that_tells_nobody_is_refused() -> None:
    with pytest.raises(ModelError, match="single would 'a' and tell 1 to None, which is no address"):
        check(single(Single(lambda state: [Choice("a", 0, ((None, 1),))])))


def test_a_choice_that_hands_work_to_no_part_of_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="<part elsewhere>, which is no part of the model"):
        check(single(Single(lambda state: [Choice("a", 0, works=((Part("elsewhere"), 1),))])))


def test_a_part_that_takes_no_work_says_so() -> None:
    other = Part("other")

    with pytest.raises(ModelError, match="other takes no int"):
        check(single(Single(lambda state: [Choice("a", 0, works=((other, 1),))]), other))


def test_a_part_that_raises_at_the_work_of_another_part_is_named() -> None:
    def refuse(state: Any, work: Any) -> Any:
        raise ValueError(work)

    other = Single(lambda state: (), refuse)
    other.name = "other"
    with pytest.raises(ModelError, match=r"<part other> can't take work of <part single>: ValueError: 1"):
        check(single(Single(lambda state: [Choice("a", 0, works=((other, 1),))]), other))


def test_a_part_that_keeps_something_in_itself_is_found() -> None:
    counted = iter(range(1_000_000))
    other = Single(lambda state: (), lambda state, work: next(counted))
    other.name = "other"

    with pytest.raises(NotRepeatable, match=r"<part other> took 1 in two different ways"):
        check(single(Single(lambda state: [Choice("a", 0, works=((other, 1),))]), other))


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match="two parts have one name: a, a"):
        ActorModel("twice", lambda scene: None, parts=[Part("a"), Part("a")])
