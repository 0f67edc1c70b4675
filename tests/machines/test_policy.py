"""Every combination of risk factors gets its tier, and its tier its verdict."""

import itertools
from typing import Any

import pytest

from machines.communication import RequestStatus, RiskLevel
from machines.policy import FLAGS, VoicePolicy, mistaken_flags
from machines.problem import field_of
from machines.session import STTProvider, VoiceProvider

LOW, MEDIUM, HIGH, CRITICAL = RiskLevel

# Tier by provider and by how many of sensitive data, international call and recording are asked for.
TIERS = {
    VoiceProvider.LOCAL: (LOW, MEDIUM, HIGH, CRITICAL),
    VoiceProvider.TWILIO: (MEDIUM, HIGH, CRITICAL, CRITICAL),
}
TABLE = [
    (provider, dict(zip(FLAGS, flags, strict=True)))
    for provider in VoiceProvider
    for flags in itertools.product((False, True), repeat=len(FLAGS))
]


def expected_tier(provider: VoiceProvider, flags: dict[str, bool]) -> RiskLevel:
    tier = TIERS[provider][flags["sensitive_data"] + flags["international_call"] + flags["recording_enabled"]]
    return HIGH if flags["requires_data_access"] and tier in (LOW, MEDIUM) else tier


def test_the_table_is_complete() -> None:
    assert len(TABLE) == 2 * 2**4


@pytest.mark.parametrize(("provider", "flags"), TABLE)
@pytest.mark.parametrize("token", [False, True])
def test_tier_and_verdict_of_every_combination(provider: VoiceProvider, flags: dict[str, bool], token: bool) -> None:
    tier = expected_tier(provider, flags)
    verdict = VoicePolicy().evaluate_session_request("p", provider, STTProvider.WHISPER, flags, admin_token_valid=token)
    refused = tier in (HIGH, CRITICAL) and not token
    assert VoicePolicy().assess_risk_level(provider, flags) is tier
    assert verdict.status is (RequestStatus.REQUIRE_ADMIN if refused else RequestStatus.APPROVED)
    assert verdict.reason_code == ("ADMIN_TOKEN_REQUIRED" if refused else "VOICE_SESSION_APPROVED")
    assert verdict.metadata == {
        "risk_level": tier.value,
        "factors": tuple(name for name in FLAGS if flags[name]),
        "provider": provider.value,
        "stt_provider": "whisper_local",
        "admin_token_required": tier in (HIGH, CRITICAL),
        "admin_token_valid": token,
    }
    assert tier.value in verdict.hint


@pytest.mark.parametrize(("token", "told"), [(None, False), (False, True)])
def test_a_refusal_says_what_raised_the_tier_and_that_a_token_was_invalid(token: bool | None, told: bool) -> None:
    asked = {"recording_enabled": True, "sensitive_data": True, "international_call": False}
    verdict = VoicePolicy().evaluate_session_request(
        "p", VoiceProvider.TWILIO, STTProvider.WHISPER, asked, admin_token_valid=token
    )
    assert "from provider twilio, raised by sensitive_data and recording_enabled" in verdict.hint
    assert "international_call" not in verdict.hint
    assert ("the one given is unknown, expired or revoked" in verdict.hint) is told
    assert verdict.metadata["admin_token_valid"] is False


def test_a_flag_set_to_false_is_as_one_left_out() -> None:
    policy = VoicePolicy()
    assert policy.assess_risk_level(VoiceProvider.LOCAL, dict.fromkeys(FLAGS, False)) is LOW
    assert policy.assess_risk_level(VoiceProvider.LOCAL, {}) is LOW


@pytest.mark.parametrize(("tier", "needed"), [(LOW, False), (MEDIUM, False), (HIGH, True), (CRITICAL, True)])
def test_high_and_above_need_a_token(tier: RiskLevel, needed: bool) -> None:
    assert VoicePolicy().require_admin_token(tier) is needed


def test_the_default_tier_needs_no_token() -> None:
    assert VoicePolicy().require_admin_token() is False
    assert VoicePolicy.DEFAULT_RISK_TIER is LOW


def test_the_same_request_gets_the_same_verdict() -> None:
    requests = [
        VoicePolicy().evaluate_session_request(
            "p", VoiceProvider.TWILIO, STTProvider.AWS, {"from_number": "+49301234567"}
        )
        for _ in range(2)
    ]
    assert requests[0] == requests[1]
    assert requests[0].status is RequestStatus.APPROVED


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"project_id": ""}, "project_id"),
        ({"project_id": "  \t"}, "project_id"),
        ({"project_id": None}, "project_id"),
        ({"project_id": 7}, "project_id"),
        ({"provider": "local"}, "provider"),
        ({"provider": None}, "provider"),
        ({"stt_provider": "whisper_local"}, "stt_provider"),
        ({"stt_provider": VoiceProvider.LOCAL}, "stt_provider"),
        ({"metadata": {"sensitive_data": "yes"}}, "sensitive_data"),
        ({"metadata": {"international_call": 1}}, "international_call"),
        ({"metadata": {"recording_enabled": None}}, "recording_enabled"),
        ({"metadata": {"requires_data_access": []}}, "requires_data_access"),
        ({"metadata": {"from_number": 49301234567}}, "from_number"),
    ],
)
def test_a_parameter_of_the_wrong_kind_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    request: dict[str, Any] = {
        "project_id": "p",
        "provider": VoiceProvider.LOCAL,
        "stt_provider": STTProvider.WHISPER,
        **change,
    }
    valid, problem = VoicePolicy().validate_session_params(**request)
    assert not valid
    assert field in problem
    assert field_of(problem) == next(iter(change))
    with pytest.raises(ValueError, match=field):
        VoicePolicy().evaluate_session_request(**request, admin_token_valid=True)


def test_parameters_of_the_right_kind_are_valid() -> None:
    answer = VoicePolicy().validate_session_params(
        "p",
        VoiceProvider.LOCAL,
        STTProvider.WHISPER,
        {"from_number": "+4930", "sensitive_data": True, "other": object()},
    )
    assert answer == (True, "valid")


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("record", True, "recording_enabled"),
        ("Record-Call", "yes", "recording_enabled"),
        ("recording_enabeld", False, "recording_enabled"),
        ("isSensitive", True, "sensitive_data"),
        ("sensitive", 1, "sensitive_data"),
        ("international", "ON", "international_call"),
        ("data_access", True, "requires_data_access"),
    ],
)
def test_a_key_that_looks_like_a_flag_leads_to_the_right_name(key: str, value: object, meant: str) -> None:
    assert mistaken_flags({key: value}) == {key: meant}


def test_flags_themselves_and_keys_that_hold_something_else_are_no_mistakes() -> None:
    flags = dict.fromkeys(FLAGS, True)
    others = {"record_id": "r-7", "records": [1], "sensitive": None, "internal": True, "customer": "yes", "": True}
    assert mistaken_flags({**flags, **others}) == {}
