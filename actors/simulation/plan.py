"""What a simulated day is made of, drawn from its seed: who comes when, and which fault comes when.

A plan is data, so that a failing one can be made smaller and still be the plan of the same seed.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
SECOND_MS: Final = 1000


class Chance:
    """Draws that are the same on every machine and every Python: nothing but `random()` is used of the generator, and no
    function of the C library on what it gives."""

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
        """One of them."""
        return of[int(self.random() * len(of))]


class FaultKind(NamedTuple):
    """A kind of fault: what it may hit (classes of actors, or whatever its port knows it by), how large it may be, which is a
    time in milliseconds for what lasts, and how many times as often as another it comes."""

    targets: tuple[str, ...] = ("",)
    smallest: int = 0
    largest: int = 0
    share: int = 1


class Fault(NamedTuple):
    """One fault of a plan: `number` in it, when it comes, what it hits and how large it is."""

    number: int
    kind: str
    at_ms: int
    target: str
    size: int


class Visit(NamedTuple):
    """Something that comes from outside, by plan: its `number`, when it comes, how long it may take, and what it is."""

    number: int
    at_ms: int
    lasts_ms: int
    what: object


class Plan(NamedTuple):
    """A whole run: visits and faults, and when nothing new comes any more."""

    seed: int
    until_ms: int
    visits: tuple[Visit, ...]
    faults: tuple[Fault, ...]

    def only(self, visits: Collection[int], faults: Collection[int], until_ms: int) -> "Plan":
        """This plan with these visits and faults alone, by number, and none from `until_ms` on."""
        return Plan(
            self.seed,
            until_ms,
            tuple([one for one in self.visits if one.number in visits and one.at_ms < until_ms]),
            tuple([one for one in self.faults if one.number in faults and one.at_ms < until_ms]),
        )


def drawn_faults(
    chance: Chance, kinds: Mapping[str, FaultKind], count: int, until_ms: int, visits: Sequence[Visit] = ()
) -> tuple[Fault, ...]:
    """`count` faults of these kinds. Where there are visits, a third of the faults come in the time of one of them, and a third
    about its end: one that meets nobody shows nothing."""
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
