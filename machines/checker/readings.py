"""Properties that tell what they read: asked once for each reading, not for each state.

Most states differ from others in what a property does not look at. All the readings of a batch are taken in one go, and only
those that were not met lately lead to a question.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from machines.checker.model import Property, Reading

_MOST_KNOWN: Final = 4_096  # answers that are kept for a reading; to ask again costs some microseconds
MOST_MARKED: Final = 8  # that share the bits of one byte
_BIT: Final = tuple([bytes([byte >> bit & 1 for byte in range(256)]) for bit in range(MOST_MARKED)])

Raised = Callable[[Property, Exception, int], Exception]
"""What to raise when a property raised at the state or step with this place in its batch."""

Marked = tuple[Property, Callable[[Any], bool], bytearray]
"""A condition that must be known of every state: whose it is, and a byte for each state."""


class StateReadings:
    """Conditions on states with one `reads`: `claims` that are only asked until they are settled, by their places, and
    `MOST_MARKED` `marked` ones at most."""

    def __init__(self, reads: Reading) -> None:
        self._reads = reads
        self.claims: dict[int, Property] = {}
        self.marked: list[Marked] = []
        self._answers: dict[Hashable, int] = {}  # to the marked ones: a bit for each

    def look(self, states: Sequence[Any], raised: Raised) -> dict[int, int]:
        """The claims that are settled by one of these states, each with the first such state's place among them: an "always"
        is broken there, a "sometimes" shown."""
        settled: dict[int, int] = {}
        if not self.claims and not self.marked:
            return settled
        read = self._reads(states)
        met = set(read)
        new = met.difference(self._answers)
        if new:
            if len(self._answers) + len(new) > _MOST_KNOWN:
                self._answers.clear()
                new = met
            for at in sorted(map(read.index, new)):
                self._answers[read[at]] = self._asked(states[at], at, settled, raised)
        for place in settled:
            del self.claims[place]
        if self.marked:
            row = bytes(map(self._answers.__getitem__, read))
            for bit, (_, _, marks) in zip(_BIT, self.marked, strict=False):
                marks.extend(row.translate(bit))
        return settled

    def _asked(self, state: Any, at: int, settled: dict[int, int], raised: Raised) -> int:
        bits = 0
        for place, claim in self.claims.items():
            if place not in settled and _asked(claim, claim.holds, state, at, raised) is (claim.kind == "sometimes"):
                settled[place] = at
        for number, (claim, holds, _) in enumerate(self.marked):
            bits |= _asked(claim, holds, state, at, raised) << number
        return bits


def _asked(claim: Property, holds: Callable[[Any], bool], state: Any, at: int, raised: Raised) -> bool:
    try:
        return bool(holds(state))
    except Exception as error:
        raise raised(claim, error, at) from error


class StepReadings:
    """All conditions on steps with one `reads`, by their places."""

    def __init__(self, reads: Reading) -> None:
        self._reads = reads
        self.claims: dict[int, Property] = {}
        self._good: set[tuple[Hashable, Hashable]] = set()

    def look(
        self, states: Sequence[Any], steps: Sequence[tuple[int, Any, Any]], afters: Sequence[Any], raised: Raised
    ) -> dict[int, int]:
        """The claims that are broken by one of these steps, each with the first such step's place among them. A step is the
        place of the state that it begins in, its action and the state after, of which `afters` is the list."""
        if not self.claims:
            return {}
        before, after = self._reads(states), self._reads(afters)
        read = list(zip([before[at] for at, _, _ in steps], after, strict=True))
        new = set(read) - self._good
        broken: dict[int, int] = {}
        for number in sorted(map(read.index, new)):
            at, action, state = steps[number]
            for place, claim in self.claims.items():
                try:
                    if place not in broken and not claim.holds(states[at], action, state):
                        broken[place] = number
                except Exception as error:
                    raise raised(claim, error, number) from error
        if len(self._good) + len(new) > _MOST_KNOWN:
            self._good.clear()
        self._good |= new
        return broken
