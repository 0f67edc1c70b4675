"""Properties with `reads`: evaluated once for each reading, not for each state.

Most states differ only in parts that a property does not read. The readings of a batch are taken in one go, and the property is
evaluated only for readings that were not met lately. It is evaluated for a sample of the known readings too, to find a property
that looks at more than it reads, and would be decided wrongly.
"""

from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from machines.checker.asking import ask, raised
from machines.checker.model import Property, PropertyMisread, PropertyRaised

_MOST_KNOWN: Final = 4_096  # remembered answers of a reading; evaluating again costs some microseconds
MOST_MARKED: Final = 8  # marked conditions, which share the bits of one byte
_AGAIN_FIRST: Final = 100  # states, or steps, evaluated although their reading is known
_AGAIN_EACH: Final = 1_000  # after these, one in so many
_BIT: Final = tuple([bytes([byte >> bit & 1 for byte in range(256)]) for bit in range(MOST_MARKED)])

Raised = Callable[[Property, Exception, int], Exception]
"""Gives the error to raise if a property raised at the state with this place in its batch."""

Marked = tuple[Property, Callable[[Any], bool], bytearray]
"""A condition whose truth is needed for every state: its property, and a byte for each state."""


class Sample:
    """Chooses states or steps that are evaluated although their reading is known; none if not `wanted`."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._count = 0
        self._next = _AGAIN_FIRST

    def places(self, read: Sequence[Any], new: AbstractSet[Any]) -> list[int]:
        """The chosen places in a batch with the readings `read`, of which the readings in `new` are evaluated anyway."""
        first = self._count
        self._count += len(read)
        if not self._wanted or not read or (first >= _AGAIN_FIRST and self._count < self._next):
            return []
        if first < _AGAIN_FIRST:
            return [at for at, one in enumerate(read[: _AGAIN_FIRST - first]) if one not in new or read.index(one) < at]
        at = len(read) - 1
        if read[at] in new and read.index(read[at]) == at:
            return []
        self._next = self._count + _AGAIN_EACH
        return [at]


class StateReadings:
    """Conditions on states with one `reads`: `claims`, by place, which are only evaluated until they are settled, and at most
    `MOST_MARKED` `marked` conditions. `first` is the first of them; errors in reading are reported in its name."""

    def __init__(self, first: Property, *, again: bool) -> None:
        self._first = first
        self._sample = Sample(wanted=again)
        self.claims: dict[int, Property] = {}
        self.marked: list[Marked] = []
        self._answers: dict[Hashable, int] = {}  # of the marked conditions, a bit for each

    def look(self, states: Sequence[Any], raised_at: Raised) -> dict[int, int]:
        """The claims that these states settle, each with the place of the first state that breaks the "always" or shows the
        "sometimes"."""
        settled: dict[int, int] = {}
        if not self.claims and not self.marked:
            return settled
        try:
            read = _taken(self._first, states)
            met = set(read)
        except Exception as error:
            at = next((at for at, state in enumerate(states) if _unreadable(self._first, state)), None)
            if at is None:
                raise _unlike_one_by_one(self._first, error) from error
            why = _unreadable(self._first, states[at]) or error
            raise raised_at(self._first, why, at) from why
        new = met.difference(self._answers)
        if new:
            if len(self._answers) + len(new) > _MOST_KNOWN:
                self._answers.clear()
                new = met
            for at in sorted(map(read.index, new)):
                self._answers[read[at]] = self._asked(states[at], at, settled, raised_at)
        for place in settled:
            del self.claims[place]
        for at in self._sample.places(read, new):
            self._ask_again(states[at], at, read[at], raised_at)
        if self.marked:
            row = bytes(map(self._answers.__getitem__, read))
            for bit, (_, _, marks) in zip(_BIT, self.marked, strict=False):
                marks.extend(row.translate(bit))
        return settled

    def _ask_again(self, state: Any, at: int, read: Hashable, raised_at: Raised) -> None:
        for claim in self.claims.values():
            if _asked(claim, claim.holds, state, at, raised_at) is (claim.kind == "sometimes"):
                raise _looks_at_more(claim, read, state, None)
        for number, (claim, holds, _) in enumerate(self.marked):
            if _asked(claim, holds, state, at, raised_at) != self._answers[read] >> number & 1:
                raise _looks_at_more(claim, read, state, None)

    def _asked(self, state: Any, at: int, settled: dict[int, int], raised_at: Raised) -> int:
        bits = 0
        for place, claim in self.claims.items():
            if place not in settled and _asked(claim, claim.holds, state, at, raised_at) is (claim.kind == "sometimes"):
                settled[place] = at
        for number, (claim, holds, _) in enumerate(self.marked):
            bits |= _asked(claim, holds, state, at, raised_at) << number
        return bits


def _asked(claim: Property, holds: Callable[[Any], bool], state: Any, at: int, raised_at: Raised) -> bool:
    try:
        return bool(holds(state))
    except Exception as error:
        raise raised_at(claim, error, at) from error


def _taken(claim: Property, states: Sequence[Any]) -> Sequence[Hashable]:
    """The readings of `claim` for each of these states."""
    reads = claim.reads
    if reads is None:
        raise ValueError(f"the property {claim.name!r} does not say what it reads")
    read = reads(states)
    if not isinstance(read, list | tuple):
        read = list(read)
    if len(read) != len(states):
        raise ValueError(f"it reads {len(read)} values of {len(states)} states")
    return read


def _unreadable(claim: Property, state: Any) -> Exception | None:
    """Why the reading of `claim` for this state fails; None if it does not."""
    try:
        read = _taken(claim, [state])
    except Exception as error:  # noqa: BLE001  any error of `reads` is reported
        return error
    try:
        hash(read[0])
    except TypeError as error:
        why = TypeError(f"what it reads can't be hashed: {read[0]!r}")
        why.__cause__ = error
        return why
    return None


def _looks_at_more(claim: Property, read: Hashable, state: Any, action: Any) -> PropertyMisread:
    return PropertyMisread(
        f"the property {claim.name!r} looks at more than it reads: another time when it read {read!r}, it answered otherwise; "
        "let `reads` give all that it looks at",
        state=state,
        action=action,
    )


def _unlike_one_by_one(claim: Property, error: Exception) -> PropertyRaised:
    return raised(claim, error, None, None, " when it read many states, and did not for any of them alone")


class StepReadings:
    """All conditions on steps with one `reads`, by place. `first` is the first of them; errors in reading are reported in its
    name."""

    def __init__(self, first: Property, *, again: bool) -> None:
        self._first = first
        self._sample = Sample(wanted=again)
        self.claims: dict[int, Property] = {}
        self._good: set[tuple[Hashable, Hashable]] = set()

    def look(
        self, states: Sequence[Any], steps: Sequence[tuple[int, Any, Any]], afters: Sequence[Any]
    ) -> dict[int, int]:
        """The claims that these steps break, each with the place of the first step that does. A step has the place of its first
        state in `states`, its action and its second state; `afters` lists the second states."""
        if not self.claims:
            return {}
        try:
            before, after = _taken(self._first, states), _taken(self._first, afters)
            read = list(zip([before[at] for at, _, _ in steps], after, strict=True))
            new = set(read) - self._good
        except Exception as error:
            raise self._unread(states, steps, error) from error
        broken: dict[int, int] = {}
        for number in sorted(map(read.index, new)):
            at, action, state = steps[number]
            for place, claim in self.claims.items():
                if place not in broken and not ask(claim, claim.holds, states[at], action, state):
                    broken[place] = number
        for number in self._sample.places(read, new):
            at, action, state = steps[number]
            for place, claim in self.claims.items():
                if place not in broken and not ask(claim, claim.holds, states[at], action, state):
                    raise _looks_at_more(claim, read[number], states[at], action)
        if len(self._good) + len(new) > _MOST_KNOWN:
            self._good.clear()
        self._good |= new
        return broken

    def _unread(self, states: Sequence[Any], steps: Sequence[tuple[int, Any, Any]], error: Exception) -> PropertyRaised:
        first = self._first
        ends = {at: state for at, state in enumerate(states) if _unreadable(first, state)}
        for at, action, after in steps:
            why = _unreadable(first, states[at]) if at in ends else _unreadable(first, after)
            if why is not None:
                return raised(first, why, states[at], action)
        for state in ends.values():
            return raised(first, _unreadable(first, state) or error, state, None)
        return _unlike_one_by_one(first, error)
