"""A run again: from the numbers or the actions that were written down of it, and a shorter one that shows the same."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from machines.checker.model import Model, NotRepeatable
from machines.checker.result import Path, Step

_MOST_TRIES: Final = 3_000  # runs made to shorten one


def replay(model: Model[Any, Any], choices: Sequence[int]) -> Path:
    """The run that takes these ways: the place of its beginning among `model.initial()`, then, step after step, that of what
    was done among `model.successors(state)`.

    Raises `NotRepeatable` if the model has no such place: it is another one than when the run was written down.
    """
    if not choices:
        raise ValueError("a run has at least a beginning: choices is empty")
    begin = list(model.initial())
    if not 0 <= choices[0] < len(begin):
        raise NotRepeatable(f"there is no initial state {choices[0]}: the model has {len(begin)}")
    state = begin[choices[0]]
    steps = []
    for at, place in enumerate(choices[1:], 1):
        found = model.successors(state)
        if not 0 <= place < len(found):
            raise NotRepeatable(
                f"step {at} takes action {place}, and {len(found)} are enabled", state=state, model=model
            )
        steps.append(Step(*found[place]))
        state = steps[-1].state
    return Path(begin[choices[0]], tuple(steps))


def replay_actions(
    model: Model[Any, Any], actions: Sequence[Any], *, initial: Any = None, by_label: bool = False
) -> Path:
    """The run that takes these actions from `initial`, the first initial state unless given.

    With `by_label` they are given as `model.label` writes them. Raises `NotRepeatable` for one that is not enabled.
    """
    state = next(iter(model.initial())) if initial is None else initial
    steps: list[Step] = []
    for wanted in actions:
        before = steps[-1].state if steps else state
        step = _taken(model, before, wanted, by_label=by_label)
        if step is None:
            raise NotRepeatable(f"step {len(steps) + 1} is not enabled", state=before, action=wanted, model=model)
        steps.append(step)
    return Path(state, tuple(steps))


def minimise(model: Model[Any, Any], path: Path, shows: Callable[[Path], bool]) -> Path:
    """A run made of actions of `path` that still `shows` what it does, from which no single action can be left out.

    Parts are left out, half of them first, then smaller ones; what is not enabled without them is left out too. For a run that
    ends; `shows` must be true of `path`. For very long runs it ends after some thousand tries with what it has.
    """
    best = _without_circles(path)
    if not shows(best):
        best = path
    size = max(len(best.steps) // 2, 1)
    tries = 0
    while best.steps and tries < _MOST_TRIES:
        shorter = None
        for at in range(0, len(best.steps), size):
            tries += 1
            tried = _tolerant(model, best.initial, [*best.actions[:at], *best.actions[at + size :]])
            if len(tried.steps) < len(best.steps) and shows(tried):
                shorter = tried
                break
        if shorter is not None:
            best = shorter
            size = min(size, max(len(best.steps), 1))
        elif size > 1:
            size //= 2
        else:
            break
    for length in range(len(best.steps)):
        if shows(begin := Path(best.initial, best.steps[:length])):
            return begin
    return best


def _without_circles(path: Path) -> Path:
    """The run without what it does between two visits of the same state."""
    last = {path.initial: 0} | {step.state: at for at, step in enumerate(path.steps, 1)}
    kept: list[Step] = []
    at = last[path.initial]
    while at < len(path.steps):
        kept.append(path.steps[at])
        at = last[path.steps[at].state]
    return Path(path.initial, tuple(kept))


def _tolerant(model: Model[Any, Any], initial: Any, actions: Sequence[Any]) -> Path:
    """The run that takes those of `actions` that are enabled when their turn comes."""
    steps: list[Step] = []
    for wanted in actions:
        step = _taken(model, steps[-1].state if steps else initial, wanted, by_label=False)
        if step is not None:
            steps.append(step)
    return Path(initial, tuple(steps))


def _taken(model: Model[Any, Any], state: Any, wanted: Any, *, by_label: bool) -> Step | None:
    for action, after in model.successors(state):
        if (model.label(action) if by_label else action) == wanted:
            return Step(action, after)
    return None
