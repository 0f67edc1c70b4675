"""A model for hypothesis: its rules are the model's actions, its invariants the model's `always` properties.

hypothesis is imported when `state_machine` is called, since only tests have it.
"""

from typing import TYPE_CHECKING, Any

from machines.checker.asking import ask, asking_of
from machines.checker.model import Model, Property

if TYPE_CHECKING:
    from hypothesis.stateful import RuleBasedStateMachine


def state_machine(model: Model[Any, Any]) -> "type[RuleBasedStateMachine]":
    """A `RuleBasedStateMachine` that walks through `model`: it draws an initial state, then one enabled action after the
    other. `always` properties are invariants; `always_step` and `no_deadlock` are asserted at each step too. The other kinds
    are about all paths, and a walk can't decide them.

    Use it like any other: `TestProtocol = state_machine(Protocol()).TestCase`, or `run_state_machine_as_test`. Needs
    hypothesis.
    """
    from hypothesis import note  # noqa: PLC0415 - not there outside of tests
    from hypothesis import strategies as st  # noqa: PLC0415
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule  # noqa: PLC0415

    always = [it for it in model.properties() if it.kind == "always"]
    steps = [it for it in model.properties() if it.kind == "always_step"]
    ends = [it for it in model.properties() if it.kind == "no_deadlock"]

    class ModelMachine(RuleBasedStateMachine):
        """One walk; `state` is its current state."""

        state: Any = None

        @initialize(data=st.data())
        def begin(self, data: Any) -> None:
            """Draw an initial state."""
            self.state = data.draw(st.sampled_from(list(model.initial())), label="initial state")

        @rule(data=st.data())
        def take(self, data: Any) -> None:
            """Draw one of the enabled actions and take it; the walk stays if there is none."""
            successors = model.successors(self.state)
            if not successors:
                for claim in ends:
                    _assert(model, claim, self.state)
                return
            action, after = successors[data.draw(st.integers(0, len(successors) - 1), label="action")]
            note(f"action: {model.label(action)}")
            for claim in steps:
                _assert(model, claim, self.state, action, after)
            self.state = after

        @invariant()
        def always_holds(self) -> None:
            """Assert every `always` property in the current state."""
            for claim in always:
                _assert(model, claim, self.state)

    ModelMachine.__name__ = ModelMachine.__qualname__ = f"{type(model).__name__}Machine"
    return ModelMachine


def _assert(model: Model[Any, Any], claim: Property, *of: Any) -> None:
    with asking_of(model):
        holds = ask(claim, claim.holds, *of)
    if not holds:
        raise AssertionError(f"{claim.kind} {claim.name!r} does not hold: {of[-1]!r}")
