"""The result of a check: a verdict for each property, with the path that breaks it, and the extent of the search."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple


class Outcome(str, Enum):
    """The outcome of checking a property. NOT_DECIDED is never a pass."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_DECIDED = "not decided"


class Step(NamedTuple):
    """One step of a path: the action, and the state to which it led."""

    action: Any
    state: Any


@dataclass(frozen=True)
class Path:
    """A run of a model: its initial state, and its steps.

    With `loop` set the run is a lasso: after the last step it is in the state before step `loop` (counted from 0) again, and
    repeats from there for ever.
    """

    initial: Any
    steps: tuple[Step, ...] = ()
    loop: int | None = None

    @property
    def last(self) -> Any:
        """The run's last state."""
        return self.steps[-1].state if self.steps else self.initial

    @property
    def actions(self) -> tuple[Any, ...]:
        """The actions of the steps, as `replay_actions` takes them."""
        return tuple(step.action for step in self.steps)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one property.

    If the property FAILS, `path` leads to the fault (None for "sometimes", which has nothing to show). If a "sometimes" HOLDS,
    `path` is the witness. `why` is one sentence.
    """

    name: str
    kind: str
    outcome: Outcome
    path: Path | None = None
    why: str = ""


@dataclass(frozen=True)
class Report:
    """The result of a check.

    `complete` says that every reachable state was seen; else `stopped_by` says what ended the search: "max_states",
    "max_depth", "seconds", "interrupted", "failure" (the search stopped at the first failure), "walks". `states` counts
    distinct states, `transitions` all steps taken, `depth` is that of the deepest state, `seconds` is the time elapsed.
    """

    model: str
    strategy: str
    verdicts: tuple[Verdict, ...]
    states: int
    transitions: int
    depth: int
    seconds: float
    complete: bool
    stopped_by: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """FAILS if any property fails, else NOT_DECIDED if any is undecided, else HOLDS. A model without properties HOLDS once
        all its states were seen."""
        found = {verdict.outcome for verdict in self.verdicts}
        if Outcome.FAILS in found:
            return Outcome.FAILS
        return Outcome.HOLDS if self.complete and Outcome.NOT_DECIDED not in found else Outcome.NOT_DECIDED

    def verdict(self, name: str) -> Verdict:
        """The verdict on the property `name`; `KeyError` if there is none."""
        for verdict in self.verdicts:
            if verdict.name == name:
                return verdict
        raise KeyError(name)
