"""The promises P1 to P10 in a simulated day of the voice service, watched with every step: the predicates are those that the
checker has of the model (`promises.py`), each asked of one call and of what ports and store have of it.

Only a call that has changed is looked at. What a fault excuses is excused for calls whose time it fell in, and for a while
after it; a call that no fault came near has to be perfect.
"""

from typing import Any, Final, NamedTuple

from actors.model.parts import POISON
from actors.runtime.actor import Actor
from actors.runtime.mailbox import IDLE, STOPPED, Ref
from actors.simulation.plan import SECOND_MS, Fault
from actors.simulation.world import CRASH, HANG, JUMP, KILL, REORDER, SLOW, Broken, World
from actors.voice.evidence import UP
from actors.voice.messages import Account
from actors.voice.session import SessionActor, SessionLimits
from actors.voice_lab.callers import AudioPort, Caller, VoiceCallers
from actors.voice_lab.conditions import (
    OF_PORTS,
    RANK,
    all_own,
    apart,
    called_durable,
    conserved,
    denied_in,
    denied_stays_out,
    evidence_first,
    in_order,
    nothing_lost,
    recording_told,
    safe_in,
    told_forward,
    told_no_less,
    told_why,
    tracks_ended,
)
from actors.voice_lab.parts import SILENCE_SECONDS, Call, Records, Track
from actors.voice_lab.store import DISK_FULL, DISK_HANG, DISK_SLOW, UNWRITABLE, JournalStore
from machines.operations import PORT_FAILED, RECORD_REFUSED, SESSION_RESUMED
from machines.session import EndReason, SessionResult, VoiceSessionState

LASTING: Final = frozenset({HANG, SLOW, JUMP, KILL, REORDER, DISK_FULL, DISK_SLOW, DISK_HANG})
AFTERMATH_MS: Final = 150 * SECOND_MS  # how long a fault that is over may still be felt: probes, drains, retries
FELT_MS: Final = 15 * SECOND_MS  # what a fault may cost who waits, beside the time that it lasts
ANSWER_MS: Final = 10 * SECOND_MS
SLACK_MS: Final = 6 * SECOND_MS
OF_AUDIO_PORTS: Final = frozenset({"media", "speech"})
AT_ONCE: Final = frozenset({CRASH, POISON})  # over with the restart: deadlines count on through it
LOOKED_AT: Final = frozenset({"session", "callers", "store"})
NO_RECORDS: Final = Records()
OWN_CHILDREN: Final = {"policy", "evidence"}
ORDERLY: Final = {EndReason.STOPPED, EndReason.IDLE, EndReason.SILENCE, EndReason.OVERRUN}

_FIRST: Final = evidence_first(0)
_FIRST_OR_EXCUSED: Final = evidence_first(3)
_NOTHING_LOST: Final = nothing_lost(0)


class _Trouble(NamedTuple):
    kind: str
    where: str
    at_ms: int
    until_ms: int


class VoiceWatch:
    """Who watches; see the module."""

    def __init__(
        self,
        world: World,
        callers: VoiceCallers,
        media: AudioPort,
        speech: AudioPort,
        store: JournalStore,
        limits: SessionLimits,
    ) -> None:
        self._world = world
        self._callers = callers
        self._media = media
        self._speech = speech
        self._store = store
        stop_seconds = limits.drain_seconds + 2 * limits.evidence_seconds
        self._longest_ms = int(limits.max_seconds * SECOND_MS)
        self._stop_ms = int(stop_seconds * SECOND_MS) + SLACK_MS
        self._ranks: dict[str, int] = {}
        self._refs: dict[str, Ref] = {}
        self._born: set[str] = set()
        self._waiting: dict[str, None] = {}  # calls that are not over, perhaps
        self._looked_at: dict[str, tuple[Caller, Records]] = {}
        self._troubles: list[_Trouble] = []
        self._healed = limits.restarts.limit
        self._next_deadline = 0
        world.on_fault = self._trouble

    # --- while it runs ----------------------------------------------------------------------------------------------

    def stepped(self, ref: Ref, actor: Actor) -> None:
        """P1: a session only goes forward."""
        if not isinstance(actor, SessionActor):
            return
        session_id, rank = ref.name, RANK[actor.phase]
        before = self._ranks.get(session_id, -1)
        if rank < before:
            raise Broken("P1 only legal moves", f"{session_id} went back to {actor.phase.value}")
        if rank > before:
            self._ranks[session_id] = rank
            self._refs[session_id] = ref
            self._born.add(session_id)
            # An engine may find words behind the end, in audio in which a voice was heard before the silence began.
            by_voice = actor.facts.stt_engine is None
            ends = actor.ending is not None and actor.ending.reason is EndReason.SILENCE
            if ends and (by_voice or before < RANK[VoiceSessionState.STOPPING]):
                self._silent(session_id, actor.facts.silence_seconds)
        if rank >= RANK[VoiceSessionState.STOPPED]:
            self._world.touched("session", session_id)

    def _silent(self, session_id: str, seconds: float | None) -> None:
        """P2: silence ends only a call that asks for it, and in which nobody has spoken for so long."""
        caller = self._callers.callers[session_id]
        if seconds is None or self._world.now_ms - caller.spoken_ms < seconds * SECOND_MS:
            raise Broken("P2 only silence ends a call as silent", _shown(caller))

    def look(self) -> None:
        """The promises of each call that has changed."""
        changed = {key: None for name, key in self._world.take_touched() if name in LOOKED_AT}
        for session_id in changed:
            caller = self._callers.callers.get(session_id)
            if caller is not None:
                self._waiting[session_id] = None
                ref = self._refs.get(session_id)
                if ref is not None:
                    self._actor(session_id, caller.call, ref)
                records = self._store.records.get(session_id, NO_RECORDS)
                last = self._looked_at.get(session_id)
                if last is None or last[1] is not records:
                    self._records(session_id, records)
                if last is None or last[0] is not caller or last[1] is not records:
                    self._looked_at[session_id] = (caller, records)
                    self._look_at(session_id, caller, records)
        if self._world.now_ms >= self._next_deadline:
            self._look_at_deadlines()

    def died(self) -> None:
        """P10: what was called durable outlives its process, though not its machine. The next one has actors of its own."""
        if not self._media.lost_power:
            for session_id in self._waiting:
                call, found = self._callers.callers[session_id].call, self._media.on_disk.get(session_id)
                if found is not None and call.result is None and call.heard.durable > found.written + found.missing:
                    raise Broken("P10 nothing is called durable that was not kept", f"told {call.heard}, found {found}")
        self._ranks.clear()
        self._refs.clear()

    def end(self) -> None:
        """When all is over nothing is left, and everything is on record."""
        world, system = self._world, self._world.system
        waiting = next((one for one in self._callers.callers.values() if not one.over), None)
        if waiting is not None:
            raise Broken("P2 every call ends", f"{waiting.call.session_id} waits: {_shown(waiting)}")
        supervisor = world.living("supervisor")
        if system is None or supervisor is None:
            raise Broken("P2 every call ends", "no process runs")
        left = sorted({child.name for child in supervisor.children()} - OWN_CHILDREN)
        tables: Any = supervisor.actor
        if left or len(tables.sessions) or len(tables.asked) or tables.outbox.waiting:
            raise Broken("P7 nothing of a session is left", f"{left or 'a row of the supervisor'}")
        evidence: Any = world.living("supervisor/evidence")
        if evidence.actor.phase != UP:
            raise Broken("P4 a store that is back is found out", "evidence takes it for down")
        if armed := system.armed():
            raise Broken("P7 nothing of a session is left", f"a timer of {armed[0][0].name}: {armed[0][1]}")
        verified = self._store.verify()
        if not verified.ok:
            raise Broken("P4 the chain holds", f"{verified.fault} at {verified.at_seq}")
        if problem := self._store.has_all():
            raise Broken("P4 nothing that is durable is lost", problem)
        for session_id, records in self._store.records.items():
            self._records(session_id, records)
            self._refusals(session_id, records)

    # --- one call ---------------------------------------------------------------------------------------------------

    def _look_at(self, session_id: str, caller: Caller, records: Records) -> None:
        call = caller.call
        if not told_forward((call,)):
            raise Broken("P1 what is told of a session moves forward", _shown(caller))
        if not denied_stays_out((caller.facts,))((call,), denied_in(records), session_id not in self._born):
            raise Broken("P5 a denied request never becomes a session", _shown(caller))
        if caller.plan.refused and (call.answer == "opened" or call.told):
            raise Broken("P9 bad input changes nothing", _shown(caller))
        if not caller.left and caller.process == self._world.processes:
            self._audio_and_evidence(session_id, caller, records)

    def _records(self, session_id: str, records: Records) -> None:
        if not in_order(records):
            raise Broken("P4 each record once, in order, one final one, none after it", _operations(records))
        if not all_own(records):
            raise Broken("P6 nothing crosses from one session to another", f"{session_id}: {_operations(records)}")

    def _refusals(self, session_id: str, records: Records) -> None:
        """P4: of a record that could not be written there is one that says so; unless nothing is on record of its session. Who
        can't resume a session leaves none."""
        on_record = {record.record_id for record in records.durable}
        refused = [record for record in records.refused if record.operation != SESSION_RESUMED]
        lost = [record.operation for record in refused if record.record_id not in on_record]
        if on_record and len(lost) > sum(record.operation == RECORD_REFUSED for record in records.durable):
            raise Broken(
                "P4 a record that can't be written leaves a trace", f"{lost} of {session_id}; {_operations(records)}"
            )

    def _actor(self, session_id: str, call: Call, ref: Ref) -> None:
        gone = ref.status == STOPPED
        stopped = gone or (ref.status == IDLE and self._ranks[session_id] == RANK[VoiceSessionState.STOPPED])
        if stopped and call.open:
            raise Broken("P2 the door of a stopped session is closed", session_id)
        if not gone:
            return
        ended = tracks_ended(session_id)
        if not (ended(self._media.tracks(session_id)) and ended(self._speech.tracks(session_id))):
            raise Broken("P7 nothing of a session is left", f"a track of {session_id}")
        if ref.timers is not None or ref.youngest is not None or not call.closed:
            raise Broken("P7 nothing of a session is left", f"{session_id} left a timer, a child or its door open")

    def _audio_and_evidence(self, session_id: str, caller: Caller, records: Records) -> None:
        call = caller.call
        troubles = self._during(caller)
        spilling = records._replace(waiting=self._store.spilling(session_id))
        first = _FIRST_OR_EXCUSED if troubles else _FIRST
        if session_id not in self._store.forgotten and not first((call,), safe_in(spilling)):
            raise Broken("P4 evidence first", f"{_shown(caller)}; on record: {_operations(records)}")
        crashes = {trouble.kind for trouble in troubles} <= {CRASH} and len(troubles) <= self._healed
        if caller.begun is not None:
            self._resumed(caller, caller.begun, records, troubles)
        if call.answer == "unevidenced" and crashes and not (call.stops or records.refused):
            raise Broken("P8 crashes turn nobody away", _shown(caller))
        result = call.result
        if result is None:
            return
        if not told_why((call._replace(stops=call.stops + caller.hung_up),)):
            raise Broken("P2 who is told of an end is told why", _shown(caller))
        tracks = (self._media.tracks(session_id), self._speech.tracks(session_id))
        poisoned = any(trouble.kind == POISON for trouble in troubles)
        if not conserved((call,), *tracks, untold=frozenset([session_id] if poisoned else [])):
            raise Broken("P3 every frame is accounted for", f"{result.frames}, sent {call.sent}")
        if not apart((call,)):
            raise Broken("P6 nothing crosses from one session to another", f"{session_id}: {result}")
        if not told_no_less((call,)):
            raise Broken("P10 a result says at least what its listeners were told", f"{result}, told {call.heard}")
        if not called_durable((call,), tracks[0]):
            raise Broken("P10 nothing is called durable that was not kept", f"{result}, told {call.heard}, {tracks[0]}")
        if _heals(troubles):
            self._ports(caller, result, spilling, tracks)
        if crashes:
            self._perfect(caller, call, result, [trouble.where for trouble in troubles])

    def _resumed(self, caller: Caller, begun: Account, records: Records, troubles: list[_Trouble]) -> None:
        """P3, P4, P8: who comes back goes on when that is on record, with all that was kept."""
        call, result = caller.call, caller.call.result
        on_record = any(record.operation == SESSION_RESUMED for record in records.durable)
        if call.answer == "opened" and not on_record and call.session_id not in self._store.forgotten:
            raise Broken("P4 it goes on when that is on record", f"{_shown(caller)}; {_operations(records)}")
        if call.answer == "unevidenced" and not call.stops and {trouble.kind for trouble in troubles} <= {KILL}:
            raise Broken("P8 who comes back in time goes on", _shown(caller))
        if result is None:
            return
        dropped = dict(result.frames.dropped)
        if result.frames.accounted < begun.kept or any(dropped.get(why, 0) < frames for why, frames in begun.lost):
            raise Broken("P3 what was kept before is kept", f"{result.frames}, begun with {begun}")

    def _ports(
        self, caller: Caller, result: SessionResult, records: Records, tracks: tuple[tuple[Track, ...], ...]
    ) -> None:
        """P3, P4, P8: what ports closed is in the result, what they lost is on record, and their silence holds up no end."""
        call, media = caller.call, tracks[0]
        on_record = {record.operation for record in (*records.durable, *records.spilled)}
        silent = frozenset([call.session_id] if PORT_FAILED in on_record else [])
        if not recording_told((call,), media, silent):
            raise Broken("P3 a recording that was closed is in the result", f"{_shown(caller)}; {result}")
        for reason in {**result.frames.dropped, **result.frames.untranscribed}:
            if OF_PORTS.get(reason) not in {None, *on_record}:
                raise Broken(
                    "P4 what a port lost, and that it failed, is on record", f"{reason}; {_operations(records)}"
                )
        silences = [track.noticed for port in tracks for track in port if track.silent]
        if not result.drained and silences and all(silences):
            raise Broken("P8 a port whose silence is noticed holds up no end", f"{_shown(caller)}; {result}")

    def _perfect(self, caller: Caller, call: Call, result: SessionResult, crashed: list[str]) -> None:
        """P8: where at most a few actors crashed, nothing may be amiss; where they were parts of calls, no audio is lost."""
        kept = result.frames.accounted + dict(result.frames.dropped).get("late", 0) == call.sent
        heard = _NOTHING_LOST((call,), 0) if caller.plan.engine else kept
        if not (result.reason in ORDERLY and result.drained and {*call.ended} <= {"durable"}):
            raise Broken("P8 crashes leave every end drained and durable", f"{_shown(caller)}; {result}")
        if not (kept and heard) and all(path.count("/") > 1 for path in crashed):
            raise Broken("P8 a part that crashes loses no audio", f"{_shown(caller)}; {result}")

    # --- in time ----------------------------------------------------------------------------------------------------

    def _look_at_deadlines(self) -> None:
        """P2: whoever asks is answered, and gets the end that was asked for, in time."""
        now = self._world.now_ms
        for session_id in list(self._waiting):
            caller = self._callers.callers[session_id]
            call = caller.call
            if caller.over or not call.asked:
                del self._waiting[session_id]
                continue
            if not call.answer and now > self._allowed(caller.asked_ms, ANSWER_MS):
                raise Broken("P2 whoever asks for a session is answered", f"{session_id}: {_shown(caller)}")
            stopped = caller.stopped_ms
            if stopped and now > self._allowed(stopped, self._stop_ms):
                raise Broken("P2 whoever asks for the end gets it", f"{session_id}: {_shown(caller)}")
            if self._is_silent_for_too_long(caller):
                raise Broken("P2 a call in which nobody speaks ends", f"{session_id}: {_shown(caller)}")
            if self._outlives(caller):
                raise Broken("P2 no call outlives its longest duration", f"{session_id}: {_shown(caller)}")
        self._look_for_forgotten()
        self._next_deadline = now + SECOND_MS

    def _is_silent_for_too_long(self, caller: Caller) -> bool:
        """Whether a call goes on in which nobody speaks. Whether anybody does is not known while an audio port does not answer,
        nor when its answer was set aside."""
        runs = caller.call.told[-1:] == (VoiceSessionState.ACTIVE,) and not caller.left and not caller.away
        if not (caller.plan.muted and runs):
            return False
        if {trouble.kind for trouble in self._during(caller)} & {*OF_AUDIO_PORTS, POISON}:
            return False
        return self._world.now_ms > self._allowed(
            caller.asked_ms, ANSWER_MS + int(SILENCE_SECONDS * SECOND_MS) + SLACK_MS, begins_anew=True
        )

    def _outlives(self, caller: Caller) -> bool:
        """Whether a call goes on beyond its longest duration, which counts from its beginning, whatever crashed and whoever
        resumed it since."""
        runs = caller.call.told and caller.call.result is None and not caller.left and not caller.away
        return bool(runs) and self._world.now_ms > self._allowed(caller.born_ms, self._longest_ms + self._stop_ms)

    def _look_for_forgotten(self) -> None:
        """P4: while evidence takes records and everybody has read their mail, each record that waits is under way."""
        supervisor, evidence = self._world.living("supervisor"), self._world.living("supervisor/evidence")
        if supervisor is None or evidence is None or {supervisor.status, evidence.status} != {IDLE}:
            return
        keeper: Any = evidence.actor
        if keeper.phase != UP:
            return
        for ref in (supervisor, *[self._refs[name] for name in self._waiting if name in self._refs]):
            owner: Any = ref.actor
            if ref.status == IDLE and owner.outbox.waiting and keeper.waiting.get(ref) is None and not _spills(ref):
                raise Broken(
                    "P4 no record is forgotten", f"{ref.name} waits for {owner.outbox.waiting[0].draft.operation}"
                )

    def _allowed(self, since_ms: int, base_ms: int, *, begins_anew: bool = False) -> int:
        """Until when something may take that was asked for then: longer by what held it up. A crash holds up what `begins_anew`
        behind it, and no deadline."""
        allowed = since_ms + base_ms
        for trouble in self._troubles:
            if trouble.kind != UNWRITABLE and trouble.until_ms > since_ms - AFTERMATH_MS:
                felt = begins_anew or trouble.kind not in AT_ONCE
                allowed += trouble.until_ms - trouble.at_ms + (FELT_MS if felt else 0)
        return allowed

    def _trouble(self, fault: Fault, where: str) -> None:
        now = self._world.now_ms
        began = now - fault.size if fault.kind == JUMP else now
        self._troubles.append(_Trouble(fault.kind, where, began, now + (fault.size if fault.kind in LASTING else 0)))

    def _during(self, caller: Caller) -> list[_Trouble]:
        """What may excuse something: not a record that can't be written, which holds nothing up."""
        since = caller.asked_ms - AFTERMATH_MS
        return [trouble for trouble in self._troubles if trouble.until_ms >= since and trouble.kind != UNWRITABLE]


def _spills(ref: Ref) -> bool:
    timer = ref.timers
    while timer is not None and timer.key != "spill":
        timer = timer.earlier
    return timer is not None


def _shown(caller: Caller) -> str:
    call = caller.call
    told = " ".join([state.value for state in call.told])
    reason = "" if call.result is None else f", {call.result.reason.value}"
    return (
        f"{call.session_id} asked at {caller.asked_ms / SECOND_MS:g} s: {call.answer or 'no answer'}, told {told or 'nothing'}"
        f"{reason}, sent {call.sent}, stops {call.stops}, ended {' '.join(call.ended) or 'not'}"
    )


def _operations(records: Records) -> str:
    durable = " ".join([record.operation for record in records.durable])
    return f"{durable or 'nothing'}; spilled {' '.join([record.operation for record in records.spilled]) or 'nothing'}"


def _heals(troubles: list[_Trouble]) -> bool:
    """Whether no more came than ports that fail, and one crash."""
    crashes = [trouble for trouble in troubles if trouble.kind == CRASH]
    return len(crashes) <= 1 and {trouble.kind for trouble in troubles} <= {CRASH, *OF_AUDIO_PORTS}
