"""The command `agentos-voice`: calls, evidence, sessions, tokens, diagrams, settings and a doctor.

Commands are found by name and imported when they run, so that `--help` loads neither database nor audio libraries.
"""

from agentos.core.communication.voice.cli.app import main
from agentos.core.communication.voice.cli.exits import EXIT_CODES

__all__ = ["EXIT_CODES", "main"]
