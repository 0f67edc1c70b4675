"""A level of the search in several processes, if a step costs more than sending its results.

Processes are forked for one part of one level: they know all states that were seen until then, and send new states back. This
process does the first slice meanwhile. It merges the results in the order of the slices, so numbers, counterexamples and counts
are the same as with one process.
"""

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final, NamedTuple

from machines.checker.explore import Search, expand
from machines.checker.findings import StepFound
from machines.checker.graph import known_by
from machines.checker.options import Options

_LEAST_SECONDS: Final = 0.2  # of work: less is not worth a fork
_MOST_SECONDS: Final = 2.0  # of work for each process between two checks of the bounds
_FORK_SECONDS: Final = 0.02
_DEAR_SECONDS: Final = 50e-6  # for a state: below, sending, reading and merging results costs as much as it saves
_TELLINGS: Final = 3  # new states sent back for one state, on average, including copies of others
_WORTH: Final = 0.8  # several processes are worth it if they take at most this share of one process's time
_MOST_WORKERS: Final = 8
_MOST_IN_VAIN: Final = 2  # parts in a row that took longer than one process would have; then only one goes on
_SAMPLE: Final = 50  # states that are pickled to measure the cost


class _Expansion(NamedTuple):
    """The successors of one state that a process has found.

    `new` are the states that were not seen when the process began. `edges`, if recorded, have the action's label, or the action
    itself if it has no label yet, and the target: a number, or -1 - n for the n-th new state of this process.
    """

    transitions: int
    new: list[Any]
    broken: list[tuple[int, Any, Any]]
    edges: list[tuple[int | tuple[Any], int]]


def crew_for(options: Options) -> "ForkedCrew | None":
    """The processes to use; None if only one is wanted, or if a fork is not possible or not safe."""
    if options.reduction or not hasattr(os, "fork") or len(sys._current_frames()) > 1:  # noqa: SLF001  threads don't survive
        return None
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = options.workers if options.workers is not None else min(here, _MOST_WORKERS)
    return ForkedCrew(asked, forced=options.workers is not None) if asked > 1 else None


class ForkedCrew:
    """This process and forked ones. `used` is the largest number that worked at once.

    `forced` says that the user asked for this number: then the crew does not weigh whether they pay.
    """

    def __init__(self, workers: int, *, forced: bool = False) -> None:
        self.workers = workers
        self.used = 1
        self._forced = forced
        self._given_up = False
        self._in_vain = 0
        self._telling: float | None = None

    def expand(self, search: Search, states: Sequence[Any], first: int) -> tuple[list[Any], int]:
        """Expand the first states of `states`; return the new states and how many were expanded, 0 if the crew does not pay."""
        cost = search.step_seconds
        if self._given_up or len(states) < self.workers or not cost or len(sys._current_frames()) > 1:  # noqa: SLF001
            return [], 0
        count = min(len(states), max(self.workers, int(_MOST_SECONDS * self.workers / cost)))
        if not self._pays(states[:count], cost):
            return [], 0
        began = perf_counter()
        fresh = self._expand(search, states[:count], first)
        self.used = self.workers
        self._in_vain = self._in_vain + 1 if perf_counter() - began > cost * count else 0
        self._given_up = self._given_up or (self._in_vain >= _MOST_IN_VAIN and not self._forced)
        return fresh, count

    def _pays(self, states: Sequence[Any], cost: float) -> bool:
        if self._telling is None:
            self._telling = _cost_of_telling(states[:_SAMPLE])
            self._given_up = self._telling is None
            if self._telling is None:
                return False
        if self._forced:
            return True
        alone = cost * len(states)
        if cost < _DEAR_SECONDS or alone < _LEAST_SECONDS:
            return False
        together = alone / self.workers + len(states) * _TELLINGS * self._telling + _FORK_SECONDS * self.workers
        return together < _WORTH * alone

    def _expand(self, search: Search, states: Sequence[Any], first: int) -> list[Any]:
        each = -(-len(states) // self.workers)
        slices = [states[at : at + each] for at in range(0, len(states), each)]
        children: list[tuple[int, int]] = []
        try:
            for share in slices[1:]:
                children.append(_forked(search, share))  # noqa: PERF401  the list must have the forked children if a later fork fails
            fresh = expand(search, slices[0], first)
            first += len(slices[0])
            for (_, pipe), share in zip(children, slices[1:], strict=True):
                if search.stopped_by:
                    break
                rows = _told(pipe)
                self._given_up = self._given_up or rows is None
                fresh += expand(search, share, first) if rows is None else _joined(search, share, rows, first)
                first += len(share)
            return fresh
        finally:
            for pid, pipe in children:
                os.close(pipe)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _cost_of_telling(states: Sequence[Any]) -> float | None:
    """Seconds for sending a state between processes; None if a state does not arrive as an equal one."""
    began = perf_counter()
    try:
        arrived = pickle.loads(pickle.dumps(states, pickle.HIGHEST_PROTOCOL))  # noqa: S301  from this very process
        if arrived != states or list(map(hash, arrived)) != list(map(hash, states)):
            return None
    except Exception:  # noqa: BLE001  pickle raises many kinds of errors
        return None
    return (perf_counter() - began) / len(states)


def _forked(search: Search, states: Sequence[Any]) -> tuple[int, int]:
    """Fork a process that expands `states`; return its id, and the pipe with its results."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # There are no other Python threads. Python also warns of threads of C libraries, into which no model calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.close(reader)
        with os.fdopen(writer, "wb") as out:
            pickle.dump(_rows(search, states), out, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)  # after any error the result is not complete, and the parent does the slice itself


def _told(pipe: int) -> list[_Expansion] | None:
    """Read the results of a process; None if it failed."""
    with os.fdopen(os.dup(pipe), "rb") as source:
        try:
            rows: list[_Expansion] = pickle.load(source)  # noqa: S301  from a process that was forked from this one
        except Exception:  # noqa: BLE001  a truncated pickle raises many kinds of errors
            return None
    return rows


def _rows(search: Search, states: Sequence[Any]) -> list[_Expansion]:
    seen, graph, model = search.seen, search.graph, search.model
    failed = set(search.findings.failed_step)
    claims = [(place, claim.holds) for place, claim in search.findings.single_steps.items()]
    here: dict[Any, int] = {}
    rows = []
    taken = []
    for state in states:
        found = model.successors(state)
        taken.append(found)
        row = _Expansion(len(found), [], [], [])
        for action, after in found:
            row.broken.extend((place, action, after) for place, holds in claims if not holds(state, action, after))
            kept = model.canonical(after) if search.options.symmetry else after
            known = known_by(search.key, kept)
            target = None if graph is None else seen.get(known)
            if target is None and (graph is not None or known not in seen):
                target = here.get(known)
                if target is None:
                    target = here[known] = -1 - len(here)
                    row.new.append(kept)
            if graph is not None and target is not None:
                label = graph.numbers.get(action)
                row.edges.append(((action,) if label is None else label, target))
        rows.append(row)
    search.findings.look_at_steps(states, taken, 0)  # of this process's own
    for place, broken in search.findings.failed_step.items():
        if place not in failed:
            rows[broken.number].broken.append((place, broken.action, broken.after))
    return rows


def _joined(  # noqa: C901, PLR0912  mirrors the loop of explore
    search: Search, states: Sequence[Any], rows: Sequence[_Expansion], first: int
) -> list[Any]:
    """Merge the results of a process, as if this process had found them; return the new states."""
    seen, graph, most = search.seen, search.graph, search.most
    fresh: list[Any] = []
    numbers: list[int] = []
    for number, (state, row) in enumerate(zip(states, rows, strict=True), first):
        edges = 0 if graph is None else len(graph.targets)
        search.transitions += row.transitions
        for place, action, after in row.broken:
            if place in search.findings.open_steps:
                search.findings.fail_step(place, StepFound(number, action, after))
        for kept in row.new:
            known = known_by(search.key, kept)
            if known not in seen:
                seen[known] = number if graph is None else len(seen)
                fresh.append(kept)
                if graph is not None:
                    graph.add(number)
            numbers.append(seen[known])
        if graph is not None:
            for label, target in row.edges:
                graph.labels.append(graph.label(label[0]) if isinstance(label, tuple) else label)
                graph.targets.append(target if target >= 0 else numbers[-1 - target])
        if not row.transitions:
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
    search.findings.look(fresh, len(seen) - len(fresh))
    if search.self_check is not None:
        search.self_check.look(states, first)
    return fresh
