"""The quality of one session's audio: levels from the media port's measures, pauses from the frames' arrival."""

import math
from typing import Any

from actors.actor import IGNORE, Actor, Out
from actors.mailbox import Ref
from actors.messages import Assessed, Drain, Emit, Frames, Kept
from machines.events import VoiceEventType
from machines.session import Quality

OPEN, DONE = "open", "done"


class QualityActor(Actor):
    """Sums up how the audio was, and tells its level to those who listen."""

    __slots__ = (
        "clipped",
        "directory",
        "energy",
        "frames_measured",
        "last_ms",
        "pause_ms",
        "peak",
        "phase",
        "session",
        "session_id",
        "silent",
    )
    wiring = ("session", "directory", "session_id")
    state = ("phase", "last_ms", "pause_ms", "frames_measured", "energy", "peak", "clipped", "silent")
    journal = ("phase", "frames_measured", "energy", "peak", "clipped", "silent", "pause_ms")
    handles = {
        OPEN: {Frames: "frames", Kept: "measured", Drain: "drain"},
        DONE: {Frames: IGNORE, Kept: IGNORE, Drain: IGNORE},
    }

    def __init__(self, session: Ref, directory: Any, session_id: str) -> None:
        self.session = session
        self.directory = directory
        self.session_id = session_id
        self.phase = OPEN
        self.last_ms = self.pause_ms = self.frames_measured = self.clipped = self.silent = 0
        self.energy = self.peak = 0.0

    def frames(self, message: Frames, _: Out) -> None:
        """Note the pause before this arrival."""
        at = message.at_ms
        if at - self.last_ms > self.pause_ms and self.last_ms:
            self.pause_ms = at - self.last_ms
        self.last_ms = at

    def measured(self, message: Kept, out: Out) -> None:
        """Add a measure, and tell the level of what just came."""
        if not message.frames:
            return
        self.frames_measured += message.frames
        self.energy += message.mean_square * message.frames
        self.peak = max(self.peak, message.peak)
        self.clipped += message.clipped
        self.silent += message.silent
        payload = (
            ("frames", message.frames),
            ("upto_frame", message.upto),
            ("level_dbfs", dbfs(message.mean_square)),
            ("peak_dbfs", dbfs(message.peak**2)),
        )
        out.port(self.directory, Emit(self.session_id, VoiceEventType.AUDIO_RECEIVED, payload))

    def drain(self, _: Drain, out: Out) -> None:
        """Tell the session how it was."""
        self.phase = DONE
        measured = self.frames_measured
        quality = Quality(
            level_dbfs=dbfs(self.energy / measured) if measured else None,
            peak_dbfs=dbfs(self.peak**2) if measured else None,
            clipped_share=self.clipped / measured if measured else 0.0,
            silent_share=self.silent / measured if measured else 0.0,
            longest_pause_ms=self.pause_ms,
        )
        out.tell(self.session, Assessed(quality))


def dbfs(mean_square: float) -> float | None:
    """Decibels relative to full scale; None for digital silence."""
    return round(10 * math.log10(mean_square), 1) if mean_square > 0 else None
