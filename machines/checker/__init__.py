"""An explicit-state model checker. It knows nothing of actors, calls or audio, and writes only to a folder that its caller
gives.

    report = check(model)
    assert report.outcome is Outcome.HOLDS

States are told apart by `==`: `True` and `1` are one state, and so are two NamedTuples of different classes with equal fields.
Put a name or an enum into states whose kinds must not be confused.

A name's module is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from machines.facade import facade

if TYPE_CHECKING:
    from machines.checker.checking import check
    from machines.checker.model import (
        Happening,
        Model,
        ModelError,
        NoInitialState,
        NotIndependent,
        NotRepeatable,
        NotSymmetric,
        Property,
        PropertyMisread,
        PropertyRaised,
        UnhashableState,
        always,
        always_step,
        can_always_reach,
        leads_to,
        no_deadlock,
        sometimes,
    )
    from machines.checker.options import Progress
    from machines.checker.packed import Layout, PackedModel, Rule
    from machines.checker.replaying import minimise, replay, replay_actions
    from machines.checker.result import Outcome, Path, Report, Step, Verdict

_HOMES = {
    "Happening": "model",
    "Layout": "packed",
    "Model": "model",
    "ModelError": "model",
    "NoInitialState": "model",
    "NotIndependent": "model",
    "NotRepeatable": "model",
    "NotSymmetric": "model",
    "Outcome": "result",
    "PackedModel": "packed",
    "Path": "result",
    "Progress": "options",
    "Property": "model",
    "PropertyMisread": "model",
    "PropertyRaised": "model",
    "Report": "result",
    "Rule": "packed",
    "Step": "result",
    "UnhashableState": "model",
    "Verdict": "result",
    "always": "model",
    "always_step": "model",
    "can_always_reach": "model",
    "check": "checking",
    "leads_to": "model",
    "minimise": "replaying",
    "no_deadlock": "model",
    "replay": "replaying",
    "replay_actions": "replaying",
    "sometimes": "model",
}

__all__ = [
    "Happening",
    "Layout",
    "Model",
    "ModelError",
    "NoInitialState",
    "NotIndependent",
    "NotRepeatable",
    "NotSymmetric",
    "Outcome",
    "PackedModel",
    "Path",
    "Progress",
    "Property",
    "PropertyMisread",
    "PropertyRaised",
    "Report",
    "Rule",
    "Step",
    "UnhashableState",
    "Verdict",
    "always",
    "always_step",
    "can_always_reach",
    "check",
    "leads_to",
    "minimise",
    "no_deadlock",
    "replay",
    "replay_actions",
    "sometimes",
]

__getattr__, __dir__ = facade(__name__, _HOMES)
