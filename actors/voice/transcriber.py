"""The transcriber of one session: it hands every frame to the speech port, and tells the session the words that come back.

    OPEN       frames are handed over
    DRAINING   the session said that no more follow; the engine tells its last words
    DONE       the transcript is complete and the session has it

The port knows frames by their numbers, so that handing a run over again after a crash transcribes it once.

The transcriber tells the session its account as it grows, with the news for listeners: however the call ends, its result has
the words that the listeners were told.

A port or a worker that falls silent ends no call: no audio is lost while frames wait. An ending call must not wait out its
drain deadline for it: the transcriber declares the frames that were not heard, and answers with the text that it has.
"""

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import Port
from actors.voice.call_part import CallPart, Hears, PartContext, hole_before
from actors.voice.messages import (
    Abandon,
    AudioLost,
    Drain,
    Emit,
    Facts,
    Finish,
    Finished,
    Frames,
    Hear,
    Heard,
    Listen,
    PartAnswer,
    Partial,
    PartReport,
    PortFailed,
    Resumption,
    SpeechSilent,
    Transcribed,
    Unheard,
    Utterance,
)
from machines.events import VoiceEventType
from machines.losses import counted, total

OPEN, DRAINING, DONE = "open", "draining", "done"
PORT = "speech"
NOTHING_HEARD = Transcribed(text="", heard=0, unheard=())


class TranscriberActor(Actor):
    """Hands frames to the engine and collects what it hears.

    `expected` is the next frame number, `last_run` the first one of the run handed over last; `heard` counts the frames that
    the port heard, `unheard` the frames that the port gave up, by reason; `texts` are the finished utterances in order.
    `before` is the account that a dead process left.
    """

    __slots__ = (
        "before",
        "directory",
        "expected",
        "facts",
        "heard",
        "last_run",
        "phase",
        "place",
        "session",
        "speech",
        "texts",
        "unheard",
    )
    wiring = ("session", "place", "speech", "directory", "facts", "before")
    state = ("phase", "expected", "last_run", "heard", "unheard", "texts")
    journal = state
    handles = {
        OPEN: {
            Frames: "frames",
            Drain: "drain",
            Heard: "heard_some",
            Partial: "partial",
            Utterance: "utterance",
            Unheard: "lost",
            SpeechSilent: "port_silent",
            Finished: IGNORE,  # an engine finishes when it was asked to, and then this is draining
        },
        DRAINING: {
            Frames: IGNORE,
            Drain: IGNORE,
            Heard: "heard_some",
            Partial: "partial",
            Utterance: "utterance",
            Unheard: "lost",
            SpeechSilent: "given_up",
            Finished: "finished",
        },
        DONE: {
            Frames: IGNORE,
            Drain: "answer_again",
            Heard: IGNORE,
            Partial: IGNORE,
            Utterance: IGNORE,
            Unheard: IGNORE,
            SpeechSilent: IGNORE,
            Finished: IGNORE,
        },
    }

    def __init__(
        self,
        session: Ref,
        place: int,
        speech: Port | None,
        directory: Port,
        facts: Facts,
        before: Transcribed = NOTHING_HEARD,
    ) -> None:
        self.session = session
        self.place = place
        self.speech = speech
        self.directory = directory
        self.facts = facts
        self.before = before
        self.phase = OPEN
        self.expected = self.last_run = before.heard + total(before.unheard)
        self.heard = before.heard
        self.unheard = before.unheard
        self.texts: tuple[str, ...] = (before.text,) if before.text else ()

    def start(self, out: Out) -> None:
        """Open a stream at the engine; a second opening of the same session changes nothing there."""
        facts = self.facts
        if facts.stt_engine is not None:
            listen = Listen(facts.session_id, facts.stt_engine, facts.audio_format, out.me, facts.stt_options)
            out.port(self.speech, listen)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands; a run or an end that may not have gone out is handed over again."""
        if self.phase == DRAINING:
            out.port(self.speech, Finish(self.facts.session_id))
        if self.phase == DONE:
            self._answer(out)
        else:
            self._tell_so_far(out)
        if self.phase != OPEN:
            return  # a stream opened now could only come after the end
        self.start(out)
        if self.expected > self.last_run:
            out.port(self.speech, Hear(self.facts.session_id, self.last_run, self.expected - self.last_run))

    def frames(self, message: Frames, out: Out) -> None:
        """Hand a run over; a hole in the numbers is a loss that is declared, a number seen before is old."""
        if message.first != self.expected:
            if message.first < self.expected:
                return
            for first, count, reason in hole_before(message, self.expected):
                self.unheard = counted(self.unheard, reason, count)
                out.tell(self.session, AudioLost(PORT, first, count, reason))
            self._tell_so_far(out)
        self.last_run = message.first
        self.expected = message.first + message.count
        out.port(self.speech, Hear(self.facts.session_id, message.first, message.count))

    def drain(self, _: Drain, out: Out) -> None:
        """No more frames follow."""
        self.phase = DRAINING
        out.port(self.speech, Finish(self.facts.session_id))

    def heard_some(self, message: Heard, out: Out) -> None:
        """The outcome of more frames is known."""
        self.heard += message.frames
        self._tell_so_far(out)

    def partial(self, message: Partial, out: Out) -> None:
        """Tell the listeners a preview."""
        if self.facts.silence_seconds is not None and message.text.strip():
            self._tell_so_far(out, spoken=True)
        out.port(self.directory, Emit(self.facts.session_id, VoiceEventType.STT_PARTIAL, (("text", message.text),)))

    def utterance(self, message: Utterance, out: Out) -> None:
        """Keep a finished utterance, and tell the session and its listeners."""
        self.texts = (*self.texts, message.text)
        if message.heard is not None:
            self.heard += message.heard.frames
        words = tuple(
            {"text": word.text, "start_ms": word.start_ms, "end_ms": word.end_ms, "confidence": word.confidence}
            for word in message.words
        )
        payload = (
            ("text", message.text),
            ("start_ms", message.start_ms),
            ("end_ms", message.end_ms),
            ("words", words),
        )
        final = Emit(self.facts.session_id, VoiceEventType.STT_FINAL, payload)
        self._tell_so_far(out, final, spoken=bool(message.text.strip()))

    def lost(self, message: Unheard, out: Out) -> None:
        """Frames that no engine will hear: declared."""
        self.unheard = counted(self.unheard, message.reason, message.count)
        payload = (("reason", message.reason), ("first_frame", message.first), ("frames", message.count))
        self._tell_so_far(out, Emit(self.facts.session_id, VoiceEventType.ERROR, (("part", "speech"), *payload)))
        out.tell(self.session, AudioLost(PORT, message.first, message.count, message.reason))

    def port_silent(self, message: SpeechSilent, out: Out) -> None:
        """The port does not answer. Frames can wait, so no audio is lost: tell the session that the port failed."""
        out.tell(self.session, PortFailed(PORT, message.reason))

    def finished(self, _: Finished, out: Out) -> None:
        """Everything handed over was heard or declared: tell the session the whole text."""
        self.phase = DONE
        self._answer(out)

    def given_up(self, message: SpeechSilent, out: Out) -> None:
        """The port does not answer: declare the frames that were not heard, and give up the engine's further words."""
        self.phase = DONE
        missing = self.expected - self.heard - total(self.unheard)
        if missing:
            self.unheard = counted(self.unheard, message.reason, missing)
        out.port(self.speech, Abandon(self.facts.session_id))
        out.tell(self.session, PortFailed(PORT, message.reason))
        self._answer(out)

    def answer_again(self, _: Drain, out: Out) -> None:
        """The session was restarted and may not have the answer."""
        self._answer(out)

    def _answer(self, out: Out) -> None:
        out.tell(self.session, PartAnswer(self.place, self._account(self.expected - total(self.unheard))))

    def _tell_so_far(self, out: Out, news: Emit | None = None, *, spoken: bool = False) -> None:
        told = () if news is None else (news,)
        out.tell(self.session, PartReport(self.place, self._account(self.heard), told, None, spoken))

    def _account(self, heard: int) -> Transcribed:
        return Transcribed(" ".join(filter(None, self.texts)), heard, self.unheard)


class TranscriberPart(CallPart):
    """The transcriber of a call that has an engine."""

    name = "transcriber"
    kind = TranscriberActor
    port = PORT
    hears = Hears.WORDS

    def takes(self, facts: Facts) -> bool:
        """Whether the call has an engine."""
        return facts.stt_engine is not None

    def begins_with(self, resumption: Resumption | None) -> Transcribed:
        """Nothing, or the account of the dead process."""
        return NOTHING_HEARD if resumption is None else resumption.heard

    def actor(self, context: PartContext) -> TranscriberActor:
        """The transcriber."""
        return TranscriberActor(
            context.session, context.place, context.port, context.directory, context.facts, context.account
        )

    def upto(self, account: Transcribed) -> int:
        """The number of frames that were heard or given up."""
        return account.heard + total(account.unheard)

    def has_gaps(self, account: Transcribed) -> bool:
        """Whether some frames were not heard."""
        return bool(account.unheard)

    def release(self, facts: Facts) -> Abandon:
        """The port is to forget the call."""
        return Abandon(facts.session_id)
