"""The entry: check a model, get a report."""

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from time import perf_counter
from typing import Any, Final

from machines.checker.asking import asking_of
from machines.checker.explore import Search, States, breadth_first, depth_first
from machines.checker.fingerprint import collision_bound, fingerprint
from machines.checker.graph import Graph, Key, follow
from machines.checker.liveness import Fairness, Lasso, unfulfilled, wedged
from machines.checker.model import Model, Property
from machines.checker.options import Options, Progress
from machines.checker.packed import PackedModel, packed_breadth_first
from machines.checker.parallel import ForkedCrew, crew_for
from machines.checker.reduce import AmpleSets, refuse_unsound
from machines.checker.result import Outcome, Path, Report, Verdict
from machines.checker.selfcheck import ask_initial_again
from machines.checker.walk import walk

_COLLECTED_EACH: Final = (100_000, 20, 100)


def check(  # noqa: PLR0913  each option is a choice of its own
    model: Model[Any, Any],
    *,
    strategy: str = "breadth",
    max_states: int | None = None,
    max_depth: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    walks: int = 100,
    change_points: int = 3,
    workers: int | None = None,
    visited: str = "exact",
    symmetry: bool = False,
    reduction: bool = False,
    self_check: bool = True,
    stop_at_first: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Search `model` and say of each of its properties whether it holds, fails, or is not decided.

    `strategy`: "breadth" searches all states, nearest first, so that counterexamples to properties of states and steps are
    shortest; "depth" searches all, newest first; "walk" draws runs at random and "pct" by random priorities of
    `Model.owner` with `change_points` changes in each run (Burckhardt et al., 2010), both from `seed`: `walks` runs of
    at most `max_depth` steps (1,000 unless given). A path that a walk found is made shorter before it is reported.

    Bounds: `max_states` distinct states, `max_depth` steps from an initial state, `seconds`. A property that was not violated
    before a bound ended the search is not decided; so it is after Ctrl-C, and after walks.

    `visited`: "exact" keeps the states, "fingerprint" 64 bits of each; two states can then be taken for one, and the report's
    configuration has a bound of that probability. `symmetry` keeps one state for all with the same `Model.canonical`,
    `reduction` follows one action alone where `Model.independent` allows that. `workers` are processes, by default as many as
    pay for themselves: one if steps are cheap.

    `self_check` asks the model twice for a sample of the states. The search goes on after a failure until no property can be
    decided any more, unless `stop_at_first`. `progress` is called at most four times a second.

    Raises `ModelError` for a model that can't be checked, `ValueError` for options that exclude each other, or a reduction that
    could change a property's verdict.
    """
    options = Options(
        strategy=strategy,
        max_states=max_states,
        max_depth=max_depth,
        seconds=seconds,
        seed=seed,
        walks=walks,
        change_points=change_points,
        workers=workers,
        visited=visited,
        symmetry=symmetry,
        reduction=reduction,
        self_check=self_check,
        stop_at_first=stop_at_first,
        progress=progress,
    )
    properties = tuple(model.properties())
    names = [claim.name for claim in properties]
    if len(set(names)) < len(names):
        raise ValueError(f"two properties have the same name: {', '.join(sorted(names))}")
    refuse_unsound(options, properties)
    if self_check:
        ask_initial_again(model)
    with _seldom_collected(), asking_of(model):
        return walk(model, options) if options.is_walk else _searched(model, options)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """A context with rare garbage collections: a search keeps all its objects, and scanning them costs a fifth of the time."""
    before = gc.get_threshold()
    if gc.isenabled() and before[0] < _COLLECTED_EACH[0]:
        gc.set_threshold(*_COLLECTED_EACH)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _searched(model: Model[Any, Any], options: Options) -> Report:
    search = Search(model, options, _key(model, options))
    if options.reduction:
        search.reduction = AmpleSets(model)
    crew: ForkedCrew | None = None
    try:
        if options.strategy == "depth":
            depth_first(search)
        elif isinstance(model, PackedModel) and search.is_plain:
            packed_breadth_first(search, model)
        else:
            crew = None if model.one_process else crew_for(options)
            breadth_first(search, crew)
        verdicts = _doubted(search, _verdicts(search))
    except KeyboardInterrupt:
        search.stopped_by = "interrupted"
        verdicts = _verdicts(search)
    return Report(
        model=model.name,
        strategy=options.strategy,
        verdicts=verdicts,
        states=len(search.seen),
        transitions=search.transitions,
        depth=search.depth,
        seconds=perf_counter() - search.began,
        complete=not search.stopped_by,
        stopped_by=search.stopped_by,
        configuration=_configuration(options, len(search.seen), 1 if crew is None else crew.used),
    )


def _key(model: Model[Any, Any], options: Options) -> Key | None:
    canonical = model.canonical
    if options.visited == "fingerprint":
        return (lambda state: fingerprint(canonical(state))) if options.symmetry else fingerprint
    return canonical if options.symmetry else None


def _configuration(options: Options, states: int, workers: int) -> dict[str, Any]:
    given: dict[str, Any] = {"visited": options.visited, "workers": workers}
    if options.visited == "fingerprint":
        given["probability that two states were taken for one, at most"] = collision_bound(states)
    for name in ("max_states", "max_depth", "seconds"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    for name in ("symmetry", "reduction", "stop_at_first"):
        if getattr(options, name):
            given[name] = True
    return given


# ------------------------------------------------------------------------------------------------------------- verdicts


def _verdicts(search: Search) -> tuple[Verdict, ...]:
    return tuple(_verdict(search, place, claim) for place, claim in enumerate(search.findings.properties))


def _doubted(search: Search, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """The verdicts, with NOT_DECIDED for properties of which `Model.doubts` says that they were about nothing."""
    doubts = search.model.doubts()
    if search.stopped_by or not doubts:
        return verdicts
    return tuple([_less_certain(one, doubts[one.name]) if one.name in doubts else one for one in verdicts])


def _less_certain(verdict: Verdict, doubt: str) -> Verdict:
    if verdict.outcome is Outcome.FAILS:
        return replace(verdict, why=f"{verdict.why}; and {doubt}")
    return Verdict(verdict.name, verdict.kind, Outcome.NOT_DECIDED, None, doubt)


def _verdict(search: Search, place: int, claim: Property) -> Verdict:
    findings = search.findings
    if place in findings.failed:
        why = "a run ends here" if claim.kind == "no_deadlock" else "the last state breaks it"
        return _said(claim, Outcome.FAILS, search.path(findings.failed[place]), why)
    if place in findings.failed_step:
        return _said(claim, Outcome.FAILS, search.path_of_step(findings.failed_step[place]), "the last step breaks it")
    if place in findings.witness:
        return _said(claim, Outcome.HOLDS, search.path(findings.witness[place]), "the last state shows it")
    if search.stopped_by != "interrupted" and search.graph is not None:
        found = _on_the_graph(search, place, claim)
        if found is not None:
            return found
    if search.stopped_by:
        return _said(claim, Outcome.NOT_DECIDED, None, f"not all states were seen: stopped by {search.stopped_by}")
    if claim.kind == "sometimes":
        return _said(claim, Outcome.FAILS, None, "no reachable state shows it")
    return _said(claim, Outcome.HOLDS, None, "")


def _on_the_graph(search: Search, place: int, claim: Property) -> Verdict | None:
    """The failure of a property of the whole graph; None if it does not fail."""
    findings, graph = search.findings, search.graph
    if graph is None:
        return None
    if place in findings.marks:
        way = wedged(graph, findings.marks[place])
        if way is not None:
            return _said(
                claim, Outcome.FAILS, search.path_along(way), "from the last state no goal can be reached any more"
            )
    elif place in findings.causes:
        model, actions = search.model, graph.actions
        weak, strong = ([asked(one) for one in actions] for asked in (model.is_fair, model.is_strongly_fair))
        fair = Fairness(weak, strong, _renewing(search, graph))
        lasso = unfulfilled(graph, findings.causes[place], findings.effects[place], fair)
        if lasso is not None:
            why = "the run ends" if lasso.loop is None else "the run goes round for ever, fairly,"
            return _said(claim, Outcome.FAILS, _lasso_path(search, lasso), f"{why} and the effect never comes")
    return None


def _renewing(search: Search, graph: Graph) -> Callable[[int, int], Collection[int]]:
    """A function from a state's number and a step's label to the labels of the actions that the step renews
    (`Model.renews`)."""
    model, states = search.model, States(search, graph)

    @cache
    def renewed(number: int, label: int) -> frozenset[int]:
        others = model.renews(states[number], graph.actions[label])
        return frozenset([graph.numbers[other] for other in others if other in graph.numbers])

    return renewed


def _lasso_path(search: Search, lasso: Lasso) -> Path:
    keys = list(search.seen)
    labels = [] if search.graph is None else [search.graph.actions[label] for label in lasso.labels]
    path = follow(search.model, search.key, [keys[number] for number in lasso.states], labels)
    return Path(path.initial, path.steps, lasso.loop)


def _said(claim: Property, outcome: Outcome, path: Path | None, why: str) -> Verdict:
    return Verdict(claim.name, claim.kind, outcome, path, why)
