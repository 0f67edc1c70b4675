"""What can be checked: a model and its properties, as plain data and pure functions.

A model is a graph given by rules: initial states, the actions that a state enables, and the state that an action leads to.
States are immutable and hashable; two that are equal are one. Actions are values too, and come in the same order whenever
they are asked for, so that a run is repeatable and its first counterexample always the same.

This package knows nothing of actors, calls or audio. `actors.model.actor_model` makes a model of actors.
"""

# ruff: noqa: ARG002  what a method is given is told, also where the base has no use for it

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S")
A = TypeVar("A")


Reading = Callable[[Sequence[Any]], Sequence[Hashable]]
"""What a property reads of each of these states. Where it reads the same, it answers the same."""


class Property(NamedTuple):
    """What is claimed of a model; made by the functions below.

    `kind` is one of "always", "always_step", "sometimes", "can_always_reach", "leads_to", "no_deadlock". `holds` is the
    condition: of a state, or of `(before, action, after)` for "always_step". `until` is the goal of "leads_to".

    With `reads` the conditions need not be asked of every state: only once, or once in a while, for each reading, and an
    "always_step" for each pair of readings before and after, whatever the action. Properties that share one `reads` are asked
    together. Like states, readings are told apart by `==`.
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
    """From every reachable state some path leads to a state where `goal(state)`: nothing is ever wedged."""
    return Property("can_always_reach", name, goal, reads=reads)


def leads_to(
    name: str, cause: Callable[[Any], bool], effect: Callable[[Any], bool], *, reads: Reading | None = None
) -> Property:
    """Whenever `cause(state)`, `effect(state)` then or later, on every fair path.

    A path is fair if no fair action (`Model.is_fair`) is enabled in all its states from some point on and never taken, and no
    strongly fair one (`Model.is_strongly_fair`) is enabled again and again and never taken. Taking an action that renews
    another one (`Model.renews`) counts as taking that one too. A path may end where nothing is enabled that is fair.
    """
    return Property("leads_to", name, cause, effect, reads)


def no_deadlock(name: str, may_end: Callable[[Any], bool] = lambda _: False) -> Property:
    """Every reachable state without actions satisfies `may_end(state)`."""
    return Property("no_deadlock", name, may_end)


class Happening(NamedTuple):
    """One line of a step as a sequence diagram shows it.

    `kind`: "message" from `source` to `target`; "drop" and "duplicate", the same of a message that got lost or came twice;
    "timer", "crash", "restart", "spawn", "stop" and "note" at `source`. `text` is what is written there. A participant's
    name includes its incarnation where there is more than one, as "recorder#2".
    """

    kind: str
    source: str
    text: str
    target: str = ""


class Model(Generic[S, A]):
    """The base of every model: override `initial`, `actions` and `step`, and whatever else is known.

    `successors` may be overridden where states and actions are found together more cheaply. What is given must not depend on
    anything but the arguments: no clock, no chance, no order of a set.
    """

    name: str = "model"

    one_process: bool = False
    """Whether a state means nothing in another process, so that the search has to stay in this one."""

    def initial(self) -> Iterable[S]:
        """The states that a run can begin in; at least one."""
        raise NotImplementedError

    def actions(self, state: S) -> Iterable[A]:
        """The actions that are enabled in `state`, in an order that is always the same."""
        raise NotImplementedError

    def step(self, state: S, action: A) -> S | None:
        """The state that `action` leads to from `state`; None when it turns out to lead nowhere."""
        raise NotImplementedError

    def successors(self, state: S) -> Sequence[tuple[A, S]]:
        """Every enabled action with the state that it leads to."""
        step = self.step
        found = ((action, step(state, action)) for action in self.actions(state))
        return [(action, after) for action, after in found if after is not None]

    def properties(self) -> Sequence[Property]:
        """What is claimed of this model."""
        return ()

    def doubts(self) -> Mapping[str, str]:
        """Asked when a search is over: the properties, by name, that were about nothing in any state that was met, and why.

        When every reachable state was seen, one that does not fail is then not decided, whatever it answered. Raises
        `ModelError` where it turns out that the states can't be trusted.
        """
        return {}

    # --- what reductions need; each is optional -----------------------------------------------------------------------

    def canonical(self, state: S) -> S:
        """One state that stands for all that are the same up to symmetry. Properties must not tell them apart."""
        return state

    def independent(self, state: S, action: A, other: A) -> bool:
        """Whether `action` may be taken before `other` and all that may come of it, and nobody can tell.

        True promises of every run from `state` that begins with `other` and puts `action` off: each of its steps leaves
        `action` enabled, leads to the same state whether it comes before or after `action`, and `action` changes the truth
        of no property of states wherever it is taken. That the two commute in `state` alone is not enough: what `other`
        enables must commute with `action` too. Only ever asked with partial-order reduction on; both are enabled in `state`.
        """
        return False

    def is_fair(self, action: A) -> bool:
        """Whether an action that stays enabled is taken in the end: weak fairness, for `leads_to`."""
        return True

    def is_strongly_fair(self, action: A) -> bool:
        """Whether an action that is enabled again and again is taken in the end, even if it is disabled in between: strong
        fairness, for `leads_to`. What is strongly fair need not be said to be fair too."""
        return False

    def renews(self, state: S, action: A) -> Iterable[A]:
        """The actions that `action`, taken in `state`, withdraws or begins anew: a timer that it arms again, say.

        For fairness it is as if they had been taken, since what waits for them waits from the beginning again. Asked for
        `leads_to` alone, of steps of circles.
        """
        return ()

    def owner(self, action: A) -> str:
        """Who takes the action; priority-based walks give their priorities to owners."""
        return str(action)

    # --- what reports show ----------------------------------------------------------------------------------------

    def configuration(self) -> Mapping[str, Any]:
        """What this model was made with: sizes, schedule, fault budget. Shown at the head of a counterexample."""
        return {}

    def fields(self, state: S) -> Mapping[str, Any]:
        """The parts of `state` by name, so that a report can say which of them a step changed."""
        return {"state": state}

    def label(self, action: A) -> str:
        """One line that says what the action is."""
        return str(action)

    def happenings(self, before: S, action: A, after: S) -> Sequence[Happening]:
        """What a step looks like in a sequence diagram."""
        return [Happening("note", self.name, self.label(action))]

    def pending(self, state: S) -> Mapping[str, Sequence[str]]:
        """What waits in each mailbox or channel in `state`; shown at the end of a counterexample."""
        return {}


class ModelError(Exception):
    """A model that can't be checked. `state` and `action` are where it was noticed, None where there is none.

    Where these are a state and an action of `model`, the text names fields and labels as its reports do; else it has them as
    they are."""

    def __init__(
        self, problem: str, *, state: Any = None, action: Any = None, model: "Model[Any, Any] | None" = None
    ) -> None:
        super().__init__(problem)
        self.state = state
        self.action = action
        self.model = model

    def state_text(self, state: Any) -> str:
        """A state as the error's text has it."""
        fields = {"state": state} if self.model is None else self.model.fields(state)
        if [*fields] == ["state"]:
            return repr(fields["state"])
        return "{" + ", ".join([f"{name}: {value!r}" for name, value in fields.items()]) + "}"

    def action_text(self, action: Any) -> str:
        """An action as the error's text has it."""
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
    """A state can't be hashed, so it can't be known again."""


class NotRepeatable(ModelError):
    """The same state gave other actions, or the same action another state, when asked again. The text names what that
    usually comes from: the order of a set, `id()`, a clock, chance."""


class PropertyRaised(ModelError):
    """A property raised an error instead of answering; it is the cause of this one."""


class PropertyMisread(ModelError):
    """A property looks at more of a state than it reads (`Property.reads`): it can't be asked once for each reading."""


class NotSymmetric(ModelError):
    """The canonical form puts two states together that do not go on alike: `state` and `other`, its canonical form. What
    `action` leads to from one of them, nothing leads to from the other, also up to symmetry."""

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
