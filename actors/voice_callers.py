"""The callers of a simulated day, and the directory that tells them what became of their calls."""

from typing import Any, Final, NamedTuple

from actors import messages as m
from actors.model_parts import Answer, Part
from actors.simulation_parts import PartPort, SimulatedPort
from actors.simulation_plan import SECOND_MS, Fault, FaultKind
from actors.simulation_trace import SimulatedToken
from actors.simulation_world import World
from actors.voice_day import CallPlan, facts_of
from actors.voice_parts import FRAME_BYTES, Call, Track, informed
from machines.session import EndReason, VoiceSessionState

CANCEL, CUT_CONNECTION = "cancel", "connection cut"
OF_CALLERS: Final = {CANCEL: FaultKind(("",), 0, 7), CUT_CONNECTION: FaultKind(("",), 0, 7)}
RETRY_MS: Final = 2 * SECOND_MS  # a caller who reaches nobody tries again so much later
TRIES: Final = 20


class Caller(NamedTuple):
    """One call of the day: its plan, and how it stands. `left` is set once the caller knows that the line is dead: its process
    died, or nobody was ever reached. `process` is the one that it reached; `asked_ms` and `stopped_ms` are when it asked for
    its session, and first for its end. One that is `quiet` was cut off."""

    plan: CallPlan
    facts: m.Facts
    call: Call
    runs: int = 0
    process: int = 0
    asked_ms: int = 0
    stopped_ms: int = 0
    left: bool = False
    quiet: bool = False

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

    def died(self, *, power: bool) -> None:
        """Every line is dead."""
        self.supervisor = None
        for session_id, caller in self.callers.items():
            if not caller.call.over:
                self._set(session_id, caller._replace(left=True, call=caller.call._replace(open=False)))

    def visit(self, number: int, what: Any) -> None:
        """Somebody calls."""
        facts = facts_of(number, what)
        self.callers[facts.session_id] = Caller(what, facts, Call(facts.session_id))
        self._ask(facts.session_id, TRIES)

    def suffer(self, fault: Fault) -> bool:
        """The host cancels a call, once or twice; or the line of one that speaks is cut, of which the service may learn."""
        if fault.kind == CANCEL:
            routed = [one for one in self.callers.values() if one.call.route is not None and not one.over]
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
            self._stop(session_id, EndReason.STOPPED)
        return True

    def submit(self, work: Any) -> None:
        """News of a call."""
        if isinstance(work, m.Emit | m.Metered):
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
        self._set(session_id, caller._replace(process=world.processes, asked_ms=world.now_ms, call=asked))
        token = self._token("open", session_id)
        world.tell(self.supervisor, m.OpenSession(token, caller.facts))

    def _learn(self, session_id: str, news: Any) -> None:
        caller = self.callers[session_id]
        after = informed(caller.call, news)
        self._set(session_id, caller._replace(call=after))
        if after.answer == "opened" and not caller.call.answer:
            self.world.later(self.world.chance.between(1, 1500), lambda: self._speak(session_id))

    def _speak(self, session_id: str) -> None:
        caller, world = self.callers[session_id], self.world
        call, plan = caller.call, caller.plan
        if not call.open or caller.quiet or caller.left:
            return
        if caller.runs >= plan.runs:
            self._finish(session_id)
            return
        frames = m.Frames(call.sent, plan.frames, plan.frames * FRAME_BYTES, world.now_ms)
        call = call._replace(sent=call.sent + plan.frames)
        self._set(session_id, caller._replace(call=call, runs=caller.runs + 1))
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
        if call.route is None or call.told[-1:] == (VoiceSessionState.STOPPED,) or caller.left:
            return
        token = self._token("stop", session_id, call.stops) if answered else None
        call = call._replace(stops=call.stops + answered, cancels=call.cancels + cancels, open=False)
        stopped_ms = caller.stopped_ms or world.now_ms
        self._set(session_id, caller._replace(call=call, stopped_ms=stopped_ms))
        world.tell(call.route, m.Stop(reason, call.sent, token))

    def _token(self, *key: Any) -> SimulatedToken:
        process = self.world.processes

        def answered(value: Any) -> None:
            if process == self.world.processes:
                self._learn(key[1], Answer(key, value))

        return SimulatedToken(f"{key[0]}:{key[1]}", answered)

    def _set(self, session_id: str, caller: Caller) -> None:
        self.callers[session_id] = caller
        self.world.touched(self.name, session_id)


class AudioPort(PartPort):
    """An audio port of one process: as the part of the model, with a track for each session, which a death ends."""

    def __init__(self, world: World, part: Part) -> None:
        super().__init__(world, part, lambda work: work.session_id)

    def begin(self) -> None:
        """Nothing is left of an earlier process."""

    def died(self, *, power: bool) -> None:
        """Its threads are gone with the process."""
        self.states.clear()
        self._busy.clear()

    def tracks(self, session_id: str) -> tuple[Track, ...]:
        """What it has of a session."""
        found: tuple[Track, ...] = self.states.get(session_id, ())
        return found
