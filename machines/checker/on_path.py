"""A property on one path: whether this run breaks the property. Only "can_always_reach" searches beyond the path."""

from typing import Any, Final

from machines.checker.asking import ask, asking_of
from machines.checker.model import Model, Property
from machines.checker.result import Path

MOST_STATES: Final = 200_000  # most states searched for a goal that should be reachable from the end of a path


def property_named(model: Model[Any, Any], name: str) -> Property:
    """The property `name` of `model`. Raises `KeyError` if there is none."""
    for found in model.properties():
        if found.name == name:
            return found
    raise KeyError(f"{model.name} has no property {name!r}; it has: {', '.join(it.name for it in model.properties())}")


def holds_on(model: Model[Any, Any], name: str, path: Path) -> bool:
    """Whether `path` is no counterexample to the property `name`.

    "always" is asked of every state on the path and "always_step" of every step, "no_deadlock" and "can_always_reach" of the
    last state, "leads_to" of the whole run, which counts only if it goes on for ever, fairly, or ends where nothing is enabled.
    A goal that is not found within `MOST_STATES` states counts as not reachable. "sometimes" holds if its condition holds in a
    state on the path.
    """
    with asking_of(model):
        return _holds_on(model, property_named(model, name), path)


def _holds_on(model: Model[Any, Any], claim: Property, path: Path) -> bool:
    states = [path.initial, *(step.state for step in path.steps)]
    reached = list(zip(states, [None, *path.actions], strict=True))
    if claim.kind == "always":
        return all(ask(claim, claim.holds, state, action=action) for state, action in reached)
    if claim.kind == "always_step":
        befores = zip(states, path.steps, strict=False)
        return all(ask(claim, claim.holds, before, step.action, step.state) for before, step in befores)
    if claim.kind == "sometimes":
        return any(ask(claim, claim.holds, state, action=action) for state, action in reached)
    if claim.kind == "no_deadlock":
        return bool(model.successors(path.last)) or ask(claim, claim.holds, path.last, action=reached[-1][1])
    if claim.kind == "can_always_reach":
        return _reaches(model, claim, path.last)
    return _led(model, claim, path, reached)


def _reaches(model: Model[Any, Any], claim: Property, start: Any) -> bool:
    seen, queue = {start: None}, [start]
    for state in queue:
        if ask(claim, claim.holds, state, action=seen[state]):
            return True
        for action, after in model.successors(state):
            if after not in seen:
                if len(seen) >= MOST_STATES:
                    return False
                seen[after] = action
                queue.append(after)
    return False


def _led(model: Model[Any, Any], claim: Property, path: Path, reached: list[tuple[Any, Any]]) -> bool:
    effect = claim.until
    if effect is None:
        raise ValueError(f"the property {claim.name!r} is of the kind leads_to and has no effect to lead to")
    waits = False
    for state, action in reached:
        waits = (waits or ask(claim, claim.holds, state, action=action)) and not ask(
            claim, effect, state, action=action
        )
    if path.loop is None:
        enabled = [action for action, _ in model.successors(path.last)]
        return not waits or any(model.is_fair(action) or model.is_strongly_fair(action) for action in enabled)
    circle = [state for state, _ in reached[path.loop :]]
    if not waits or circle[0] != circle[-1] or any(map(effect, circle)):
        return True
    return not _is_fair(model, circle, [step.action for step in path.steps[path.loop :]])


def _is_fair(model: Model[Any, Any], circle: list[Any], taken: list[Any]) -> bool:
    """Whether the cycle leaves out no fair action that is enabled all the way, and no strongly fair action at all."""
    enabled = [[action for action, _ in model.successors(state)] for state in circle]
    renewed = [other for state, action in zip(circle, taken, strict=False) for other in model.renews(state, action)]
    left_out = {action: None for some in enabled for action in some if action not in taken and action not in renewed}
    for action in left_out:
        everywhere = all(action in some for some in enabled)
        if model.is_strongly_fair(action) or (everywhere and model.is_fair(action)):
            return False
    return True
