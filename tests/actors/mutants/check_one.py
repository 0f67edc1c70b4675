"""Check a model, and say what became of its properties; runs in a process of `tests.actors.fresh`."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

MAX_STATES = 50_000
"""More than any of the models has without a patch: a patch may make a model endless."""


def answer(arguments: dict[str, Any], only: Sequence[str] = ()) -> dict[str, Any]:
    """The verdicts on the model that `arguments` ask for: what `voice_model` is called with, or what `of` names instead, as
    "module:function". The search ends as soon as a property fails; of the `only` ones, if there are any, all are told.

    The answer has `outcomes` by property, `paths`: the number of steps of each counterexample, `states`, and `error`: what
    kept the model from being checked, "" if nothing did.
    """
    # A patch may be such that the modules can't even be loaded; that is an answer too.
    try:
        from actors.model.parts import Faults  # noqa: PLC0415
        from machines.checker import check  # noqa: PLC0415

        module, function = arguments.pop("of", "actors.voice_lab.model:voice_model").split(":")
        faults = dict(arguments.pop("faults", {}))
        if "actors" in faults:
            faults["actors"] = frozenset(faults["actors"])
        if faults:
            arguments["faults"] = Faults(**faults)
        model = getattr(import_module(module), function)(**arguments)
        if only:
            asked = [claim for claim in model.properties() if claim.name in only]
            vars(model)["properties"] = lambda: asked
        report = check(model, max_states=MAX_STATES, stop_at_first=not only)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the patch did
        return {"outcomes": {}, "paths": {}, "states": 0, "error": f"{type(error).__name__}: {error}"}
    outcomes: dict[str, str] = {}
    paths: dict[str, int] = {}
    for verdict in report.verdicts:
        if outcomes.get(verdict.name) != "fails":  # some promises are claimed once for each session
            outcomes[verdict.name] = verdict.outcome.value
        if verdict.outcome.value == "fails" and verdict.path is not None:
            paths[verdict.name] = len(verdict.path.steps)
    return {"outcomes": outcomes, "paths": paths, "states": report.states, "error": ""}
