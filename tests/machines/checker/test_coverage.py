"""Coverage of pairs: delivered is not covered."""

from collections.abc import Sequence

import pytest

from machines.checker import Model
from machines.checker.coverage import Coverage, CoverageRow
from tests.machines.checker.examples.courier import Courier


@pytest.mark.parametrize(
    ("row", "covered"),
    [
        (CoverageRow("a", "p", "M", 0, False, False), False),
        (CoverageRow("a", "p", "M", 9, False, False), False),
        (CoverageRow("a", "p", "M", 1, True, False), True),
        (CoverageRow("a", "p", "M", 0, False, True), True),
    ],
)
def test_a_pair_counts_when_it_did_something_or_is_declared_ignored(row: CoverageRow, covered: bool) -> None:
    assert row.is_covered is covered
    assert Coverage([row]).percent == 100 * covered


def test_the_rows_of_several_models_are_put_together() -> None:
    coverage = Coverage([CoverageRow("a", "p", "M", 2, False, False), CoverageRow("b", "p", "M", 0, False, False)])
    coverage.add([CoverageRow("a", "p", "M", 3, True, False)])
    assert coverage.rows == (CoverageRow("a", "p", "M", 5, True, False), CoverageRow("b", "p", "M", 0, False, False))
    assert [row.actor for row in coverage.uncovered] == ["b"]
    assert coverage.percent == 50


def test_the_table_has_each_actor_and_each_pair_that_is_missing() -> None:
    coverage = Coverage()
    coverage.add_model(Courier())
    assert coverage.table() == [
        "actor     pairs  covered  steps",
        "receiver      2   100.0%  3",
        "sender        2     0.0%  2",
        "uncovered: sender in awake: Receipt: never came",
        "uncovered: sender in napping: Parcel: came 2 times and did nothing",
    ]


def test_without_rows_nothing_is_covered_and_nothing_shown() -> None:
    class Silent(Model[int, str]):
        def initial(self) -> Sequence[int]:
            return [0]

    coverage = Coverage()
    coverage.add_model(Silent())
    assert coverage.table() == []
    assert coverage.percent == 0
