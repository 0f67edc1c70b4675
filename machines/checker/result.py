"""What a check found: a verdict for each property, with the path that breaks it, and how far the search went."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple


class Outcome(str, Enum):
    """What is known of a property. NOT_DECIDED is never a pass."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_DECIDED = "not decided"


class Step(NamedTuple):
    """One step of a path: the action, and the state that it led to."""

    action: Any
    state: Any


@dataclass(frozen=True)
class Path:
    """A run of a model: where it began, and its steps.

    With `loop` set it is a lasso: after the last step the run is in the state before step `loop` (counted from 0) again, and
    goes round for ever.
    """

    initial: Any
    steps: tuple[Step, ...] = ()
    loop: int | None = None

    @property
    def last(self) -> Any:
        """The state in which it ends."""
        return self.steps[-1].state if self.steps else self.initial

    @property
    def actions(self) -> tuple[Any, ...]:
        """The actions alone: what a replay needs."""
        return tuple(step.action for step in self.steps)


@dataclass(frozen=True)
class Verdict:
    """What is known of one property.

    `path` leads to the fault where it FAILS ("sometimes" has none: there is nothing to show); for a "sometimes" that HOLDS
    it is the witness. `why` is one sentence.
    """

    name: str
    kind: str
    outcome: Outcome
    path: Path | None = None
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found.

    `complete` is True when every reachable state was seen; else `stopped_by` says what ended the search: "max_states",
    "max_depth", "seconds", "interrupted", "failure" (a property failed, and the search does not go on after that), "walks".
    `states` are distinct ones, `transitions` all steps taken, `depth` that of the deepest state, `seconds` elapsed.
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
        """FAILS if any property does, else NOT_DECIDED if any is not, else HOLDS. A model without properties is decided by
        having been explored completely."""
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
