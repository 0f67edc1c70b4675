"""A whole voice system on a clock that a test turns by hand, with scripted ports.

The ports keep to the protocol of the real ones: they take work in `submit`, and what comes of it is told later. `World.settle`
is their tasks; a test decides what the store, the encoder and the engine do.
"""

# ruff: noqa: RUF012 - a table on an actor class is never changed

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from actors.runtime.actor import Actor, Exited, Gone, Out
from actors.runtime.mailbox import CONTROL, CONTROL_BOUND, Ref
from actors.runtime.system import ActorSystem, Token
from actors.voice import messages as m
from actors.voice.call_part import NO_PORTS, CallPart, Ports
from actors.voice.evidence import EvidenceActor
from actors.voice.policy import PolicyActor
from actors.voice.quality import QualityActor
from actors.voice.recorder import RecorderActor
from actors.voice.session import SessionActor, SessionLimits
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice.supervisor import Supervisor
from actors.voice.transcriber import TranscriberActor
from machines.audio import AudioFormat
from machines.events import VoiceEventType
from machines.frozen import FrozenDict, frozen
from machines.policy import VoicePolicy
from machines.recording import RecordingInfo
from machines.restart import Intensity
from machines.session import (
    EndReason,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSessionState,
)

FRAME_BYTES = 640
LIMITS = SessionLimits(
    drain_seconds=10.0,
    evidence_seconds=2.0,
    idle_seconds=30.0,
    max_seconds=600.0,
    account_frames=50,
    restarts=Intensity(3, 30.0),
)
STATES = list(VoiceSessionState)


def make_facts(session_id: str = "voice-1", **changes: Any) -> m.Facts:
    """What a session is asked for with; `changes` replace single facts."""
    facts: dict[str, Any] = {
        "session_id": session_id,
        "project_id": "project",
        "provider": VoiceProvider.LOCAL,
        "stt_provider": STTProvider.POCKETSPHINX,
        "stt_engine": STTProvider.POCKETSPHINX,
        "fallback": "",
        "audio_format": AudioFormat(),
        "recording": False,
        "metadata": frozen({}),
        "audit_trace_id": f"audit-{session_id}",
        "secret": f"secret-{session_id}",
        "admin_token_valid": False,
        "created_at_ms": 1_700_000_000_000,
    }
    return m.Facts(**(facts | changes))


class PortBroken(Exception):
    """What a broken port raises from `submit`."""


class ScriptedPort:
    """Takes work down; `World` answers it."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.log: list[Any] = []
        self.waiting: list[Any] = []

    def submit(self, work: Any) -> None:
        world = self.world
        world.submitted += 1
        if world.submitted in world.break_at:
            raise PortBroken(f"{self.name} broke at submission {world.submitted}")
        self.log.append(work)
        if self.name == "directory":
            world.told(work)
        else:
            self.waiting.append(work)


class World:
    """A supervisor with everything below it, a clock at 0 s, and ports that do what the test says.

    `store` is "up", "down" (refuses) or "silent" (never answers); `spill_ok` whether the spill file takes records;
    `media_answers` and `stt_answers` can be turned off for a time, and the caller's words and voice with `speaks`. `break_at`
    are the numbers of the submissions, counted over all ports, that raise.
    """

    def __init__(
        self,
        *,
        limits: SessionLimits = LIMITS,
        policy: VoicePolicy | None = None,
        break_at: frozenset[int] = frozenset(),
        inline: bool = True,
        control_bound: int = CONTROL_BOUND,
        call_parts: tuple[CallPart, ...] = STANDARD_PARTS,
        more_ports: Mapping[str, Any] = NO_PORTS,
    ) -> None:
        self.now = 0.0
        self.system = ActorSystem(clock=lambda: self.now, control_bound=control_bound)
        self.store, self.spill_ok = "up", True
        self.media_answers = self.stt_answers = self.speaks = True
        self.break_at = break_at
        self.submitted = 0
        self.inline = inline
        self.records: dict[str, m.Draft] = {}
        self.spilled: dict[str, m.Draft] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        self.accounts: dict[str, dict[str, Any]] = {}
        self.too_early: list[str] = []
        self.routes: dict[str, Ref] = {}
        self.sent: dict[str, int] = {}
        names = ("directory", "media", "speech", "store")
        self.directory, self.media, self.speech, self.store_port = (ScriptedPort(self, name) for name in names)
        self.ports = Ports(self.directory, self.media, self.speech, self.store_port, FrozenDict(more_ports))
        supervisor = Supervisor(policy or VoicePolicy(), limits, self.ports, 1.0, call_parts)
        self.supervisor = self.system.spawn(supervisor, "supervisor")
        self.settle()

    # --- what a test does ------------------------------------------------------------------------------------------

    def ask(self, facts: m.Facts, *, settle: bool = True) -> Token:
        """Ask for a session; the token has the answer."""
        token = Token()
        self.tell(self.supervisor, m.OpenSession(token, facts))
        if settle:
            self.settle()
        return token

    def open(self, session_id: str = "voice-1", **changes: Any) -> Ref:
        """A session whose creation is durable."""
        token = self.ask(make_facts(session_id, **changes))
        assert isinstance(token.value, m.Opened), token.value
        return self.routes[session_id]

    def frames(self, count: int, session_id: str = "voice-1", *, settle: bool = True) -> None:
        """The next `count` frames arrive at the door of a session."""
        first = self.sent.get(session_id, 0)
        self.sent[session_id] = first + count
        at_ms = int(self.now * 1000) + 1
        self.tell(self.routes[session_id], m.Frames(first, count, count * FRAME_BYTES, at_ms))
        if settle:
            self.settle()

    def stop(
        self,
        session_id: str = "voice-1",
        *,
        upto: int | None = None,
        skipped: tuple[tuple[str, int], ...] = (),
        settle: bool = True,
        reason: EndReason | None = None,
    ) -> Token:
        """Ask for the end; the token has the answer."""
        token = Token()
        upto = self.sent.get(session_id, 0) if upto is None else upto
        self.tell(self.routes[session_id], m.Stop(reason or EndReason.STOPPED, upto, token, skipped))
        if settle:
            self.settle()
        return token

    def tell(self, ref: Ref, message: Any) -> None:
        """Tell inline, or queued when the world is not `inline`."""
        if self.inline:
            self.system.tell(ref, message)
        else:
            with self.system.held_back():
                self.system.tell(ref, message)

    def settle(self) -> None:
        """Let the ports answer, in turn, until nobody has anything to say."""
        while True:
            while self.system.has_work():
                self.system.turn()
            for port in (self.store_port, self.media, self.speech):
                if port.waiting and self.answers_now(port):
                    work = port.waiting.pop(0)
                    for ref, message in self.answers(port.name, work):
                        self.tell(ref, message)
                    break
            else:
                return

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            wait = self.system.turn()
            self.settle()
            wait = self.system.turn()
            if wait is None or self.now + wait > end:
                break
            self.now += wait
        self.now = end

    @contextmanager
    def crashing(self, kind: type[Actor], at: frozenset[int], *, after: bool = True) -> Iterator[list[str]]:
        """Actors of `kind` spawned in here raise in their steps with these numbers, counted over all of them.

        With `after` the step runs first, so that its state changes and effects have to be undone. Yields the names of the
        messages whose steps ran.
        """
        steps: list[str] = []

        def watched(step: Callable[..., None]) -> Callable[..., None]:
            def run(actor: Actor, message: Any, out: Any) -> None:
                steps.append(type(message).__name__)
                number = len(steps)
                if after or number not in at:
                    step(actor, message, out)
                if number in at:
                    raise PortBroken(f"step {number}, {type(message).__name__}")

            return run

        compiled = kind.compiled
        kind.compiled = {
            phase: {message: watched(step) for message, step in table.items()} for phase, table in compiled.items()
        }
        try:
            yield steps
        finally:
            kind.compiled = compiled

    # --- the ports -------------------------------------------------------------------------------------------------

    def answers_now(self, port: ScriptedPort) -> bool:
        """Whether a port does its work; a silent one does it later, when it is not silent any more."""
        return {"media": self.media_answers, "speech": self.stt_answers}.get(port.name, True)

    def answers(self, port: str, work: Any) -> list[tuple[Ref, Any]]:
        """What a port tells of a piece of work."""
        return {"store": self.store_answers, "media": self.media_facts, "speech": self.stt_facts}[port](work)

    def store_answers(self, work: Any) -> list[tuple[Ref, Any]]:
        if isinstance(work, m.SpillWork):
            if self.spill_ok:
                self.spilled |= {draft.record_id: draft for draft in work.drafts}
            return [(work.reply_to, m.SpillDone(work.owner, self.spill_ok))]
        if self.store == "silent":
            return []
        if isinstance(work, m.Probe):
            return [(work.reply_to, m.Probed(self.store == "up"))]
        ticket = ((work.owner, work.draft.number),)
        if self.store == "down":
            return [(work.reply_to, m.NotStored(ticket, "disk full", store_down=True))]
        self.records.setdefault(work.draft.record_id, work.draft)
        return [(work.reply_to, m.Stored(ticket))]

    def media_facts(self, work: Any) -> list[tuple[Ref, Any]]:
        account = self.accounts.get(work.session_id)
        if isinstance(work, m.OpenMedia):
            account = self.accounts.setdefault(
                work.session_id,
                {"upto": 0, "kept": [], "closed": False, "recording": work.recording, "sha": hashlib.sha256()},
            )
            account["to"] = work.reply_to
        elif account is None or account["closed"]:
            pass
        elif isinstance(work, m.Keep):
            first, upto = max(work.first, account["upto"]), work.first + work.count
            if first < upto:
                account["upto"] = upto
                account["kept"] += range(first, upto)
                account["sha"].update(repr(range(first, upto)).encode())
                n, whole = upto - first, len(account["kept"])
                digest = account["sha"].hexdigest()
                voiced = n if self.speaks else 0
                kept = m.Kept(upto, n, 0.25, 0.5, 0, 0, whole, whole * FRAME_BYTES, digest, voiced)
                return [(account["to"], kept)]
        elif isinstance(work, m.CloseMedia):
            account["closed"] = True
            info = None
            if account["recording"]:
                samples = len(account["kept"]) * 320
                info = RecordingInfo(
                    path="call.flac",
                    sample_rate=16_000,
                    channels=1,
                    samples=samples,
                    seconds=samples / 16_000,
                    segments=1,
                )
            return [(account["to"], m.MediaClosed(info, account["sha"].hexdigest()))]
        return []

    def stt_facts(self, work: Any) -> list[tuple[Ref, Any]]:
        stream = self.streams.get(work.session_id)
        if isinstance(work, m.Listen):
            stream = self.streams.setdefault(work.session_id, {"upto": 0, "heard": [], "done": False})
            stream["to"] = work.reply_to
        elif stream is None or stream["done"]:
            pass
        elif isinstance(work, m.Hear):
            first, upto = max(work.first, stream["upto"]), work.first + work.count
            if first < upto:
                stream["upto"] = upto
                stream["heard"] += range(first, upto)
                words = [(stream["to"], m.Partial("he" if self.speaks else " "))]
                return [*words, (stream["to"], m.Heard(upto, upto - first))]
        elif isinstance(work, m.Finish):
            stream["done"] = True
            return [(stream["to"], m.Utterance("hello", 0, 400)), (stream["to"], m.Finished())]
        return []

    def told(self, work: Any) -> None:
        """The directory's view; what it is told before the record of it is safe is noted."""
        if isinstance(work, m.Changed):
            session_id = work.facts.session_id
            self.routes[session_id] = work.route
            safe = [*self.records.values(), *self.spilled.values()]
            known = any(draft.facts.session_id == session_id and draft.state is work.state for draft in safe)
            if not known and self.spill_ok:  # where nothing takes a record, the end is told all the same
                self.too_early.append(f"{session_id}: {work.state}")

    # --- what became of it -----------------------------------------------------------------------------------------

    def changes(self, session_id: str = "voice-1") -> list[VoiceSessionState]:
        """The states that the directory was told, repetitions left out."""
        states: list[VoiceSessionState] = []
        for work in self.directory.log:
            if isinstance(work, m.Changed) and work.facts.session_id == session_id and work.state not in states[-1:]:
                states.append(work.state)
        return states

    def events(self, session_id: str = "voice-1") -> list[VoiceEventType]:
        """The events that the directory was told, levels among them; not those that it makes of a new state."""
        told = [w for w in self.directory.log if isinstance(w, m.Emit | m.Metered) and w.session_id == session_id]
        return [w.event_type if isinstance(w, m.Emit) else VoiceEventType.AUDIO_RECEIVED for w in told]

    def operations(self, session_id: str = "voice-1") -> list[str]:
        """The operations on record, in the order in which they became durable."""
        return [draft.operation for draft in self.records.values() if draft.facts.session_id == session_id]

    def finals(self, session_id: str = "voice-1") -> list[m.Draft]:
        """The final records, one for each id, in the store or spilled."""
        safe = {**self.spilled, **self.records}
        return [d for d in safe.values() if d.result is not None and d.facts.session_id == session_id]

    def result(self, session_id: str = "voice-1") -> SessionResult:
        """The one result of a session that has ended."""
        (final,) = self.finals(session_id)
        assert final.result is not None
        return final.result

    def check_ended(self, session_id: str = "voice-1") -> SessionResult:
        """Nothing of the session is left, and its account holds."""
        result = self.result(session_id)
        account = result.frames
        assert account.accepted == account.accounted + sum(account.dropped.values())
        assert account.accepted == account.transcribed + sum(account.untranscribed.values())
        assert min([0, *account.dropped.values(), *account.untranscribed.values()]) == 0
        assert self.too_early == []
        states = self.changes(session_id)
        assert states == sorted(states, key=STATES.index)
        assert m.Closed(session_id) in self.directory.log
        names = sorted(ref.name for ref, _ in self.system.refs())
        assert names == ["evidence", "policy", "supervisor"]
        statistics = self.system.statistics()
        assert (statistics.held, statistics.ready) == (0, 0)
        supervisor: Any = self.supervisor.actor
        assert (len(supervisor.sessions), len(supervisor.owners)) == (0, 0)
        return result


VOICE_ACTORS = (
    Supervisor,
    PolicyActor,
    EvidenceActor,
    SessionActor,
    RecorderActor,
    TranscriberActor,
    QualityActor,
)


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """`World` itself, for tests that make their own or several."""
    return World


@pytest.fixture
def world() -> World:
    """A voice system at rest, its store up."""
    return World()


@pytest.fixture
def facts() -> Callable[..., m.Facts]:
    """`make_facts`."""
    return make_facts


@pytest.fixture(params=VOICE_ACTORS, ids=lambda kind: kind.__name__)
def voice_actor(request: pytest.FixtureRequest) -> type[Actor]:
    """Each class of voice actor in turn."""
    kind: type[Actor] = request.param
    return kind


# --- plain actors, for the tests of the system -------------------------------------------------------------------------


class Do:
    """A message that brings its step along."""

    def __init__(self, name: str, action: Callable[["Doer", Out], None] | None = None, *, lane: int = CONTROL) -> None:
        self.name = name
        self.action = action
        self.lane = lane


class Doer(Actor):
    """Logs what it gets and does what it is told; `log` survives a crash, `scratch` does not."""

    __slots__ = ("log", "scratch")
    state = ("log", "scratch")
    journal = ("log",)
    handles = {Do: "do", Gone: "gone"}

    def __init__(self) -> None:
        self.log: tuple[str, ...] = ()
        self.scratch: tuple[str, ...] = ()

    def start(self, out: Out) -> None:
        self.log = (*self.log, "start")

    def restarted(self, out: Out) -> None:
        self.log = (*self.log, "restarted")

    def timeout(self, timer: str, out: Out) -> None:
        self.log = (*self.log, f"timeout {timer}")

    def do(self, message: Do, out: Out) -> None:
        self.log = (*self.log, message.name)
        self.scratch = (*self.scratch, message.name)
        if message.action is not None:
            message.action(self, out)

    def gone(self, message: Gone, out: Out) -> None:
        self.log = (*self.log, f"gone {message.ref.name}")


class Keeper(Doer):
    """A Doer that is told of its children's crashes, and leaves them as they are."""

    __slots__ = ("children",)
    state = (*Doer.state, "children")
    journal = ("log", "children")
    handles = {**Doer.handles, Exited: "exited"}

    def __init__(self) -> None:
        super().__init__()
        self.children: dict[str, Ref] = {}

    def exited(self, message: Exited, out: Out) -> None:
        self.log = (*self.log, f"exited {message.ref.name}: {message.error}")

    def adopt(self, name: str, kind: type[Doer], out: Out) -> None:
        """Spawn a child, as part of a step."""
        self.children = {**self.children, name: out.spawn(kind(), name)}


class HandClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """An actor system on a hand clock, and short names for what its tests do."""

    Do = Do
    Doer = Doer
    Keeper = Keeper

    def __init__(self, **settings: Any) -> None:
        self.clock = HandClock()
        self.system = ActorSystem(clock=self.clock, **settings)

    def doer(self, name: str = "doer") -> Ref:
        return self.system.spawn(Doer(), name)

    def keeper(self, name: str = "keeper") -> Ref:
        return self.system.spawn(Keeper(), name)

    def child(self, parent: Ref, name: str, kind: type[Doer] = Doer) -> Ref:
        """A new child of a keeper."""
        self.do(parent, f"adopt {name}", lambda keeper, out: keeper.adopt(name, kind, out))
        actor: Any = parent.actor
        ref: Ref = actor.children[name]
        return ref

    def do(self, ref: Ref, name: str, action: Any = None, *, lane: int = CONTROL) -> None:
        """Tell `ref` to do something."""
        self.system.tell(ref, Do(name, action, lane=lane))

    def crash(self, ref: Ref, name: str = "bad") -> None:
        """Tell `ref` something that its step fails on, each time."""

        def fail(_: Doer, __: Out) -> None:
            raise ValueError(name)

        self.do(ref, name, fail)

    def log(self, ref: Ref) -> tuple[str, ...]:
        """What an actor has logged."""
        actor: Any = ref.actor
        log: tuple[str, ...] = actor.log
        return log

    def letters(self) -> list[tuple[str, str, str]]:
        """To whom, what and why, of each dead letter."""
        return [(letter.to, letter.kind, letter.reason) for letter in self.system.dead_letters]

    def drain(self) -> None:
        """Take turns as the driver does, until nobody is ready."""
        while self.system.has_work():
            self.system.turn()


@pytest.fixture
def stage() -> Stage:
    """An actor system with nobody in it."""
    return Stage()


@pytest.fixture(scope="session")
def new_stage() -> type[Stage]:
    """`Stage` itself, for tests with settings of their own."""
    return Stage
