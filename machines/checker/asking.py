"""Evaluating a property: its answer, or an error that names the property, the state and the step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machines.checker.model import Model, Property, PropertyMisread, PropertyRaised


def ask(claim: Property, condition: Callable[..., bool], *of: Any, action: Any = None) -> bool:
    """Evaluate `condition`, a condition of `claim`, on a state, to which `action` led, or on a step: before, action, after.

    Raises `PropertyRaised`.
    """
    try:
        return bool(condition(*of))
    except Exception as error:
        raise raised(claim, error, of[0], of[1] if len(of) > 1 else action) from error


def raised(claim: Property, error: Exception, state: Any, action: Any, but: str = "") -> PropertyRaised:
    """The error for a `claim` that raised `error` at `state`; `action` led there, or was taken there."""
    return PropertyRaised(f"the property {claim.name!r} raised {error!r}{but}", state=state, action=action)


@contextmanager
def asking_of(model: Model[Any, Any]) -> Iterator[None]:
    """A context in which the error of a property shows states and actions as `model` names them."""
    try:
        yield
    except (PropertyMisread, PropertyRaised) as error:
        error.model = model
        raise
