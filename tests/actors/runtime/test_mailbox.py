"""Mail travels in three lanes, and each lane has its own rule at its bound."""

from typing import Any, ClassVar, NamedTuple

import pytest

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import Choice, Part
from actors.runtime.actor import IGNORE, Actor
from actors.runtime.mailbox import (
    AUDIO,
    AUDIO_BOUND,
    CONTROL,
    CONTROL_BOUND,
    EMPTY,
    SYSTEM,
    LanePool,
    MailboxOverflow,
    Ref,
    depth,
    lane_of,
    put,
    put_back,
    take_all,
    take_first,
)
from actors.runtime.system import ActorSystem


class Nobody(Actor):
    __slots__ = ()


class Note:
    def __init__(self, lane: int, number: int = 0) -> None:
        self.lane = lane
        self.number = number


@pytest.fixture
def ref() -> Ref:
    """The address of an actor without mail."""
    return Ref(Nobody(), "nobody", None)


@pytest.fixture
def pool() -> LanePool:
    """A new pool."""
    return LanePool()


def taken(ref: Ref, pool: LanePool) -> list[Any]:
    """All mail in the order in which it would be handled."""
    return [take_first(ref, pool) for _ in range(depth(ref))]


def test_a_message_that_names_no_lane_is_control() -> None:
    assert lane_of("plain") == CONTROL


def test_one_message_needs_no_lanes(ref: Ref, pool: LanePool) -> None:
    put(ref, "one", pool)
    assert ref.lanes is None
    assert take_first(ref, pool) == "one"
    assert depth(ref) == 0


def test_none_is_a_message_like_any_other(ref: Ref, pool: LanePool) -> None:
    put(ref, None, pool)
    assert depth(ref) == 1
    assert take_first(ref, pool) is None


def test_higher_lanes_go_first_and_each_lane_keeps_its_order(ref: Ref, pool: LanePool) -> None:
    notes = [Note(lane, number) for number, lane in enumerate([AUDIO, CONTROL, SYSTEM, AUDIO, CONTROL, SYSTEM])]
    for note in notes:
        put(ref, note, pool)
    assert [note.number for note in taken(ref, pool)] == [2, 5, 1, 4, 0, 3]


def test_what_is_put_back_comes_before_its_lane_and_behind_higher_ones(ref: Ref, pool: LanePool) -> None:
    for number, lane in enumerate([CONTROL, SYSTEM]):
        put(ref, Note(lane, number), pool)
    put_back(ref, Note(CONTROL, 9), pool)
    assert [note.number for note in taken(ref, pool)] == [1, 9, 0]


def test_full_audio_drops_its_oldest_message_and_hands_it_over(ref: Ref, pool: LanePool) -> None:
    gone = [put(ref, Note(AUDIO, number), pool) for number in range(AUDIO_BOUND + 2)]
    assert gone[:AUDIO_BOUND] == [EMPTY] * AUDIO_BOUND
    assert [note.number for note in gone[AUDIO_BOUND:]] == [0, 1]
    assert depth(ref) == AUDIO_BOUND
    assert take_first(ref, pool).number == 2


def test_full_control_is_an_error_and_keeps_what_it_has(ref: Ref, pool: LanePool) -> None:
    for number in range(CONTROL_BOUND):
        put(ref, Note(CONTROL, number), pool)
    with pytest.raises(MailboxOverflow, match="nobody: more than 10000 control messages wait"):
        put(ref, Note(CONTROL, -1), pool)
    assert depth(ref) == CONTROL_BOUND


def test_full_audio_does_not_keep_a_stop_out(ref: Ref, pool: LanePool) -> None:
    for number in range(AUDIO_BOUND):
        put(ref, Note(AUDIO, number), pool)
    assert put(ref, Note(SYSTEM, -1), pool) is EMPTY
    assert take_first(ref, pool).number == -1


def test_lanes_are_given_back_when_they_are_empty_and_used_again(ref: Ref, pool: LanePool) -> None:
    put(ref, 1, pool)
    put(ref, 2, pool)
    lanes = ref.lanes
    assert lanes is not None
    taken(ref, pool)
    assert ref.lanes is None
    put(ref, 1, pool)
    put(ref, 2, pool)
    assert ref.lanes is lanes


def test_a_pool_keeps_no_more_than_its_bound() -> None:
    pool = LanePool()
    many = [pool.take() for _ in range(LanePool.KEPT + 10)]
    for lanes in many:
        pool.give_back(lanes)
    again = [pool.take() for _ in range(LanePool.KEPT + 10)]
    assert sum(any(lanes is old for old in many) for lanes in again) == LanePool.KEPT


def test_take_all_empties_a_mailbox_with_the_deferred_mail_last(ref: Ref, pool: LanePool) -> None:
    put(ref, "control", pool)
    put(ref, Note(SYSTEM), pool)
    ref.cold_fields.deferred = ["deferred"]
    assert depth(ref) == 3
    assert [getattr(mail, "lane", mail) for mail in take_all(ref, pool)] == [SYSTEM, "control", "deferred"]
    assert depth(ref) == 0


class Word(Note):
    def __init__(self) -> None:
        super().__init__(CONTROL)


class Busy(Actor):
    __slots__ = ()
    handles: ClassVar = {Word: IGNORE, Note: IGNORE}


@pytest.mark.parametrize("first", [SYSTEM, CONTROL, AUDIO])
@pytest.mark.parametrize("bound", [2, 3, AUDIO_BOUND + 2])
def test_the_bound_of_a_system_counts_whatever_else_waits(first: int, bound: int) -> None:
    """Also where mail of another lane is already spread out, and whether the bound is below or above that of audio."""
    system = ActorSystem(clock=lambda: 0.0, control_bound=bound)
    ref = system.spawn(Busy(), "busy")
    with system.held_back():
        for _ in range(2):
            system.tell(ref, Note(first))
        fits = bound - (2 if first == CONTROL else 0)
        for _ in range(fits):
            system.tell(ref, Word())
        assert system.statistics().crashes == 0
        system.tell(ref, Word())
        assert system.statistics().crashes == 1
        assert system.statistics().dead_letters["overflow"] >= 1


@pytest.mark.parametrize("bound", [1, 2])
def test_the_model_has_the_same_bound(bound: int) -> None:
    words = tuple(Said(number) for number in range(bound + 1))

    class Speaker(Part):
        ref: Any = None

        def initial(self) -> int:
            return 1

        def choices(self, left: int) -> Any:
            if left:
                yield Choice("speaks", 0, tuple((self.ref, word) for word in words))

    def crashes(most: int) -> bool:
        speaker = Speaker("speaker")

        def setup(scene: Scene) -> None:
            speaker.ref = scene.spawn(Listener(), "listener")

        model = ActorModel("bound", setup, parts=[speaker], control_bound=most)
        (state,) = model.initial()
        ((action, after),) = model.successors(state)
        return any(one.kind == "crash" for one in model.happenings(state, action, after))

    assert crashes(bound)
    assert not crashes(bound + 1)


class Said(NamedTuple):
    number: int


class Listener(Actor):
    __slots__ = ()
    handles: ClassVar = {Said: IGNORE}
