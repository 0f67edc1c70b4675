"""Providers by name: handed over to the service, or installed; loaded when asked for, and nobody takes another's name."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentos.core.communication.voice import AsyncVoiceService, VoicePolicy, VoiceProvider, VoiceService
from agentos.core.communication.voice.doctor import Level, examine
from agentos.core.communication.voice.errors import (
    InvalidRequest,
    PolicyDenied,
    ProviderNotConfigured,
    UnusableExtension,
)
from agentos.core.communication.voice.gateway.views import SessionView
from agentos.core.communication.voice.policy import FieldProblem
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.settings import VoiceSettings
from machines.communication import RiskLevel
from tests.loops import ASYNCIO, TRIO, loops
from tests.voice.extensions.conftest import Install

anyio_backend = loops(ASYNCIO, TRIO)

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]

SOURCE = """
from agentos.core.communication.voice.providers.base import IVoiceProvider

class Trunk(IVoiceProvider):
    def __init__(self, settings):
        self.home = settings.home

    def get_session_metadata(self):
        return {"transport": "sip", "risk_level": "low"}

    def validate_config(self):
        return True, "ready"
"""


class Own(IVoiceProvider):
    """A provider as the specification has it: four methods, two of them here."""

    def __init__(self, said: Mapping[str, Any], answer: tuple[bool, str] = (True, "ready")) -> None:
        self.said = dict(said)
        self.answer = answer
        self.told: list[tuple[str, str]] = []

    def get_session_metadata(self) -> dict[str, Any]:
        return self.said

    def validate_config(self) -> tuple[bool, str]:
        return self.answer

    def on_session_created(self, session_id: str, metadata: Mapping[str, Any]) -> None:
        self.told.append(("created", session_id))

    def on_session_stopped(self, session_id: str) -> None:
        self.told.append(("stopped", session_id))


@pytest.mark.anyio
async def test_a_call_of_a_provider_that_was_handed_over(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int]
) -> None:
    own = Own({"provider": "sip"})
    async with AsyncVoiceService(make_settings(), providers=[own]) as service:
        session = await service.create_session("p", "sip", "whisper_local")
        assert (session.provider, session.risk_tier) == ("sip", RiskLevel.MEDIUM)
        assert service.get_provider("sip") is own
        assert service.provider_names()[:3] == ("local", "twilio", "sip")
        assert {one.provider for one in service.statistics().calls.running} == {"sip"}
        assert await service.stop_session(session.session_id)
        assert own.told == [("created", session.session_id), ("stopped", session.session_id)]
    assert {record["request_summary"]["provider"] for record in records(session.session_id)} == {"sip"}
    async with AsyncVoiceService(make_settings()) as service:  # without it, the old call can still be read
        (known,) = await service.list_sessions()
        assert known.provider == "sip"
        assert SessionView.of(known).provider == "sip"
        with pytest.raises(InvalidRequest, match=r"a registered name \(local, twilio\), got 'sip'") as caught:
            await service.create_session("p", "sip", "whisper_local")
        assert caught.value.field == "provider"
    assert verified() > 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({"risk_level": "low"}, RiskLevel.LOW),
        ({"risk_level": "critical"}, RiskLevel.CRITICAL),
        ({}, RiskLevel.MEDIUM),
        ({"risk_level": "harmless"}, RiskLevel.MEDIUM),
        ({"risk_level": []}, RiskLevel.MEDIUM),
    ],
)
async def test_its_calls_begin_at_its_own_tier(
    make_settings: MakeSettings, said: dict[str, Any], tier: RiskLevel
) -> None:
    async with AsyncVoiceService(make_settings(), providers=[Own({"provider": "sip", **said})]) as service:
        verdict = await service.evaluate_request("p", "sip", "whisper_local")
        assert verdict.metadata["risk_level"] == tier.value
        assert verdict.metadata["provider"] == "sip"
        recorded = await service.evaluate_request("p", "sip", "whisper_local", {"recording_enabled": True})
        assert recorded.metadata["risk_level"] == tier.raised(1).value
        if tier is RiskLevel.CRITICAL:
            with pytest.raises(PolicyDenied, match="from provider sip"):
                await service.create_session("p", "sip", "whisper_local")


@pytest.mark.anyio
async def test_a_policy_that_knows_its_name_goes_before_the_provider(make_settings: MakeSettings) -> None:
    class Strict(VoicePolicy):
        PROVIDER_RISK_TIERS: Mapping[VoiceProvider | str, RiskLevel] = {"sip": RiskLevel.HIGH}

    own = Own({"provider": "sip", "risk_level": "low"})
    async with AsyncVoiceService(make_settings(), providers=[own], policy=Strict()) as service:
        verdict = await service.evaluate_request("p", "sip", "whisper_local")
    assert verdict.metadata["risk_level"] == "high"


@pytest.mark.anyio
async def test_one_that_is_not_configured_names_its_variable(make_settings: MakeSettings) -> None:
    own = Own({"provider": "sip"}, (False, FieldProblem("set the trunk", field="SIP_TRUNK")))
    async with AsyncVoiceService(make_settings(), providers=[own]) as service:
        with pytest.raises(ProviderNotConfigured, match="'sip' is not configured: set the trunk") as caught:
            await service.create_session("p", "sip", "whisper_local")
    assert caught.value.variable == "SIP_TRUNK"


@pytest.mark.parametrize(
    ("handed_over", "problem"),
    [
        ([Own({"provider": "local"})], "'local' .* the name is taken"),
        ([Own({"provider": "twilio"})], "'twilio' .* the name is taken"),
        ([Own({"provider": "sip"}), Own({"provider": "sip"})], "'sip' .* the name is taken"),
        ([Own({"provider": "SIP trunk"})], "its name must be"),
        ([Own({"provider": "none"})], "its name must be"),
        ([Own({"provider": "s" * 65})], "its name must be"),
        ([Own({})], "its name must be"),
        ([object()], "'object' .* no IVoiceProvider"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused_at_once(
    make_settings: MakeSettings, handed_over: list[Any], problem: str
) -> None:
    with pytest.raises(UnusableExtension, match=problem) as caught:
        AsyncVoiceService(make_settings(), providers=handed_over)
    assert (caught.value.group, caught.value.distribution) == ("agentos_voice.providers", None)
    with VoiceService(make_settings(), providers=handed_over) as blocking, pytest.raises(UnusableExtension):
        blocking.statistics()


@pytest.mark.anyio
async def test_an_installed_one_is_loaded_when_a_session_names_it(
    make_settings: MakeSettings, install: Install
) -> None:
    install("sip-for-voice", "sip_for_voice", SOURCE, providers="sip = sip_for_voice:Trunk")
    settings = make_settings()
    async with AsyncVoiceService(settings) as service:
        await service.create_session("p", "local", "whisper_local")
        assert service.provider_names() == ("local", "twilio", "sip")
        assert "sip_for_voice" not in sys.modules
        session = await service.create_session("p", "sip", "whisper_local")
        assert (session.provider, session.risk_tier) == ("sip", RiskLevel.LOW)
        assert service.get_provider("sip").home == settings.home  # type: ignore[attr-defined]
    sys.modules.pop("sip_for_voice")


BROKEN = [
    ("raise RuntimeError('no licence')", "trunk", "can't be loaded: RuntimeError: no licence"),
    ("", "trunk", "can't be loaded: AttributeError"),
    ("trunk = 5", "trunk", "neither a class nor a function"),
    ("trunk = dict", "trunk", "made|can't be made"),
    ("def trunk(settings): return 'a trunk'", "trunk", "made a str, not an IVoiceProvider"),
    ("def trunk(settings): raise LookupError('no trunk')", "trunk", "can't be made: LookupError: no trunk"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("source", "attribute", "problem"), BROKEN)
async def test_a_broken_one_is_an_error_that_names_its_distribution(
    make_settings: MakeSettings, install: Install, source: str, attribute: str, problem: str
) -> None:
    install("broken-sip", "broken_sip", source, providers=f"sip = broken_sip:{attribute}")
    sys.modules.pop("broken_sip", None)
    async with AsyncVoiceService(make_settings()) as service:
        for _ in range(2):
            with pytest.raises(UnusableExtension, match=problem) as caught:
                await service.create_session("p", "sip", "whisper_local")
            assert (caught.value.name, caught.value.distribution) == ("sip", "broken-sip")
        await service.create_session("p", "local", "whisper_local")  # the others work
    sys.modules.pop("broken_sip", None)


@pytest.mark.anyio
async def test_two_distributions_with_one_name_are_both_refused(make_settings: MakeSettings, install: Install) -> None:
    install("one-sip", "one_sip", SOURCE, providers="sip = one_sip:Trunk")
    install("other-sip", "other_sip", SOURCE, providers="sip = other_sip:Trunk")
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(UnusableExtension, match="two distributions have this name") as caught:
            await service.create_session("p", "sip", "whisper_local")
        assert caught.value.distribution == "one-sip and other-sip"
    own = Own({"provider": "sip"})
    async with AsyncVoiceService(make_settings(), providers=[own]) as service:  # what the host hands over goes first
        assert service.get_provider("sip") is own


@pytest.mark.anyio
async def test_a_name_of_this_package_is_not_taken_by_a_distribution(
    make_settings: MakeSettings, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("thief", "thief", SOURCE, providers="local = thief:Trunk")
    async with AsyncVoiceService(make_settings()) as service:
        session = await service.create_session("p", "local", "whisper_local")
        assert session.provider is VoiceProvider.LOCAL
        assert service.provider_names() == ("local", "twilio")
    assert "extension_left_aside" in caplog.text
    assert "thief" not in sys.modules


def test_the_doctor_says_what_is_there_broken_and_left_aside(install: Install) -> None:
    install(
        "sip-for-voice", "sip_for_voice", SOURCE, providers="sip = sip_for_voice:Trunk\nlocal = sip_for_voice:Trunk"
    )
    install("broken-fax", "broken_fax", "raise RuntimeError", providers="fax = broken_fax:Fax")
    checks = {check.name: check for check in examine()}
    assert checks["providers"].found == "ready: local, sip"
    assert checks["provider twilio"].level is Level.OK
    assert (checks["provider fax"].level, checks["provider fax"].advice) == (
        Level.WARN,
        "repair or uninstall broken-fax",
    )
    assert "sip-for-voice offers one, which is left aside" in checks["provider local"].found
    sys.modules.pop("sip_for_voice")


def fails(*_: Any) -> Any:
    raise LookupError("by mistake")


@pytest.mark.parametrize(
    ("of_its_own", "problem"),
    [
        ({"name": property(fails)}, "it does not say its name: LookupError: by mistake"),
        ({"risk_tier": property(fails)}, "it does not say what it is: LookupError: by mistake"),
        ({"can_be_slowed": property(fails)}, "it does not say what it is: LookupError: by mistake"),
        ({"transport": object()}, "its transport must be a Transport or None, got <object"),
    ],
)
def test_a_provider_that_does_not_say_what_it_is_is_refused_at_once(
    make_settings: MakeSettings, of_its_own: dict[str, Any], problem: str
) -> None:
    broken = type("Broken", (Own,), of_its_own)({"provider": "line"})
    with pytest.raises(UnusableExtension, match=problem):
        AsyncVoiceService(make_settings(), providers=[broken])


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [fails, lambda _: None], ids=["raises", "None"])
async def test_a_provider_that_does_not_say_whether_it_is_configured_is_unusable(
    make_settings: MakeSettings, answer: Any
) -> None:
    broken = type("Broken", (Own,), {"validate_config": answer})({"provider": "line"})
    async with AsyncVoiceService(make_settings(), providers=[broken]) as service:
        with pytest.raises(UnusableExtension, match=r"'line'.*validate_config\(\) failed"):
            await service.create_session("p", "line", "whisper_local")
