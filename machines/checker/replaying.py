"""Replaying a run from its stored choices or actions, and shortening a run."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from machines.checker.model import Model, NotRepeatable
from machines.checker.result import Path, Step

_MOST_TRIES: Final = 3_000  # most runs that are tried to shorten one


def replay(model: Model[Any, Any], choices: Sequence[int]) -> Path:
    """The run with these choices: the place of its initial state among `model.initial()`, then the place of each step among
    `model.successors(state)`.

    Raises `NotRepeatable` if the model has no such place: then the model has changed since the choices were stored.
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

    With `by_label` the actions are labels, as `model.label` writes them. Raises `NotRepeatable` for an action that is not
    enabled.
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
    """A run made of actions of `path` for which `shows` is still true, and which needs each of its actions.

    Leaves out parts of the run, first halves, then smaller parts, and actions that are not enabled without them. `path` must
    end, without a loop, and `shows` must be true of it. For very long runs the search stops after some thousand tries, with the
    shortest run so far.
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
    """The run without the steps between two visits of the same state."""
    last = {path.initial: 0} | {step.state: at for at, step in enumerate(path.steps, 1)}
    kept: list[Step] = []
    at = last[path.initial]
    while at < len(path.steps):
        kept.append(path.steps[at])
        at = last[path.steps[at].state]
    return Path(path.initial, tuple(kept))


def _tolerant(model: Model[Any, Any], initial: Any, actions: Sequence[Any]) -> Path:
    """The run that takes each of `actions` if it is enabled when its turn comes."""
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
