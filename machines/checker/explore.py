"""The search: every reachable state once, breadth first or depth first.

Breadth first, the first state that breaks a property is nearest to an initial state, so its path is shortest. The search runs
one of two loops: the plain loop keeps only states and parents, and is enough unless properties or options need more.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final, Protocol

from machines.checker.asking import ask, raised
from machines.checker.findings import Findings, StepFound
from machines.checker.graph import NO_PARENT, Graph, Key, follow, known_by, lineage
from machines.checker.model import Model, ModelError, NoInitialState, UnhashableState
from machines.checker.options import Options, Progress
from machines.checker.result import Path, Step
from machines.checker.selfcheck import SelfCheck

_BATCH_SECONDS: Final = 0.05  # between two readings of the clock
_MOST_AT_ONCE: Final = 2_048
_PROGRESS_SECONDS: Final = 0.25
_SHARE_OF_THE_LATEST: Final = 0.3  # weight of the latest batch in the estimated cost of a state


class Crew(Protocol):
    """Processes that expand states together."""

    def expand(self, search: "Search", states: Sequence[Any], first: int) -> tuple[list[Any], int]:
        """Expand the first states of `states`; return the new states and how many were expanded, 0 if the crew does not pay."""


class Reduction(Protocol):
    """Chooses enabled actions that are enough to follow."""

    def enough(self, state: Any, found: Sequence[tuple[Any, Any]], seen: Any) -> Sequence[tuple[Any, Any]]:
        """The pairs of `found`, actions of `state` with their states, that must be followed; `seen` has the known states."""


class Search:
    """One search: the states seen so far, the bounds, and the findings.

    `seen` has a key for each state in the order of discovery. Its values are the numbers of the parents, or, with a `graph`,
    the states' own numbers, or, with `parents_are_states`, the parents themselves. `stopped_by` is empty while nothing has
    ended the search early. `step_seconds` is the recent cost of a state in this process.
    """

    def __init__(self, model: Model[Any, Any], options: Options, key: Key | None) -> None:
        self.model = model
        self.options = options
        self.key = key
        self.findings = Findings(model.properties(), self.last_action, self_check=options.self_check)
        bounded = options.strategy == "depth" and options.max_depth is not None
        self.graph = Graph() if self.findings.needs_edges or bounded else None
        self.seen: dict[Any, int] = {}
        self.most = options.max_states or 1 << 62
        self.reduction: Reduction | None = None
        self.self_check = (
            SelfCheck(model, symmetry=options.symmetry, reduction=options.reduction) if options.self_check else None
        )
        self.parents_are_states = False
        self.transitions = 0
        self.depth = 0
        self.stopped_by = ""
        self.began = perf_counter()
        self.batch = 64
        self.step_seconds = 0.0
        self._told = (self.began, 0)

    @property
    def is_plain(self) -> bool:
        """Whether the search needs no more of a state than that it was seen, and its parent."""
        return self.graph is None and self.key is None and self.reduction is None and not self.findings.open_steps

    # --- beginning and end -----------------------------------------------------------------------------------------

    def begin(self) -> list[Any]:
        """The initial states, each once. Raises `NoInitialState`."""
        fresh = []
        for state in self.model.initial():
            kept = self.model.canonical(state) if self.options.symmetry else state
            key = known_by(self.key, kept)
            try:
                known = key in self.seen
            except TypeError as error:
                raise UnhashableState("an initial state can't be hashed", state=state) from error
            if not known and len(self.seen) < self.most:
                fresh.append(kept)
                self.seen[key] = NO_PARENT if self.graph is None else len(self.graph)
                if self.graph is not None:
                    self.graph.add(NO_PARENT)
            elif not known:
                self.stopped_by = "max_states"
            if self.self_check is not None:
                self.self_check.look_at_beginning(state)
        if not fresh:
            raise NoInitialState(f"{self.model.name} has no initial state")
        self.findings.look(fresh, 0)
        return fresh

    def goes_on(self, seconds: float, states: int, queue: int) -> bool:
        """Note that a batch of `states` states took `seconds`, with `queue` states waiting; return whether to go on."""
        now = perf_counter()
        if seconds < _BATCH_SECONDS / 2 and states >= self.batch:
            self.batch = min(2 * self.batch, _MOST_AT_ONCE)
        elif seconds > 2 * _BATCH_SECONDS:
            self.batch = max(self.batch // 2, 1)
        then, before = self._told
        tell = self.options.progress
        if tell is not None and now - then >= _PROGRESS_SECONDS:
            count = len(self.seen)
            rate = (count - before) / (now - then)
            self._told = (now, count)
            tell(Progress(count, self.transitions, self.depth, queue, now - self.began, rate))
        if not self.stopped_by:
            if self.findings.is_settled or (self.options.stop_at_first and self.findings.has_failed):
                self.stopped_by = "failure"
            elif self.options.seconds is not None and now - self.began >= self.options.seconds:
                self.stopped_by = "seconds"
        return not self.stopped_by

    # --- paths -----------------------------------------------------------------------------------------------------

    def path_along(self, numbers: Sequence[int]) -> Path:
        """The run through the states with these numbers."""
        keys = list(self.seen)
        return follow(self.model, self.key, [keys[number] for number in numbers])

    def path(self, number: int) -> Path:
        """The run on which the state with this number was found."""
        if self.parents_are_states:
            way = [list(self.seen)[number]]
            while self.seen[way[-1]] != NO_PARENT:
                way.append(self.seen[way[-1]])
            return follow(self.model, None, way[::-1])
        return self.path_along(lineage(list(self.seen.values()) if self.graph is None else self.graph.parents, number))

    def path_of_step(self, found: StepFound) -> Path:
        """The run that ends in a step."""
        before = self.path(found.number)
        if not self.options.symmetry:
            return Path(before.initial, (*before.steps, Step(found.action, found.after)))
        return follow_to_step(self, before, found)

    def last_action(self, number: int) -> Any:
        """The action that led to the state with this number; None for an initial state."""
        steps = self.path(number).steps
        return steps[-1].action if steps else None

    def explain(self, states: Sequence[Any], error: TypeError) -> None:
        """Raise `UnhashableState` if `error` comes from an unhashable state, `ModelError` if from an unhashable action."""
        for state in states:
            for action, after in self.model.successors(state):
                try:
                    hash(known_by(self.key, after))
                except UnhashableState:
                    raise
                except TypeError:
                    raise UnhashableState("a state can't be hashed", state=after, action=action) from error
                try:
                    hash(action)
                except TypeError:
                    if self.graph is not None:
                        raise ModelError(
                            "an action can't be hashed", state=state, action=action, model=self.model
                        ) from error


class States:
    """The states of a search by number. If only fingerprints were kept, a state is found again by repeating the run to it."""

    def __init__(self, search: Search, graph: Graph) -> None:
        self._search = search
        self._graph = graph
        self._keys = list(search.seen)
        self._found: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        key = self._search.key
        if key is None:
            return self._keys[number]
        way = lineage(self._graph.parents, number)
        known = next((at for at in reversed(range(len(way))) if way[at] in self._found), 0)
        first = self._found.get(way[known])
        run = follow(self._search.model, key, [self._keys[one] for one in way[known:]], start=first)
        self._found.update(zip(way[known:], [run.initial, *[step.state for step in run.steps]], strict=True))
        return self._found[number]


def follow_to_step(search: Search, before: Path, found: StepFound) -> Path:
    """A path with a step that is like `found` up to symmetry, from the last state of `before`."""
    claims = [search.findings.properties[place] for place, at in search.findings.failed_step.items() if at is found]
    for action, after in search.model.successors(before.last):
        if any(not ask(claim, claim.holds, before.last, action, after) for claim in claims):
            return Path(before.initial, (*before.steps, Step(action, after)))
    problem = "a property tells states apart that the canonical form puts together"
    raise ModelError(problem, state=before.last, model=search.model)


# ---------------------------------------------------------------------------------------------------------------- loops


def expand(search: Search, states: Sequence[Any], first: int) -> list[Any]:
    """Expand `states`, of which the first has the number `first`; return the new states among their successors."""
    began = perf_counter()
    try:
        fresh = (_expand_plain if search.is_plain else _expand_full)(search, states, first)
    except TypeError as error:
        search.explain(states, error)
        raise
    cost = (perf_counter() - began) / len(states)
    search.step_seconds += (cost - search.step_seconds) * (_SHARE_OF_THE_LATEST if search.step_seconds else 1.0)
    search.findings.look(fresh, len(search.seen) - len(fresh))
    if search.self_check is not None:
        search.self_check.look(states, first)
    return fresh


def _expand_plain(search: Search, states: Sequence[Any], first: int) -> list[Any]:
    # One loop with local names only: it runs once for each transition, and a call in it would be half of its time.
    seen, successors, most = search.seen, search.model.successors, search.most
    fresh: list[Any] = []
    append = fresh.append
    transitions = 0
    for number, state in enumerate(states, first):
        found = successors(state)
        transitions += len(found)
        for _, after in found:
            if after not in seen:
                seen[after] = number
                append(after)
        if not found:
            search.findings.look_at_end(state, number)
        elif len(seen) > most:
            while len(seen) > most:
                seen.popitem()
                fresh.pop()
            search.stopped_by = "max_states"
            break
    search.transitions += transitions
    return fresh


def _expand_full(search: Search, states: Sequence[Any], first: int) -> list[Any]:  # noqa: C901, PLR0912  see _expand_plain
    seen, successors, most = search.seen, search.model.successors, search.most
    key, graph, reduction = search.key, search.graph, search.reduction
    canonical = search.model.canonical if search.options.symmetry else None
    claims = [(place, claim, claim.holds) for place, claim in search.findings.single_steps.items()]
    taken: list[Sequence[tuple[Any, Any]]] = []
    fresh: list[Any] = []
    transitions = 0
    for number, state in enumerate(states, first):
        found = successors(state)
        if reduction is not None and len(found) > 1:
            found = reduction.enough(state, found, seen)
        transitions += len(found)
        taken.append(found)
        edges = 0 if graph is None else len(graph.targets)
        for action, after in found:
            for place, claim, holds in claims:
                try:
                    broken = not holds(state, action, after)
                except Exception as error:
                    raise raised(claim, error, state, action) from error
                if broken:
                    search.findings.fail_step(place, StepFound(number, action, after))
                    claims = [claim for claim in claims if claim[0] != place]
            kept = after if canonical is None else canonical(after)
            known = kept if key is None else key(kept)
            if graph is None:
                if known not in seen:
                    seen[known] = number
                    fresh.append(kept)
                continue
            target = seen.get(known)
            if target is None:
                target = seen[known] = len(seen)
                graph.add(number)
                fresh.append(kept)
            graph.targets.append(target)
            graph.labels.append(graph.label(action))
        if not found:
            search.findings.look_at_end(state, number)
        elif len(seen) > most:
            while len(seen) > most:
                seen.popitem()
                fresh.pop()
            if graph is not None:
                graph.forget_from(most, edges)
            search.stopped_by = "max_states"
            break
        if graph is not None:
            graph.begin[number], graph.end[number] = edges, len(graph.targets)
    search.transitions += transitions
    search.findings.look_at_steps(states, taken, first)
    return fresh


# -------------------------------------------------------------------------------------------------------------- orders


def breadth_first(search: Search, crew: Crew | None = None) -> None:
    """Search all states, nearest first, each level in batches; the `crew` expands levels that cost enough."""
    level, first = search.begin(), 0
    while level and not search.stopped_by:
        if search.depth == search.options.max_depth:
            search.stopped_by = "max_depth"
            return
        below: list[Any] = []
        done = 0
        while done < len(level):
            began = perf_counter()
            fresh, count = (None, 0) if crew is None else crew.expand(search, level[done:], first + done)
            if not count:
                batch = level[done : done + search.batch]
                fresh, count = expand(search, batch, first + done), len(batch)
            below += fresh or ()
            done += count
            if not search.goes_on(perf_counter() - began, count, len(level) - done + len(below)):
                break
        first += len(level)
        level = below
        search.depth += bool(level)


def depth_first(search: Search) -> None:
    """Search all states, newest first. With a depth bound, a state that is reached again by a shorter way is searched again."""
    order = _NewestFirst(search)
    while order.stack and not search.stopped_by:
        began = perf_counter()
        count = 0
        while order.stack and count < search.batch and not search.stopped_by:
            order.take()
            count += 1
        search.goes_on(perf_counter() - began, count, len(order.stack))
    if order.cut and not search.stopped_by:
        search.stopped_by = "max_depth"


class _NewestFirst:
    """The states to expand, as number, state and depth. `cut` has the states at the depth bound."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.bound = search.options.max_depth
        self.stack: list[tuple[int, Any, int]] = []
        self.cut: set[int] = set()
        self._states: list[Any] = []
        self._depths: list[int] = []
        self._push(search.begin(), 0)

    def take(self) -> None:
        """Expand the newest state."""
        search, graph = self.search, self.search.graph
        number, state, depth = self.stack.pop()
        search.depth = max(search.depth, depth)
        if self.bound is None or graph is None:
            self._push(expand(search, [state], number), depth + 1)
            return
        if depth > self._depths[number]:
            return
        if depth == self.bound:
            self.cut.add(number)
            return
        self.cut.discard(number)
        if not graph.is_expanded(number):
            self._push(expand(search, [state], number), depth + 1)
        for target in graph.after(number):
            if depth + 1 < self._depths[target]:
                self._depths[target] = depth + 1
                graph.parents[target] = number
                self.stack.append((target, self._states[target], depth + 1))

    def _push(self, fresh: list[Any], depth: int) -> None:
        first = len(self.search.seen) - len(fresh)
        self.stack += [(first + at, state, depth) for at, state in enumerate(fresh)][::-1]
        if self.bound is not None:
            self._states += fresh
            self._depths += [depth] * len(fresh)
