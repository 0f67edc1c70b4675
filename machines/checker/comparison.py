"""Self-tests of a model's claims for reductions: on a small instance, is each reduced verdict the full one?

assert not compare(TwoPhaseCommit(3), symmetry=True).differences
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from machines.checker.asking import ask
from machines.checker.checking import check
from machines.checker.model import Model
from machines.checker.result import Report
from machines.checker.selfcheck import dependence


class Comparison(NamedTuple):
    """A full and a reduced search of one model; `differences` has a sentence for each verdict that differs."""

    full: Report
    reduced: Report
    differences: tuple[str, ...]


class FalseClaim(NamedTuple):
    """Two actions that a model wrongly calls independent in `state`, and why they are not."""

    state: Any
    action: Any
    other: Any
    why: str


def compare(
    model: Model[Any, Any], *, symmetry: bool = False, reduction: bool = False, max_states: int = 100_000
) -> Comparison:
    """Check `model` twice, in full and with these reductions, and compare every verdict.

    The reduced search runs without `check`'s self-check, which would refuse the model before its verdicts could be compared.
    Raises `ValueError` if the full search does not end within `max_states`: take a smaller instance. Also raises the errors of
    `check`.
    """
    full = check(model, max_states=max_states)
    if not full.complete and full.stopped_by != "failure":
        raise ValueError(f"{model.name} has more than {max_states} states: compare on a smaller instance")
    reduced = check(model, symmetry=symmetry, reduction=reduction, self_check=False)
    return Comparison(full, reduced, tuple(_differences(full, reduced)))


def false_independence(model: Model[Any, Any], *, max_states: int = 10_000) -> FalseClaim | None:
    """A pair of actions that `Model.independent` wrongly calls independent; None if none is found.

    Looks at every pair enabled in each of the first `max_states` states: whether one disables the other, whether the two lead
    to the same state in either order, whether a property sees the first. It does not look at steps after `other`; `compare`
    does, by their effect on the verdicts.
    """
    claims = [claim for claim in model.properties() if claim.kind != "always_step"]
    seen = dict.fromkeys(model.initial())
    queue = list(seen)
    for state in queue:
        found = list(model.successors(state))
        for one, (action, after) in enumerate(found):
            for two, (other, _) in enumerate(found):
                if one != two and model.independent(state, action, other):
                    why = dependence(model, action, after, other, found[two][1])
                    if not why and any(
                        ask(claim, claim.holds, state) != ask(claim, claim.holds, after, action=action)
                        for claim in claims
                    ):
                        why = "a property sees the first one"
                    if why:
                        return FalseClaim(state, action, other, why)
            if after not in seen and len(seen) < max_states:
                seen[after] = None
                queue.append(after)
    return None


def _differences(full: Report, reduced: Report) -> Iterator[str]:
    for verdict in full.verdicts:
        other = reduced.verdict(verdict.name)
        if verdict.outcome is not other.outcome:
            yield f"{verdict.name}: {verdict.outcome.value} in full, {other.outcome.value} reduced"
    if reduced.states > full.states:
        yield f"more states reduced ({reduced.states}) than in full ({full.states})"
