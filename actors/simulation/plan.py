"""The plan of a simulated day, drawn from its seed: which visits come when, and which faults.

A plan is data, so that a failing plan can be shrunk and still belong to the same seed.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
SECOND_MS: Final = 1000


class Chance:
    """Random draws that are the same on every machine and every Python: they use only the generator's `random()`, and no
    function of the C library on its result."""

    __slots__ = ("random",)

    def __init__(self, seed: int, stream: str) -> None:
        self.random = random.Random(f"{stream} {seed}").random  # noqa: S311 - repeatable, not secret

    def below(self, n: int) -> int:
        """A whole number from 0 to `n - 1`."""
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return low + int(self.random() * (high - low + 1))

    def happens(self, share: float) -> bool:
        """True in this share of the draws."""
        return self.random() < share

    def one_of(self, of: Sequence[T]) -> T:
        """Draw an element of `of`."""
        return of[int(self.random() * len(of))]


class FaultKind(NamedTuple):
    """A kind of fault: its possible targets (classes of actors, or names that its port knows), its range of sizes (for a
    lasting fault, milliseconds), and its weight among the kinds."""

    targets: tuple[str, ...] = ("",)
    smallest: int = 0
    largest: int = 0
    share: int = 1


class Fault(NamedTuple):
    """One fault of a plan: its `number` there, its kind, when it comes, its target and its size."""

    number: int
    kind: str
    at_ms: int
    target: str
    size: int


class Visit(NamedTuple):
    """A visit from outside: its `number`, when it comes, how long it may take, and its content."""

    number: int
    at_ms: int
    lasts_ms: int
    what: object


class Plan(NamedTuple):
    """A whole run: its visits, its faults, and the time after which nothing new comes."""

    seed: int
    until_ms: int
    visits: tuple[Visit, ...]
    faults: tuple[Fault, ...]

    def only(self, visits: Collection[int], faults: Collection[int], until_ms: int) -> "Plan":
        """This plan with only these visits and faults, by number, and none from `until_ms` on."""
        return Plan(
            self.seed,
            until_ms,
            tuple([one for one in self.visits if one.number in visits and one.at_ms < until_ms]),
            tuple([one for one in self.faults if one.number in faults and one.at_ms < until_ms]),
        )


def drawn_faults(
    chance: Chance, kinds: Mapping[str, FaultKind], count: int, until_ms: int, visits: Sequence[Visit] = ()
) -> tuple[Fault, ...]:
    """Draw `count` faults of these kinds. If there are visits, a third of the faults come during a visit, and a third near the
    end of one: a fault that hits an idle system shows nothing."""
    names = [name for name in sorted(kinds) for _ in range(kinds[name].share)]
    drawn: list[tuple[int, str, str, int]] = []
    for _ in range(count):
        name = chance.one_of(names)
        kind = kinds[name]
        at = chance.below(until_ms)
        if visits and chance.happens(2 / 3):
            visit = chance.one_of(visits)
            near = chance.between(-SECOND_MS // 2, 2 * SECOND_MS)
            at = visit.at_ms + (visit.lasts_ms + near if chance.happens(1 / 2) else chance.below(visit.lasts_ms + 1))
        drawn.append((max(0, at), name, chance.one_of(kind.targets), chance.between(kind.smallest, kind.largest)))
    drawn.sort()
    return tuple([Fault(number, name, at, target, size) for number, (at, name, target, size) in enumerate(drawn, 1)])
