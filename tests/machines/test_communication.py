"""Risk levels are ordered, and the vocabulary is that of the specification."""

import itertools
import operator
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel


@pytest.mark.parametrize(("one", "other"), list(itertools.product(enumerate(RiskLevel), repeat=2)))
def test_risk_levels_compare_as_their_ranks(one: tuple[int, RiskLevel], other: tuple[int, RiskLevel]) -> None:
    (a, left), (b, right) = one, other
    assert (left < right, left <= right, left > right, left >= right) == (a < b, a <= b, a > b, a >= b)
    assert (left == right) == (a == b)


def test_the_order_is_low_medium_high_critical() -> None:
    assert sorted(RiskLevel, reverse=True) == [RiskLevel.CRITICAL, RiskLevel.HIGH, RiskLevel.MEDIUM, RiskLevel.LOW]
    assert [level.rank for level in RiskLevel] == [0, 1, 2, 3]


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_a_level_does_not_compare_with_a_number(compare: Callable[[object, object], bool]) -> None:
    with pytest.raises(TypeError):
        compare(RiskLevel.LOW, 1)


@pytest.mark.parametrize(("steps", "level"), list(enumerate([*RiskLevel, RiskLevel.CRITICAL])))
def test_raising_ends_at_critical(steps: int, level: RiskLevel) -> None:
    assert RiskLevel.LOW.raised(steps) is level


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ConnectorType, "WEB_SEARCH WEB_FETCH RSS EMAIL_SMTP SLACK CUSTOM"),
        (RequestStatus, "PENDING APPROVED DENIED IN_PROGRESS SUCCESS FAILED RATE_LIMITED REQUIRE_ADMIN"),
        (RiskLevel, "LOW MEDIUM HIGH CRITICAL"),
    ],
)
def test_the_names_are_those_of_the_specification_and_their_values_lower_case(
    kind: type[ConnectorType | RequestStatus | RiskLevel], names: str
) -> None:
    assert [member.name for member in kind] == names.split()
    assert [member.value for member in kind] == names.lower().split()
    assert all(isinstance(member, str) for member in kind)


def test_a_verdict_is_frozen_and_closed() -> None:
    verdict = PolicyVerdict(status=RequestStatus.DENIED, reason_code="NO")
    with pytest.raises(ValidationError, match="frozen"):
        verdict.status = RequestStatus.APPROVED
    with pytest.raises(ValidationError, match="extra"):
        PolicyVerdict.model_validate({"status": "denied", "reason_code": "NO", "extra": 1})


def test_a_verdict_can_be_hashed_with_or_without_metadata() -> None:
    plain = PolicyVerdict(status=RequestStatus.DENIED, reason_code="NO")
    deep = [PolicyVerdict(status=RequestStatus.DENIED, reason_code="NO", metadata={"a": [{"b": 1}]}) for _ in range(2)]
    assert len({plain, *deep}) == 2
