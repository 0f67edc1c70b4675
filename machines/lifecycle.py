"""State machines: declared as data, checked when they are built, and fired.

A machine is data: its states, its moves and its final state. `Lifecycle` builds one `transitions.Machine` from that data,
shared by every model, with no automatic transitions (they would legalise every jump) and no registered models (each would
cost 5 KB and a linear scan). `Lifecycle` fires a move on a throw-away carrier with one slot. So the product runs the
`transitions` machine itself, and a session keeps nothing but its state.

At construction the machine is linted: every state can be reached from the initial one, no state but a final one is a trap,
and no move leaves a final state. `transitions` itself would only notice when such a move is fired.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from transitions import Machine, MachineError

S = TypeVar("S", bound=str)


class Move(NamedTuple, Generic[S]):
    """One legal move: `trigger` takes a machine from `source` to `dest`; `why` is the sentence shown in diagrams."""

    trigger: str
    source: S
    dest: S
    why: str


class LifecycleError(Exception):
    """A machine's declaration is wrong; raised when the machine is built, at import."""


class IllegalMove(ValueError):
    """A trigger was fired in a state that has no such move. Nothing was changed.

    `machine`, `state` and `trigger` name the attempt; `legal` lists the triggers of that state.
    """

    def __init__(self, machine: str, state: str, trigger: str, legal: tuple[str, ...]) -> None:
        super().__init__(f"{machine}: no move {trigger!r} from {state!r}; legal there: {', '.join(legal) or 'none'}")
        self.machine = machine
        self.state = state
        self.trigger = trigger
        self.legal = legal


class _Carrier:
    """The model on which a move is fired: it holds a state during one call."""

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


class Lifecycle(Generic[S]):
    """A state machine declared as data, built once and shared.

    `machine` is the `transitions.Machine`; `table` is `{(state, trigger): state}`, compiled from it. Both are read-only by
    convention; `fire` is the only way to move. `deadlines` names, for a state that must not last, the trigger that its
    deadline fires: the program that runs the machine arms a timer on entering that state.

    Raises `LifecycleError` if a state is unreachable, a trap, or a final state can be left.
    """

    __slots__ = (
        "_fired",
        "_states",
        "_texts",
        "deadlines",
        "final",
        "initial",
        "machine",
        "moves",
        "name",
        "states",
        "table",
    )

    def __init__(
        self,
        name: str,
        *,
        states: Iterable[S],
        initial: S,
        final: Iterable[S],
        moves: Iterable[Move[S]],
        deadlines: Mapping[S, str] | None = None,
    ) -> None:
        self.name = name
        self.states = tuple(states)
        self.initial = initial
        self.final = frozenset(final)
        self.moves = tuple(moves)
        self.deadlines: Mapping[S, str] = MappingProxyType(dict(deadlines or {}))
        self._lint()
        self._fired: dict[tuple[S, str], S] = {}
        self._texts = {state: _text(state) for state in self.states}
        self._states = {text: state for state, text in self._texts.items()}
        self.machine = Machine(
            model=None,
            states=list(self._states),
            initial=_text(initial),
            auto_transitions=False,
            transitions=[[move.trigger, _text(move.source), _text(move.dest)] for move in self.moves],
        )
        self.table: Mapping[tuple[S, str], S] = MappingProxyType(self._compiled())

    def fire(self, state: S, trigger: str) -> S:
        """The state to which `trigger` leads from `state`, by the shipped `transitions` machine.

        Each move is fired on the machine once, and its answer remembered: the machine has neither callbacks nor conditions,
        so the answer can't change, and a move of the machine costs eight times as much as all else in a step. Raises
        `IllegalMove` if the state has no such move.
        """
        dest = self._fired.get((state, trigger))
        if dest is not None:
            return dest
        carrier = _Carrier(self._texts[state])
        event = self.machine.events.get(trigger)
        try:
            if event is None or not event.trigger(carrier):
                raise IllegalMove(self.name, _text(state), trigger, self.legal(state))
        except MachineError:
            raise IllegalMove(self.name, _text(state), trigger, self.legal(state)) from None
        dest = self._fired[state, trigger] = self._states[carrier.state]
        return dest

    def legal(self, state: S) -> tuple[str, ...]:
        """The triggers of `state`, in the order of the declaration."""
        return tuple(move.trigger for move in self.moves if move.source == state)

    def _compiled(self) -> dict[tuple[S, str], S]:
        table: dict[tuple[S, str], S] = {}
        for trigger, event in self.machine.events.items():
            for source, transitions in event.transitions.items():
                for transition in transitions:
                    table[self._states[source], trigger] = self._states[str(transition.dest)]
        return table

    def _lint(self) -> None:
        known = set(self.states)
        if len(known) != len(self.states):
            raise LifecycleError(f"{self.name}: a state is declared twice")
        if self.initial not in known or not self.final <= known:
            raise LifecycleError(f"{self.name}: the initial or a final state is not declared")
        seen: set[tuple[S, str]] = set()
        for move in self.moves:
            if move.source not in known or move.dest not in known:
                raise LifecycleError(f"{self.name}: {move.trigger!r} names a state that is not declared")
            if move.source in self.final:
                raise LifecycleError(f"{self.name}: {move.trigger!r} leaves the final state {move.source!r}")
            if (move.source, move.trigger) in seen:
                raise LifecycleError(f"{self.name}: {move.trigger!r} is declared twice from {move.source!r}")
            seen.add((move.source, move.trigger))
        for state, trigger in self.deadlines.items():
            if (state, trigger) not in seen:
                raise LifecycleError(
                    f"{self.name}: the deadline of {state!r} fires {trigger!r}, which is no move from there"
                )
        unreachable = known - self._closure({self.initial}, backward=False)
        if unreachable:
            raise LifecycleError(f"{self.name}: never reached: {', '.join(sorted(map(_text, unreachable)))}")
        traps = known - self._closure(set(self.final), backward=True)
        if traps:
            raise LifecycleError(f"{self.name}: no way to the end from: {', '.join(sorted(map(_text, traps)))}")

    def _closure(self, start: set[S], *, backward: bool) -> set[S]:
        found = set(start)
        while True:
            more = {
                (move.source if backward else move.dest)
                for move in self.moves
                if (move.dest if backward else move.source) in found
            } - found
            if not more:
                return found
            found |= more


def _text(state: str) -> str:
    """The plain value of a state, whether it is a string or a string enum."""
    return str(getattr(state, "value", state))
