"""The callers of a simulated day, and the directory that tells them what became of their calls."""

from functools import partial
from typing import Any, Final, NamedTuple

from actors.model.parts import Answer, Part
from actors.simulation.parts import PartPort, SimulatedPort
from actors.simulation.plan import SECOND_MS, Fault, FaultKind
from actors.simulation.trace import SimulatedToken
from actors.simulation.world import World
from actors.voice import messages as m
from actors.voice_lab.day import CallPlan, facts_of
from actors.voice_lab.parts import FRAME_BYTES, Call, Track, informed
from actors.voice_lab.returning import APPROVED, OnDisk, on_disk, resumption
from actors.voice_lab.store import JournalStore
from machines.events import VoiceEventType
from machines.session import EndReason, VoiceSessionState

CANCEL, CUT_CONNECTION = "cancel", "connection cut"
OF_CALLERS: Final = {CANCEL: FaultKind(("",), 0, 7), CUT_CONNECTION: FaultKind(("",), 0, 7)}
RETRY_MS: Final = 2 * SECOND_MS  # a caller who reaches nobody tries again so much later
TRIES: Final = 20
BACK_MS: Final = (500, 45 * SECOND_MS)  # after a death; some come too late
CAN_SEND_AGAIN: Final = 250  # frames that a caller keeps
BEFORE_THE_END: Final = (VoiceSessionState.CREATED, VoiceSessionState.ACTIVE)


class Caller(NamedTuple):
    """One call of the day: its plan, and how it stands. `left` is set once the caller knows that the line is dead: its process
    died and it does not come back, or nobody was ever reached. `process` is the one that it reached; `born_ms`, `asked_ms` and
    `stopped_ms` are when it asked for its session first and last, and first for its end. One that is `quiet` was cut off, and
    one that `hung_up` waits for no answer. One that is `away` will come back; one that did began with the account `begun`, and
    has frames to send `again`. Words, or where nobody transcribes a voice, were told of last at `spoken_ms`."""

    plan: CallPlan
    facts: m.Facts
    call: Call
    runs: int = 0
    process: int = 0
    asked_ms: int = 0
    stopped_ms: int = 0
    left: bool = False
    quiet: bool = False
    hung_up: bool = False
    away: bool = False
    begun: m.Account | None = None
    again: int = 0
    born_ms: int = 0
    spoken_ms: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing is expected of it any more."""
        return self.left or self.call.over


class VoiceCallers(SimulatedPort):
    """Those who call, and their directory. `callers` are all who have called so far, by session."""

    kinds = tuple(OF_CALLERS)

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.callers: dict[str, Caller] = {}
        self.supervisor: Any = None
        self.store: JournalStore
        self.media: AudioPort

    def died(self, *, power: bool) -> None:
        """Every line is dead; some callers come back."""
        self.supervisor = None
        for session_id, caller in self.callers.items():
            if not caller.over and not caller.away:
                away = self._comes_back(caller)
                call = caller.call._replace(open=False)
                self._set(session_id, caller._replace(left=not away, away=away, call=call))
                if away:
                    self.world.later(
                        self.world.chance.between(*BACK_MS), partial(self._come_back, session_id, TRIES), outside=True
                    )

    def _comes_back(self, caller: Caller) -> bool:
        under_way = any(caller.call.told[-1:] == (state,) for state in BEFORE_THE_END)
        return caller.plan.resumable and under_way and not caller.stopped_ms and not caller.quiet

    def _come_back(self, session_id: str, tries: int) -> None:
        """Go on with the session, if a process has it and it is not too late."""
        caller, world = self.callers[session_id], self.world
        if self.supervisor is None and tries:
            world.later(RETRY_MS, partial(self._come_back, session_id, tries - 1), outside=True)
            return
        left = None
        if self.supervisor is not None and session_id not in self.store.forgotten:
            left = self.store.claim(session_id)
        if left is None:
            self._set(session_id, caller._replace(left=True, away=False))
            return
        sent, now = caller.call.sent, world.now_ms
        begin = resumption(left, self.media.on_disk.get(session_id), sent - CAN_SEND_AGAIN, now - caller.born_ms)
        account = begin.account
        self.media.carry_on(caller.facts, account)
        call = Call(session_id, asked=True, told=caller.call.told, sent=account.upto)
        again = max(0, sent - account.upto)
        back = caller._replace(call=call, process=world.processes, asked_ms=now, away=False, begun=account, again=again)
        self._set(session_id, back)
        world.tell(self.supervisor, m.ResumeSession(self._token("open", session_id), caller.facts, APPROVED, begin))

    def speaks(self, session_id: str) -> bool:
        """Whether there are words in the audio of a session, and voice."""
        return not self.callers[session_id].plan.muted

    def visit(self, number: int, what: Any) -> None:
        """Somebody calls."""
        facts = facts_of(number, what)
        self.callers[facts.session_id] = Caller(what, facts, Call(facts.session_id))
        self._ask(facts.session_id, TRIES)

    def suffer(self, fault: Fault) -> bool:
        """The host cancels a call, once or twice; or the line of one that speaks is cut, of which the service may learn."""
        if fault.kind == CANCEL:
            there = [one for one in self.callers.values() if not one.away and not one.over]
            routed = [one for one in there if one.call.route is not None]
            if not routed:
                return False
            self._cancel(routed[fault.size % len(routed)].call.session_id, 1 + fault.size % 2)
            return True
        speaking = [one for one in self.callers.values() if one.call.open and not one.left]
        if not speaking:
            return False
        session_id = speaking[fault.size % len(speaking)].call.session_id
        self._set(session_id, self.callers[session_id]._replace(quiet=True))
        if fault.size % 2:
            self._stop(session_id, EndReason.CALLER_GONE)
        return True

    def submit(self, work: Any) -> None:
        """News of a call."""
        if isinstance(work, m.Emit | m.Metered):
            caller = self.callers[work.session_id]  # nothing to look at before there is a result
            heard = caller.call.heard.told(work)
            spoken = self.world.now_ms if _is_speech(work, caller) else caller.spoken_ms
            self.callers[work.session_id] = caller._replace(call=caller.call._replace(heard=heard), spoken_ms=spoken)
            return
        session_id = work.session_id if isinstance(work, m.Closed) else work.facts.session_id
        self._learn(session_id, work)

    # --- a call -----------------------------------------------------------------------------------------------------

    def _ask(self, session_id: str, tries: int) -> None:
        caller, world = self.callers[session_id], self.world
        if self.supervisor is None:
            if tries:
                world.later(RETRY_MS, lambda: self._ask(session_id, tries - 1), outside=True)
            else:
                self._set(session_id, caller._replace(left=True))
            return
        asked = caller.call._replace(asked=True)
        now = world.now_ms
        self._set(session_id, caller._replace(process=world.processes, asked_ms=now, born_ms=now, call=asked))
        token = self._token("open", session_id)
        world.tell(self.supervisor, m.OpenSession(token, caller.facts))

    def _learn(self, session_id: str, news: Any) -> None:
        caller = self.callers[session_id]
        after = informed(caller.call, news)
        self._set(session_id, caller._replace(call=after))
        if after.answer and not caller.call.answer and session_id in self.store.awaited.sessions:
            self.store.settle(session_id, goes_on=after.answer == "opened")
            if after.answer != "opened":
                self.media.let_go(session_id)
                self._set(session_id, self.callers[session_id]._replace(left=True))
        if after.answer == "opened" and not caller.call.answer:
            self.world.later(self.world.chance.between(1, 1500), lambda: self._speak(session_id))

    def _speak(self, session_id: str) -> None:
        caller, world = self.callers[session_id], self.world
        call, plan = caller.call, caller.plan
        if not call.open or caller.quiet or caller.left:
            return
        if caller.runs >= plan.runs and not caller.again and not (plan.muted and plan.runs):
            self._finish(session_id)
            return
        count = caller.again or plan.frames
        frames = m.Frames(call.sent, count, count * FRAME_BYTES, world.now_ms)
        call = call._replace(sent=call.sent + count)
        self._set(session_id, caller._replace(call=call, runs=caller.runs + (not caller.again), again=0))
        if call.route is not None:
            world.carry(call.route, frames)
        world.later(plan.gap_ms, lambda: self._speak(session_id))

    def _finish(self, session_id: str) -> None:
        ending = self.callers[session_id].plan.ending
        if ending == "silence":
            return  # the session is idle until it ends by itself
        self._stop(session_id, EndReason.STOPPED, answered=ending != "hang up")
        if ending == "stop twice":
            self.world.later(self.world.chance.below(500), lambda: self._stop(session_id, EndReason.STOPPED))

    def _cancel(self, session_id: str, times: int) -> None:
        self._stop(session_id, EndReason.SHUTDOWN, cancels=1)
        if times > 1:
            again = self.world.chance.below(50)
            self.world.later(again, lambda: self._stop(session_id, EndReason.SHUTDOWN, cancels=1))

    def _stop(self, session_id: str, reason: EndReason, *, answered: bool = True, cancels: int = 0) -> None:
        caller, world = self.callers[session_id], self.world
        call = caller.call
        route = call.route
        if route is None or call.told[-1:] == (VoiceSessionState.STOPPED,) or caller.left:
            return
        token = self._token("stop", session_id, call.stops) if answered else None
        owed = call.owed if caller.stopped_ms else call.sent
        call = call._replace(stops=call.stops + answered, cancels=call.cancels + cancels, owed=owed, open=False)
        if reason is EndReason.CALLER_GONE:
            call = call._replace(vanished=call.vanished + 1)
        stopped_ms, hung_up = caller.stopped_ms or world.now_ms, caller.hung_up or not answered
        self._set(session_id, caller._replace(call=call, stopped_ms=stopped_ms, hung_up=hung_up))
        world.tell(route, m.Stop(reason, call.sent, token))

    def _token(self, *key: Any) -> SimulatedToken:
        process = self.world.processes

        def answered(value: Any) -> None:
            if process == self.world.processes:
                self._learn(key[1], Answer(key, value))

        return SimulatedToken(f"{key[0]}:{key[1]}", answered)

    def _set(self, session_id: str, caller: Caller) -> None:
        self.callers[session_id] = caller
        self.world.touched(self.name, session_id)


def _is_speech(news: m.Emit | m.Metered, caller: Caller) -> bool:
    if isinstance(news, m.Metered):
        return news.measure.voiced > 0 and caller.facts.stt_engine is None
    return news.event_type is VoiceEventType.STT_FINAL


class AudioPort(PartPort):
    """An audio port of one process: as the part of the model, with a track for each session, which a death ends. `on_disk` is
    what deaths have left of recordings."""

    def __init__(self, world: World, part: Part) -> None:
        super().__init__(world, part, lambda work: work.session_id)
        self.on_disk: dict[str, OnDisk] = {}
        self.lost_power = False

    def begin(self) -> None:
        """Nothing is left of an earlier process."""

    def died(self, *, power: bool) -> None:
        """Its threads are gone with the process; what they wrote is not, unless the machine went down."""
        self.lost_power = power
        for session_id in self.states:
            for track in self.tracks(session_id):
                if track.recording and not track.over:
                    self.on_disk[session_id] = on_disk(track, self.world.chance, power=power)
        self.states.clear()
        self._busy.clear()

    def carry_on(self, facts: m.Facts, account: m.Account) -> None:
        """Before its session goes on: a track that has what is accounted for."""
        kept = account.kept
        self.on_disk.pop(facts.session_id, None)
        track = Track(facts.session_id, None, account.upto, kept, kept, recording=facts.recording)
        self.states[facts.session_id] = (track,)

    def let_go(self, session_id: str) -> None:
        """Its session did not go on."""
        self.states.pop(session_id, None)

    def tracks(self, session_id: str) -> tuple[Track, ...]:
        """What it has of a session."""
        found: tuple[Track, ...] = self.states.get(session_id, ())
        return found
