"""The self-check: does the model give the same answers again? If not, searching it means nothing.

The model is asked twice about a sample of states: about the state itself, and about an equal state made of new objects, whose
sets were filled in another order. The kind of difference tells its cause.
"""

import random
from collections.abc import Sequence
from typing import Any, Final

from machines.checker.asking import ask
from machines.checker.model import Model, ModelError, NotIndependent, NotRepeatable, NotSymmetric, Property

_FIRST: Final = 500  # states that are all in the sample
_ASKED_IN_DOUBT: Final = 10  # times, since chance may give the same answer twice
_READ_FIRST: Final = (
    200  # of these, the ones of which it is also asked whether properties look at nothing but what they read
)
_READ_EACH: Final = 1_010  # and after these
_EACH: Final = 101  # after these, one in so many; prime, so that the sample has no regular pattern of the model


class SelfCheck:
    """Asks the model again about a sample of a search's states; with `symmetry` also about their canonical forms, and with
    `reduction` about the independence of their actions."""

    def __init__(self, model: Model[Any, Any], *, symmetry: bool = False, reduction: bool = False) -> None:
        self._model = model
        self._symmetry = symmetry
        self._reduction = reduction

    def look_at_beginning(self, state: Any) -> None:
        """Ask about an initial state as the model gives it; the search itself may only see its canonical form."""
        if self._symmetry:
            ask_whether_alike(self._model, state, self._model.canonical(state))

    def look(self, states: Sequence[Any], first: int) -> None:
        """Ask about the states of `states` that are in the sample; the first of `states` has the number `first`.

        Raises `NotRepeatable`, `NotSymmetric`, `NotIndependent` or another `ModelError`."""
        begin = 0 if first < _FIRST else -first % _EACH
        for at in range(begin, len(states), 1 if first < _FIRST else _EACH):
            state = states[at]
            ask_again(self._model, state)
            if self._symmetry:
                ask_symmetry(self._model, state)
            if self._reduction:
                ask_independence(self._model, state)


def ask_initial_again(model: Model[Any, Any]) -> None:
    """Ask `model` for its initial states again. Raises `NotRepeatable`."""
    one, two = list(model.initial()), list(model.initial())
    if one != two:
        problem = "the initial states were other ones when they were asked for again; this looks like chance or a clock"
        state = next((a for a, b in zip(one, two, strict=False) if a != b), None)
        raise NotRepeatable(problem, state=state, model=model)


def ask_again(model: Model[Any, Any], state: Any) -> None:
    """Ask `model` for the successors of `state` again, and of an equal state. Raises `NotRepeatable`."""
    one, two = list(model.successors(state)), list(model.successors(state))
    if one != two:
        raise _not_the_same_again(model, state, one, two)
    twin = rebuilt(state)
    try:
        same = twin == state and hash(twin) == hash(state)
    except TypeError:
        return
    three = list(model.successors(twin)) if same else one
    if one == three:
        return
    for _ in range(_ASKED_IN_DOUBT):
        two = list(model.successors(state))
        if one != two:
            raise _not_the_same_again(model, state, one, two)
    cause = (
        "the order of a set" if _same_but_order(one, three) else "the order of a set, `id()`, or `is` on equal values"
    )
    raise NotRepeatable(
        f"two equal states gave different successors; this looks like {cause}: sort what comes out of a set, compare by value",
        state=state,
        action=_differs(one, three),
        model=model,
    )


def _not_the_same_again(model: Model[Any, Any], state: Any, one: list[Any], two: list[Any]) -> NotRepeatable:
    return NotRepeatable(
        f"the same state gave other successors when it was asked again; this looks like {_cause(model, state, one, two)}",
        state=state,
        action=_differs(one, two),
        model=model,
    )


def ask_symmetry(model: Model[Any, Any], state: Any) -> None:
    """Check the canonical form of `state` and of its successors. Raises `ModelError`.

    The canonical form of a canonical form must be itself. It must stand for the state: both must go on alike (else
    `NotSymmetric`), and no property may tell them apart: a property of states holds in both or in neither, and a property of
    steps is broken by as many steps from the one as from the other.
    """
    of_steps = [claim for claim in model.properties() if claim.kind == "always_step"]
    for action, after in [(None, state), *model.successors(state)]:
        stands = model.canonical(after)
        if model.canonical(stands) != stands:
            raise ModelError("the canonical form has another canonical form", state=after, action=action, model=model)
        for claim in model.properties():
            if claim.kind != "always_step" and (
                ask(claim, claim.holds, after, action=action) != ask(claim, claim.holds, stands)
            ):
                problem = f"the property {claim.name!r} tells a state from its canonical form {stands!r}"
                raise ModelError(problem, state=after, action=action, model=model)
        if stands == after:
            continue
        ask_whether_alike(model, after, stands)
        for claim in of_steps:
            if _broken(model, claim, after) != _broken(model, claim, stands):
                problem = (
                    f"the property {claim.name!r} tells steps from a state from those of its canonical form {stands!r}"
                )
                raise ModelError(problem, state=after, action=action, model=model)


def ask_whether_alike(model: Model[Any, Any], state: Any, stands: Any) -> None:
    """Check that one step from `state`, and one from `stands`, its canonical form, reach the same states up to symmetry.

    Raises `NotSymmetric`."""
    one, other = ({model.canonical(after): action for action, after in model.successors(of)} for of in (state, stands))
    for after, action in [*one.items(), *other.items()]:
        if after not in one or after not in other:
            raise NotSymmetric(model, state, stands, action)


def ask_independence(model: Model[Any, Any], state: Any) -> None:
    """Check the actions of `state` that the model calls independent. Raises `NotIndependent`.

    Looks only at pairs that are enabled in `state`, not at steps after the other action.
    """
    found = list(model.successors(state))
    for at, (action, after) in enumerate(found):
        for place, (other, then) in enumerate(found):
            if at != place and model.independent(state, action, other):
                why = dependence(model, action, after, other, then)
                if why:
                    raise NotIndependent(model, f"two actions are called independent, and {why}", state, action, other)


def dependence(model: Model[Any, Any], action: Any, after: Any, other: Any, then: Any) -> str:
    """Why `action`, which leads to `after`, and `other`, which leads to `then`, are not independent; empty if they are, as far
    as the next two steps show."""
    one = [end for taken, end in model.successors(after) if taken == other]
    two = [end for taken, end in model.successors(then) if taken == action]
    if not one or not two:
        return "one disables the other"
    return "" if one == two else "they lead to different states in different orders"


def _broken(model: Model[Any, Any], claim: Property, state: Any) -> int:
    """How many steps from `state` break the claim."""
    return sum(not ask(claim, claim.holds, state, action, after) for action, after in model.successors(state))


def rebuilt(value: Any) -> Any:
    """An equal value of new tuples and of frozen sets that were filled in another order."""
    kind = type(value)
    if kind is tuple:
        return tuple([rebuilt(part) for part in value])
    if kind is frozenset:
        return frozenset([rebuilt(part) for part in value][::-1])
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return kind._make([rebuilt(part) for part in value])
    if kind is int:
        return int(str(value))
    if kind is str and value:
        return "".join(list(value))
    return value


def _cause(model: Model[Any, Any], state: Any, one: list[Any], two: list[Any]) -> str:
    if _same_but_order(one, two):
        return "the order of a set whose members are made anew, or of something that the model remembers"
    kept = random.getstate()
    try:
        random.seed(0)
        three = list(model.successors(state))
        random.seed(0)
        four = list(model.successors(state))
    finally:
        random.setstate(kept)
    if three == four:
        return "chance (with the module `random` seeded, it does not differ)"
    return "a clock, `id()`, chance, or something that the model remembers from one call to the next"


def _same_but_order(one: list[Any], two: list[Any]) -> bool:
    rest = list(two)
    for found in one:
        if found not in rest:
            return False
        rest.remove(found)
    return not rest


def _differs(one: list[Any], two: list[Any]) -> Any:
    """The action at which the two lists first differ."""
    for left, right in zip(one, two, strict=False):
        if left != right:
            return left[0]
    longer = max(one, two, key=len)
    return longer[min(len(one), len(two))][0]
