"""The quality of one session's audio: levels from the media port's measures, pauses from the frames' arrival."""

import math

from msgspec.structs import replace

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice.call_part import CallPart, Hears, PartContext
from actors.voice.messages import Drain, Fields, Frames, Kept, Levels, Metered, PartAnswer, PartReport, Resumption
from machines.session import Quality

OPEN, DONE = "open", "done"
UNMEASURED = Levels()


class QualityActor(Actor):
    """Sums up the levels and pauses of a call's audio, and tells the session the sums as they grow.

    A restart keeps the longest pause, and forgets when the last frame came.
    """

    __slots__ = (
        "before",
        "last_ms",
        "levels",
        "pause_ms",
        "phase",
        "place",
        "session",
        "session_id",
    )
    wiring = ("session", "place", "session_id", "before")
    state = ("phase", "last_ms", "pause_ms", "levels")
    journal = ("phase", "pause_ms", "levels")
    handles = {
        OPEN: {Frames: "frames", Kept: "measured", Drain: "drain"},
        DONE: {Frames: IGNORE, Kept: IGNORE, Drain: "answer_again"},
    }

    def __init__(self, session: Ref, place: int, session_id: str, before: Levels = UNMEASURED) -> None:
        self.session = session
        self.place = place
        self.session_id = session_id
        self.before = before
        self.phase = OPEN
        self.last_ms = self.pause_ms = 0
        self.levels = before

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
            message.upto,
            message.kept,
            message.n_bytes,
            message.digest,
        )
        news = (Metered(self.session_id, message),)
        out.tell(self.session, PartReport(self.place, self.levels, news, None, message.voiced > 0))

    def restarted(self, out: Out) -> None:
        """The answer may not have gone out."""
        if self.phase == DONE:
            self._answer(out)

    def drain(self, _: Drain, out: Out) -> None:
        """Tell the session how all of the audio was."""
        self.phase = DONE
        self._answer(out)

    def answer_again(self, _: Drain, out: Out) -> None:
        """The session was restarted and may not have the answer."""
        self._answer(out)

    def _answer(self, out: Out) -> None:
        out.tell(self.session, PartAnswer(self.place, replace(self.levels, pause_ms=self.pause_ms)))


class QualityPart(CallPart):
    """The quality of a call's audio. The recorder passes its measures on, so this part drains after the recorder."""

    name = "quality"
    kind = QualityActor
    after = ("recorder",)
    hears = Hears.VOICE

    def begins_with(self, resumption: Resumption | None) -> Levels:
        """No levels: those that the dead process had measured are not known."""
        return UNMEASURED if resumption is None else Levels(upto=resumption.account.upto)

    def actor(self, context: PartContext) -> QualityActor:
        """The quality actor."""
        return QualityActor(context.session, context.place, context.facts.session_id, context.account)

    def upto(self, account: Levels) -> int:
        """The frame below which everything was measured, or is known to be lost."""
        return account.upto


def quality_of(levels: Levels) -> Quality:
    """These sums as the `quality` of a result."""
    frames = levels.frames
    return Quality(
        level_dbfs=dbfs(levels.energy / frames) if frames else None,
        peak_dbfs=dbfs(levels.peak**2) if frames else None,
        clipped_share=levels.clipped / frames if frames else 0.0,
        silent_share=levels.silent / frames if frames else 0.0,
        longest_pause_ms=levels.pause_ms,
    )


def level_fields(measure: Kept) -> Fields:
    """A measure as the payload of an AUDIO_RECEIVED event."""
    return (
        ("frames", measure.frames),
        ("upto_frame", measure.upto),
        ("level_dbfs", dbfs(measure.mean_square)),
        ("peak_dbfs", dbfs(measure.peak**2)),
    )


def dbfs(mean_square: float) -> float | None:
    """Decibels relative to full scale, to a tenth; None for digital silence."""
    return round(100 * math.log10(mean_square)) / 10 if mean_square > 0 else None
