"""Models that are a drawn graph, and what is true of such a graph, found out the long way."""

from collections.abc import Callable, Sequence
from itertools import combinations

from hypothesis import strategies as st

from machines.checker.model import Model, Property

Steps = dict[int, list[tuple[str, int]]]


class Drawn(Model[int, str]):
    """A graph of a few states. Actions with a small letter are weakly fair, S is strongly fair, X and R are neither. R renews
    a and S in even states, and b in odd ones."""

    name = "drawn"

    def __init__(self, steps: Steps, properties: Sequence[Property] = (), initial: Sequence[int] = (0,)) -> None:
        self.steps = steps
        self.claims = properties
        self.begin = initial

    def initial(self) -> Sequence[int]:
        return self.begin

    def successors(self, state: int) -> Sequence[tuple[str, int]]:
        return self.steps.get(state, [])

    def properties(self) -> Sequence[Property]:
        return self.claims

    def is_fair(self, action: str) -> bool:
        return action.islower()

    def is_strongly_fair(self, action: str) -> bool:
        return action == "S"

    def renews(self, state: int, action: str) -> str:
        return renewed(state, action)

    def owner(self, action: str) -> str:
        return action.lower()

    def __repr__(self) -> str:
        return f"Drawn({self.steps})"


def renewed(state: int, action: str) -> str:
    return ("b" if state % 2 else "aS") if action == "R" else ""


@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> Steps:
    size = draw(st.integers(1, most))
    step = st.tuples(st.sampled_from("abXSR"), st.integers(0, size - 1))
    return {state: draw(st.lists(step, max_size=3, unique=True)) for state in range(size)}


def reachable(steps: Steps, begin: Sequence[int] = (0,)) -> dict[int, int]:
    """The reachable states with their distances, by going round until nothing is new."""
    far = dict.fromkeys(begin, 0)
    while True:
        new = {to: far[state] + 1 for state in far for _, to in steps.get(state, []) if to not in far}
        if not new:
            return far
        nearest = min(new.values())
        far.update({state: nearest for state, distance in new.items() if distance == nearest})


def wedged(steps: Steps, goal: Callable[[int], bool]) -> set[int]:
    """The reachable states from which no goal is."""
    return {state for state in reachable(steps) if not any(map(goal, reachable(steps, [state])))}


def has_unfair_end(steps: Steps, cause: Callable[[int], bool], effect: Callable[[int], bool]) -> bool:
    """Whether a fair run has a cause and no effect: every set of states that one could stay in for ever is tried."""
    due = {state: [(a, to) for a, to in steps.get(state, []) if not effect(to)] for state in steps if not effect(state)}
    starts = [state for state in reachable(steps) if cause(state) and not effect(state)]
    waiting = set(reachable(due, starts)) if starts else set()
    if any(all(action in "XR" for action, _ in steps.get(state, [])) for state in waiting):
        return True  # a run may end where nothing fair goes on
    for size in range(1, len(waiting) + 1):
        for circle in combinations(sorted(waiting), size):
            inside = {state: [(a, to) for a, to in due[state] if to in circle] for state in circle}
            closed = all(set(reachable(inside, [state])) == set(circle) for state in circle) and any(inside.values())
            if not closed:
                continue
            enabled = set.intersection(*({a for a, _ in steps[state] if a.islower()} for state in circle))
            enabled |= {a for state in circle for a, _ in steps[state] if a == "S"}
            taken = {a for found in inside.values() for a, _ in found}
            taken.update(other for state, found in inside.items() for a, _ in found for other in renewed(state, a))
            if enabled <= taken:
                return True
    return False
