"""A memory of turns: the effect of each, found again by the values that the turn read.

A turn reads few places of a state, and its effect follows from the values there. So turns can be remembered by the values that
they read, place by place; most turns are the same in many states that differ elsewhere.
"""

from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Final, NamedTuple

from actors.model.stage import ANSWERED, BUDGETS, TIMERS, Arming, Stage
from actors.model.tables import packed

ADDRESSES: Final = BUDGETS  # as a place that a turn reads: the number of addresses; no turn reads the budget
KEPT_TURNS: Final = 8_192  # some hundred bytes each


class Effect(NamedTuple):
    """The effect of a turn: the new numbers by place (place, number, place, ...), the timers armed and disarmed in order, the
    tokens answered; and its steps, each with the actor and its number of effects."""

    places: tuple[int, ...]
    arming: tuple[Arming, ...]
    answered: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]

    def on(self, stage: Stage, numbers: list[int]) -> bytes:
        """The state to which this effect leads from the state in `numbers`, a list that is changed."""
        places = iter(self.places)
        for at, number in zip(places, places, strict=True):
            numbers[at] = number
        if self.arming:
            numbers[TIMERS] = stage.armed(numbers[TIMERS], self.arming)
        if self.answered:
            numbers[ANSWERED] = stage.answered(numbers[ANSWERED], self.answered)
        return packed(numbers)


class TurnMemory:
    """The effects of turns, by their beginnings and by what they read. Turns with one beginning nearly always read the same
    places."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[Hashable, dict[tuple[int, ...], _Turns]] = {}
        self._count = 0

    def find(self, beginning: Hashable, numbers: list[int]) -> Effect | None:
        """The effect of a turn with this beginning on the state in `numbers`; None if no such turn is remembered."""
        for turns in self._known.get(beginning, {}).values():
            found = turns.by_reading.get(turns.pick(numbers))
            if found is not None:
                return found
        return None

    def remember(self, beginning: Hashable, reads: list[tuple[int, int]], effect: Effect) -> None:
        """Keep the effect of a turn with this beginning that read these (place, number) pairs."""
        if self._count == KEPT_TURNS:
            self._known.clear()
            self._count = 0
        self._count += 1
        places = tuple([at for at, _ in reads])
        known = self._known.setdefault(beginning, {})
        if places not in known:
            known[places] = _Turns(self._picking(places), {})
        stood = [number for _, number in reads]
        known[places].by_reading[tuple(stood) if len(stood) != 1 else stood[0]] = effect

    def _picking(self, places: tuple[int, ...]) -> Callable[[list[int]], Hashable]:
        if places and min(places) > ADDRESSES:
            return itemgetter(*places)
        stage = self._stage

        def pick(numbers: list[int]) -> Hashable:
            picked = []
            for at in places:
                if at > 0:
                    picked.append(numbers[at])
                elif at < 0:  # a token: whether it is answered
                    picked.append(-at in stage.tuples.values[numbers[ANSWERED]])
                else:
                    picked.append(len(stage.addresses))
            return tuple(picked) if len(picked) != 1 else picked[0]

        return pick


class _Turns(NamedTuple):
    """The turns that began alike and read the same places: the function that picks these places' numbers out of a state, and
    the effects by these numbers."""

    pick: Callable[[list[int]], Hashable]
    by_reading: dict[Hashable, Effect]
