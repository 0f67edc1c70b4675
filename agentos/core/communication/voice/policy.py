"""The policy engine, under the name that the specification gives it; it lives in `machines.policy`."""

from machines.policy import VoicePolicy
from machines.problem import FieldProblem

__all__ = ["FieldProblem", "VoicePolicy"]
