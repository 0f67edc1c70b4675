"""A path as numbers: the place of each taken action among the enabled ones. A path is stored in this form."""

from typing import Any

from machines.checker.model import Model, NotRepeatable
from machines.checker.result import Path


def choices(model: Model[Any, Any], path: Path) -> tuple[int, ...]:
    """The place of `path.initial` among `model.initial()`, then the place of each step among `model.successors(state)`.

    Raises `NotRepeatable` if the model does not have the path: its actions are not those with which the path was found.
    """
    begin = [at for at, state in enumerate(model.initial()) if state == path.initial]
    if not begin:
        raise NotRepeatable("the path begins in a state that is not an initial one", state=path.initial, model=model)
    found = begin[:1]
    state = path.initial
    for action, after in path.steps:
        successors = model.successors(state)
        at = next((at for at, (taken, then) in enumerate(successors) if taken == action and then == after), None)
        if at is None:
            raise NotRepeatable(
                "the path takes a step that the model does not have", state=state, action=action, model=model
            )
        found.append(at)
        state = after
    return tuple(found)
