"""The recorder of one session: every frame is handed to the media port, and the account of what became of it is kept.

    OPEN       frames are handed over
    DRAINING   the session said that no more follow; the port is closing the recording, unless it falls silent
    CLOSED     the account is complete and the session has it

The port knows frames by their numbers, so that handing a run over again after a crash keeps it once.

A port that falls silent, on a disk that hangs, ends no call: nothing is lost while frames wait, and the door holds the caller
back when too many do. But who wants the end of a call need not wait out the drain deadline for it: the recorder counts the port
as failed, declares what it has not dealt with as lost, and answers.
"""

from typing import Any

from msgspec.structs import replace

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice.messages import (
    Account,
    AudioLost,
    CloseMedia,
    Counted,
    Drain,
    Facts,
    Frames,
    Keep,
    Kept,
    MediaClosed,
    MediaLost,
    MediaSilent,
    OpenMedia,
    PortFailed,
    Recorded,
)
from machines.losses import Lost
from machines.reasons import LOST_ON_THE_WAY, MEDIA_SILENT
from machines.recording import RecordingInfo

OPEN, DRAINING, CLOSED = "open", "draining", "closed"
NOTHING_YET = Account(upto=0, kept=0, n_bytes=0, digest="", lost=())
PORT = "media"


class RecorderActor(Actor):
    """Hands frames to the media port and counts.

    `expected` is the next frame number, `last_run` the first one of the run handed over last; `account` is what became of
    the frames so far, and `told_upto` where the last one ended that is to go into evidence. `before` is the account of the
    frames that another process had, which died.
    """

    __slots__ = (
        "account",
        "account_frames",
        "before",
        "expected",
        "facts",
        "last_run",
        "media",
        "phase",
        "quality",
        "recording",
        "session",
        "told_upto",
    )
    wiring = ("session", "quality", "media", "facts", "account_frames", "before")
    state = ("phase", "expected", "last_run", "account", "told_upto", "recording")
    journal = state
    handles = {
        OPEN: {
            Frames: "frames",
            Drain: "drain",
            Kept: "kept_some",
            MediaLost: "media_lost",
            MediaClosed: IGNORE,
            MediaSilent: "port_silent",
        },
        DRAINING: {
            Frames: IGNORE,
            Drain: IGNORE,
            Kept: "kept_some",
            MediaLost: "media_lost",
            MediaClosed: "closed",
            MediaSilent: "given_up",
        },
        CLOSED: {
            Frames: IGNORE,
            Drain: IGNORE,
            Kept: IGNORE,
            MediaLost: IGNORE,
            MediaClosed: IGNORE,
            MediaSilent: IGNORE,
        },
    }

    def __init__(
        self,
        session: Ref,
        quality: Ref,
        media: Any,
        facts: Facts,
        account_frames: int,
        before: Account = NOTHING_YET,
    ) -> None:
        self.session = session
        self.quality = quality
        self.media = media
        self.facts = facts
        self.account_frames = account_frames
        self.before = before
        self.phase = OPEN
        self.expected = self.last_run = self.told_upto = before.upto
        self.account = before
        self.recording: RecordingInfo | None = None

    def start(self, out: Out) -> None:
        """Open the session's account at the port; a second opening of the same session changes nothing there."""
        facts = self.facts
        opening = OpenMedia(
            facts.session_id,
            facts.audio_format,
            facts.recording,
            out.me,
            facts.can_be_slowed,
            voices=facts.silence_seconds is not None,
        )
        out.port(self.media, opening)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands; a run or a close that may not have gone out is handed over again."""
        if self.phase == DRAINING:
            out.port(self.media, CloseMedia(self.facts.session_id))
        if self.phase == CLOSED:
            out.tell(self.session, Recorded(self.account, self.recording))
        else:
            out.tell(self.session, Counted(self.account, due=False))
        if self.phase != OPEN:
            return  # an opening now could only come after the close
        self.start(out)
        if self.expected > self.last_run:
            out.port(self.media, Keep(self.facts.session_id, self.last_run, self.expected - self.last_run))

    def frames(self, message: Frames, out: Out) -> None:
        """Hand a run over; a hole in the numbers is a loss that is declared, a number seen before is old."""
        if message.first != self.expected:
            if message.first < self.expected:
                return
            losses = hole_before(message, self.expected)
            for _, count, reason in losses:
                self._lose(reason, count)
            out.tell(self.session, Counted(self.account, due=False))
            for first, count, reason in losses:
                out.tell(self.session, AudioLost(PORT, first, count, reason))
        self.last_run = message.first
        self.expected = message.first + message.count
        out.port(self.media, Keep(self.facts.session_id, message.first, message.count))

    def drain(self, _: Drain, out: Out) -> None:
        """No more frames follow."""
        self.phase = DRAINING
        out.port(self.media, CloseMedia(self.facts.session_id))

    def kept_some(self, message: Kept, out: Out) -> None:
        """The port dealt with more frames: count them, tell the session, and pass the measures on. What the session says of
        these to those who listen comes behind its account."""
        self.account = Account(message.upto, message.kept, message.n_bytes, message.digest, self.account.lost)
        due = message.upto - self.told_upto >= self.account_frames
        if due:
            self.told_upto = message.upto
        out.tell(self.session, Counted(self.account, due))
        out.tell(self.quality, message)

    def media_lost(self, message: MediaLost, out: Out) -> None:
        """The port could not keep some frames."""
        self._lose(message.reason, message.count)
        out.tell(self.session, Counted(self.account, due=False))
        out.tell(self.session, AudioLost(PORT, message.first, message.count, message.reason))

    def port_silent(self, _: MediaSilent, out: Out) -> None:
        """The port does not answer, and nothing is lost by that as long as frames can wait: it is noted."""
        out.tell(self.session, PortFailed(PORT, MEDIA_SILENT))

    def closed(self, message: MediaClosed, out: Out) -> None:
        """The recording is closed: tell the session the final account."""
        self.phase = CLOSED
        self.account = replace(self.account, digest=message.digest)
        self.recording = message.recording
        out.tell(self.session, Recorded(self.account, message.recording))

    def given_up(self, _: MediaSilent, out: Out) -> None:
        """The port does not answer: what it has not dealt with is lost, though the disk may have it yet."""
        self.phase = CLOSED
        missing = self.expected - self.account.kept - total(self.account.lost)
        if missing:
            self._lose(MEDIA_SILENT, missing)
        out.tell(self.session, PortFailed(PORT, MEDIA_SILENT))
        out.tell(self.session, Recorded(self.account, None))

    def _lose(self, reason: str, frames: int) -> None:
        self.account = replace(self.account, lost=counted(self.account.lost, reason, frames))


def hole_before(message: Frames, expected: int) -> tuple[Lost, ...]:
    """The frames between the expected one and the first of these, by reason: those that were skipped stand right before it,
    and what else is missing was lost inside."""
    losses, upto = [], message.first
    for reason, count in reversed(message.skipped):
        first = max(expected, upto - count)
        if first < upto:
            losses.append(Lost(first, upto - first, reason))
        upto = first
    if expected < upto:
        losses.append(Lost(expected, upto - expected, LOST_ON_THE_WAY))
    return tuple(reversed(losses))


def counted(counts: tuple[tuple[str, int], ...], reason: str, more: int) -> tuple[tuple[str, int], ...]:
    """Counts by reason with `more` added to one of them, in the order of the reasons' names."""
    by_reason = dict(counts)
    by_reason[reason] = by_reason.get(reason, 0) + more
    return tuple(sorted(by_reason.items()))


def total(counts: tuple[tuple[str, int], ...]) -> int:
    """All that was counted, whatever the reason."""
    return sum([count for _, count in counts]) if counts else 0
