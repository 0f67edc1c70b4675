"""The quality of one session's audio: levels from the media port's measures, pauses from the frames' arrival."""

import math
from typing import Any

from msgspec.structs import replace

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice.messages import Assessed, Drain, Frames, Kept, Levels, Measured
from machines.session import Quality

OPEN, DONE = "open", "done"


class QualityActor(Actor):
    """Sums up how the audio was, and tells its session as the sums grow, with the level for those who listen.

    After a crash the pauses before it are still known, but not when the last frame came.
    """

    __slots__ = (
        "last_ms",
        "levels",
        "pause_ms",
        "phase",
        "session",
    )
    wiring = ("session",)
    state = ("phase", "last_ms", "pause_ms", "levels")
    journal = ("phase", "pause_ms", "levels")
    handles = {
        OPEN: {Frames: "frames", Kept: "measured", Drain: "drain"},
        DONE: {Frames: IGNORE, Kept: IGNORE, Drain: IGNORE},
    }

    def __init__(self, session: Ref) -> None:
        self.session = session
        self.phase = OPEN
        self.last_ms = self.pause_ms = 0
        self.levels = Levels()

    def frames(self, message: Frames, _: Out) -> None:
        """Note the pause before this arrival."""
        at = message.at_ms
        if at - self.last_ms > self.pause_ms and self.last_ms:
            self.pause_ms = at - self.last_ms
        self.last_ms = at

    def measured(self, message: Kept, out: Out) -> None:
        """Add a measure, and have the outside told of it, also of one that says that all was lost."""
        levels = self.levels
        self.levels = Levels(
            levels.frames + message.frames,
            levels.energy + message.mean_square * message.frames,
            max(levels.peak, message.peak),
            levels.clipped + message.clipped,
            levels.silent + message.silent,
            self.pause_ms,
        )
        out.tell(self.session, Measured(self.levels, message))

    def restarted(self, out: Out) -> None:
        """What was told last may not have gone out."""
        if self.phase == DONE:
            self._tell(out)

    def drain(self, _: Drain, out: Out) -> None:
        """Tell the session how it was."""
        self.phase = DONE
        self._tell(out)

    def _tell(self, out: Out) -> None:
        out.tell(self.session, Assessed(replace(self.levels, pause_ms=self.pause_ms)))


def quality_of(levels: Levels) -> Quality:
    """What a result says of these sums."""
    frames = levels.frames
    return Quality(
        level_dbfs=dbfs(levels.energy / frames) if frames else None,
        peak_dbfs=dbfs(levels.peak**2) if frames else None,
        clipped_share=levels.clipped / frames if frames else 0.0,
        silent_share=levels.silent / frames if frames else 0.0,
        longest_pause_ms=levels.pause_ms,
    )


def level_fields(measure: Kept) -> tuple[tuple[str, Any], ...]:
    """What an AUDIO_RECEIVED event says of a measure."""
    return (
        ("frames", measure.frames),
        ("upto_frame", measure.upto),
        ("level_dbfs", dbfs(measure.mean_square)),
        ("peak_dbfs", dbfs(measure.peak**2)),
    )


def dbfs(mean_square: float) -> float | None:
    """Decibels relative to full scale, to a tenth; None for digital silence."""
    return round(100 * math.log10(mean_square)) / 10 if mean_square > 0 else None
