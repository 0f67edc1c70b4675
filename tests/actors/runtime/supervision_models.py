"""Models of the generic supervisor: a parent, the supervisor, three workers, and a world that ends workers and counts; and
of what decides on a restart, over time.

They import nothing of the tests, so that a patched copy of the actors can be checked with them too.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

from actors.model.actor_model import ActorModel, Scene, Schedule, Timers
from actors.model.parts import Choice, Faults, Part
from actors.runtime.actor import SHUTDOWN, Actor, Exited, Out, Shutdown
from actors.runtime.child_spec import AutoShutdown, ChildSpec, Restart, Strategy, Supervision
from actors.runtime.mailbox import MailRule
from actors.runtime.static_supervisor import Abandoned, StaticSupervisor, SupervisionFailed
from machines.checker.model import Model, Property, always
from machines.restart import Backoff, CrashLog, Intensity, Streak

NAMES = ("a", "b", "c")
SUPERVISOR = "top/supervisor"


class Finish(NamedTuple):
    """Your work is done: stop."""


class Finished(NamedTuple):
    """What a worker tells the world when it has."""

    name: str


class Begun(NamedTuple):
    """What a worker tells the world when it begins."""

    name: str


class MayGo(NamedTuple):
    """What a worker asks the world for when it is told to shut down."""

    name: str


class Go(NamedTuple):
    """The world's answer."""


class Worker(Actor):
    """Shuts down when the world lets it."""

    __slots__ = ("name", "told", "world")
    wiring = ("name", "world")
    state = ("told",)
    handles: ClassVar = {Finish: "finish", Shutdown: "shut_down", Go: "go"}

    def __init__(self, name: str, world: Any) -> None:
        self.name = name
        self.world = world
        self.told = False

    def start(self, out: Out) -> None:
        out.port(self.world, Begun(self.name))

    def finish(self, _: Finish, out: Out) -> None:
        out.stop()
        if not self.told:  # else it ends with its group
            out.port(self.world, Finished(self.name))

    def shut_down(self, _: Shutdown, out: Out) -> None:
        self.told = True
        out.port(self.world, MayGo(self.name))

    def go(self, _: Go, out: Out) -> None:
        if self.told:
            out.stop()


class Deaf(Actor):
    """Can't be told to shut down."""

    __slots__ = ("name", "world")
    wiring = ("name", "world")
    handles: ClassVar = {Finish: "finish"}
    told = False

    def __init__(self, name: str, world: Any) -> None:
        self.name = name
        self.world = world

    def start(self, out: Out) -> None:
        out.port(self.world, Begun(self.name))

    def finish(self, _: Finish, out: Out) -> None:
        out.stop()
        out.port(self.world, Finished(self.name))


class Top(Actor):
    """The supervisor's parent: begins it again after a crash, and, if `again`, also when it failed."""

    __slots__ = ("abandoned", "again", "failed", "supervision", "supervisor")
    wiring = ("supervision", "again")
    state = ("supervisor", "failed", "abandoned")
    journal = state
    handles: ClassVar = {Exited: "exited", Abandoned: "was_abandoned"}

    def __init__(self, supervision: Supervision, again: bool) -> None:
        self.supervision = supervision
        self.again = again
        self.supervisor: Any = None
        self.failed = 0
        self.abandoned: frozenset[str] = frozenset()

    def start(self, out: Out) -> None:
        self.supervisor = out.spawn(StaticSupervisor(self.supervision, out.me), "supervisor")

    def restarted(self, out: Out) -> None:
        if self.supervisor is None:
            self.start(out)
        else:
            out.adopt(self.supervisor)
            out.restart(self.supervisor)

    def exited(self, message: Exited, out: Out) -> None:
        if message.error is not None and SupervisionFailed.__name__ in message.error:
            self.failed += 1
            if not self.again:
                out.stop(message.ref)
                return
        if message.error is not None:
            out.restart(message.ref)

    def was_abandoned(self, message: Abandoned, _: Out) -> None:
        self.abandoned |= {message.name}


class Seen(NamedTuple):
    """What the world saw: who finished, in which order workers last began, how often each began, whether one began out of
    its order or after its end, and what may still be asked for."""

    finishes: int
    stops: int
    asks: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()
    begun: tuple[int, ...] = (0,) * len(NAMES)
    last: int = len(NAMES) - 1
    disordered: bool = False
    stopped: bool = False


class World(Part):
    """Ends workers, lets them go when they are told to shut down, if ever, and tells the supervisor to shut down."""

    def __init__(self, finishes: int, stops: int) -> None:
        super().__init__("world")
        self._first = Seen(finishes, stops)
        self.find: Any = None

    def initial(self) -> Seen:
        return self._first

    def submit(self, state: Seen, work: Any) -> Seen:
        if isinstance(work, Finished):
            return state._replace(finished=state.finished | {work.name})
        if isinstance(work, MayGo):
            return state._replace(asks=state.asks | {work.name})
        at = NAMES.index(work.name)
        in_order = at == state.last + 1 or (state.last == len(NAMES) - 1)
        begun = tuple(count + (place == at) for place, count in enumerate(state.begun))
        return state._replace(begun=begun, last=at, disordered=state.disordered or not in_order)

    def choices(self, state: Seen) -> Iterable[Choice]:
        for name in NAMES:
            ref = self.find(f"{SUPERVISOR}/{name}")
            if state.finishes:
                yield Choice(f"finishes {name}", state._replace(finishes=state.finishes - 1), ((ref, Finish()),))
            if name in state.asks:
                yield Choice(f"lets {name} go", state._replace(asks=state.asks - {name}), ((ref, Go()),), fair=False)
        if state.stops:
            told = ((self.find(SUPERVISOR), SHUTDOWN),)
            yield Choice("tells it to end", state._replace(stops=state.stops - 1, stopped=True), told)


def supervision_model(
    *,
    strategy: str = "one for one",
    restart: str | Sequence[str] = "permanent",
    limit: int = 2,
    finishes: int = 0,
    stops: int = 0,
    deaf: Sequence[str] = (),
    auto: str = "never",
    mail: int | None = None,
    again: bool = False,
    faults: Faults | None = None,
    schedule: Schedule = Schedule.TURNS,
    timers: Timers = Timers.DEADLINE,
) -> ActorModel:
    """Three workers under one strategy, with the same or three kinds of `restart`; those that are not permanent are
    significant where `auto` asks for it."""
    kinds = [Restart(restart)] * 3 if isinstance(restart, str) else [Restart(one) for one in restart]
    world = World(finishes, stops)
    names = dict(zip(NAMES, kinds, strict=True))

    def make(name: str, port: Any, _: Mapping[str, Any]) -> Actor:
        return (Deaf if name in deaf else Worker)(name, port)

    def supervised(port: Any) -> Supervision:
        specs = [
            ChildSpec(
                name,
                partial(make, name, port),
                kind,
                mail=MailRule(mail),
                significant=auto != "never" and kind is not Restart.PERMANENT,
            )
            for name, kind in names.items()
        ]
        backoff = Backoff(first=1.0, jitter=0.0, quiet=1e9)
        return Supervision(tuple(specs), Strategy(strategy), Intensity(limit, 1e9), backoff, AutoShutdown(auto))

    def setup(scene: Scene) -> None:
        scene.spawn(Top(supervised(scene.port(world)), again), "top")
        found = {path: scene.find(path) for path in (SUPERVISOR, *[f"{SUPERVISOR}/{name}" for name in NAMES])}
        world.find = found.__getitem__

    model = ActorModel(
        f"supervision, {strategy}, {restart}",
        setup,
        parts=[world],
        schedule=schedule,
        timers=timers,
        faults=faults,
        errors=(SupervisionFailed,),
    )
    promise(model, supervised(world))
    return model


def runs(worker: Any) -> bool:
    """Whether an actor lives and is not held."""
    return bool(worker.alive and not worker.held)


def rests(supervisor: Any) -> bool:
    """Whether the supervisor lives, and has dealt with all that it was told."""
    return bool(runs(supervisor) and not supervisor.unread)


def promise(model: ActorModel, supervision: Supervision) -> None:
    """What supervision promises, claimed of a model."""
    workers = [f"{SUPERVISOR}/{name}" for name in NAMES]
    specs, limit = supervision.children, supervision.intensity.limit
    permanent = all(spec.restart is Restart.PERMANENT for spec in specs)
    alone = supervision.strategy is Strategy.ONE_FOR_ONE

    model.always(
        "no child outlives its supervisor",
        lambda it, *workers: it.alive or not any(worker.alive for worker in workers),
        of=[SUPERVISOR, *workers],
    )
    model.always(
        "a supervisor that failed has no child that runs",
        lambda it, *workers: not (it.alive and it.phase == "failed") or not any(map(runs, workers)),
        of=[SUPERVISOR, *workers],
    )
    model.always(
        "a child is told to end when those behind it have ended",
        lambda *workers: not any(runs(one) and one.told and runs(other) for one, other in combinations(workers, 2)),
        of=workers,
    )
    model.always(
        "children begin in order",
        lambda world, faults: alone or not world.disordered or faults < model.faults.total or not permanent,
        of=["world", "@faults"],
    )
    model.always(
        "no more restarts than the intensity allows",
        lambda it, world: not alone or it.stopped or sum(world.begun) <= (len(NAMES) + limit) * (1 + it.failures),
        of=[SUPERVISOR, "world"],
    )
    model.always(
        "it fails only beyond its intensity",
        lambda it: not it.alive or it.phase != "failed" or len(it.crashes.times) > limit,
        of=[SUPERVISOR],
    )
    model.always(
        "a transient child that finished does not begin again",
        lambda world, *workers: (
            not alone  # one that ends at the moment at which it is told to counts as ended with its group
            or not any(
                runs(worker)
                for spec, worker in zip(specs, workers, strict=True)
                if spec.restart is not Restart.PERMANENT and spec.name in world.finished
            )
        ),
        of=["world", *workers],
    )
    model.always(
        "a temporary child begins once",
        lambda it, world: (
            it.stopped
            or it.failures > 0
            or all(
                count <= 1 for spec, count in zip(specs, world.begun, strict=True) if spec.restart is Restart.TEMPORARY
            )
        ),
        of=[SUPERVISOR, "world"],
    )
    model.always(
        "a child that is being ended has a deadline",
        lambda it, timers: not (rests(it) and it.phase == "ending") or (SUPERVISOR, "deadline") in timers,
        of=[SUPERVISOR, "@timers"],
    )
    model.always(
        "who crashes again waits for its backoff",
        lambda it, timers: (
            not (rests(it) and it.phase == "running")
            or all(
                (SUPERVISOR, f"backoff {spec.name}" if alone else "backoff") in timers
                for spec, child in zip(specs, it.children, strict=True)
                if child.stands == "waiting"
            )
        ),
        of=[SUPERVISOR, "@timers"],
    )
    model.always(
        "what is up in its books runs",
        lambda it, *workers: (
            not rests(it)
            or all(runs(worker) == (child.stands == "up") for child, worker in zip(it.children, workers, strict=True))
        ),
        of=[SUPERVISOR, *workers],
    )
    model.leads_to(
        "a permanent child runs again, or the supervisor ends",
        lambda it, *workers: it.alive and it.phase == "running" and any(worker.held for worker in workers),
        lambda it, *workers: not it.alive or it.phase != "running" or not any(worker.held for worker in workers),
        of=[SUPERVISOR, *workers],
    )
    model.leads_to(
        "who is told to end ends",
        lambda it, world: world.stopped and it.alive,
        lambda it, _: it.stopped,
        of=[SUPERVISOR, "world"],
    )
    model.always(
        "it ends only when it is told, fails, or has lost who is significant",
        lambda top, it, world: (
            not it.stopped or world.stopped or bool(top.failed) or is_over(supervision, world.finished, model.faults)
        ),
        of=["top", SUPERVISOR, "world"],
    )
    if supervision.auto_shutdown is not AutoShutdown.NEVER:
        model.leads_to(
            "it ends when it has lost who is significant",
            lambda it, world: it.alive and is_over(supervision, world.finished, None),
            lambda it, _: it.stopped,
            of=[SUPERVISOR, "world"],
        )


def is_over(supervision: Supervision, finished: frozenset[str], faults: Faults | None) -> bool:
    """Whether those who finished, or may have crashed for good, are enough for the automatic shutdown."""
    gone = {
        spec.name
        for spec in supervision.children
        if spec.significant and (spec.name in finished or (faults is not None and faults.total))
    }
    significant = {spec.name for spec in supervision.children if spec.significant}
    if supervision.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT:
        return bool(gone)
    return supervision.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and gone == significant


# --- intensity and backoff, over time ----------------------------------------------------------------------------------


class Crash(NamedTuple):
    """One crash: when, whether a restart was allowed, and how long it had to wait."""

    at: float
    allowed: bool
    seconds: float


class Crashes(NamedTuple):
    """What intensity and backoff made of some crashes."""

    log: CrashLog = CrashLog()
    streak: Streak = Streak()
    past: tuple[Crash, ...] = ()


class RestartModel(Model[Crashes, float]):
    """Crashes with all kinds of pauses between them: none, one that is not quiet, one that is, one that is longer."""

    name = "restart"
    CRASHES = 6
    PAUSES = (0.0, 4.0, 8.0, 11.0)

    def __init__(self, intensity: Intensity, backoff: Backoff) -> None:
        self.intensity = intensity
        self.backoff = backoff

    def initial(self) -> Iterable[Crashes]:
        return (Crashes(),)

    def actions(self, state: Crashes) -> Iterable[float]:
        return self.PAUSES if len(state.past) < self.CRASHES else ()

    def step(self, state: Crashes, action: float) -> Crashes:
        at = action + (state.past[-1].at if state.past else 0.0)
        log, allowed = state.log.after_crash(at, self.intensity)
        streak = state.streak.after_crash(at, self.backoff)
        seconds = self.backoff.seconds("a", streak.crashes)
        return Crashes(log, streak, (*state.past, Crash(at, allowed, seconds)))

    def properties(self) -> Sequence[Property]:
        backoff, intensity = self.backoff, self.intensity

        def pairs(state: Crashes) -> Iterable[tuple[Crash, Crash]]:
            return zip(state.past, state.past[1:], strict=False)

        def within(state: Crashes) -> bool:
            times = [crash.at for crash in state.past if crash.allowed]
            return all(sum(at - intensity.window < other <= at for other in times) <= intensity.limit for at in times)

        def grows(state: Crashes) -> bool:
            return all(
                then.seconds > first.seconds or then.seconds >= backoff.most * (1.0 - backoff.jitter)
                for first, then in pairs(state)
                if then.at - first.at < backoff.quiet
            )

        def resets(state: Crashes) -> bool:
            return all(then.seconds == 0.0 for first, then in pairs(state) if then.at - first.at >= backoff.quiet)

        def forgives(state: Crashes) -> bool:
            return all(then.allowed for first, then in pairs(state) if then.at - first.at >= intensity.window)

        return (
            always("never more restarts than the intensity allows within a window", within),
            always("what is out of the window is forgiven", forgives),
            always("backoff grows", grows),
            always("backoff is never more than the most", lambda it: all(c.seconds <= backoff.most for c in it.past)),
            always("backoff begins anew after a quiet time", resets),
        )


def restart_model() -> RestartModel:
    """Two restarts within 10 s; backoff that is reset after 8 s."""
    return RestartModel(Intensity(2, 10.0), Backoff(first=1.0, factor=2.0, most=5.0, jitter=0.25, quiet=8.0))
