"""Names of providers and of speech-to-text engines: members of the specification's enums, or names that were registered.

A name that is a member's is always that member. Any other is a `str`: a `ProviderName` or an `EngineName` where a running
service knows it, a plain `str` in what was stored, so that old calls can be read where their provider is no longer installed.
"""

import re
from enum import Enum
from typing import Final, Self

from machines.communication import RiskLevel
from machines.session import STTProvider, VoiceProvider

MAX_NAME: Final = 64  # characters; it stands in records, metrics and paths
NAME: Final = re.compile(rf"[a-z][a-z0-9_-]{{0,{MAX_NAME - 1}}}")
"""What a registered name may be."""


class ProviderName(str):
    """The name of a registered provider that is no member; `risk_tier` is the tier that the provider gives its calls.

    Made by the registry of a service, so a policy that gets one need not ask whether there is such a provider.
    """

    __slots__ = ("risk_tier",)

    risk_tier: RiskLevel

    def __new__(cls, name: str, risk_tier: RiskLevel) -> Self:
        """The name, with the tier of its provider."""
        made = super().__new__(cls, name)
        made.risk_tier = risk_tier
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, RiskLevel]]:
        """Copied and pickled with its tier."""
        return type(self), (str(self), self.risk_tier)


class EngineName(str):
    """The name of a registered engine that is no member; made by the registry of a service, as a `ProviderName` is."""

    __slots__ = ()


def engine_named(name: str) -> STTProvider | str:
    """The member of this name, else the name."""
    try:
        return STTProvider(name)
    except ValueError:
        return name


def text_of(name: VoiceProvider | STTProvider | str) -> str:
    """The name as it is written: in records, over HTTP, in metrics."""
    return name.value if isinstance(name, Enum) else str(name)
