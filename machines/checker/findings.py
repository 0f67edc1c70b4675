"""The properties during a search: which are settled, and by which state.

Properties are asked about states in batches, as these are found: a loop in C over a batch costs a third of one in Python.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, filterfalse
from typing import Any, Final, NamedTuple

from machines.checker.asking import raised
from machines.checker.model import Property, PropertyRaised, Reading
from machines.checker.readings import MOST_MARKED, StateReadings, StepReadings

_NOTHING: Final = object()


class StepFound(NamedTuple):
    """The step at which an `always_step` failed: by `action` to `after`, from the state with this number."""

    number: int
    action: Any
    after: Any


class Findings:
    """The findings on each property so far, by the property's place.

    `failed` has the number of a state that breaks "always" or "no_deadlock", `failed_step` the step that breaks "always_step",
    `witness` the number of a state that shows "sometimes". `marks` has a byte for each state: whether it is a goal, for
    "can_always_reach"; `causes` and `effects` have the same for "leads_to".
    """

    def __init__(
        self, properties: Sequence[Property], last_action: Callable[[int], Any], *, self_check: bool = False
    ) -> None:
        self._self_check = self_check
        self.properties = tuple(properties)
        self.failed: dict[int, int] = {}
        self.failed_step: dict[int, StepFound] = {}
        self.witness: dict[int, int] = {}
        self._last_action = last_action
        self._open = {kind: dict[int, Property]() for kind in ("always", "always_step", "sometimes", "no_deadlock")}
        self.marks: dict[int, bytearray] = {}
        self.causes: dict[int, bytearray] = {}
        self.effects: dict[int, bytearray] = {}
        self._of_states: dict[Reading, list[StateReadings]] = {}
        self._of_steps: dict[Reading, StepReadings] = {}
        for place, claim in enumerate(self.properties):
            if claim.kind in self._open:
                self._open[claim.kind][place] = claim
            elif claim.kind == "can_always_reach":
                self.marks[place] = bytearray()
            elif claim.kind == "leads_to" and claim.until is not None:
                self.causes[place], self.effects[place] = bytearray(), bytearray()
            else:
                raise ValueError(f"the property {claim.name!r} is of no kind that there is: {claim.kind!r}")
            if claim.reads is not None:
                self._ask_by_reading(place, claim)

    def _ask_by_reading(self, place: int, claim: Property) -> None:
        if claim.reads is None or claim.kind == "no_deadlock":
            return
        if claim.kind == "always_step":
            self._of_steps.setdefault(claim.reads, StepReadings(claim, again=self._self_check)).claims[place] = claim
            return
        alike = self._of_states.setdefault(claim.reads, [StateReadings(claim, again=self._self_check)])
        if len(alike[-1].marked) + 2 > MOST_MARKED:
            alike.append(StateReadings(claim, again=self._self_check))
        readings = alike[-1]
        if place in self.marks:
            readings.marked.append((claim, claim.holds, self.marks[place]))
        elif claim.until is not None:
            readings.marked.append((claim, claim.holds, self.causes[place]))
            readings.marked.append((claim, claim.until, self.effects[place]))
        else:
            readings.claims[place] = claim

    @property
    def needs_edges(self) -> bool:
        """Whether a property can only be decided on the whole graph."""
        return bool(self.marks or self.causes)

    @property
    def open_steps(self) -> dict[int, Property]:
        """Every "always_step" that has not failed yet."""
        return self._open["always_step"]

    @property
    def single_steps(self) -> dict[int, Property]:
        """The properties of `open_steps` that must be asked of each step by itself."""
        return {place: claim for place, claim in self.open_steps.items() if claim.reads is None}

    @property
    def has_failed(self) -> bool:
        """Whether any property is known to fail."""
        return bool(self.failed or self.failed_step)

    @property
    def is_settled(self) -> bool:
        """Whether a property failed and no other can be decided any more."""
        return self.has_failed and not self.needs_edges and not any(self._open.values())

    def look(self, states: Sequence[Any], first: int) -> None:
        """Ask the properties about new states, of which the first has the number `first`."""
        for place, claim in [*self._open["always"].items()]:
            at = None if claim.reads is not None else self._first(claim, states, first, wanted=False)
            if at is not None:
                self._settle(place, at)
        for place, claim in [*self._open["sometimes"].items()]:
            at = None if claim.reads is not None else self._first(claim, states, first, wanted=True)
            if at is not None:
                self._settle(place, at)
        for place, marks in self.marks.items():
            if self.properties[place].reads is None:
                marks.extend(self._all(self.properties[place], self.properties[place].holds, states, first))
        for place in self.causes:
            claim = self.properties[place]
            if claim.reads is None and claim.until is not None:
                self.causes[place].extend(self._all(claim, claim.holds, states, first))
                self.effects[place].extend(self._all(claim, claim.until, states, first))
        for readings in chain.from_iterable(self._of_states.values()):
            settled = readings.look(states, lambda *what: self._raised_at(*what, states=states, first=first))
            for place, at in settled.items():
                self._settle(place, first + at)

    def _settle(self, place: int, number: int) -> None:
        """Note that the state with this number breaks an "always" or shows a "sometimes"."""
        kind = self.properties[place].kind
        (self.failed if kind == "always" else self.witness)[place] = number
        del self._open[kind][place]

    def look_at_steps(self, states: Sequence[Any], found: Sequence[Sequence[tuple[Any, Any]]], first: int) -> None:
        """Ask the properties about the steps `found` from `states`, of which the first has the number `first`."""
        if not any(readings.claims for readings in self._of_steps.values()):
            return
        steps = [(at, action, after) for at, some in enumerate(found) for action, after in some]
        afters = [after for _, _, after in steps]

        for readings in self._of_steps.values():
            for place, number in readings.look(states, steps, afters).items():
                at, action, after = steps[number]
                self.fail_step(place, StepFound(first + at, action, after))

    def look_at_end(self, state: Any, number: int) -> None:
        """Ask the properties about a state that has no actions."""
        for place, claim in [*self._open["no_deadlock"].items()]:
            if self._first(claim, [state], number, wanted=False) is not None:
                self.failed[place] = number
                del self._open["no_deadlock"][place]

    def fail_step(self, place: int, found: StepFound) -> None:
        """Note that an "always_step" failed."""
        self.failed_step[place] = found
        del self._open["always_step"][place]
        for readings in self._of_steps.values():
            readings.claims.pop(place, None)

    def forget_from(self, size: int) -> None:
        """Take the findings on states from number `size` on back."""
        for noted in (*self.marks.values(), *self.causes.values(), *self.effects.values()):
            del noted[size:]

    def _first(self, claim: Property, states: Sequence[Any], first: int, *, wanted: bool) -> int | None:
        """The number of the first state for which the condition is `wanted`; None if there is none."""
        holds = claim.holds
        matching = filter(holds, states) if wanted else filterfalse(holds, states)
        try:
            found = next(matching, _NOTHING)
        except Exception as error:
            raise self._raised(claim, holds, states, first, error) from error
        if found is _NOTHING:
            return None
        return first + next(at for at, state in enumerate(states) if state is found)

    def _all(self, claim: Property, holds: Callable[[Any], bool], states: Iterable[Any], first: int) -> bytes:
        try:
            return bytes(map(bool, map(holds, states)))
        except Exception as error:
            raise self._raised(claim, holds, states, first, error) from error

    def _raised_at(
        self, claim: Property, error: Exception, at: int, *, states: Sequence[Any], first: int
    ) -> PropertyRaised:
        return raised(claim, error, states[at], self._last_action(first + at))

    def _raised(
        self, claim: Property, holds: Callable[[Any], bool], states: Iterable[Any], first: int, error: Exception
    ) -> PropertyRaised:
        for number, state in enumerate(states, first):
            try:
                bool(holds(state))
            except Exception:  # noqa: BLE001  any error of a property, which this state raised
                return raised(claim, error, state, self._last_action(number))
        return raised(claim, error, None, None, ", and did not when it was asked again")
