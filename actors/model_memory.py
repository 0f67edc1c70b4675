"""Turns that were taken before: what each did, found again by what it read.

A turn reads few places of a state, and what it does follows from what stands there. So turns can be remembered by what they
read, place by place; most of them are the same as in some state that differs elsewhere.
"""

from array import array
from typing import Any, Final, NamedTuple

from actors.model_stage import ANSWERED, BUDGETS, TIMERS, UNBORN_CELL, Arming, Stage

ADDRESSES: Final = BUDGETS  # as a place that a turn reads: how many addresses there are; no turn reads the budget


class Effect(NamedTuple):
    """What a turn did: what stands where now (place, number, place, ...), timers armed and disarmed in order, tokens answered;
    and its steps, each with the actor and how many effects it had."""

    places: tuple[int, ...]
    arming: tuple[Arming, ...]
    answered: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]

    def on(self, stage: Stage, numbers: list[int]) -> bytes:
        """The state that this leads to from the one in `numbers`, which is used up."""
        places = iter(self.places)
        for at, number in zip(places, places, strict=True):
            try:
                numbers[at] = number
            except IndexError:
                numbers += [UNBORN_CELL] * (at - len(numbers))
                numbers.append(number)
        if self.arming:
            numbers[TIMERS] = stage.armed(numbers[TIMERS], self.arming)
        if self.answered:
            numbers[ANSWERED] = stage.answered(numbers[ANSWERED], self.answered)
        return array("I", numbers).tobytes()


class TurnMemory:
    """What turns did, by how they began and then by what they read: a tree, whose inner nodes are (place, what stood there)."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._nodes: dict[Any, Any] = {}

    def find(self, beginning: Any, numbers: list[int]) -> Effect | None:
        """What a turn with this beginning does to the state in `numbers`, None if no such turn was seen."""
        node = self._nodes.get(beginning)
        length = len(numbers)
        while node.__class__ is tuple:
            at, branches = node
            if at > 0:
                node = branches.get(numbers[at] if at < length else UNBORN_CELL)
            elif at < 0:  # a token, and whether it is answered
                node = branches.get(-at in self._stage.tuples.values[numbers[ANSWERED]])
            else:
                node = branches.get(len(self._stage.addresses))
        found: Effect | None = node
        return found

    def remember(self, beginning: Any, reads: list[tuple[int, int]], effect: Effect) -> None:
        """Keep what a turn did that began so and read this, in this order."""
        branches, at = self._nodes, beginning
        for place, number in reads:
            node = branches.get(at)
            if node is None:
                node = branches[at] = (place, {})
            branches, at = node[1], number
        branches[at] = effect
