"""One call: the actor that carries a session from CREATED to STOPPED, whatever fails on the way.

Its phases are the states of `machines.session.SESSION`, and every move is fired there:

    CREATED    the session makes its creation durable and then answers the request. The first audio spawns the parts of the
               call. A session without evidence of its creation ends as if it had never been.
               A session that a dead process left goes on in ACTIVE once the record of its resumption is durable; without
               that record it stays as it was.
    ACTIVE     the session passes frames on to its parts as they come. It restarts a part that crashes, within the intensity.
    STOPPING   frames accepted before the stop are still passed on, later ones are declared late. When all have come, or
               half the time is over, the parts drain. A timer ends this state whether or not they do.
    STOPPED    the final record is made durable, or spilled when the store does not take it in time; then every stop request
               is answered, and the actor leaves.

A restarted session tells again where it stands, and sends again what was not acknowledged: so a crash halfway through the
effects of a step, which loses the rest of them, loses nothing that matters. The deadlines of a session count from their
beginning, whatever crashes; only a silence begins anew.

The parts tell their accounts as these grow, and with them the news for listeners (`actors.voice.call_part`). The session passes
the news on behind the account, so that its result says at least what the listeners heard, however the call ends.

A frame changes only `accepted`; the rest of the state is kept in a few values that change rarely, so that committing the
journal with each step stays cheap.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import IGNORE, PORT, REPLY, Actor, Effect, Exited, Out
from actors.runtime.mailbox import Ref
from actors.voice.account import (
    Uncounted,
    accounts_of,
    final_record,
    frame_account,
    session_result,
)
from actors.voice.call_part import CallPart, Hears, PartContext, Ports, actor_of, release_port
from actors.voice.messages import (
    AudioLost,
    Changed,
    Closed,
    Draft,
    Drain,
    Durable,
    Emit,
    Ended,
    Facts,
    Fail,
    Fields,
    Frames,
    Mismatched,
    NotDurable,
    Opened,
    PartAnswer,
    PartReport,
    PortFailed,
    Resumption,
    Routes,
    Spill,
    Spilled,
    Stop,
    Unevidenced,
)
from actors.voice.outbox import NO_RECORDS, Outbox
from actors.voice.running_parts import RunningParts
from machines import reasons
from machines.communication import PolicyVerdict, RequestStatus
from machines.events import VoiceEventType
from machines.operations import (
    AUDIO_LOST,
    AUDIO_MISMATCHED,
    PORT_FAILED,
    SESSION_ACTIVE,
    SESSION_CREATED,
    SESSION_RESUMED,
    SESSION_STOPPING,
)
from machines.reasons import LOST_ON_THE_WAY, PROCESS_DIED, SESSION_FAILED
from machines.recovery import RESUME
from machines.restart import Intensity
from machines.session import (
    END_TRIGGER,
    SESSION,
    AudioMismatch,
    EndReason,
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


class SessionLimits(Struct, frozen=True):
    """The times and bounds that a session keeps; seconds, and frames of 20 ms."""

    drain_seconds: float
    evidence_seconds: float
    idle_seconds: float
    max_seconds: float
    account_frames: int
    restarts: Intensity


class Ending(Struct, frozen=True):
    """The progress of a session's end.

    Frames below `upto` still belong to the session. So do the `skipped` frames behind them, which never come, by reason. `late`
    frames came behind those. `tokens` answer the requests that wait for the end. `told_drain` is set once the parts know that
    no more frames follow. `result` is there once the session is STOPPED, and `spilling` set once the session asked for its
    last records to be spilled.
    """

    reason: EndReason
    upto: int
    tokens: tuple[object, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()
    late: int = 0
    told_drain: bool = False
    error: str = ""
    result: SessionResult | None = None
    spilling: bool = False


class SessionActor(Actor):
    """One session; see the module.

    `call_parts` are the parts that this call has, and `accounts` their latest accounts, in the same order. `opened` is set
    once the creation is durable and told. `idle_mark` is the frame number at which the idle timer was armed. `listening` says
    how the session notices speech, where silence ends the call. With a `resumption` the session goes on with what a dead
    process left.
    """

    __slots__ = (
        "accepted",
        "accounts",
        "call_parts",
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
    wiring = ("facts", "verdict", "limits", "ports", "call_parts", "first_routes", "token", "resumption")
    state = ("phase", "accepted", "outbox", "routes", "parts", "ending", "accounts", "idle_mark", "listening", "opened")
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
            PartReport: IGNORE,
            PartAnswer: IGNORE,
            AudioLost: IGNORE,
            PortFailed: IGNORE,
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
            PartReport: "part_report",
            PartAnswer: IGNORE,
            AudioLost: "audio_lost",
            PortFailed: "port_failed",
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
            PartReport: "part_report",
            PartAnswer: "part_answer",
            AudioLost: "audio_lost",
            PortFailed: "port_failed",
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
            PartReport: IGNORE,
            PartAnswer: IGNORE,
            AudioLost: IGNORE,
            PortFailed: IGNORE,
            Exited: IGNORE,
        },
    }

    def __init__(
        self,
        facts: Facts,
        verdict: PolicyVerdict,
        limits: SessionLimits,
        ports: Ports,
        call_parts: tuple[CallPart, ...],
        first_routes: Routes,
        token: object,
        resumption: Resumption | None = None,
    ) -> None:
        self.facts = facts
        self.verdict = verdict
        self.limits = limits
        self.ports = ports
        self.call_parts = call_parts
        self.first_routes = first_routes
        self.token = token
        self.resumption = resumption
        self.phase = CREATED if resumption is None else resumption.state
        self.accounts = tuple([part.begins_with(resumption) for part in call_parts])
        self.accepted = self.idle_mark = 0 if resumption is None else resumption.account.upto
        self.outbox = NO_RECORDS if resumption is None else Outbox((), resumption.number)
        self.routes = first_routes
        self.parts: RunningParts | None = None
        self.ending: Ending | None = None
        self.opened = False
        self.listening = None if facts.silence_seconds is None else Listening(by_ear=facts.stt_engine is not None)

    # --- CREATED ---------------------------------------------------------------------------------------------------

    def start(self, out: Out) -> None:
        """Make the creation, or the resumption, durable; the session is told of only after that."""
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
            for part in self.parts.live:
                out.adopt(part)
                out.restart(part)

    def durable(self, message: Durable, out: Out) -> None:
        """A record is in the store: release the effects that waited for it."""
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
        """A record could not be made durable. Without its first record the session is not opened, or not resumed here. A later
        record waits for the store, unless the record itself can't be written."""
        if not self.outbox.is_under_way(message.number):
            return
        if not self.opened:
            self._refuse(message.error, out, perhaps=message.perhaps)
        elif message.refused:
            self._refused(message, out)

    def _refused(self, message: NotDurable, out: Out) -> None:
        """A record can't be written as it is: a record of the refusal goes in its place, and the listeners are told."""
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
        for part in self.parts.live:  # type: ignore[union-attr]
            out.tell(part, message)

    def part_report(self, message: PartReport, out: Out) -> None:
        """A part told its account so far: keep the account first, then tell the news that come with it."""
        accounts, place = [*self.accounts], message.place
        accounts[place] = message.account
        self.accounts = tuple(accounts)
        if self.listening is not None:
            self._listened(self.call_parts[place], message, out)
        record = message.record
        if record is not None and not (record.interim and self.ending is not None):
            self._commit(out, record.operation, self.phase, detail=record.detail, failed=record.failed)
            if record.interim:
                self._record_losses(out)
        for news in message.news:
            out.port(self.ports.directory, news)

    def _listened(self, part: CallPart, report: PartReport, out: Out) -> None:
        """Let a silence begin anew where this part heard a speaker."""
        if part.hears is Hears.WORDS:
            if part.has_gaps(report.account):
                self._no_longer_by_ear(out)
            if report.spoken:
                self._heard_words(out)
        elif part.hears is Hears.VOICE and report.spoken and self.listening is not None and not self.listening.by_ear:
            self._listen(out, by_ear=False)

    def _heard_words(self, out: Out) -> None:
        """A silence begins anew."""
        if self.listening is not None:
            self._listen(out, by_ear=self.listening.by_ear)

    def _no_longer_by_ear(self, out: Out) -> None:
        """The engine missed some of the call, where words may have been: from now on voice counts as speech."""
        if self.listening is not None and self.listening.by_ear:
            self._listen(out, by_ear=False)

    def _listen(self, out: Out, *, by_ear: bool) -> None:
        """Let a silence begin now, where silence ends the call."""
        seconds = self.facts.silence_seconds
        if seconds is not None and self.ending is None:
            self.listening = Listening(by_ear)
            out.set_timer("silence", seconds)

    def audio_lost(self, message: AudioLost, _: Out) -> None:
        """A part lost audio, which its account says as well: one record is made of all losses that belong together."""
        if self.parts is not None:
            self.parts = self.parts.with_loss(message)

    def _record_losses(self, out: Out, *, last: bool = False) -> None:
        """Put the losses that are over into evidence; at the end, all losses."""
        if self.parts is not None and self.parts.losses:
            self.parts, over = self.parts.losses_to_record(last=last)
            for loss in over:
                self._commit(out, AUDIO_LOST, self.phase, detail=loss.detail(), failed=True)

    def port_failed(self, message: PortFailed, out: Out) -> None:
        """A port stopped answering: put that on record, once for each port in a call, and tell the listeners."""
        parts = self.parts
        if parts is None or message.port in parts.failed_ports:
            return
        self.parts = replace(parts, failed_ports=(*parts.failed_ports, message.port))
        if any(part.port == message.port and part.hears is Hears.WORDS for part in self.call_parts):
            self._no_longer_by_ear(out)
        detail = (("port", message.port), ("reason", message.reason))
        self._commit(out, PORT_FAILED, self.phase, detail=detail, failed=True)
        self._emit(out, ERROR, ("part", message.port), ("reason", message.reason))

    def mismatched(self, message: Mismatched, out: Out) -> None:
        """Far more or less audio came than there was time for: put that on record, once of each kind in a call, and tell the
        listeners. The call goes on."""
        parts = self.parts
        if parts is None or any(one.reason == message.reason for one in parts.mismatches):
            return
        mismatch = AudioMismatch(message.reason, message.audio_ms, message.media_ms)
        self.parts = replace(parts, mismatches=(*parts.mismatches, mismatch))
        detail = (("reason", message.reason), ("audio_ms", message.audio_ms), ("media_ms", message.media_ms))
        self._commit(out, AUDIO_MISMATCHED, self.phase, detail=detail, failed=True)
        self._emit(out, ERROR, ("part", "stream"), *detail)

    def part_exited(self, message: Exited, out: Out) -> None:
        """A part crashed: restart it. A part that crashes too often ends the call if it is essential, and is given up if not.
        News of a part that ended by itself, or was given up, change nothing."""
        if self.parts is None or message.error is None or message.ref not in self.parts.live:
            return
        place = self.parts.refs.index(message.ref)
        part = self.call_parts[place]
        self.parts, allowed = self.parts.after_crash(place, message.at, self.limits.restarts)
        if allowed:
            out.restart(message.ref)
        elif not part.essential:
            self._give_up(place, out)
        elif self.phase is ACTIVE:
            self._end(FAILED, self.accepted, (), out, error=f"the {part.name} failed: {message.error}")
        self._emit(out, ERROR, ("part", part.name), ("error", message.error), ("restarted", allowed))

    def _give_up(self, place: int, out: Out) -> None:
        """Go on without the part at `place`."""
        if self.parts is not None:
            out.stop(self.parts.refs[place])
            release_port(self.call_parts[place], self.facts, self.ports, out)
            owed = place not in self.parts.answered
            self.parts = self.parts.without(place)
            if owed and self.ending is not None and self.ending.told_drain:
                self._answered(out)

    def last_words(self, mail: tuple[object, ...]) -> tuple[Effect, ...]:
        """The effects that tell of this session's end, with the result that can still be given. They answer the request for the
        session, if it never opened, and every request that waits for the end."""
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
        """The result by this session's journal, for an end without its actor: frames below `upto` were accepted, and frames
        without an account are declared for `missing_reason`."""
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
        if self.listening is not None:
            heard, measured = self._upto(Hears.WORDS), self._upto(Hears.VOICE)
            self.listening = self.listening.run_out(self.accepted, heard=heard, measured=measured)
        if self.listening is None:
            self._end(SILENCE, self.accepted, (), out)
        else:
            out.set_timer("silence", HEARING_SECONDS)

    def _upto(self, hears: Hears) -> int:
        """The frame below which every part that notices speech in this way has dealt with everything."""
        parts = zip(self.call_parts, self.accounts, strict=True)
        return min([self.accepted, *[part.upto(account) for part, account in parts if part.hears is hears]])

    # --- STOPPING --------------------------------------------------------------------------------------------------

    def stop(self, message: Stop, out: Out) -> None:
        """Begin the end."""
        tokens = () if message.token is None else (message.token,)
        self._end(message.reason, message.upto, tokens, out, skipped=message.skipped)

    def stop_again(self, message: Stop, out: Out) -> None:
        """The end is under way: this request waits for it too."""
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
        """The session has stopped already: these requests wait for its last record too."""
        self._wait_for_the_end(message.tokens)

    def _wait_for_the_end(self, tokens: tuple[object, ...]) -> None:
        ending = self._ending()
        new = tuple([token for token in tokens if token not in ending.tokens])
        if new:
            self.ending = replace(ending, tokens=(*ending.tokens, *new))

    def _end(
        self,
        reason: EndReason,
        upto: int,
        tokens: tuple[object, ...],
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
        """Pass on audio that was accepted before the stop; count audio that came behind it as late."""
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
            for part in self.parts.due(self.call_parts):
                out.tell(part, Drain())

    def refused_at_end(self, message: NotDurable, out: Out) -> None:
        """A record that can't be written holds up no end; a store that is down is waited for."""
        if message.refused and self.outbox.is_under_way(message.number):
            self._refused(message, out)

    def part_answer(self, message: PartAnswer, out: Out) -> None:
        """A part has drained."""
        accounts = [*self.accounts]
        accounts[message.place] = message.account
        self.accounts = tuple(accounts)
        if self.parts is not None and message.place not in self.parts.answered:
            self.parts = self.parts.with_answer(message.place)
            self._answered(out)

    def _answered(self, out: Out) -> None:
        """One part fewer owes an answer: end, or let those drain that came after it."""
        if self.parts is not None and self.parts.done:
            self._stopped(out, "drained")
        else:
            self._drain_parts(out)

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
        draft = final_record(self.facts, self.outbox.next_number, self.verdict, result, failed=self._has_failed())
        self.outbox = self.outbox.commit(out, self.routes.evidence, draft, self._news(out, STOPPED, result))
        out.set_timer("evidence", self.limits.evidence_seconds)
        if trigger != "drained":
            self._release_ports(out)
        out.port(self.ports.directory, Closed(self.facts.session_id))

    def _release_ports(self, out: Out) -> None:
        """A part that did not answer may not have ended its port's work either."""
        if self.parts is not None:
            for part in self.call_parts:
                release_port(part, self.facts, self.ports, out)

    def _stopped_again(self, out: Out) -> None:
        """After a crash: go on with the last record, or, when that record is durable, with telling of the end."""
        result = self._ending().result
        if self.outbox.waiting:
            if self._ending().spilling:
                self._spill(out)
            else:
                out.keep_timer("evidence", self.limits.evidence_seconds)
            if result is not None and not result.drained:
                self._release_ports(out)
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
        """The store is down: spill the records that are left, at once. Spill the last record too when the store refused it
        twice; the store port leaves out the fields that can't be written. Records that are being spilled stay as they are."""
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
        """Policy or evidence moved, or the store is back: send the waiting record again."""
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
        refs: dict[str, Ref] = {}
        for place, part in enumerate(self.call_parts):
            context = PartContext(
                session=out.me,
                name=part.name,
                place=place,
                facts=self.facts,
                port=self.ports.of(part.port),
                directory=self.ports.directory,
                account=self.accounts[place],
                others=tuple(refs.items()),
                account_frames=self.limits.account_frames,
            )
            refs[part.name] = out.spawn(actor_of(part, context), part.name)
        self.parts = RunningParts.spawned(tuple(refs.values()), self._mismatches())

    def _commit(
        self,
        out: Out,
        operation: str,
        state: VoiceSessionState,
        *,
        detail: Fields = (),
        then: tuple[Effect, ...] = (),
        failed: bool = False,
    ) -> None:
        status = NOT_SUCCEEDED if failed or self._has_failed() else SUCCEEDED
        draft = Draft(self.facts, self.outbox.next_number, operation, status, self.verdict, state, detail)
        self.outbox = self.outbox.commit(out, self.routes.evidence, draft, then)

    def _has_failed(self) -> bool:
        ending = self.ending
        return ending is not None and (ending.reason is FAILED or ending.reason is UNEVIDENCED)

    def _news(self, out: Out, state: VoiceSessionState, result: SessionResult | None = None) -> tuple[Effect, ...]:
        """The effect that tells the directory the session's state; telling it again after a crash changes nothing."""
        return ((PORT, self.ports.directory, Changed(self.facts, state, out.me, self.verdict, result)),)

    def _emit(self, out: Out, kind: VoiceEventType, *payload: tuple[str, Any]) -> None:
        out.port(self.ports.directory, Emit(self.facts.session_id, kind, payload))

    def _result(self, *, drained: bool, missing_reason: str, upto: int = 0) -> SessionResult:
        """The whole account, of a part that did not answer as far as the part had told it."""
        ending, told = self._ending(), accounts_of(self.call_parts, self.accounts)
        frames = frame_account(
            told,
            max(self.accepted, ending.upto, upto),
            missing_reason,
            recorded=self.facts.recording and told.recorder.recording is not None,
            transcribed=self.facts.stt_engine is not None,
            uncounted=Uncounted(ending.skipped, ending.late),
        )
        return session_result(ending.reason, told, frames, drained=drained, mismatches=self._mismatches())

    def _mismatches(self) -> tuple[AudioMismatch, ...]:
        """The mismatches of audio and clock that are on record."""
        if self.parts is not None:
            return self.parts.mismatches
        return () if self.resumption is None else self.resumption.mismatches
