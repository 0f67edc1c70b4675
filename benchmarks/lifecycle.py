"""What does an actor cost? Spawn and stop, a session with its children, a whole call, and bytes while idle."""

import gc
import tracemalloc
from typing import Any

import anyio

from actors.actor import IGNORE, Actor, Out
from actors.mailbox import Ref
from actors.messages import (
    Append,
    Changed,
    CloseMedia,
    Commit,
    Durable,
    Facts,
    Finish,
    Finished,
    Frames,
    Keep,
    Kept,
    Listen,
    MediaClosed,
    OpenMedia,
    OpenSession,
    Routes,
    SessionEnded,
    Stop,
    Stored,
)
from actors.session import Ports, SessionActor, SessionLimits
from actors.supervisor import Supervisor
from actors.system import ActorSystem, Token
from benchmarks.mailbox import Sink
from benchmarks.yard import Figure, measure
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RequestStatus
from machines.policy import VoicePolicy
from machines.restart import Intensity
from machines.session import EndReason, STTProvider, VoiceProvider

LIMITS = SessionLimits(10, 5, 300, 3600, 500, Intensity(5, 60))
COUNTED = 2_000  # actors or sessions alive at once while their bytes are counted


class Answering:
    """All ports of a call in one: evidence is durable at once, audio is kept, and every answer comes from outside the
    actors' turn, as a real port's does."""

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self.answers: list[tuple[Ref, Any]] = []
        self.recorder: Ref | None = None
        self.transcriber: Ref | None = None
        self.session: Ref | None = None

    def submit(self, work: Any) -> None:
        """Note the answer that this work will have."""
        kind = work.__class__
        if kind is Append:
            self.answers.append((work.reply_to, Stored(((work.owner, work.draft.number),))))
        elif kind is Keep:
            self._answer(self.recorder, Kept(work.first + 1, 1, 640, 0.1, 0.1, 0, 0, ""))
        elif kind is CloseMedia:
            self._answer(self.recorder, MediaClosed(None, ""))
        elif kind is Finish:
            self._answer(self.transcriber, Finished())
        elif kind is OpenMedia:
            self.recorder = work.reply_to
        elif kind is Listen:
            self.transcriber = work.reply_to
        elif kind is Changed:
            self.session = work.route

    def _answer(self, ref: Ref | None, fact: Any) -> None:
        if ref is not None:
            self.answers.append((ref, fact))

    def answer(self) -> None:
        """Tell the answers that have come due."""
        while self.answers:
            answers, self.answers = self.answers, []
            for ref, fact in answers:
                self.system.tell(ref, fact)

    def open(self, supervisor: Ref, what: Facts) -> Ref:
        """Open a session; its address."""
        self.system.tell(supervisor, OpenSession(Token(), what))
        self.answer()
        if self.session is None:
            raise AssertionError("the session did not open")
        return self.session


class Agreeing(Actor):
    """Evidence that is durable at once."""

    __slots__ = ()
    handles = {Commit: "commit"}

    def commit(self, message: Commit, out: Out) -> None:
        """It is durable."""
        out.tell(message.owner, Durable(message.draft.number))


class Forgetful(Actor):
    """A supervisor that only lets sessions go."""

    __slots__ = ()
    handles = {SessionEnded: IGNORE}


class Family(Actor):
    """As many children as a session has."""

    __slots__ = ("children",)
    state = ("children",)

    def __init__(self) -> None:
        self.children: tuple[Ref, ...] = ()

    def start(self, out: Out) -> None:
        """Spawn three."""
        self.children = tuple(out.spawn(Sink(), name) for name in ("recorder", "transcriber", "quality"))


def facts(number: int) -> Facts:
    """The facts of a session in the default format."""
    return Facts(
        session_id=f"voice-{number}",
        project_id="bench",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.POCKETSPHINX,
        stt_engine=STTProvider.POCKETSPHINX,
        fallback="",
        audio_format=AudioFormat(),
        recording=False,
        metadata={},
        audit_trace_id="audit-0",
        secret=f"{number}",
        admin_token_valid=False,
        created_at_ms=0,
    )


async def figures(loop: str, runs: int) -> list[Figure]:
    """The costs in time, on the loop that is running."""
    found: list[Figure] = []
    async with anyio.create_task_group() as group:
        system = ActorSystem()
        await group.start(system.run)

        def plain(rounds: int) -> None:
            for _ in range(rounds):
                system.stop(system.spawn(Sink(), "plain"))

        def family(rounds: int) -> None:
            for _ in range(rounds):
                system.stop(system.spawn(Family(), "family"))

        found.append(measure("spawn and stop, plain actor", loop, plain, 20_000, goal=45, runs=runs))
        found.append(measure("spawn and stop, with three children", loop, family, 10_000, goal=350, runs=runs))

        port = Answering(system)
        ports = Ports(port, port, port, port)
        supervisor = system.spawn(Supervisor(VoicePolicy(), LIMITS, ports, 1.0), "supervisor")
        forgetful = system.spawn(Forgetful(), "supervisor")
        evidence = system.spawn(Agreeing(), "evidence")
        routes = Routes(1, evidence, evidence)
        known = [facts(number) for number in range(500)]
        verdict = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="BENCH", metadata={"risk_level": "low"})

        def life(rounds: int) -> None:
            for number in range(rounds):
                actor = SessionActor(known[number % len(known)], verdict, LIMITS, ports, forgetful, routes, Token())
                finish(system.spawn(actor, "session"))

        def service_life(rounds: int) -> None:
            for number in range(rounds):
                finish(port.open(supervisor, known[number % len(known)]))

        def finish(session: Ref) -> None:
            for frame in range(3):
                system.tell(session, Frames(frame, 1, 640, frame * 20))
            port.answer()
            token = Token()
            system.tell(session, Stop(EndReason.STOPPED, 3, token))
            port.answer()
            if not token.answered:
                raise AssertionError("the session did not end")

        found.append(measure("a whole life: spawn, 3 frames, stop", loop, life, 500, goal=2_000, runs=runs))
        name = "the same with policy, supervisor and evidence"
        found.append(measure(name, loop, service_life, 500, goal=None, runs=runs))
        group.cancel_scope.cancel()
    return found


def bytes_lines() -> list[str]:
    """Bytes of an idle plain actor, of a session before its first audio, and of one with its children."""
    system = ActorSystem(clock=lambda: 0.0)
    port = Answering(system)
    supervisor = system.spawn(Supervisor(VoicePolicy(), LIMITS, Ports(port, port, port, port), 1.0), "supervisor")
    known = [facts(number) for number in range(COUNTED)]

    def plain() -> None:
        for _ in range(COUNTED):
            system.spawn(Sink(), "plain")

    sessions: list[Ref] = []

    def created() -> None:
        sessions.extend([port.open(supervisor, what) for what in known])

    def active() -> None:
        for session in sessions:
            system.tell(session, Frames(0, 1, 640, 1))
            port.answer()

    lines = []
    before = 0.0
    for name, fill, goal in (
        ("idle plain actor", plain, 640),
        ("idle session, created", created, 3072),
        ("idle session, with its children", active, 3072),
    ):
        size = _grown_by(fill) / COUNTED
        size, before = (size + before, 0.0) if fill is active else (size, size if fill is created else 0.0)
        lines.append(f"{name:<44} {size:>10.0f} bytes {goal:>17} {'ok' if size <= goal else 'OVER'}")
    return lines


def _grown_by(fill: Any) -> int:
    gc.collect()
    tracemalloc.start()
    fill()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size
