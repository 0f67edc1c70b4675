"""The simulator: the real actors on the real `ActorSystem`, under a virtual clock; one seed decides everything.

    simulation = Simulation("payments", setup, parts=[bank], faults={"crash": FaultKind(("Payment",))})
    simulation.always("nobody pays twice", lambda bank: bank != "charged twice", of=["bank"])
    day = simulation.run(7)            # the same on every machine and every Python
    print(day.trace_hash, day.broken)

`setup` and `parts` are those of an `ActorModel`. A model tries every order with few faults; a simulation takes one order
through a long time with many faults. The seed draws which actor takes the next turn; an actor may sleep for a while, so that
the others take hundreds of turns meanwhile. Time is virtual: it jumps to the next timer or the next answer of a port.

A run follows a plan that is drawn from the seed before it begins: which visits come when, and which faults. So a failing plan
can be shrunk to a small one that fails in the same way (`shrink.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from actors.model.parts import Part
from actors.model.views import Seen
from actors.runtime.actor import Actor
from actors.runtime.mailbox import Ref, depth
from actors.simulation.plan import HOUR_MS, Chance, Fault, FaultKind, Plan, Visit, drawn_faults
from actors.simulation.world import Broken, Monitor, NoEnd, PortMaker, World, kinds_of

__all__ = ["Day", "Fault", "FaultKind", "PromiseBroken", "Simulation", "Visit", "World"]

FAULTS_IN_A_DAY: Final = 24.0
UNBORN: Final = Seen(5, None, 0)


class Claim(NamedTuple):
    """A property of a run: its name, its condition, the things that it reads, and whether it is only checked at the end."""

    name: str
    holds: Callable[..., bool]
    of: tuple[str, ...]
    at_end: bool


class Failure(NamedTuple):
    """A broken promise of a run: its name, the values seen, the step, and the time in milliseconds."""

    promise: str
    detail: str
    step: int
    at_ms: int


class Day(NamedTuple):
    """The result of one run.

    `trace_hash` is the SHA-256 of the trace. `visits`, `steps` and `processes` count visits, steps and started processes;
    `faults` counts the faults that fired, by kind; `crashes` and `restarts` are those of actors. `failure` is None if every
    promise held.
    """

    seed: int
    trace_hash: str
    visits: int
    steps: int
    faults: dict[str, int]
    processes: int
    crashes: int
    restarts: int
    failure: Failure | None
    lines: tuple[str, ...] = ()


class PromiseBroken(AssertionError):
    """A promise does not hold: `seed`, `step` and `promise` say where; running `plan` shows it again."""

    def __init__(self, plan: Plan, failure: Failure) -> None:
        at = f"seed {plan.seed}, step {failure.step:,}, at {failure.at_ms / 1000:,.3f} s"
        faults = "".join([f"\n  {one.at_ms / 1000:,.3f} s: {one.kind} {one.target}" for one in plan.faults])
        visits = f"\n  {len(plan.visits)} visits" if plan.visits else ""
        super().__init__(f"{failure.promise} ({at})\n  {failure.detail}{visits}{faults}")
        self.plan = plan
        self.seed = plan.seed
        self.step = failure.step
        self.promise = failure.promise


class Simulation:
    """A simulation, which can be run with any seed.

    `setup(world)` starts the actors of a process, with `world.spawn` and `world.port(part)`; the world calls it again after a
    kill. A part is a model's `Part`, or a function that makes a `SimulatedPort` for a world. `faults` are the kinds that may
    come; by default those of the parts, and jumps of the clock. `visits(chance, until_ms)` draws the visits from outside for
    the one port that takes visits: when each comes, for how long, and its content. `monitors` check a run in addition to the
    properties that are claimed here.
    """

    def __init__(
        self,
        name: str,
        setup: Callable[[World], object],
        *,
        parts: Sequence[Part | PortMaker] = (),
        faults: Mapping[str, FaultKind] | None = None,
        faults_in_a_day: float = FAULTS_IN_A_DAY,
        visits: Callable[[Chance, int], Sequence[tuple[int, int, Any]]] | None = None,
        monitors: Sequence[Callable[[World], Monitor]] = (),
    ) -> None:
        self.name = name
        self.faults = dict(kinds_of([part for part in parts if isinstance(part, Part)]) if faults is None else faults)
        self._setup = setup
        self._parts = tuple(parts)
        self._faults_in_a_day = faults_in_a_day
        self._visits = visits
        self._monitors = tuple(monitors)
        self._claims: list[Claim] = []

    def always(self, name: str, holds: Callable[..., bool], *, of: Sequence[str]) -> None:
        """Claim that `holds` is true after every step that changes one of the things named by `of`. Its arguments are these
        things: an actor by its path as `Seen`, a part by its name as its state, "@timers" as (path, key) pairs, "@fired" as the
        number of faults so far by kind."""
        self._claims.append(Claim(name, holds, tuple(of), at_end=False))

    def at_end(self, name: str, holds: Callable[..., bool], *, of: Sequence[str]) -> None:
        """Claim that `holds` is true at the end of a run, when no work is under way and no timer is armed."""
        self._claims.append(Claim(name, holds, tuple(of), at_end=True))

    def plan(self, seed: int, hours: float = 24.0) -> Plan:
        """The plan that a seed draws for so many hours."""
        until_ms = int(hours * HOUR_MS)
        chance = Chance(seed, "plan")
        drawn = sorted(self._visits(chance, until_ms), key=lambda one: one[0]) if self._visits is not None else []
        visits = tuple([Visit(number, *visit) for number, visit in enumerate(drawn, 1)])
        count = max(1, round(self._faults_in_a_day * hours / 24)) if self.faults else 0
        return Plan(seed, until_ms, visits, drawn_faults(chance, self.faults, count, until_ms, visits))

    def run(self, seed: int, hours: float = 24.0) -> Day:
        """The run of a seed."""
        return self.follow(self.plan(seed, hours))

    def follow(self, plan: Plan, *, keep_lines: int = 0) -> Day:
        """The run of a plan, with the last `keep_lines` lines of its trace."""
        world = World(plan, self._setup, self._parts, keep_lines=keep_lines)
        world.monitors = [*[make(world) for make in self._monitors], _Claims(world, self._claims)]
        failure = None
        try:
            world.run()
        except (Broken, NoEnd) as error:
            promise = error.promise if isinstance(error, Broken) else "time goes on"
            detail = error.detail if isinstance(error, Broken) else str(error)
            failure = Failure(promise, detail, world.steps, world.now_ms)
        system = world.system
        return Day(
            plan.seed,
            world.trace.hexdigest(),
            len(plan.visits),
            world.steps,
            dict(sorted(world.fired.items())),
            world.processes,
            world.crashes + (system.crashes if system is not None else 0),
            world.restarts + (system.restarts if system is not None else 0),
            failure,
            tuple(world.trace.lines),
        )


class _Claims:
    """The monitor of the properties that were claimed of a simulation."""

    def __init__(self, world: World, claims: Sequence[Claim]) -> None:
        self._world = world
        self._at_end = [claim for claim in claims if claim.at_end]
        self._always = [claim for claim in claims if not claim.at_end]

    def stepped(self, ref: Ref, actor: Actor) -> None:
        """Do nothing: `look` checks the claims once the effects have gone out."""

    def look(self) -> None:
        if not self._always:
            return
        world = self._world
        names = {world.trace.path(key) if name == "@actor" else name for name, key in world.take_touched()}
        for claim in self._always:
            if not names.isdisjoint(claim.of) or "@timers" in claim.of:
                self._check(claim)

    def died(self) -> None:
        """Do nothing: the parts live on."""

    def end(self) -> None:
        for claim in (*self._always, *self._at_end):
            self._check(claim)

    def _check(self, claim: Claim) -> None:
        seen = [self._seen(name) for name in claim.of]
        if not claim.holds(*seen):
            raise Broken(
                claim.name, ", ".join(f"{name}: {_shown(what)}" for name, what in zip(claim.of, seen, strict=True))
            )

    def _seen(self, name: str) -> Any:
        world = self._world
        if name == "@timers":
            armed = world.system.armed() if world.system is not None else []
            return tuple(sorted([(world.trace.path(ref), key) for ref, key in armed]))
        if name == "@fired":
            return dict(world.fired)
        ports = world.ports()
        if name in ports:
            return ports[name].state
        ref = world.living(name)
        return UNBORN if ref is None else Seen(ref.status, ref.actor, depth(ref))


def _shown(what: object) -> str:
    text = repr(what.values() if isinstance(what, Seen) else what)
    return text if len(text) < 200 else f"{text[:200]}…"
