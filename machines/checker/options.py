"""The options of a check, validated, and the progress that a running check reports."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

STRATEGIES: Final = ("breadth", "depth", "walk", "pct")
VISITED: Final = ("exact", "fingerprint")


class Progress(NamedTuple):
    """The progress of a check: distinct `states`, `transitions` taken, `depth` reached, states that wait in the `queue`,
    `seconds` elapsed, and new states a second since the report before.
    """

    states: int
    transitions: int
    depth: int
    queue: int
    seconds: float
    rate: float


@dataclass(frozen=True)
class Options:
    """The options of `check`, whose docstring explains each. Raises `ValueError` for impossible options."""

    strategy: str = "breadth"
    max_states: int | None = None
    max_depth: int | None = None
    seconds: float | None = None
    seed: int = 0
    walks: int = 100
    change_points: int = 3
    workers: int | None = None
    visited: str = "exact"
    symmetry: bool = False
    reduction: bool = False
    self_check: bool = True
    stop_at_first: bool = False
    progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("strategy", self.strategy, STRATEGIES), ("visited", self.visited, VISITED)):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        for name, number, least in (
            ("max_states", self.max_states, 1),
            ("max_depth", self.max_depth, 0),
            ("seconds", self.seconds, 0),
            ("walks", self.walks, 1),
            ("change_points", self.change_points, 0),
            ("workers", self.workers, 1),
        ):
            if number is not None and number < least:
                raise ValueError(f"{name} is at least {least}, not {number}")
        if self.is_walk and (self.symmetry or self.reduction or self.visited != "exact"):
            raise ValueError("a walk visits single runs: symmetry, reduction and fingerprints have nothing to do there")
        if self.workers is not None and self.workers > 1 and (self.strategy != "breadth" or self.reduction):
            raise ValueError("several workers search breadth first, without partial-order reduction")

    @property
    def is_walk(self) -> bool:
        """Whether the check draws runs instead of searching all states."""
        return self.strategy in ("walk", "pct")
