"""What does an actor cost? Spawn and stop, a session with its children, a whole call, and bytes while idle."""

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import ActorSystem, Token
from actors.voice.call_part import Ports
from actors.voice.messages import (
    Append,
    Changed,
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
    Stop,
    Stored,
)
from actors.voice.session import SessionActor, SessionLimits
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice.supervisor import Supervisor
from benchmarks.mailbox import Sink
from benchmarks.reference import Deadlines, PlainCall
from benchmarks.yard import Figure, SideBySide, measure, measure_beside
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RequestStatus
from machines.policy import VoicePolicy
from machines.restart import Intensity
from machines.session import EndReason, STTProvider, VoiceProvider

LIMITS = SessionLimits(10, 5, 300, 3600, 500, Intensity(5, 60))
MEDIA_CLOSED = MediaClosed(None, "")
FINISHED = Finished()
THREE_FRAMES = tuple(Frames(number, 1, 640, number * 20) for number in range(3))
VERDICT = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="BENCH", metadata={"risk_level": "low"})
LIFE_GOAL = 5.5  # times by hand
COUNTED = 2_000  # actors or sessions alive at once while their bytes are counted


Answers = list[tuple[Ref, Any]]


class Store:
    """A store that every record is in as soon as it is asked."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def submit(self, work: Append) -> None:
        """It will be told that the record is durable."""
        self.answers.append((work.reply_to, Stored(((work.owner, work.draft.number),))))


class Media:
    """A media port that keeps everything, and like the real one answers for all frames that came meanwhile in one `Kept`."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.upto = self.told = 0
        self.recorder: Ref | None = None

    def submit(self, work: Any) -> None:
        """Keep, open or close."""
        kind = work.__class__
        if kind is Keep:
            self.upto = work.first + work.count
        elif kind is OpenMedia:
            self.recorder = work.reply_to
            self.upto = self.told = 0
        elif self.recorder is not None:
            self.answers.append((self.recorder, MEDIA_CLOSED))

    def report(self) -> None:
        """Answer for what came since the last time."""
        frames = self.upto - self.told
        if frames and self.recorder is not None:
            self.told = self.upto
            self.answers.append(
                (self.recorder, Kept(self.upto, frames, 0.1, 0.1, 0, 0, self.upto, 640 * self.upto, ""))
            )


class Engine:
    """A speech-to-text port that hears nothing."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.transcriber: Ref | None = None

    def submit(self, work: Any) -> None:
        """Listen, or be done."""
        kind = work.__class__
        if kind is Listen:
            self.transcriber = work.reply_to
        elif kind is Finish and self.transcriber is not None:
            self.answers.append((self.transcriber, FINISHED))


class Register:
    """A directory that keeps the last few things that it was told."""

    def __init__(self) -> None:
        self.told: deque[Any] = deque(maxlen=4)
        self.submit = self.told.append

    def last_session(self) -> Ref:
        """The address of the session that it was told of last."""
        address: Ref = next(work.route for work in reversed(self.told) if isinstance(work, Changed))
        return address


class Called:
    """Where `tell` is a call: what answers by hand are given to."""

    def tell(self, receive: Callable[[Any], None], fact: Any) -> None:
        """Give it."""
        receive(fact)


class World:
    """The ports of a call, whose answers come from outside the actors' turn, as those of real ones do."""

    def __init__(self, system: ActorSystem | Called) -> None:
        self.system = system
        self.answers: Answers = []
        self.media = Media(self.answers)
        self.register = Register()
        self.ports = Ports(self.register, self.media, Engine(self.answers), Store(self.answers))

    def answer(self) -> None:
        """Tell the answers that have come due."""
        self.media.report()
        tell = self.system.tell
        for ref, fact in self.answers:  # those that they lead to are among them when they are told
            tell(ref, fact)
        self.answers.clear()

    def open(self, supervisor: Ref, what: Facts) -> Ref:
        """Open a session; its address."""
        self.system.tell(supervisor, OpenSession(Token(), what))
        self.answer()
        return self.register.last_session()


class Agreeing(Actor):
    """Evidence that is durable at once."""

    __slots__ = ()
    handles = {Commit: "commit"}

    def commit(self, message: Commit, out: Out) -> None:
        """It is durable."""
        out.tell(message.owner, Durable(message.draft.number))


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


async def figures(loop: str, runs: int) -> list[Figure | SideBySide]:
    """The costs in time, on the loop that is running."""
    found: list[Figure | SideBySide] = []
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

        found += await _lives(system, loop, runs)
        group.cancel_scope.cancel()
    return found


class _ByHand:
    """The same lives by plain calls."""

    def __init__(self) -> None:
        self.world = World(Called())
        self.deadlines = Deadlines()
        self.known = [facts(number) for number in range(500)]

    async def lives(self, rounds: int) -> None:
        """Each from its creation to its result."""
        answer = self.world.answer
        for number in range(rounds):
            what = self.known[number % len(self.known)]
            call = PlainCall(what, VERDICT, self.world.ports, self.deadlines, lambda _: None)
            for frames in THREE_FRAMES:
                call.frames(frames)
            answer()
            call.stop(EndReason.STOPPED)
            answer()
            if call.result is None:
                raise AssertionError("the call did not end")


async def _lives(system: ActorSystem, loop: str, runs: int) -> list[SideBySide]:
    world = World(system)
    ports = world.ports
    supervisor = system.spawn(Supervisor(VoicePolicy(), LIMITS, ports, 1.0), "supervisor")
    evidence = system.spawn(Agreeing(), "evidence")
    routes = Routes(1, evidence, evidence)
    known = [facts(number) for number in range(500)]

    async def life(rounds: int) -> None:
        for number in range(rounds):
            what = known[number % len(known)]
            finish(
                system.spawn(
                    SessionActor(what, VERDICT, LIMITS, ports, STANDARD_PARTS, routes, Token()), what.session_id
                )
            )

    async def service_life(rounds: int) -> None:
        for number in range(rounds):
            finish(world.open(supervisor, known[number % len(known)]))

    def finish(session: Ref) -> None:
        for frames in THREE_FRAMES:
            system.tell(session, frames)
        world.answer()
        token = Token()
        system.tell(session, Stop(EndReason.STOPPED, 3, token))
        world.answer()
        if not token.answered:
            raise AssertionError("the session did not end")

    found = []
    for name, lives, goal in (
        ("a whole life: spawn, 3 frames, stop", life, LIFE_GOAL),
        ("the same with policy, supervisor and evidence", service_life, None),
    ):
        found.append(await measure_beside(name, loop, lives, _ByHand().lives, 500, goal=goal, runs=runs))
    return found


def bytes_lines() -> list[str]:
    """Bytes of an idle plain actor, of a session before its first audio, and of one with its children."""
    system = ActorSystem(clock=lambda: 0.0)
    world = World(system)
    supervisor = system.spawn(Supervisor(VoicePolicy(), LIMITS, world.ports, 1.0), "supervisor")
    known = [facts(number) for number in range(COUNTED)]

    def plain() -> None:
        for _ in range(COUNTED):
            system.spawn(Sink(), "plain")

    sessions: list[Ref] = []

    def created() -> None:
        sessions.extend([world.open(supervisor, what) for what in known])

    def active() -> None:
        for session in sessions:
            system.tell(session, Frames(0, 1, 640, 1))
            world.answer()

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
