"""Coverage: which pairs of an actor's phase and a message the models of a run have exercised.

A model that knows its actors offers `coverage() -> Iterable[CoverageRow]`, a row for each pair that an actor declares. A pair
is covered if one of its steps changed the state or asked for an effect, or if the actor declares that it ignores the message
in that phase. Delivery alone covers nothing.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from machines.checker.model import Model
from machines.checker.text import one_line


class CoverageRow(NamedTuple):
    """The coverage of one pair: `message` came `count` times to `actor` in `phase`. `effective` says that at least one of these
    steps changed the state or asked for an effect, `ignored` that the actor declares to ignore the message in that phase.
    """

    actor: str
    phase: str
    message: str
    count: int  # type: ignore[assignment] # nobody counts the items of a row
    effective: bool
    ignored: bool

    @property
    def is_covered(self) -> bool:
        """Whether this pair is covered."""
        return self.effective or self.ignored


class Coverage:
    """The rows of all models of a run, merged by pair."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[CoverageRow] = ()) -> None:
        self._rows: dict[tuple[str, str, str], CoverageRow] = {}
        self.add(rows)

    def add(self, rows: Iterable[CoverageRow]) -> None:
        """Merge `rows` in."""
        for row in rows:
            key = row.actor, row.phase, row.message
            known = self._rows.get(key)
            if known is None:
                self._rows[key] = CoverageRow(*row)
            else:
                self._rows[key] = CoverageRow(
                    *key, known.count + row.count, known.effective or row.effective, known.ignored or row.ignored
                )

    def add_model(self, model: Model[Any, Any]) -> None:
        """Merge the rows of `model` in, if it offers any."""
        offered = getattr(model, "coverage", None)
        if offered is not None:
            self.add(offered())

    @property
    def rows(self) -> tuple[CoverageRow, ...]:
        """All pairs, by actor, phase and message."""
        return tuple(self._rows[key] for key in sorted(self._rows))

    @property
    def uncovered(self) -> tuple[CoverageRow, ...]:
        """The pairs that are not covered."""
        return tuple(row for row in self.rows if not row.is_covered)

    @property
    def percent(self) -> float:
        """The percentage of the pairs that are covered; 0 if there are no pairs."""
        return 100 * (len(self._rows) - len(self.uncovered)) / len(self._rows) if self._rows else 0.0

    def table(self) -> list[str]:
        """Lines for a terminal: the coverage of each actor, then every pair that is not covered."""
        rows = self.rows
        if not rows:
            return []
        actors = dict.fromkeys(row.actor for row in rows)
        wide = max(len("actor"), *map(len, actors))
        lines = [f"{'actor':{wide}}  pairs  covered  steps"]
        for actor in actors:
            own = [row for row in rows if row.actor == actor]
            covered = sum(row.is_covered for row in own)
            share = 100 * covered / len(own)
            lines.append(f"{actor:{wide}}  {len(own):5}  {share:6.1f}%  {sum(row.count for row in own):,}")
        for row in self.uncovered:
            seen = f"came {row.count:,} times and did nothing" if row.count else "never came"
            lines.append(f"uncovered: {one_line(f'{row.actor} in {row.phase}: {row.message}')}: {seen}")
        return lines
