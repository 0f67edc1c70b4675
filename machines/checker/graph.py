"""The graph that a search has found: the states in the order of their discovery, and the edges between them.

A state is known by its number. A search that does not need the edges keeps only `{state: number of its parent}`; the order of
the dictionary is the numbering. A search that needs the edges keeps them as flat arrays: a row of targets and of labels for
each state.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from machines.checker.model import Model, NotRepeatable
from machines.checker.result import Path, Step

NO_PARENT: Final = -1

Key = Callable[[Any], Any]
"""What a state is known by: its canonical form, its fingerprint, or both."""


class Graph:
    """The edges between states, by number.

    `begin[n]` to `end[n]` are the places of the edges of state `n` in `targets` and `labels`; `begin[n]` is -1 while `n` is
    not expanded. A label is a number too, the place of the action in `actions`.
    """

    __slots__ = ("actions", "begin", "end", "labels", "numbers", "parents", "targets")

    def __init__(self) -> None:
        self.parents = array("i")
        self.begin = array("i")
        self.end = array("i")
        self.targets = array("I")
        self.labels = array("I")
        self.actions: list[Any] = []
        self.numbers: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self.parents)

    def add(self, parent: int) -> None:
        """Add a new state, reached from `parent`."""
        self.parents.append(parent)
        self.begin.append(-1)
        self.end.append(-1)

    def label(self, action: Any) -> int:
        """The number of `action`."""
        number = self.numbers.get(action)
        if number is None:
            number = self.numbers[action] = len(self.actions)
            self.actions.append(action)
        return number

    def forget_from(self, size: int, edges: int) -> None:
        """Remove the states from number `size` on and the edges from place `edges` on."""
        del self.parents[size:], self.begin[size:], self.end[size:]
        del self.targets[edges:], self.labels[edges:]

    def is_expanded(self, number: int) -> bool:
        """Whether all edges of the state are known."""
        return self.begin[number] >= 0

    def after(self, number: int) -> "array[int]":
        """The target of each step from state `number`."""
        begin = self.begin[number]
        return self.targets[begin : self.end[number]] if begin >= 0 else array("I")

    def steps(self, number: int) -> Iterator[tuple[int, int]]:
        """The steps from state `number`, as label and target."""
        begin, end = self.begin[number], self.end[number]
        return zip(self.labels[begin:end], self.targets[begin:end], strict=True) if begin >= 0 else iter(())

    def roots(self) -> list[int]:
        """The initial states."""
        return [number for number, parent in enumerate(self.parents) if parent == NO_PARENT]

    def reverse_reach(self, goals: Iterable[int]) -> bytearray:
        """For each state 1 if a path leads from the state to one of `goals`, else 0."""
        first = array("I", bytes(4 * (len(self) + 1)))
        for target in self.targets:
            first[target + 1] += 1
        for number in range(len(self)):
            first[number + 1] += first[number]
        place = array("I", first)
        sources = array("I", bytes(4 * len(self.targets)))
        for number in range(len(self)):
            for target in self.after(number):
                sources[place[target]] = number
                place[target] += 1
        reached = bytearray(len(self))
        waiting = list(goals)
        for number in waiting:
            reached[number] = 1
        while waiting:
            number = waiting.pop()
            for source in sources[first[number] : first[number + 1]]:
                if not reached[source]:
                    reached[source] = 1
                    waiting.append(source)
        return reached


def lineage(parents: Sequence[int], number: int) -> list[int]:
    """The states on the way to `number`, from an initial one on."""
    found = [number]
    while parents[found[-1]] != NO_PARENT:
        found.append(parents[found[-1]])
    found.reverse()
    return found


def follow(
    model: Model[Any, Any],
    key: Key | None,
    keys: Sequence[Any],
    actions: Sequence[Any] | None = None,
    *,
    start: Any = None,
) -> Path:
    """The run of `model` whose states have these `keys`, in order; the actions are found by asking the model again.

    If several actions lead to the same state, the run takes the first, unless `actions` are given. It begins with `start`, or,
    if that is None, with an initial state.

    Raises `NotRepeatable` if there is no such run: then the model gave other answers while it was searched, or its canonical
    form merges states that are not the same up to symmetry.
    """
    begins = model.initial() if start is None else [start]
    state = next((state for state in begins if known_by(key, state) == keys[0]), None)
    if state is None:
        raise NotRepeatable("no initial state is the one that the search began with", state=keys[0])
    initial, steps = state, []
    for at, wanted in enumerate(keys[1:]):
        found = (Step(*one) for one in model.successors(state) if actions is None or one[0] == actions[at])
        taken = next((step for step in found if known_by(key, step.state) == wanted), None)
        if taken is None:
            raise NotRepeatable(
                "no step leads to the state that one led to before. The model answers by chance, a clock, `id()` or the order "
                "of a set, or its canonical form puts states together that are not the same up to symmetry",
                state=state,
                model=model,
            )
        steps.append(taken)
        state = taken.state
    return Path(initial, tuple(steps))


def known_by(key: Key | None, state: Any) -> Any:
    """The key by which a search knows `state`: `key(state)`, or the state itself without `key`."""
    return state if key is None else key(state)
