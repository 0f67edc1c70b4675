"""The operations of evidence records, each with its meaning.

Records that a host adds with `EvidenceLogger`, and refusals at the server's door, have operations of their own.
"""

from collections.abc import Mapping
from typing import Final

SESSION_CREATED: Final = "session_created"
SESSION_DENIED: Final = "session_denied"
SESSION_ACTIVE: Final = "session_active"
SESSION_RESUMED: Final = "session_resumed"
SESSION_STOPPING: Final = "session_stopping"
SESSION_STOPPED: Final = "session_stopped"
AUDIO_ACCOUNTED: Final = "audio_accounted"
AUDIO_LOST: Final = "audio_lost"
AUDIO_MISMATCHED: Final = "audio_mismatched"
PORT_FAILED: Final = "port_failed"
RECORD_REFUSED: Final = "record_refused"
RECORDING_READY: Final = "recording_ready"
RECORDING_FAILED: Final = "recording_failed"
HEADS_NOTED: Final = "heads_noted"
CHAIN_CARRIED_OVER: Final = "chain_carried_over"
RECORD_UNREADABLE: Final = "record_unreadable"
LEG_FAILED: Final = "leg_failed"

OF_A_SESSION: Final[Mapping[str, str]] = {
    SESSION_CREATED: "a session was asked for and permitted; its facts",
    SESSION_ACTIVE: "its first audio came",
    SESSION_RESUMED: "another process goes on with it, and owns it from here on",
    AUDIO_ACCOUNTED: "how far its audio is accounted: counts, bytes, digest",
    AUDIO_LOST: "frames were lost, and why",
    AUDIO_MISMATCHED: "far more or less audio came than its clock had time for",
    PORT_FAILED: "a port hung, and the session did not wait for it",
    RECORD_REFUSED: "stands for a record that could not be written as it was",
    SESSION_STOPPING: "it is to end, and why",
    SESSION_STOPPED: "its final record: the result",
}
"""All that a session that was permitted can have, its final record last."""

OPERATIONS: Final[Mapping[str, str]] = {
    **OF_A_SESSION,
    SESSION_DENIED: "a session was asked for, and refused by policy",
    RECORDING_READY: "a recording is one file, with the samples of its digest",
    RECORDING_FAILED: "a recording can't be made: it is damaged",
    LEG_FAILED: "the leg of a session could not be opened or hung up: it may still be up at its provider",
    HEADS_NOTED: "up to where heads are noted outside the database",
    CHAIN_CARRIED_OVER: "the first record of a chain that was made from an older one",
    RECORD_UNREADABLE: "stands for a record of the older chain that was no JSON object any more",
}
"""All that this package writes."""
