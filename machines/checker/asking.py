"""Asking a property: its answer, or an error that names the property, the state and the step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machines.checker.model import Model, Property, PropertyMisread, PropertyRaised


def ask(claim: Property, condition: Callable[..., bool], *of: Any, action: Any = None) -> bool:
    """What `condition`, one of those of `claim`, says of a state, to which `action` led, or of a step: before, action, after.

    Raises `PropertyRaised`.
    """
    try:
        return bool(condition(*of))
    except Exception as error:
        raise raised(claim, error, of[0], of[1] if len(of) > 1 else action) from error


def raised(claim: Property, error: Exception, state: Any, action: Any, but: str = "") -> PropertyRaised:
    """That `claim` raised `error`: at `state`, to which `action` led or in which it was taken."""
    return PropertyRaised(f"the property {claim.name!r} raised {error!r}{but}", state=state, action=action)


@contextmanager
def asking_of(model: Model[Any, Any]) -> Iterator[None]:
    """Have an error of a property that comes out of this name states and actions as `model` does."""
    try:
        yield
    except (PropertyMisread, PropertyRaised) as error:
        error.model = model
        raise
