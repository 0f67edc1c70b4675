"""Fewer states for the same verdicts: symmetry by a canonical form, and partial-order reduction by ample sets.

Symmetry keeps one state for all states that are equal up to an exchange of equal parts. It preserves every property that treats
those parts alike, but not fairness: the reduced graph no longer shows which of the parts waits.

Partial-order reduction follows one action alone, and puts all others off, if that changes no verdict. The conditions are
those of Clarke, Grumberg, Minea and Peled (1999), with sets of one action so that branching-time properties are
preserved too (Gerth, Kuiper, Peled and Penczek, 1999):

- C0: a state with actions keeps one.
- C1: all steps that are taken while the action is put off commute with it: `Model.independent`, asked about every other action.
- C2: no property sees the action. `Model.independent` promises that; the reduction checks it at the state itself too.
- C3: no action is put off for ever: the followed action must lead to a state that was not seen before. Each cycle of the
  reduced graph has a step to a state that was seen, so it has a state whose actions were all followed.
"""

from collections.abc import Container, Sequence
from typing import Any

from machines.checker.asking import ask
from machines.checker.model import Model, Property
from machines.checker.options import Options

_LOST_BY_SYMMETRY = ("leads_to",)
_LOST_BY_ORDER = ("leads_to", "always_step")


class AmpleSets:
    """Chooses one action that is enough to follow, if there is one."""

    def __init__(self, model: Model[Any, Any]) -> None:
        self._model = model
        self._claims = tuple(model.properties())

    def enough(self, state: Any, found: Sequence[tuple[Any, Any]], seen: Container[Any]) -> Sequence[tuple[Any, Any]]:
        """The first action that can be followed alone, else all."""
        independent = self._model.independent
        for place, (action, after) in enumerate(found):
            if after in seen:
                continue
            others = (other for at, (other, _) in enumerate(found) if at != place)
            if all(independent(state, action, other) for other in others) and not self._is_seen(state, action, after):
                return (found[place],)
        return found

    def _is_seen(self, before: Any, action: Any, after: Any) -> bool:
        return any(
            ask(claim, claim.holds, before) != ask(claim, claim.holds, after, action=action) for claim in self._claims
        )


def refuse_unsound(options: Options, properties: Sequence[Property]) -> None:
    """Raise `ValueError` for a reduction that could change the verdict on a property."""
    if options.symmetry and options.reduction:
        raise ValueError("symmetry and partial-order reduction together are not supported: choose one")
    if options.reduction and options.visited == "fingerprint":
        raise ValueError("partial-order reduction needs the exact visited set")
    lost = _LOST_BY_SYMMETRY if options.symmetry else _LOST_BY_ORDER if options.reduction else ()
    for claim in properties:
        if claim.kind in lost:
            way = "symmetry" if options.symmetry else "partial-order reduction"
            raise ValueError(f"{way} does not preserve {claim.kind}, as {claim.name!r} is: check it without")
