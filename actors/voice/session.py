"""One call: the actor that carries a session from CREATED to STOPPED, whatever fails on the way.

Its phases are the states of `machines.session.SESSION`, and every move is fired there. What each phase does:

    CREATED    its creation is made durable, then whoever asked is told. The first audio spawns recorder, transcriber and
               quality. Without evidence of its creation it ends as if it had never been.
               One that another process left when it died goes on in ACTIVE, when the record of that is durable; without
               it, it is left as it was found.
    ACTIVE     frames are passed on to the three as they come. A part that crashes is restarted within its intensity.
    STOPPING   frames accepted before the stop are still passed on, later ones are declared late. When all have come, or
               half the time is over, the parts drain. A timer ends this state whether or not they do.
    STOPPED    the final record is made durable, or spilled when the store does not take it in time; then all who asked
               for the stop are told, and the actor is gone.

A restart tells anew where the session stands and sends again what was not acknowledged: so a crash halfway through the
effects of a step, which loses the rest of them, loses nothing that matters. Its deadlines count from their beginning, whatever
crashes; only a silence begins anew.

Recorder, transcriber and quality tell their accounts as they grow, and with them the news for those who listen: these are told
by the session, behind the account, so that its result says at least what they heard, however it ends.

Everything a frame changes is `accepted`; the rest of the state is kept in a few values that change rarely, so that
committing the journal with each step stays cheap.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import IGNORE, PORT, REPLY, Actor, Effect, Exited, Out
from actors.runtime.mailbox import Ref
from actors.voice.messages import (
    Abandon,
    Account,
    Assessed,
    AudioLost,
    Changed,
    Closed,
    CloseMedia,
    Counted,
    Draft,
    Drain,
    Durable,
    Emit,
    Ended,
    Facts,
    Fail,
    Frames,
    Levels,
    Measured,
    Metered,
    Mismatched,
    NotDurable,
    Opened,
    PortFailed,
    Recorded,
    Resumption,
    Routes,
    Settled,
    Spill,
    Spilled,
    Spoken,
    Stop,
    Transcribed,
    Unevidenced,
)
from actors.voice.outbox import NO_RECORDS, Outbox
from actors.voice.quality import QualityActor, quality_of
from actors.voice.recorder import NOTHING_YET, RecorderActor, counted, total
from actors.voice.transcriber import NOTHING_HEARD, TranscriberActor
from actors.voice.transcriber import PORT as SPEECH
from machines import reasons
from machines.communication import PolicyVerdict, RequestStatus
from machines.events import VoiceEventType
from machines.frozen import FrozenDict
from machines.operations import (
    AUDIO_ACCOUNTED,
    AUDIO_LOST,
    AUDIO_MISMATCHED,
    PORT_FAILED,
    SESSION_ACTIVE,
    SESSION_CREATED,
    SESSION_RESUMED,
    SESSION_STOPPED,
    SESSION_STOPPING,
)
from machines.reasons import LOST_ON_THE_WAY, NO_ENGINE, PROCESS_DIED, SESSION_FAILED
from machines.recording import RecordingInfo
from machines.recovery import RESUME
from machines.restart import CrashLog, Intensity
from machines.session import (
    END_TRIGGER,
    NO_COUNTS,
    SESSION,
    AudioMismatch,
    EndReason,
    FrameAccount,
    SessionResult,
    VoiceSessionState,
)
from machines.silence import HEARING_SECONDS, Listening

# Looking a member up in its enum costs as much as a whole effect, its value twice that; here they are looked up once.
CREATED, ACTIVE, STOPPING, STOPPED = VoiceSessionState
NOT_OPENED = "stopped before its creation was durable"
FAILED, UNEVIDENCED = EndReason.FAILED, EndReason.UNEVIDENCED
IDLE, SILENCE, OVERRUN = EndReason.IDLE, EndReason.SILENCE, EndReason.OVERRUN
ERROR = VoiceEventType.ERROR
SUCCEEDED, NOT_SUCCEEDED = RequestStatus.SUCCESS, RequestStatus.FAILED
REASON_FIELD = {reason: ("reason", reason.value) for reason in EndReason}
DRAIN_EXPIRED = SESSION.deadlines[STOPPING]
UNMEASURED = Levels()


class SessionLimits(Struct, frozen=True):
    """The times and bounds that a session keeps; seconds, and frames of 20 ms."""

    drain_seconds: float
    evidence_seconds: float
    idle_seconds: float
    max_seconds: float
    account_frames: int
    restarts: Intensity


class Ports(Struct, frozen=True):
    """The ports that the voice actors hand work to."""

    directory: Any
    media: Any
    speech: Any
    store: Any


class Loss(Struct, frozen=True):
    """A run of losses at one port for one reason: `frames` from frame `first` on, below `upto`, perhaps with others between
    them that got through. `grew` is set when it became longer since the last account; a run that did not is over."""

    port: str
    reason: str
    first: int
    upto: int
    frames: int
    grew: bool = True


class Parts(Struct, frozen=True):
    """The children of a session, when each crashed, the ports that are on record as failed, the `mismatches` of audio and clock
    that are, and the losses that are not yet; what was `heard` so far, and the audio's `levels`: frames below `measured` are in
    these, or lost."""

    recorder: Ref
    transcriber: Ref | None
    quality: Ref
    crashes: tuple[tuple[Ref, CrashLog], ...] = ()
    failed_ports: tuple[str, ...] = ()
    mismatches: tuple[AudioMismatch, ...] = ()
    losses: tuple[Loss, ...] = ()
    heard: Transcribed = NOTHING_HEARD
    levels: Levels = UNMEASURED
    measured: int = 0


class Ending(Struct, frozen=True):
    """How the end is going.

    Frames below `upto` still belong to the session, and so do the `skipped` ones behind it that never come, by reason; `late`
    came behind those. `tokens` are those who wait for the end.
    `told_drain` is set once the parts know that no more follow; the next three are what they answered. `result` is there
    once the session is STOPPED, and `spilling` set once its last records were given to be spilled.
    """

    reason: EndReason
    upto: int
    tokens: tuple[Any, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()
    late: int = 0
    told_drain: bool = False
    recorded: Recorded | None = None
    transcribed: Transcribed | None = None
    assessed: Levels | None = None
    error: str = ""
    result: SessionResult | None = None
    spilling: bool = False


class SessionActor(Actor):
    """One session; see the module.

    `opened` is set once its creation is durable and told; `account` is the recorder's latest; `idle_mark` is the frame
    number at which the idle timer was armed; `listening` says how it is listened to, where silence ends it. With `resumption`
    it goes on with what another process left.
    """

    __slots__ = (
        "accepted",
        "account",
        "ending",
        "facts",
        "first_routes",
        "idle_mark",
        "limits",
        "listening",
        "opened",
        "outbox",
        "parts",
        "phase",
        "ports",
        "resumption",
        "routes",
        "token",
        "verdict",
    )
    wiring = ("facts", "verdict", "limits", "ports", "first_routes", "token", "resumption")
    state = ("phase", "accepted", "outbox", "routes", "parts", "ending", "account", "idle_mark", "listening", "opened")
    journal = state
    lasting = ("opening", "idle", "overrun", "missing", "drain", "evidence", "spill")
    handles = {
        CREATED: {
            Frames: "first_frames",
            Mismatched: IGNORE,
            Stop: "stop",
            Fail: "fail",
            Durable: "durable",
            NotDurable: "not_durable",
            Spilled: IGNORE,
            Routes: "reroute",
            Counted: IGNORE,
            Settled: IGNORE,
            Spoken: IGNORE,
            Measured: IGNORE,
            AudioLost: IGNORE,
            PortFailed: IGNORE,
            Recorded: IGNORE,
            Transcribed: IGNORE,
            Assessed: IGNORE,
            Exited: IGNORE,
        },
        ACTIVE: {
            Frames: "frames",
            Mismatched: "mismatched",
            Stop: "stop",
            Fail: "fail",
            Durable: "durable",
            NotDurable: "not_durable",
            Spilled: IGNORE,
            Routes: "reroute",
            Counted: "counted",
            Settled: "settled",
            Spoken: "spoken",
            Measured: "measured",
            AudioLost: "audio_lost",
            PortFailed: "port_failed",
            Recorded: IGNORE,
            Transcribed: IGNORE,
            Assessed: IGNORE,
            Exited: "part_exited",
        },
        STOPPING: {
            Frames: "last_frames",
            Mismatched: "mismatched",
            Stop: "stop_again",
            Fail: "fail_stopping",
            Durable: "durable",
            NotDurable: "refused_at_end",
            Spilled: IGNORE,
            Routes: "reroute",
            Counted: "counted_at_end",
            Settled: "settled",
            Spoken: IGNORE,
            Measured: "measured",
            AudioLost: "audio_lost",
            PortFailed: "port_failed",
            Recorded: "recorded",
            Transcribed: "transcribed",
            Assessed: "assessed",
            Exited: "part_exited",
        },
        STOPPED: {
            Frames: IGNORE,
            Mismatched: IGNORE,
            Stop: "stop_again",
            Fail: "fail_stopped",
            Durable: "final_durable",
            NotDurable: "final_not_durable",
            Spilled: "spilled",
            Routes: "reroute",
            Counted: IGNORE,
            Settled: IGNORE,
            Spoken: IGNORE,
            Measured: IGNORE,
            AudioLost: IGNORE,
            PortFailed: IGNORE,
            Recorded: IGNORE,
            Transcribed: IGNORE,
            Assessed: IGNORE,
            Exited: IGNORE,
        },
    }

    def __init__(
        self,
        facts: Facts,
        verdict: PolicyVerdict,
        limits: SessionLimits,
        ports: Ports,
        first_routes: Routes,
        token: Any,
        resumption: Resumption | None = None,
    ) -> None:
        self.facts = facts
        self.verdict = verdict
        self.limits = limits
        self.ports = ports
        self.first_routes = first_routes
        self.token = token
        self.resumption = resumption
        self.phase = CREATED if resumption is None else resumption.state
        self.account = NOTHING_YET if resumption is None else resumption.account
        self.accepted = self.idle_mark = self.account.upto
        self.outbox = NO_RECORDS if resumption is None else Outbox((), resumption.number)
        self.routes = first_routes
        self.parts: Parts | None = None
        self.ending: Ending | None = None
        self.opened = False
        self.listening = None if facts.silence_seconds is None else Listening(by_ear=facts.stt_engine is not None)

    # --- CREATED ---------------------------------------------------------------------------------------------------

    def start(self, out: Out) -> None:
        """Make the creation durable, or that it goes on; only then is anybody told of the session."""
        if self.resumption is None:
            self._commit(out, SESSION_CREATED, CREATED, then=self._news(out, CREATED))
        else:
            self.phase = SESSION.fire(self.phase, RESUME)
            self._commit(out, SESSION_RESUMED, ACTIVE, detail=self.resumption.detail, then=self._news(out, ACTIVE))
        out.set_timer("opening", self.limits.evidence_seconds)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands: keep the timers that the state needs, and send again what was not acknowledged."""
        if self.outbox.next_number == (1 if self.resumption is None else self.resumption.number):
            self.start(out)
            return
        self.outbox.send_again(out, self.routes.evidence)
        if self.ending is not None and not self.opened:
            out.reply(self.token, Unevidenced(self.ending.error or NOT_OPENED))
        self._restart_parts(out)
        if self.phase is STOPPED:
            self._stopped_again(out)
            return
        if self.phase is STOPPING:
            out.keep_timer("drain", self.limits.drain_seconds)
            if self._ending().told_drain:
                self._drain_parts(out)
            else:
                out.keep_timer("missing", self.limits.drain_seconds / 2)
        elif self.opened:
            self._arm(out)
        else:
            out.keep_timer("opening", self.limits.evidence_seconds)
        if self.opened and not self.outbox.waiting:
            if self.phase is CREATED or self.resumption is not None:
                out.reply(self.token, Opened(self.facts.session_id))
            out.release(self._news(out, self.phase))

    def _restart_parts(self, out: Out) -> None:
        if self.parts is not None:
            for part in (self.parts.quality, self.parts.recorder, self.parts.transcriber):
                if part is not None:
                    out.adopt(part)
                    out.restart(part)

    def durable(self, message: Durable, out: Out) -> None:
        """A record is in the store: release what waited for it."""
        first = not self.opened and self.outbox.is_under_way(message.number)
        self.outbox = self.outbox.acknowledged(message.number, out, self.routes.evidence)
        if not first:
            return
        self.opened = True
        if self.ending is None:
            out.cancel_timer("opening")
            self.idle_mark = self.accepted
            self._arm(out)
            if self.resumption is not None:
                self._spawn_parts(out)
                self._emit(out, ERROR, ("part", "process"), ("error", PROCESS_DIED), ("restarted", True))
            out.reply(self.token, Opened(self.facts.session_id))

    def not_durable(self, message: NotDurable, out: Out) -> None:
        """The creation could not be made durable: there is no session, or nobody goes on with it here. A later record waits for
        the store, unless it is the record itself that can't be written."""
        if not self.outbox.is_under_way(message.number):
            return
        if not self.opened:
            self._refuse(message.error, out, perhaps=message.perhaps)
        elif message.refused:
            self._refused(message, out)

    def _refused(self, message: NotDurable, out: Out) -> None:
        """A record can't be written as it is: what stands in its place says so, and those who listen are told."""
        operation = self.outbox.waiting[0].draft.operation
        self.outbox = self.outbox.refused(message.error, out, self.routes.evidence)
        self._emit(out, ERROR, ("part", "evidence"), ("operation", operation), ("reason", message.error))

    def _refuse(self, error: str, out: Out, *, perhaps: bool) -> None:
        out.cancel_timer("opening")
        if self.resumption is not None:
            out.reply(self.token, Unevidenced(error))
            self.outbox = Outbox((), self.outbox.next_number)
            self._leave(out)
            return
        out.reply(self.token, Unevidenced(error))
        self.phase = SESSION.fire(self.phase, END_TRIGGER[UNEVIDENCED])
        self.ending = Ending(UNEVIDENCED, self.accepted, error=error)
        if perhaps:
            # The store may yet take the first record; the last one must then follow it. Nobody is told of either.
            self._stopped(out, "drained")
            self.outbox = self.outbox.silenced()
            self._spill(out)
        else:
            self.phase = SESSION.fire(self.phase, "drained")
            self.outbox = Outbox((), self.outbox.next_number)
            self._leave(out)

    def first_frames(self, message: Frames, out: Out) -> None:
        """The first audio: ACTIVE, with the parts that work on it."""
        self.phase = SESSION.fire(self.phase, "audio")
        self._commit(out, SESSION_ACTIVE, ACTIVE, then=self._news(out, ACTIVE))
        self._spawn_parts(out)
        self.frames(message, out)

    # --- ACTIVE ----------------------------------------------------------------------------------------------------

    def frames(self, message: Frames, out: Out) -> None:
        """Pass a run of frames on; one that was seen before is old, and one without frames only says that audio began."""
        if message.first < self.accepted or not message.count:
            return
        self.accepted = message.first + message.count
        parts = self.parts
        out.tell(parts.recorder, message)  # type: ignore[union-attr]
        out.tell(parts.quality, message)  # type: ignore[union-attr]
        if parts.transcriber is not None:  # type: ignore[union-attr]
            out.tell(parts.transcriber, message)  # type: ignore[union-attr]

    def counted(self, message: Counted, out: Out) -> None:
        """The recorder's account so far, now and then into evidence."""
        account = message.account
        self._note(account)
        if not message.due:
            return
        detail = (
            ("upto_frame", account.upto),
            ("accounted", account.kept),
            ("bytes", account.n_bytes),
            ("digest", account.digest),
            ("dropped", FrozenDict(account.lost)),
        )
        self._commit(out, AUDIO_ACCOUNTED, ACTIVE, detail=detail)
        self._record_losses(out)

    def settled(self, message: Settled, out: Out) -> None:
        """What the transcriber has settled so far: noted first, told then."""
        if self.parts is not None:
            self.parts = replace(self.parts, heard=message.transcribed)
            if message.transcribed.unheard:
                self._no_longer_by_ear(out)
            if message.spoken:
                self._heard_words(out)
            if message.news is not None:
                out.port(self.ports.directory, message.news)

    def measured(self, message: Measured, out: Out) -> None:
        """How the audio was so far: noted first, told then; with its account, should the word of that have been set aside."""
        if self.parts is not None:
            kept = message.measure
            if kept.upto > self.account.upto:
                self._note(Account(kept.upto, kept.kept, kept.n_bytes, kept.digest, self.account.lost))
            self.parts = replace(self.parts, levels=message.levels, measured=kept.upto)
            if message.measure.voiced and self.listening is not None and not self.listening.by_ear:
                self._listen(out, by_ear=False)
            out.port(self.ports.directory, Metered(self.facts.session_id, message.measure))

    def spoken(self, _: Spoken, out: Out) -> None:
        """There are words in an utterance that goes on."""
        self._heard_words(out)

    def _heard_words(self, out: Out) -> None:
        """A silence begins anew."""
        if self.listening is not None:
            self._listen(out, by_ear=self.listening.by_ear)

    def _no_longer_by_ear(self, out: Out) -> None:
        """Some of the call was not heard, and somebody may have spoken there: voice counts from now on."""
        if self.listening is not None and self.listening.by_ear:
            self._listen(out, by_ear=False)

    def _listen(self, out: Out, *, by_ear: bool) -> None:
        """Let a silence begin now, where it ends the call."""
        seconds = self.facts.silence_seconds
        if seconds is not None and self.ending is None:
            self.listening = Listening(by_ear)
            out.set_timer("silence", seconds)

    def audio_lost(self, message: AudioLost, _: Out) -> None:
        """A part tells of lost audio, which it has in its account: one record is made of all that belongs together."""
        parts = self.parts
        if parts is None:
            return
        first, upto, frames = message.first, message.first + message.count, message.count
        others = []
        for loss in parts.losses:
            if (loss.port, loss.reason) == (message.port, message.reason):
                first, upto, frames = min(first, loss.first), max(upto, loss.upto), frames + loss.frames
            else:
                others.append(loss)
        self.parts = replace(parts, losses=(*others, Loss(message.port, message.reason, first, upto, frames)))

    def _record_losses(self, out: Out, *, last: bool = False) -> None:
        """Put losses into evidence that have gone on for no longer, or, at the end, all: a run of many is one record."""
        parts = self.parts
        if parts is None or not parts.losses:
            return
        going_on = tuple(replace(loss, grew=False) for loss in parts.losses if loss.grew and not last)
        for loss in parts.losses:
            if last or not loss.grew:
                detail = (
                    ("port", loss.port),
                    ("reason", loss.reason),
                    ("first_frame", loss.first),
                    ("upto_frame", loss.upto),
                    ("frames", loss.frames),
                )
                self._commit(out, AUDIO_LOST, self.phase, detail=detail, failed=True)
        self.parts = replace(parts, losses=going_on)

    def port_failed(self, message: PortFailed, out: Out) -> None:
        """A port stopped answering: on record, once for each port in a call, and told to those who listen."""
        parts = self.parts
        if parts is None or message.port in parts.failed_ports:
            return
        self.parts = replace(parts, failed_ports=(*parts.failed_ports, message.port))
        if message.port == SPEECH:
            self._no_longer_by_ear(out)
        detail = (("port", message.port), ("reason", message.reason))
        self._commit(out, PORT_FAILED, self.phase, detail=detail, failed=True)
        self._emit(out, ERROR, ("part", message.port), ("reason", message.reason))

    def mismatched(self, message: Mismatched, out: Out) -> None:
        """Far more or less audio came than there was time for: on record, once for each in a call, and told to those who
        listen. The call goes on."""
        parts = self.parts
        if parts is None or any(one.reason == message.reason for one in parts.mismatches):
            return
        mismatch = AudioMismatch(message.reason, message.audio_ms, message.media_ms)
        self.parts = replace(parts, mismatches=(*parts.mismatches, mismatch))
        detail = (("reason", message.reason), ("audio_ms", message.audio_ms), ("media_ms", message.media_ms))
        self._commit(out, AUDIO_MISMATCHED, self.phase, detail=detail, failed=True)
        self._emit(out, ERROR, ("part", "stream"), *detail)

    def part_exited(self, message: Exited, out: Out) -> None:
        """A part crashed: restart it, or end the call when it crashes too often. One that ended by itself is done."""
        parts = self.parts
        if parts is None or message.error is None:
            return
        name = self._part_name(message.ref)
        logs = dict(parts.crashes)
        log, allowed = logs.get(message.ref, CrashLog()).after_crash(message.at, self.limits.restarts)
        logs[message.ref] = log
        self.parts = replace(parts, crashes=tuple(logs.items()))
        if allowed:
            out.restart(message.ref)
        elif self.phase is ACTIVE:
            self._end(FAILED, self.accepted, (), out, error=f"the {name} failed: {message.error}")
        self._emit(out, ERROR, ("part", name), ("error", message.error), ("restarted", allowed))

    def last_words(self, mail: tuple[Any, ...]) -> tuple[Effect, ...]:
        """Its end, with the result that can still be given; who asked for this session hears that it never opened, and who
        waits for its end, that it has come."""
        stops = [message.token for message in mail if isinstance(message, Stop) and message.token is not None]
        fails = [token for message in mail if isinstance(message, Fail) for token in message.tokens]
        accepted = self.ending.tokens if self.ending is not None else ()
        ended = Ended(self.facts.session_id, durable=True, spilled=False)
        never = () if self.opened or self.ending is not None else ((REPLY, self.token, Unevidenced(NOT_OPENED)),)
        upto = max([0, *[message.first + message.count for message in mail if isinstance(message, Frames)]])
        result = self.result_without_it(FAILED, SESSION_FAILED, upto)
        news = (PORT, self.ports.directory, Changed(self.facts, STOPPED, None, self.verdict, result))
        return (news, *never, *((REPLY, token, ended) for token in (*accepted, *stops, *fails)))

    def result_without_it(self, reason: EndReason, missing_reason: str, upto: int) -> SessionResult:
        """The result of a session that somebody else ends, by its journal: frames below `upto` were accepted, and what it has
        no account of is declared for `missing_reason`."""
        ending = self._ending()
        if ending.result is not None:
            return ending.result
        result = self._result(drained=False, missing_reason=missing_reason, upto=upto - ending.late)
        return result if result.reason is reason else replace(result, reason=reason)

    def timeout(self, timer: str, out: Out) -> None:
        """Idle, silence, overrun, missing frames, the drain deadline, or evidence that does not come."""
        if timer == "idle" and self.accepted != self.idle_mark:
            self.idle_mark = self.accepted
            out.set_timer("idle", self.limits.idle_seconds)
        elif timer == "idle":
            self._end(IDLE, self.accepted, (), out)
        elif timer == "silence":
            self._silence_run_out(out)
        elif timer == "overrun":
            self._end(OVERRUN, self.accepted, (), out)
        elif timer == "missing":
            self._drain(out)
        elif timer == "drain":
            self._stopped(out, DRAIN_EXPIRED)
        elif timer == "spill":
            self._gone(out, durable=False, spilled=False)
        elif timer == "opening":
            self._refuse("the evidence store does not answer", out, perhaps=True)
        else:
            self._spill(out)

    def _silence_run_out(self, out: Out) -> None:
        heard, listening = self._heard(), self.listening
        if listening is not None:
            dealt_with = heard.heard + total(heard.unheard)
            measured = self.accepted if self.parts is None else self.parts.measured
            self.listening = listening.run_out(self.accepted, heard=dealt_with, measured=measured)
        if self.listening is None:
            self._end(SILENCE, self.accepted, (), out)
        else:
            out.set_timer("silence", HEARING_SECONDS)

    # --- STOPPING --------------------------------------------------------------------------------------------------

    def stop(self, message: Stop, out: Out) -> None:
        """Begin the end."""
        tokens = () if message.token is None else (message.token,)
        self._end(message.reason, message.upto, tokens, out, skipped=message.skipped)

    def stop_again(self, message: Stop, out: Out) -> None:
        """The end is under way: this one waits for it too."""
        if message.token is not None and self.ending is not None:
            self.ending = replace(self.ending, tokens=(*self.ending.tokens, message.token))

    def fail(self, message: Fail, out: Out) -> None:
        """This actor crashed too often: end as failed."""
        self._end(FAILED, self.accepted, message.tokens, out, error=message.error)

    def fail_stopping(self, message: Fail, out: Out) -> None:
        """It crashed too often while stopping: do not wait for the parts any longer."""
        self._wait_for_the_end(message.tokens)
        self._stopped(out, DRAIN_EXPIRED)

    def fail_stopped(self, message: Fail, _: Out) -> None:
        """It has stopped already; those who asked wait for its last record too."""
        self._wait_for_the_end(message.tokens)

    def _wait_for_the_end(self, tokens: tuple[Any, ...]) -> None:
        ending = self._ending()
        new = tuple([token for token in tokens if token not in ending.tokens])
        if new:
            self.ending = replace(ending, tokens=(*ending.tokens, *new))

    def _end(
        self,
        reason: EndReason,
        upto: int,
        tokens: tuple[Any, ...],
        out: Out,
        error: str = "",
        skipped: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.phase = SESSION.fire(self.phase, END_TRIGGER[reason])
        self.ending = Ending(reason, max(upto, self.accepted), tokens, skipped, error=error)
        if self.opened:
            out.cancel_timer("idle")
            out.cancel_timer("overrun")
            if self.facts.silence_seconds is not None:
                out.cancel_timer("silence")
        else:
            # Stopped before its creation was durable: nobody knows of it yet, and nobody will be told that it opened.
            out.reply(self.token, Unevidenced(error or NOT_OPENED))
            out.cancel_timer("opening")
        out.set_timer("drain", self.limits.drain_seconds)
        detail = (REASON_FIELD[reason], ("error", error)) if error else (REASON_FIELD[reason],)
        self._commit(out, SESSION_STOPPING, STOPPING, detail=detail, then=self._news(out, STOPPING))
        if self.accepted < self.ending.upto:
            out.set_timer("missing", self.limits.drain_seconds / 2)
        else:
            self._drain(out)
        if error:
            self._emit(out, ERROR, ("part", "session"), ("error", error), ("restarted", False))

    def last_frames(self, message: Frames, out: Out) -> None:
        """Audio that was accepted before the stop is passed on; what came behind it is late."""
        ending = self.ending
        if ending is None or message.first < self.accepted or not message.count:
            return
        if message.first >= ending.upto:
            self.ending = replace(ending, late=ending.late + message.count)
            return
        if ending.told_drain:
            return  # it is counted as missing
        if self.parts is None:
            self._spawn_parts(out)
        self.frames(message, out)
        if self.accepted >= ending.upto:
            out.cancel_timer("missing")
            self._drain(out)

    def _drain(self, out: Out) -> None:
        self.ending = replace(self._ending(), told_drain=True)
        if self.parts is None:
            self._stopped(out, "drained")
        else:
            self._drain_parts(out)

    def _drain_parts(self, out: Out) -> None:
        if self.parts is not None:
            out.tell(self.parts.recorder, Drain())
            if self._ending().recorded is not None:
                out.tell(self.parts.quality, Drain())  # asked before, in a step that crashed halfway
            if self.parts.transcriber is not None:
                out.tell(self.parts.transcriber, Drain())

    def counted_at_end(self, message: Counted, _: Out) -> None:
        """A last interim account; the final record will carry the whole."""
        self._note(message.account)

    def _note(self, account: Account) -> None:
        self.account = account

    def refused_at_end(self, message: NotDurable, out: Out) -> None:
        """A record that can't be written holds up no end; a store that is down is waited for."""
        if message.refused and self.outbox.is_under_way(message.number):
            self._refused(message, out)

    def recorded(self, message: Recorded, out: Out) -> None:
        """The recorder has drained; quality has all measures now."""
        self.account = message.account
        if self.ending is not None:
            self._answered(replace(self.ending, recorded=message), out)
        if self.parts is not None:
            out.tell(self.parts.quality, Drain())

    def transcribed(self, message: Transcribed, out: Out) -> None:
        """The transcriber has drained."""
        if self.ending is not None:
            self._answered(replace(self.ending, transcribed=message), out)

    def assessed(self, message: Assessed, out: Out) -> None:
        """Quality has answered."""
        if self.ending is not None:
            self._answered(replace(self.ending, assessed=message.levels), out)

    def _answered(self, ending: Ending, out: Out) -> None:
        parts = self.parts
        if parts is None:
            return
        self.ending = ending
        if ending.recorded is None or ending.assessed is None:
            return
        if ending.transcribed is not None or parts.transcriber is None:
            self._stopped(out, "drained")

    # --- STOPPED ---------------------------------------------------------------------------------------------------

    def _stopped(self, out: Out, trigger: str) -> None:
        """Drained or not: everything is released now, and the final record goes out."""
        self._record_losses(out, last=True)
        self.phase = SESSION.fire(self.phase, trigger)
        out.cancel_timer("drain")
        if not self._ending().told_drain:
            out.cancel_timer("missing")
        drained = trigger == "drained"
        result = self._result(drained=drained, missing_reason=LOST_ON_THE_WAY if drained else reasons.DRAIN_EXPIRED)
        self.ending = replace(self._ending(), result=result)
        self._commit(out, SESSION_STOPPED, STOPPED, result=result, then=self._news(out, STOPPED, result))
        out.set_timer("evidence", self.limits.evidence_seconds)
        if trigger != "drained":
            self._abandon_audio(out)
        out.port(self.ports.directory, Closed(self.facts.session_id))

    def _abandon_audio(self, out: Out) -> None:
        """A part that did not answer may not have ended its port's work either."""
        if self.parts is not None:
            out.port(self.ports.media, CloseMedia(self.facts.session_id))
            out.port(self.ports.speech, Abandon(self.facts.session_id))

    def _stopped_again(self, out: Out) -> None:
        """After a crash: go on with the last record, or, when that is durable, with what follows it."""
        result = self._ending().result
        if self.outbox.waiting:
            if self._ending().spilling:
                self._spill(out)
            else:
                out.keep_timer("evidence", self.limits.evidence_seconds)
            if result is not None and not result.drained:
                self._abandon_audio(out)
            out.port(self.ports.directory, Closed(self.facts.session_id))
            return
        if self.opened and result is not None:
            out.release(self._news(out, STOPPED, result))
        out.tell(out.me, Durable(self.outbox.next_number - 1))  # and leave then: a stop may have come while it was held

    def final_durable(self, message: Durable, out: Out) -> None:
        """When the last record is in, all is said."""
        if not self.opened and self._ending().reason is not UNEVIDENCED:
            self.opened = self.outbox.is_under_way(message.number)
        self.outbox = self.outbox.acknowledged(message.number, out, self.routes.evidence)
        if not self.outbox.waiting:
            self._gone(out, durable=True, spilled=False)

    def final_not_durable(self, message: NotDurable, out: Out) -> None:
        """The store is down: the records that are left are spilled, at once. So is the last one when it could not be written
        twice; whoever spills it leaves out what can't be. What is being spilled already goes there as it is."""
        if not self.outbox.is_under_way(message.number):
            return
        if message.refused and self._ending().spilling:
            return
        if message.refused and (len(self.outbox.waiting) > 1 or not self.outbox.waiting[0].draft.refusal):
            self._refused(message, out)
        else:
            self._spill(out)

    def _spill(self, out: Out) -> None:
        self.ending = replace(self._ending(), spilling=True)
        out.cancel_timer("evidence")
        out.keep_timer("spill", self.limits.evidence_seconds)
        out.tell(self.routes.evidence, Spill(out.me, self.outbox.drafts()))

    def spilled(self, message: Spilled, out: Out) -> None:
        """The records are safe beside the store, or not even that."""
        self._gone(out, durable=False, spilled=message.ok)

    def _gone(self, out: Out, *, durable: bool, spilled: bool) -> None:
        if not durable and self.opened:
            # The record is not durable, but the end is: nobody may wait for the store to learn of it.
            for waiting in self.outbox.waiting:
                out.release(waiting.then)
            # Should this step crash halfway, its end is told again, and nothing that comes before the end.
            self.outbox = self.outbox.silenced(but_last=True)
        for token in self.ending.tokens if self.ending is not None else ():
            out.reply(token, Ended(self.facts.session_id, durable, spilled))
        self._leave(out)

    def _leave(self, out: Out) -> None:
        out.port(self.ports.directory, Closed(self.facts.session_id))
        out.stop()

    # --- what several phases use -----------------------------------------------------------------------------------

    def reroute(self, message: Routes, out: Out) -> None:
        """Policy or evidence moved, or the store is back: send what waits there again."""
        if message.epoch > self.routes.epoch:
            self.routes = message
            self.outbox.send_again(out, message.evidence)

    def _ending(self) -> Ending:
        return self.ending or Ending(FAILED, self.accepted)

    def _arm(self, out: Out) -> None:
        seconds = self.limits.max_seconds
        if self.resumption is not None:
            seconds = max(0.0, seconds - self.resumption.age_seconds)
        if self.listening is not None:
            self._listen(out, by_ear=self.listening.by_ear)
        out.keep_timer("idle", self.limits.idle_seconds)
        out.keep_timer("overrun", seconds)

    def _spawn_parts(self, out: Out) -> None:
        facts, ports = self.facts, self.ports
        quality = out.spawn(QualityActor(out.me), "quality")
        account, heard = NOTHING_YET, self._heard()
        if self.resumption is not None:
            account = self.resumption.account
        account_frames = self.limits.account_frames
        recorder = out.spawn(RecorderActor(out.me, quality, ports.media, facts, account_frames, account), "recorder")
        transcriber = None
        if facts.stt_engine is not None:
            transcriber = out.spawn(
                TranscriberActor(out.me, ports.speech, ports.directory, facts, heard), "transcriber"
            )
        self.parts = Parts(
            recorder, transcriber, quality, heard=heard, mismatches=self._mismatches(), measured=account.upto
        )

    def _part_name(self, ref: Ref) -> str:
        parts = self.parts
        if parts is None or ref is parts.quality:
            return "quality"
        return "recorder" if ref is parts.recorder else "transcriber"

    def _commit(
        self,
        out: Out,
        operation: str,
        state: VoiceSessionState,
        *,
        detail: tuple[tuple[str, Any], ...] = (),
        result: SessionResult | None = None,
        then: tuple[Effect, ...] = (),
        failed: bool = False,
    ) -> None:
        status = NOT_SUCCEEDED if failed else SUCCEEDED
        ending = self.ending
        if ending is not None and (ending.reason is FAILED or ending.reason is UNEVIDENCED):
            status = NOT_SUCCEEDED
        number = self.outbox.next_number
        draft = Draft(self.facts, number, operation, status, self.verdict, state, detail, result)
        self.outbox = self.outbox.commit(out, self.routes.evidence, draft, then)

    def _news(self, out: Out, state: VoiceSessionState, result: SessionResult | None = None) -> tuple[Effect, ...]:
        """What tells the outside of a state that the session is in; told again after a crash, it is the same news."""
        return ((PORT, self.ports.directory, Changed(self.facts, state, out.me, self.verdict, result)),)

    def _emit(self, out: Out, kind: VoiceEventType, *payload: tuple[str, Any]) -> None:
        out.port(self.ports.directory, Emit(self.facts.session_id, kind, payload))

    def _result(self, *, drained: bool, missing_reason: str, upto: int = 0) -> SessionResult:
        """The whole account, of a part that did not answer as far as it had told it. What nobody answered for is declared, so
        that the sums always hold."""
        ending = self._ending()
        accepted = max(self.accepted, ending.upto, upto)
        lost = self.account.lost
        missing = accepted - self.account.kept - total(lost)
        if missing:
            lost = counted(lost, missing_reason, missing)
        transcribed = self._heard()
        heard, unheard = transcribed.heard, transcribed.unheard
        missing = accepted - heard - total(unheard)
        no_engine = self.facts.stt_engine is None
        if missing:
            unheard = counted(unheard, NO_ENGINE if no_engine else missing_reason, missing)
        for reason, count in ending.skipped:
            lost = counted(lost, reason, count)
            unheard = counted(unheard, NO_ENGINE if no_engine else reason, count)
        if ending.late:
            lost = counted(lost, "late", ending.late)
            unheard = counted(unheard, "late", ending.late)
        levels = ending.assessed or (UNMEASURED if self.parts is None else self.parts.levels)
        recording: RecordingInfo | None = ending.recorded.recording if ending.recorded is not None else None
        return SessionResult(
            reason=ending.reason,
            drained=drained,
            frames=FrameAccount(
                accepted=accepted + total(ending.skipped) + ending.late,
                accounted=self.account.kept,
                recorded=self.account.kept if self.facts.recording and recording is not None else 0,
                transcribed=heard,
                dropped=FrozenDict(lost) if lost else NO_COUNTS,
                untranscribed=FrozenDict(unheard) if unheard else NO_COUNTS,
                bytes=self.account.n_bytes,
                digest=self.account.digest,
            ),
            transcript=transcribed.text,
            recording=recording,
            quality=quality_of(levels),
            mismatches=self._mismatches(),
        )

    def _mismatches(self) -> tuple[AudioMismatch, ...]:
        """Those of audio and clock that are on record."""
        if self.parts is not None:
            return self.parts.mismatches
        return () if self.resumption is None else self.resumption.mismatches

    def _heard(self) -> Transcribed:
        """What was heard, as far as it is known here."""
        if self.ending is not None and self.ending.transcribed is not None:
            return self.ending.transcribed
        if self.parts is not None:
            return self.parts.heard
        return NOTHING_HEARD if self.resumption is None else self.resumption.heard
