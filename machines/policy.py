"""Who may open a voice session: risk factors give a tier, the tier gives a verdict.

    start       LOCAL is LOW, TWILIO is MEDIUM, a registered provider what it says of itself
    + 1 each    sensitive_data, international_call, recording_enabled
    at least    requires_data_access makes it HIGH

HIGH and above need an admin token. The token itself never comes here: the caller has checked it and passes the result.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.names import EngineName, ProviderName, text_of
from machines.problem import FieldProblem
from machines.session import STTProvider, VoiceProvider

RAISING_FACTORS = ("sensitive_data", "international_call", "recording_enabled")
FLAGS = (*RAISING_FACTORS, "requires_data_access")
_FLAG_STEMS = {
    "record": "recording_enabled",
    "sensitiv": "sensitive_data",
    "international": "international_call",
    "dataaccess": "requires_data_access",
}
_SWITCHES = (True, False, "true", "false", "yes", "no", "on", "off")


def mistaken_flags(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The unknown keys that look like a misspelt risk flag, each with the flag's right name.

    Such a key has a value that switches something on or off, and its name is close to a flag's (`recording_enabld`) or
    contains a flag's stem (`record`, `isSensitive`).
    """
    found: dict[str, str] = {}
    for key, value in metadata.items():
        switch = value.lower() if isinstance(value, str) else value
        if key in FLAGS or switch not in _SWITCHES:
            continue
        plain = "".join(letter for letter in key.lower() if letter.isalnum())
        meant = next((flag for stem, flag in _FLAG_STEMS.items() if stem in plain), None)
        near = [meant] if meant is not None else get_close_matches(key.lower(), FLAGS, n=1, cutoff=0.8)
        if near:
            found[key] = near[0]
    return found


class VoicePolicy:
    """Risk assessment and authorization of session requests. Pure: the same request gets the same verdict."""

    DEFAULT_RISK_TIER = RiskLevel.LOW
    PROVIDER_RISK_TIERS: Mapping[VoiceProvider | str, RiskLevel] = {
        VoiceProvider.LOCAL: RiskLevel.LOW,
        VoiceProvider.TWILIO: RiskLevel.MEDIUM,
    }
    TOKEN_TIER = RiskLevel.HIGH

    def evaluate_session_request(
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
        *,
        admin_token_valid: bool | None = None,
    ) -> PolicyVerdict:
        """The verdict on a request to open a session: APPROVED, or REQUIRE_ADMIN when its tier needs a valid token.

        `admin_token_valid` is None when no token was given.

        The verdict's metadata has `risk_level`, the `factors` behind it, and whether a token was required and valid.
        Raises `ValueError`, naming the field, for parameters that are not valid.
        """
        valid, problem = self.validate_session_params(project_id, provider, stt_provider, metadata)
        if not valid:
            raise ValueError(problem)
        asked = metadata or {}
        tier = self.assess_risk_level(provider, asked)
        factors = tuple(name for name in FLAGS if asked.get(name))
        return _verdict(provider, stt_provider, tier, factors, self.require_admin_token(tier), admin_token_valid)

    def assess_risk_level(self, provider: VoiceProvider | str, metadata: Mapping[str, Any]) -> RiskLevel:
        """The risk tier of a request; the module says which factors count. A provider that `PROVIDER_RISK_TIERS` does not have
        starts from its own `risk_tier`."""
        own = provider.risk_tier if isinstance(provider, ProviderName) else self.DEFAULT_RISK_TIER
        base = self.PROVIDER_RISK_TIERS.get(provider, own)
        tier = base.raised(sum(1 for name in RAISING_FACTORS if metadata.get(name)))
        return max(tier, RiskLevel.HIGH) if metadata.get("requires_data_access") else tier

    def require_admin_token(self, tier: RiskLevel = DEFAULT_RISK_TIER) -> bool:
        """Whether a session of this tier needs a valid admin token; the default tier does not."""
        return tier >= self.TOKEN_TIER

    def validate_session_params(
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[bool, str]:
        """Whether the parameters are of the right kind, and if not, why: a `FieldProblem` that names the wrong one.

        A policy of a host's own may answer with a plain sentence, which is about the request as a whole.
        """
        if not isinstance(project_id, str) or not project_id.strip():
            return False, FieldProblem(f"project_id must be a non-empty string, got {project_id!r}", field="project_id")
        if not isinstance(provider, VoiceProvider | ProviderName):
            problem = f"provider must be a VoiceProvider, or registered, got {provider!r}"
            return False, FieldProblem(problem, field="provider")
        if not isinstance(stt_provider, STTProvider | EngineName):
            problem = f"stt_provider must be an STTProvider, or registered, got {stt_provider!r}"
            return False, FieldProblem(problem, field="stt_provider")
        for name in FLAGS:
            value = (metadata or {}).get(name, False)
            if not isinstance(value, bool):
                return False, FieldProblem(f"metadata[{name!r}] must be true or false, got {value!r}", field="metadata")
        number = (metadata or {}).get("from_number")
        if number is not None and not isinstance(number, str):
            return False, FieldProblem(f"metadata['from_number'] must be a string, got {number!r}", field="metadata")
        return True, "valid"


@cache
def _verdict(
    provider: VoiceProvider | str,
    stt_provider: STTProvider | str,
    tier: RiskLevel,
    factors: tuple[str, ...],
    required: bool,  # noqa: FBT001 - a key of the cache
    token_valid: bool | None,  # noqa: FBT001
) -> PolicyVerdict:
    """The verdict on every request of this kind. Cached: there are some hundred kinds, with thousands of sessions each."""
    facts = {
        "risk_level": tier.value,
        "factors": factors,
        "provider": text_of(provider),
        "stt_provider": text_of(stt_provider),
        "admin_token_required": required,
        "admin_token_valid": token_valid is True,
    }
    if required and not token_valid:
        raised = f", raised by {' and '.join(factors)}" if factors else ""
        invalid = "" if token_valid is None else ", and the one given is unknown, expired or revoked"
        return PolicyVerdict(
            status=RequestStatus.REQUIRE_ADMIN,
            reason_code="ADMIN_TOKEN_REQUIRED",
            hint=f"risk tier {tier.value} (from provider {text_of(provider)}{raised}) needs a valid admin token{invalid}; "
            "create one with `agentos-voice token create NAME --role admin`",
            metadata=facts,
        )
    return PolicyVerdict(
        status=RequestStatus.APPROVED,
        reason_code="VOICE_SESSION_APPROVED",
        hint=f"approved with risk tier {tier.value}",
        metadata=facts,
    )
