"""The recorder of one session: it hands every frame to the media port, and keeps the account of every frame.

    OPEN       frames are handed over
    DRAINING   the session said that no more follow; the port is closing the recording, unless it falls silent
    CLOSED     the account is complete and the session has it

The port knows frames by their numbers, so that handing a run over again after a crash keeps it once.

A port that falls silent, on a disk that hangs, ends no call: no audio is lost while frames wait, and the door holds the caller
back when too many wait. An ending call must not wait out its drain deadline for a silent port: the recorder tells that the port
failed, declares the frames that the port has not dealt with as lost, and answers.
"""

from msgspec.structs import replace

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import Port
from actors.voice.call_part import CallPart, PartContext, hole_before
from actors.voice.messages import (
    Account,
    AudioLost,
    CloseMedia,
    Drain,
    Facts,
    Frames,
    Keep,
    Kept,
    MediaClosed,
    MediaLost,
    MediaSilent,
    OpenMedia,
    PartAnswer,
    PartRecord,
    PartReport,
    PortFailed,
    Resumption,
)
from machines.losses import counted, total
from machines.operations import AUDIO_ACCOUNTED
from machines.reasons import MEDIA_SILENT

OPEN, DRAINING, CLOSED = "open", "draining", "closed"
NOTHING_YET = Account(upto=0, kept=0, n_bytes=0, digest="", lost=())
PORT = "media"


class RecorderActor(Actor):
    """Hands frames to the media port and counts.

    `expected` is the next frame number, `last_run` the first one of the run handed over last; `account` is
    the account so far. `told_upto` is the `upto` of the last account that went into evidence. `before` is the account that a
    dead process left.
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
        "place",
        "quality",
        "session",
        "told_upto",
    )
    wiring = ("session", "place", "quality", "media", "facts", "account_frames", "before")
    state = ("phase", "expected", "last_run", "account", "told_upto")
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
            Drain: "answer_again",
            Kept: IGNORE,
            MediaLost: IGNORE,
            MediaClosed: IGNORE,
            MediaSilent: IGNORE,
        },
    }

    def __init__(
        self,
        session: Ref,
        place: int,
        quality: Ref,
        media: Port | None,
        facts: Facts,
        account_frames: int,
        before: Account = NOTHING_YET,
    ) -> None:
        self.session = session
        self.place = place
        self.quality = quality
        self.media = media
        self.facts = facts
        self.account_frames = account_frames
        self.before = before
        self.phase = OPEN
        self.expected = self.last_run = self.told_upto = before.upto
        self.account = before

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
            self._answer(out)
        else:
            out.tell(self.session, PartReport(self.place, self.account))
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
            out.tell(self.session, PartReport(self.place, self.account))
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
        """The port dealt with more frames: count them, tell the session the account, and then pass the measures on."""
        account = self.account = Account(message.upto, message.kept, message.n_bytes, message.digest, self.account.lost)
        record = None
        if message.upto - self.told_upto >= self.account_frames:
            self.told_upto = message.upto
            record = PartRecord(AUDIO_ACCOUNTED, account.detail(), interim=True)
        out.tell(self.session, PartReport(self.place, account, (), record))
        out.tell(self.quality, message)

    def media_lost(self, message: MediaLost, out: Out) -> None:
        """The port could not keep some frames."""
        self._lose(message.reason, message.count)
        out.tell(self.session, PartReport(self.place, self.account))
        out.tell(self.session, AudioLost(PORT, message.first, message.count, message.reason))

    def port_silent(self, _: MediaSilent, out: Out) -> None:
        """The port does not answer. Frames can wait, so no audio is lost: tell the session that the port failed."""
        out.tell(self.session, PortFailed(PORT, MEDIA_SILENT))

    def closed(self, message: MediaClosed, out: Out) -> None:
        """The recording is closed: tell the session the final account."""
        self.phase = CLOSED
        self.account = replace(self.account, digest=message.digest, recording=message.recording)
        self._answer(out)

    def given_up(self, _: MediaSilent, out: Out) -> None:
        """The port does not answer: declare the frames that it has not dealt with as lost, though the disk may have them."""
        self.phase = CLOSED
        missing = self.expected - self.account.kept - total(self.account.lost)
        if missing:
            self._lose(MEDIA_SILENT, missing)
        out.tell(self.session, PortFailed(PORT, MEDIA_SILENT))
        self._answer(out)

    def answer_again(self, _: Drain, out: Out) -> None:
        """The session was restarted and may not have the answer."""
        self._answer(out)

    def _answer(self, out: Out) -> None:
        out.tell(self.session, PartAnswer(self.place, self.account))

    def _lose(self, reason: str, frames: int) -> None:
        self.account = replace(self.account, lost=counted(self.account.lost, reason, frames))


class RecorderPart(CallPart):
    """The recorder of a call: every call has one, also where no recording was asked for."""

    name = "recorder"
    kind = RecorderActor
    port = PORT

    def begins_with(self, resumption: Resumption | None) -> Account:
        """Nothing, or the account of the process that died."""
        return NOTHING_YET if resumption is None else resumption.account

    def actor(self, context: PartContext) -> RecorderActor:
        """The recorder, which passes its measures on to the quality part."""
        return RecorderActor(
            context.session,
            context.place,
            context.other("quality"),
            context.port,
            context.facts,
            context.account_frames,
            context.account,
        )

    def upto(self, account: Account) -> int:
        """The frame below which the media port has dealt with everything."""
        return account.upto

    def release(self, facts: Facts) -> CloseMedia:
        """The port is to close the recording."""
        return CloseMedia(facts.session_id)
