"""The policy engine, under the name that the specification gives it; it lives in `machines.policy`."""

from machines.policy import VoicePolicy

__all__ = ["VoicePolicy"]
