"""Properties of the whole graph: that a goal stays within reach, and that a cause leads to its effect.

On a graph that was not searched completely nothing holds for certain, but a failure is certain: a state from which all ways
are known and none leads to the goal, or a cycle all of whose states are known.
"""

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from machines.checker.graph import Graph, lineage

Region = Sequence[int]
"""A byte for each state: whether the state belongs to the region."""


class Lasso(NamedTuple):
    """A run by the numbers of its states and the labels of its steps; from `loop` on the run repeats; None if it ends."""

    states: list[int]
    labels: list[int]
    loop: int | None


def wedged(graph: Graph, goals: Region) -> list[int] | None:
    """The states on the shortest known way to a state from which no goal can be reached any more; None if there is none.

    Any state may be reachable from a state that is not expanded.
    """
    hopeful = (number for number in range(len(graph)) if goals[number] or not graph.is_expanded(number))
    reached = graph.reverse_reach(hopeful)
    if all(reached):
        return None
    parents, order = _distances(graph, [(root, 0) for root in graph.roots()], lambda _: True)
    found = next(number for number in order if not reached[number])
    return lineage(parents, found)


class Fairness(NamedTuple):
    """For each label of a graph's steps: whether the action is taken in the end if it stays enabled (`weak`), and whether it is
    taken in the end even if it is only enabled again and again (`strong`).

    `renewed` gives, for a state and the label of a step taken there, the labels of actions that count as taken too."""

    weak: Sequence[bool]
    strong: Sequence[bool]
    renewed: Callable[[int, int], Collection[int]] = lambda _, __: ()


def unfulfilled(graph: Graph, causes: Region, effects: Region, fair: Fairness) -> Lasso | None:
    """A fair run with a cause and no effect then or later; None if there is none in the known part of the graph.

    The states in which the effect is still due make up a part of the graph. A run that stays there for ever is in the end in
    one strongly connected component of that part. Under weak fairness the largest components decide: if a fair action is
    enabled in every state of a component and never taken inside, the same is true of every part of the component. Under strong
    fairness a run has to avoid the states that enable such an action, so the components of the remaining states decide. And a
    run may end in a state where no fair action is enabled, even if other actions are.
    """
    stem, order = _distances(graph, [(root, 0) for root in graph.roots()], lambda _: True)
    far = array("i", stem)
    for number in order:
        far[number] = far[stem[number]] + 1 if stem[number] >= 0 else 0
    begins = ((number, far[number]) for number in order if causes[number] and not effects[number])
    due, waiting = _distances(graph, begins, lambda number: not effects[number])
    inside = bytearray(len(graph))
    for number in waiting:
        inside[number] = 1
    lasting = _lasting(graph, waiting, inside, fair)
    of = {number: leader for leader, members in lasting.items() for number in members}
    for number in waiting:
        ends = graph.is_expanded(number) and not any(
            fair.weak[label] or fair.strong[label] for label, _ in graph.steps(number)
        )
        if not ends and number not in of:
            continue
        middle = lineage(due, number)
        states = lineage(stem, middle[0])[:-1] + middle
        labels = [_label(graph, one, two) for one, two in pairwise(states)]
        if ends:
            return Lasso(states, labels, None)
        around = _circle(graph, number, lasting[of[number]], fair)
        return Lasso(
            states + [target for _, target in around], labels + [label for label, _ in around], loop=len(states) - 1
        )
    return None


def _distances(
    graph: Graph, begins: Iterable[tuple[int, int]], belongs: Callable[[int], bool]
) -> tuple["array[int]", "array[int]"]:
    """The states that can be reached from `begins` through states that belong, nearest first, and a parent for each.

    `begins` has states with their distances, in the order of the distances. The parent of a beginning is -1.
    """
    parents = array("i", [-2]) * len(graph)
    order = array("I")
    later = iter(begins)
    ahead = next(later, None)
    level: list[int] = []
    distance = 0
    while level or ahead is not None:
        if not level and ahead is not None:
            distance = max(distance, ahead[1])
        while ahead is not None and ahead[1] <= distance:
            number = ahead[0]
            if parents[number] == -2:
                parents[number] = -1
                level.append(number)
            ahead = next(later, None)
        order.extend(level)
        below = []
        for number in level:
            for target in graph.after(number):
                if parents[target] == -2 and belongs(target):
                    parents[target] = number
                    below.append(target)
        level = below
        distance += 1
    return parents, order


def _components(graph: Graph, members: Sequence[int], inside: Region) -> dict[int, list[int]]:
    """The strongly connected components of a part of the graph that have a step inside, by one of their states.

    Tarjan's algorithm with an explicit stack: a recursion would be as deep as the graph.
    """
    index = array("i", [-1]) * len(graph)  # the order of discovery; -1 if not discovered yet
    low = array("i", index)
    on_stack = bytearray(len(graph))
    stack = array("I")
    found: dict[int, list[int]] = {}
    met = 0
    for root in members:
        if index[root] >= 0:
            continue
        index[root] = low[root] = met
        met += 1
        stack.append(root)
        on_stack[root] = 1
        work: list[tuple[int, Iterator[int]]] = [(root, iter(graph.after(root)))]
        while work:
            number, targets = work[-1]
            for target in targets:
                if not inside[target]:
                    continue
                if index[target] < 0:
                    index[target] = low[target] = met
                    met += 1
                    stack.append(target)
                    on_stack[target] = 1
                    work.append((target, iter(graph.after(target))))
                    break
                if on_stack[target]:
                    low[number] = min(low[number], index[target])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[number])
                if low[number] == index[number]:
                    component: list[int] = []
                    while not component or component[-1] != number:
                        component.append(stack.pop())
                        on_stack[component[-1]] = 0
                    if len(component) > 1 or number in graph.after(number):
                        found[number] = component
    return found


def _lasting(graph: Graph, members: Sequence[int], inside: Region, fair: Fairness) -> dict[int, list[int]]:
    """The components in which a fair run can stay for ever, by one of their states."""
    found: dict[int, list[int]] = {}
    for leader, component in _components(graph, members, inside).items():
        avoided = _enabled_in_vain(graph, component, fair)
        if avoided:
            rest = bytearray(len(graph))
            left = [number for number in component if all(label not in avoided for label, _ in graph.steps(number))]
            for number in left:
                rest[number] = 1
            found |= _lasting(graph, left, rest, fair)
        elif _is_lasting(graph, component, fair):
            found[leader] = component
    return found


def _enabled_in_vain(graph: Graph, members: Sequence[int], fair: Fairness) -> set[int]:
    """The strongly fair actions that are enabled in a state of the component and never taken inside."""
    enabled = {label for number in members for label, _ in graph.steps(number) if fair.strong[label]}
    return _never_taken(graph, members, enabled, fair)


def _is_lasting(graph: Graph, members: Sequence[int], fair: Fairness) -> bool:
    """Whether a weakly fair run can stay in the component for ever: fair actions enabled in all its states are taken inside."""
    always: set[int] | None = None
    for number in members:
        enabled = {label for label, _ in graph.steps(number) if fair.weak[label]}
        always = enabled if always is None else always & enabled
    return not _never_taken(graph, members, always or set(), fair)


def _never_taken(graph: Graph, members: Sequence[int], wanted: set[int], fair: Fairness) -> set[int]:
    """The actions of `wanted` that no step inside the component takes."""
    here = set(members)
    inside = [(number, label) for number in members for label, target in graph.steps(number) if target in here]
    left = wanted.difference(label for _, label in inside)
    for number, label in inside:
        if not left:  # asking a model which actions a step renews is slow
            break
        left.difference_update(fair.renewed(number, label))
    return left


def _circle(graph: Graph, start: int, members: Sequence[int], fair: Fairness) -> list[tuple[int, int]]:
    """Steps, as label and target, of a fair cycle from `start` through the component and back.

    The cycle begins as the shortest one. For each action that it would leave out unfairly, it is extended through the nearest
    step that takes the action or, if weak fairness is enough, the nearest state that does not enable it.
    """
    here = set(members)
    steps = _way(graph, start, here, lambda _, __, target: target == start)
    while True:
        visited = [start, *(target for _, target in steps)]
        due = set.intersection(*({label for label, _ in graph.steps(number) if fair.weak[label]} for number in visited))
        due |= {label for number in visited for label, _ in graph.steps(number) if fair.strong[label]}
        due -= {label for label, _ in steps}
        for number, (label, _) in zip(visited, steps, strict=False):
            due -= set(fair.renewed(number, label)) if due else set()
        if not due:
            return steps
        steps = steps + _way(graph, start, here, _meets(graph, min(due), fair))
        if steps[-1][1] != start:
            steps = steps + _way(graph, steps[-1][1], here, lambda _, __, target: target == start)


def _meets(graph: Graph, wanted: int, fair: Fairness) -> Callable[[int, int, int], bool]:
    """A test whether a step takes the action `wanted` or, if that is not strongly fair, leads to a state that disables it."""

    def meets(number: int, label: int, target: int) -> bool:
        if label == wanted or wanted in fair.renewed(number, label):
            return True
        return not fair.strong[wanted] and all(other != wanted for other, _ in graph.steps(target))

    return meets


def _way(graph: Graph, start: int, here: set[int], meets: Callable[[int, int, int], bool]) -> list[tuple[int, int]]:
    """The shortest way from `start` inside `here` whose last step `meets` the condition; the caller knows that there is one."""
    came: dict[int, tuple[int, int]] = {}
    queue = deque([start])
    seen = {start}
    while True:
        number = queue.popleft()
        for label, target in graph.steps(number):
            if target not in here:
                continue
            if meets(number, label, target):
                way = [(label, target)]
                while number != start:
                    before, by = came[number]
                    way.append((by, number))
                    number = before
                return way[::-1]
            if target not in seen:
                seen.add(target)
                came[target] = (number, label)
                queue.append(target)


def _label(graph: Graph, before: int, after: int) -> int:
    return next(label for label, target in graph.steps(before) if target == after)
