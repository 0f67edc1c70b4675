"""What every voice provider must be able to say and do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from agentos.core.communication.voice.providers.transport import Transport
from machines.communication import RiskLevel


class IVoiceProvider(ABC):
    """A way for calls to reach the service: four methods, of which two hooks are optional, and what has a default.

    The hooks are called in the thread of the service's loop, must return quickly, and must not call the service; what they
    raise is logged and does not disturb the call.
    """

    transport: Transport | None = None
    """What carries its calls: routes for the gateway, legs, a sink for audio to the caller; set when the provider is made, and
    always the same. None where audio comes by `dispatch_audio_chunk` or a browser stream alone."""

    @property
    def name(self) -> str:
        """What sessions call it: a lower-case letter, then letters, digits, `_` and `-`. As `get_session_metadata` says under
        `provider`, unless a class says otherwise. An entry point gives its own name."""
        return str(self.get_session_metadata().get("provider", ""))

    @property
    def risk_tier(self) -> RiskLevel:
        """The tier that its calls start from, where the policy does not know it: as `get_session_metadata` says under
        `risk_level`, MEDIUM if it says nothing that is a tier. Read once, when the service first looks at the provider."""
        try:
            return RiskLevel(self.get_session_metadata().get("risk_level"))
        except ValueError:
            return RiskLevel.MEDIUM

    @property
    def can_be_slowed(self) -> bool:
        """Whether its far end sends on only as fast as we take it. Audio of one that can't be slowed is never held back: when
        too much waits inside, the oldest goes first."""
        return True

    @abstractmethod
    def get_session_metadata(self) -> dict[str, Any]:
        """What the provider can do: `transport`, `risk_level`, `supports_recording`, `external_dependencies`, …"""

    @abstractmethod
    def validate_config(self) -> tuple[bool, str]:
        """Whether the provider can be used as it is configured, and if not, why.

        `machines.problem.FieldProblem(sentence, field="MY_VARIABLE")` names the setting that is missing or wrong; a plain
        sentence names none.
        """

    def on_session_created(self, session_id: str, metadata: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """A session of this provider was created, or resumed by this process, and the record of that is durable."""

    def on_session_stopped(self, session_id: str) -> None:  # noqa: B027 - optional
        """A session of this provider has stopped."""
