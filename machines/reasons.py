"""The reasons why audio was lost or not transcribed, each with its meaning, as accounts, events and streams give them.

An accepted frame is either accounted, or dropped for a reason in `DROPPED`; and it is either transcribed, or untranscribed for
a reason in `UNTRANSCRIBED`.
"""

from collections.abc import Mapping
from typing import Final

BACKLOG: Final = "backlog"
CAPTURE: Final = "capture"
CUT_OFF: Final = "cut_off"
DISK_FULL: Final = "disk_full"
DRAIN_EXPIRED: Final = "drain_expired"
ENGINE_FAILED: Final = "engine_failed"
LATE: Final = "late"
LOST_ON_THE_WAY: Final = "lost_on_the_way"
MEDIA_SILENT: Final = "media_silent"
MISSING: Final = "missing"
NO_ENGINE: Final = "no_engine"
NO_WORKERS: Final = "no_workers"
PROCESS_DIED: Final = "process_died"
RING: Final = "ring"
SESSION_FAILED: Final = "session_failed"
SPEECH_SILENT: Final = "speech_silent"
WORKER_DIED: Final = "worker_died"
WORKER_HUNG: Final = "worker_hung"
WORKER_SILENT: Final = "worker_silent"
WRITE_FAILED: Final = "write_failed"

_BOTH: Final = {
    BACKLOG: "had to go for newer ones, in a session that can't be slowed",
    CAPTURE: "were never captured: the client said so, or its media time has a pause",
    CUT_OFF: "had no account yet when the service was cut off",
    DRAIN_EXPIRED: "had no account yet when the drain deadline passed",
    LATE: "had no account yet when the end was told",
    LOST_ON_THE_WAY: "were lost between two actors that crashed",
    MISSING: "were no longer there when the port fetched them",
    PROCESS_DIED: "are not there after their process died",
    RING: "no longer had room at the client, which said so",
    SESSION_FAILED: "had no account yet when the session's actor could not be restarted any more",
}

DROPPED: Final[Mapping[str, str]] = {
    **_BOTH,
    DISK_FULL: "were to be recorded, and the disk was full",
    MEDIA_SILENT: "waited at a media port that hung",
    WRITE_FAILED: "were to be recorded, and the disk refused for another cause",
}
"""Why frames are in no digest and no recording."""

UNTRANSCRIBED: Final[Mapping[str, str]] = {
    **_BOTH,
    ENGINE_FAILED: "were with an engine that failed",
    NO_ENGINE: "came in a session that no engine heard",
    NO_WORKERS: "found no worker process that could be started",
    SPEECH_SILENT: "waited at a speech port that hung",
    WORKER_DIED: "were with a worker process that died",
    WORKER_HUNG: "were with a worker process that was ended because it hung",
    WORKER_SILENT: "waited for a worker process that did not answer when the call ended",
}
"""Why frames are in no utterance and no silence between two."""
