"""Names of providers and engines: members where there is one, and what goes with a name goes with its copies."""

import copy
import pickle

import pytest

from machines.communication import RiskLevel
from machines.names import NAME, EngineName, ProviderName, engine_named, text_of
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider


@pytest.mark.parametrize("name", ["sip", "a", "a1_b-c", "s" * 64])
def test_a_name_that_may_be_registered(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1a", "_a", "-a", "A", "a b", "ä", "a/b", "a.b", "s" * 65, "a\n"])
def test_a_name_that_may_not(name: str) -> None:
    assert not NAME.fullmatch(name)


def test_a_name_is_written_as_it_is() -> None:
    assert [text_of(name) for name in (VoiceProvider.LOCAL, STTProvider.WHISPER)] == ["local", "whisper_local"]
    assert [text_of(name) for name in (ProviderName("sip", RiskLevel.LOW), EngineName("scribe"), "gone")] == [
        "sip",
        "scribe",
        "gone",
    ]
    assert type(text_of(EngineName("scribe"))) is str


def test_an_engine_is_the_member_of_its_name() -> None:
    assert engine_named("google") is STTProvider.GOOGLE
    assert engine_named("scribe") == "scribe"


def test_a_provider_s_name_keeps_its_tier_when_it_is_copied() -> None:
    name = ProviderName("sip", RiskLevel.HIGH)
    for again in (copy.copy(name), copy.deepcopy(name), pickle.loads(pickle.dumps(name))):
        assert (again, again.risk_tier) == ("sip", RiskLevel.HIGH)


@pytest.mark.parametrize("tier", RiskLevel)
def test_the_policy_begins_where_the_provider_says(tier: RiskLevel) -> None:
    name = ProviderName("sip", tier)
    policy = VoicePolicy()
    assert policy.assess_risk_level(name, {}) is tier
    assert policy.assess_risk_level(name, {"recording_enabled": True}) is tier.raised(1)
    assert policy.validate_session_params("p", name, EngineName("scribe")) == (True, "valid")
    assert policy.validate_session_params("p", "sip", EngineName("scribe"))[0] is False  # nobody registered it
    assert policy.validate_session_params("p", name, "scribe")[0] is False
