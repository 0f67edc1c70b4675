"""Models and their properties, as plain data and pure functions.

A model is a graph given by rules: initial states, the actions that a state enables, and the state to which an action leads.
States are immutable and hashable; equal states are one state. Actions are values too, and a model gives them in the same order
every time, so that a run is repeatable and the first counterexample always the same.

This package knows nothing of actors, calls or audio. `actors.model.actor_model` makes a model of actors.
"""

# ruff: noqa: ARG002  the base class does not use all arguments of the methods that models override

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S")
A = TypeVar("A")


Reading = Callable[[Sequence[Any]], Sequence[Hashable]]
"""Gives, for each of these states, the part that a property reads. For equal readings the property gives equal answers."""


class Property(NamedTuple):
    """A claim about a model; made by the functions below.

    `kind` is one of "always", "always_step", "sometimes", "can_always_reach", "leads_to", "no_deadlock". `holds` is the
    condition on a state, or on `(before, action, after)` for "always_step". `until` is the goal of "leads_to".

    With `reads` the search evaluates a condition only once, or once in a while, for each reading instead of each state, and an
    "always_step" for each pair of readings before and after, whatever the action. Properties that share one `reads` are
    evaluated together. Like states, readings are told apart by `==`.
    """

    kind: str
    name: str
    holds: Callable[..., bool]
    until: Callable[[Any], bool] | None = None
    reads: Reading | None = None


def always(name: str, holds: Callable[[Any], bool], *, reads: Reading | None = None) -> Property:
    """`holds(state)` in every reachable state."""
    return Property("always", name, holds, reads=reads)


def always_step(name: str, holds: Callable[[Any, Any, Any], bool], *, reads: Reading | None = None) -> Property:
    """`holds(before, action, after)` for every step from a reachable state, also for one that changes nothing."""
    return Property("always_step", name, holds, reads=reads)


def sometimes(name: str, holds: Callable[[Any], bool], *, reads: Reading | None = None) -> Property:
    """`holds(state)` in at least one reachable state: guards the other properties against passing vacuously."""
    return Property("sometimes", name, holds, reads=reads)


def can_always_reach(name: str, goal: Callable[[Any], bool], *, reads: Reading | None = None) -> Property:
    """From every reachable state some path leads to a state where `goal(state)`: the model never gets stuck."""
    return Property("can_always_reach", name, goal, reads=reads)


def leads_to(
    name: str, cause: Callable[[Any], bool], effect: Callable[[Any], bool], *, reads: Reading | None = None
) -> Property:
    """Whenever `cause(state)`, `effect(state)` then or later, on every fair path.

    A path is fair if no fair action (`Model.is_fair`) is enabled in all its states from some point on and never taken, and no
    strongly fair action (`Model.is_strongly_fair`) is enabled again and again and never taken. Taking an action that renews
    another (`Model.renews`) counts as taking the other too. A path may end where no fair action is enabled.
    """
    return Property("leads_to", name, cause, effect, reads)


def no_deadlock(name: str, may_end: Callable[[Any], bool] = lambda _: False) -> Property:
    """Every reachable state without actions satisfies `may_end(state)`."""
    return Property("no_deadlock", name, may_end)


class Happening(NamedTuple):
    """One line of a step in a sequence diagram.

    `kind`: "message" from `source` to `target`; "drop" and "duplicate", for a message that got lost or came twice; "timer",
    "crash", "restart", "spawn", "stop" and "note" at `source`. `text` labels the line. A participant's name includes its
    incarnation if there is more than one, as in "recorder#2".
    """

    kind: str
    source: str
    text: str
    target: str = ""


class Model(Generic[S, A]):
    """The base of every model: override `initial`, `actions` and `step`, and other methods as needed.

    Override `successors` if the model finds actions and states together more cheaply. Results must depend on the arguments
    alone: on no clock, no random number, no order of a set.
    """

    name: str = "model"

    one_process: bool = False
    """Whether states are only valid in this process, so that the search must use one process."""

    def initial(self) -> Iterable[S]:
        """The states in which a run can begin; at least one."""
        raise NotImplementedError

    def actions(self, state: S) -> Iterable[A]:
        """The actions that are enabled in `state`, in an order that is always the same."""
        raise NotImplementedError

    def step(self, state: S, action: A) -> S | None:
        """The state to which `action` leads from `state`; None if the action turns out to be impossible."""
        raise NotImplementedError

    def successors(self, state: S) -> Sequence[tuple[A, S]]:
        """Every enabled action with the state that it leads to."""
        step = self.step
        found = ((action, step(state, action)) for action in self.actions(state))
        return [(action, after) for action, after in found if after is not None]

    def properties(self) -> Sequence[Property]:
        """The properties that the model claims."""
        return ()

    def doubts(self) -> Mapping[str, str]:
        """The properties, by name, that were about nothing in all states of a finished search, and why.

        After a complete search such a property is not decided, unless it fails. Raises `ModelError` if the model finds that its
        states can't be trusted.
        """
        return {}

    # --- what reductions need; each is optional -----------------------------------------------------------------------

    def canonical(self, state: S) -> S:
        """The state that stands for all states that equal `state` up to symmetry. Properties must not tell these apart."""
        return state

    def independent(self, state: S, action: A, other: A) -> bool:
        """Whether `action` may be taken before `other` and before all steps behind `other`, without changing any verdict.

        True is a promise about every run from `state` that begins with `other` and puts `action` off: each step of the run
        leaves `action` enabled and leads to the same state whether it comes before or after `action`, and `action` changes the
        truth of no property of states wherever it is taken. It is not enough that the two commute in `state`: actions that
        `other` enables must commute with `action` too. Only asked with partial-order reduction on; both are enabled in
        `state`.
        """
        return False

    def is_fair(self, action: A) -> bool:
        """Whether an action that stays enabled is taken in the end: weak fairness, for `leads_to`."""
        return True

    def is_strongly_fair(self, action: A) -> bool:
        """Whether an action that is enabled again and again is taken in the end, even if it is disabled in between: strong
        fairness, for `leads_to`. Strong fairness includes weak fairness: `is_fair` need not say so too."""
        return False

    def renews(self, state: S, action: A) -> Iterable[A]:
        """The actions that `action`, taken in `state`, withdraws or begins anew: a timer that it arms again, say.

        For fairness they count as taken, since their waiting begins anew. Only asked for `leads_to`, about steps of cycles.
        """
        return ()

    def owner(self, action: A) -> str:
        """The owner of the action, to which priority-based walks give a priority: an actor's name, say."""
        return str(action)

    # --- what reports show ----------------------------------------------------------------------------------------

    def configuration(self) -> Mapping[str, Any]:
        """The model's arguments: sizes, schedule, fault budget. Shown at the head of a counterexample."""
        return {}

    def fields(self, state: S) -> Mapping[str, Any]:
        """The parts of `state` by name, so that a report can say which parts a step changed."""
        return {"state": state}

    def label(self, action: A) -> str:
        """The action in one line of text."""
        return str(action)

    def happenings(self, before: S, action: A, after: S) -> Sequence[Happening]:
        """The lines of a step in a sequence diagram."""
        return [Happening("note", self.name, self.label(action))]

    def pending(self, state: S) -> Mapping[str, Sequence[str]]:
        """The messages that wait in each mailbox or channel in `state`; shown at the end of a counterexample."""
        return {}


class ModelError(Exception):
    """A model that can't be checked. `state` and `action` show where the search noticed; either may be None.

    With `model` the error's text names fields and labels as the model's reports do; without, it shows plain values."""

    def __init__(
        self, problem: str, *, state: Any = None, action: Any = None, model: "Model[Any, Any] | None" = None
    ) -> None:
        super().__init__(problem)
        self.state = state
        self.action = action
        self.model = model

    def state_text(self, state: Any) -> str:
        """A state as the error's text shows it."""
        fields = {"state": state} if self.model is None else self.model.fields(state)
        if [*fields] == ["state"]:
            return repr(fields["state"])
        return "{" + ", ".join([f"{name}: {value!r}" for name, value in fields.items()]) + "}"

    def action_text(self, action: Any) -> str:
        """An action as the error's text shows it."""
        model = self.model
        return repr(action) if model is None or type(model).label is Model.label else model.label(action)

    def __str__(self) -> str:
        where = "" if self.state is None else f"; in the state {self.state_text(self.state)}"
        return (
            super().__str__()
            + where
            + ("" if self.action is None else f"; at the action {self.action_text(self.action)}")
        )


class NoInitialState(ModelError):
    """The model gives no initial state."""


class UnhashableState(ModelError):
    """A state can't be hashed, so the search can't recognize it."""


class NotRepeatable(ModelError):
    """The same state gave other actions, or the same action another state, when the model was asked again. The text names the
    usual causes: the order of a set, `id()`, a clock, chance."""


class PropertyRaised(ModelError):
    """A property raised an error, the cause of this one, instead of answering."""


class PropertyMisread(ModelError):
    """A property looks at more of a state than its `Property.reads` gives, so it can't be asked once for each reading."""


class NotSymmetric(ModelError):
    """The canonical form merges two states that do not go on alike: `state` and `other`, its canonical form. From one of them
    `action` leads to a state that no step from the other leads to, also up to symmetry."""

    def __init__(self, model: "Model[Any, Any]", state: Any, other: Any, action: Any) -> None:
        problem = (
            "the canonical form puts states together that do not go on alike: an action leads from one of them to what nothing "
            "leads to from the other"
        )
        super().__init__(problem, state=state, action=action, model=model)
        self.other = other

    def __str__(self) -> str:
        return f"{super().__str__()}; its canonical form is {self.state_text(self.other)}"


class NotIndependent(ModelError):
    """Two actions are not independent in `state`, though the model says so: `action` may not be put off behind `other`."""

    def __init__(self, model: "Model[Any, Any]", problem: str, state: Any, action: Any, other: Any) -> None:
        super().__init__(problem, state=state, action=action, model=model)
        self.other = other

    def __str__(self) -> str:
        return f"{super().__str__()}, beside {self.action_text(self.other)}"
