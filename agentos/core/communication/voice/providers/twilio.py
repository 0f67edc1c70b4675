"""Calls from the telephone network, by Twilio Voice."""

import re
from typing import Any

from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.settings import VoiceSettings
from machines.communication import RiskLevel
from machines.problem import FieldProblem

ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
REQUIRED = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_TWIML_APP_SID")


class TwilioProvider(IVoiceProvider):
    """PSTN and SIP calls through a Twilio account. Audio comes in by `dispatch_audio_chunk`."""

    def __init__(self, settings: VoiceSettings) -> None:
        token = settings.twilio_auth_token
        self._values = {
            "TWILIO_ACCOUNT_SID": settings.twilio_account_sid,
            "TWILIO_AUTH_TOKEN": token.get_secret_value() if token is not None else None,
            "TWILIO_TWIML_APP_SID": settings.twilio_twiml_app_sid,
        }

    @property
    def can_be_slowed(self) -> bool:
        """Twilio's media stream is live: it sends on whatever we do."""
        return False

    def get_session_metadata(self) -> dict[str, Any]:
        """What a telephone call is like."""
        return {
            "provider": "twilio",
            "transport": "pstn",
            "risk_level": RiskLevel.MEDIUM.value,
            "external_dependencies": ["twilio"],
            "supports_recording": True,
            "supports_transcription": True,
        }

    def missing_variable(self) -> str | None:
        """The first environment variable that is not set, or whose value can't be right."""
        for name in REQUIRED:
            if not self._values[name]:
                return name
        account = self._values["TWILIO_ACCOUNT_SID"] or ""
        return None if ACCOUNT_SID.fullmatch(account) else "TWILIO_ACCOUNT_SID"

    def validate_config(self) -> tuple[bool, str]:
        """Whether account, token and application are set; the problem names the variable that is not."""
        variable = self.missing_variable()
        if variable is None:
            return True, "the Twilio provider is configured"
        if self._values[variable]:
            return False, FieldProblem(
                f"{variable} is not an account SID: 'AC' and 32 hexadecimal digits", field=variable
            )
        return False, FieldProblem(f"{variable} is not set", field=variable)
