"""The providers of a service, by name: this package's own, those that the host handed over, and those that are installed."""

from collections.abc import Iterable
from typing import Final

from agentos.core.communication.voice.errors import InvalidRequest, UnusableExtension
from agentos.core.communication.voice.extensions import EntryPointGroup, check_name
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.providers.local import LocalProvider
from agentos.core.communication.voice.providers.transport import Transport
from agentos.core.communication.voice.providers.twilio import TwilioProvider
from agentos.core.communication.voice.settings import VoiceSettings
from machines.communication import RiskLevel
from machines.names import ProviderName, text_of
from machines.session import VoiceProvider

PROVIDERS: Final = "agentos_voice.providers"
"""The group of entry points: a name, and a class, or a function, that makes the provider of the service's settings."""


class Providers:
    """Providers by name. Those that are installed are loaded when somebody asks for them, and made once."""

    def __init__(self, settings: VoiceSettings, handed_over: Iterable[IVoiceProvider] = ()) -> None:
        """Raises `UnusableExtension` for one that is no provider, or whose name is taken."""
        self._settings = settings
        self._providers: dict[str, IVoiceProvider] = {
            VoiceProvider.LOCAL.value: LocalProvider(),
            VoiceProvider.TWILIO.value: TwilioProvider(settings),
        }
        self._names: dict[str, VoiceProvider | ProviderName] = {member.value: member for member in VoiceProvider}
        self._installed = EntryPointGroup(PROVIDERS, tuple(self._providers))
        for provider in handed_over:
            if not isinstance(provider, IVoiceProvider):
                raise UnusableExtension(PROVIDERS, type(provider).__name__, "it is no IVoiceProvider")
            try:
                own_name = provider.name
            except Exception as error:
                problem = f"it does not say its name: {type(error).__name__}: {error}"
                raise UnusableExtension(PROVIDERS, type(provider).__name__, problem) from error
            name = check_name(PROVIDERS, own_name)
            if name in self._providers:
                raise UnusableExtension(PROVIDERS, name, "the name is taken: give it another")
            self._add(name, provider)

    def names(self) -> tuple[str, ...]:
        """What can be asked for. Nothing is imported for it."""
        return (*self._providers, *(name for name in self._installed.names() if name not in self._providers))

    def taken(self) -> dict[str, str]:
        """Distributions, by name, that are left aside: they offer a provider under a name of this package."""
        return self._installed.taken()

    def named(self, name: object) -> VoiceProvider | ProviderName:
        """The name as policies and facts have it. Raises `InvalidRequest` when nobody has it, `UnusableExtension` when its
        provider can't be had."""
        plain = self._known(name)
        self._load(plain)
        return self._names[plain]

    def provider(self, name: VoiceProvider | str) -> IVoiceProvider:
        """The provider of this name. Raises as `named` does."""
        return self._load(self._known(name))

    def has(self, name: str) -> bool:
        """Whether somebody has this name."""
        return name in self._providers or name in self._installed

    def _known(self, name: object) -> str:
        if isinstance(name, str) and self.has(plain := text_of(name)):
            return plain
        problem = f"provider must be a VoiceProvider or a registered name ({', '.join(self.names())}), got {name!r:.80}"
        raise InvalidRequest(problem, field="provider")

    def _load(self, name: str) -> IVoiceProvider:
        found = self._providers.get(name)
        return found if found is not None else self._add(name, self._made(name))

    def _made(self, name: str) -> IVoiceProvider:
        make = self._installed.load(name)
        if not callable(make):
            raise self._installed.unusable(name, f"{make!r} is neither a class nor a function")
        try:
            provider = make(self._settings)
        except Exception as error:
            raise self._installed.unusable(name, f"it can't be made: {type(error).__name__}: {error}") from error
        if not isinstance(provider, IVoiceProvider):
            raise self._installed.unusable(name, f"{make!r} made a {type(provider).__name__}, not an IVoiceProvider")
        return provider

    def validate(self, name: VoiceProvider | str) -> tuple[bool, str]:
        """What the provider of this name says of its configuration; see `IVoiceProvider.validate_config`. Raises as `named`
        does, and `UnusableExtension` for one that does not say it."""
        plain = self._known(name)
        try:
            valid, problem = self._load(plain).validate_config()
        except UnusableExtension:
            raise
        except Exception as error:
            raise self._unusable(plain, f"validate_config() failed: {type(error).__name__}: {error}") from error
        return valid, problem

    def _add(self, name: str, provider: IVoiceProvider) -> IVoiceProvider:
        try:
            tier, transport, _ = provider.risk_tier, provider.transport, provider.can_be_slowed
        except Exception as error:
            raise self._unusable(name, f"it does not say what it is: {type(error).__name__}: {error}") from error
        if not isinstance(tier, RiskLevel):
            raise self._unusable(name, f"its risk_tier must be a RiskLevel, got {tier!r}")
        if not isinstance(transport, Transport | None):
            raise self._unusable(name, f"its transport must be a Transport or None, got {transport!r:.80}")
        self._providers[name] = provider
        self._names[name] = ProviderName(name, tier)
        return provider

    def _unusable(self, name: str, problem: str) -> UnusableExtension:
        if name in self._installed:
            return self._installed.unusable(name, problem)
        return UnusableExtension(PROVIDERS, name, problem)
