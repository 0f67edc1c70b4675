"""A simulator: the real actors on the real `ActorSystem`, under a virtual clock, with one seed that decides everything.

    simulation = Simulation("payments", setup, parts=[bank], faults={"crash": FaultKind(("Payment",))})
    simulation.always("nobody pays twice", lambda bank: bank != "charged twice", of=["bank"])
    day = simulation.run(7)            # the same on every machine and every Python
    print(day.trace_hash, day.broken)

`setup` and `parts` are those of an `ActorModel`. Where the model tries every order with few faults, a simulation goes one way
through a long time with many. The order of the actors is drawn with each turn; any of them may be asleep for a while, so that
the others take hundreds of turns meanwhile. Time is virtual: it goes on to the next timer or the next answer of a port.

A run follows a plan that is drawn from the seed before it begins: who comes when, and which fault when. So a plan that fails
can be made smaller, and what is left fails in the same way (`shrink.py`).
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
    """A property of a run: what it is called, what must hold, of which things, and whether only when all is over."""

    name: str
    holds: Callable[..., bool]
    of: tuple[str, ...]
    at_end: bool


class Failure(NamedTuple):
    """What was broken in a run: the promise, what was seen, and when: at which step and at how many milliseconds."""

    promise: str
    detail: str
    step: int
    at_ms: int


class Day(NamedTuple):
    """What came of one run.

    `trace_hash` is the SHA-256 of every step; `visits` came, `steps` were taken, `faults` fired by kind; `processes` were
    started, `crashes` and `restarts` were those of actors. `failure` is None when every promise held.
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
    """A promise does not hold: `seed`, `step` and `promise` say where, `plan` is what it takes."""

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
    """What can be run with any seed.

    `setup(world)` starts the actors of a process, with `world.spawn` and `world.port(part)`; after a kill it is called again. A
    part is a `Part`, as in models, or makes a `SimulatedPort` for one world. `faults` are the kinds that may come; without,
    those of the parts and jumps of the clock. `visits(chance, until_ms)` draws what comes from outside, for the one port that
    takes visits: when, for how long, and what. `monitors` watch beside the properties that are claimed here.
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
        """Claim that `holds` after every step that changes one of the things named by `of`, and is given: an actor by its path
        as `Seen`, a part by its name as its state, "@timers" as (path, key) pairs, "@fired" as the faults so far by kind."""
        self._claims.append(Claim(name, holds, tuple(of), at_end=False))

    def at_end(self, name: str, holds: Callable[..., bool], *, of: Sequence[str]) -> None:
        """Claim that `holds` when all is over: nothing is under way, and no timer is armed."""
        self._claims.append(Claim(name, holds, tuple(of), at_end=True))

    def plan(self, seed: int, hours: float = 24.0) -> Plan:
        """What a seed draws for so many hours."""
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
        """The run of a plan; with the last lines of its trace, if so many are to be kept."""
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
        """Nothing: it looks when the effects have gone out."""

    def look(self) -> None:
        if not self._always:
            return
        world = self._world
        names = {world.trace.path(key) if name == "@actor" else name for name, key in world.take_touched()}
        for claim in self._always:
            if not names.isdisjoint(claim.of) or "@timers" in claim.of:
                self._check(claim)

    def died(self) -> None:
        """Nothing: the parts live on."""

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
