"""The world of one run: virtual time, its events, and the process with its actors, which may die and start again."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from actors.model.parts import Part, found_at, path_of
from actors.runtime.actor import PORT, Actor, Retry, Timer, content_of
from actors.runtime.mailbox import Message, Ref
from actors.simulation.dispatch import SeededQueue, SimulatedSystem
from actors.simulation.parts import PartPort, SimulatedPort
from actors.simulation.plan import HOUR_MS, Chance, Fault, FaultKind, Plan
from actors.simulation.trace import RunTrace

LARGEST_BUDGET: Final = 48  # steps of one drain: further mail waits while other events happen
GOES_ON: Final = 3 / 4  # how often a cut drain goes on before any other event
HALF_EFFECTS: Final = 4  # a crash, or a kill, comes after fewer effects of its step than this
CRASHES: Final = 1 + HALF_EFFECTS  # ways to crash at a step: in it, and after each number of effects
MINUTE_MS: Final = 60_000
AFTER_MS: Final = 4 * HOUR_MS  # for all work under way to end, after the plan
STEPS_A_MINUTE: Final = 100_000  # ten times a busy minute: more is an endless exchange

CRASH, POISON, HANG, SLOW, JUMP, KILL = "crash", "poison", "hang", "slow", "clock jump", "kill"
DUPLICATE, REORDER = "duplicate", "reorder"
POWER: Final = "power"  # the target of a kill that takes the machine down too
IDLE_MS: Final = 1000  # after so long without a step, a due kill strikes the idle process
OF_ACTORS: Final = frozenset({CRASH, POISON, HANG, SLOW})

PortMaker = Callable[["World"], SimulatedPort]


class Crashed(Exception):
    """An actor's step raises this when its crash was planned."""


class Killed(BaseException):
    """The process is killed between two effects of a step."""


class NoEnd(AssertionError):
    """Actors exchange messages without end, and time does not go on."""


class Monitor(Protocol):
    """Watches a run; each method raises `Broken` if a promise is broken."""

    def stepped(self, ref: Ref, actor: Actor) -> None:
        """An actor has taken a step; its effects have not gone out."""

    def look(self) -> None:
        """Check between two steps, when the effects of the first have gone out."""

    def died(self) -> None:
        """The process was killed."""

    def end(self) -> None:
        """The run is over."""


class Broken(AssertionError):
    """A promise does not hold in a run: `promise` is its name, `detail` tells the values seen."""

    def __init__(self, promise: str, detail: str = "") -> None:
        super().__init__(f"{promise}: {detail}" if detail else promise)
        self.promise = promise
        self.detail = detail


class _Strike:
    """A port that no actor is wired to: work for it ends the step halfway through its effects."""

    def __init__(self, strike: Callable[[], None]) -> None:
        self._strike = strike

    def submit(self, _: object) -> None:
        self._strike()


def _crash() -> None:
    raise Crashed


class World:
    """One run of a plan. `now_ms` is the time; `chance` draws all that the plan leaves open; `fired` counts faults by kind.

    `setup(scene)` starts the actors of a process, and starts them again after a kill; the world is the scene.
    """

    def __init__(
        self,
        plan: Plan,
        setup: Callable[["World"], object],
        parts: Sequence[Part | PortMaker],
        *,
        keep_lines: int = 0,
    ) -> None:
        self.plan = plan
        self.now_ms = 0
        self.chance = Chance(plan.seed, "schedule")
        self.trace = RunTrace(keep=keep_lines)
        self.fired: Counter[str] = Counter()
        self.steps = self.processes = self.crashes = self.restarts = 0
        self.system: SimulatedSystem | None = None
        self.monitors: list[Monitor] = []
        self.on_fault: Callable[[Fault, str], None] = lambda _fault, _where: None
        self._setup = setup
        self._ports = {part: PartPort(self, part) if isinstance(part, Part) else part(self) for part in parts}
        self._queue = SeededQueue(self.chance)
        self._events: list[tuple[int, int, int, Callable[[], None]]] = []
        self._serial = 0
        self._armed: dict[
            str, list[tuple[Fault, int]]
        ] = {}  # by class of actors, with the number of steps to let pass first
        self._armed_kill: Fault | None = None
        self._dying = self._setting_up = False
        self._error: Exception | None = None
        self._poisoned: Message = None
        self._carried: list[Fault] = []
        self._touched: dict[tuple[str, Any], None] = {}
        self._tops: dict[str, Ref] = {}
        self._minute = (0, 0)  # the current minute, and its steps so far

    # --- what setups and ports use ----------------------------------------------------------------------------------

    def port(self, part: Part | PortMaker) -> Any:
        """The port of this part, to be put into the wiring of actors, which hand their work to it."""
        return self._ports[part]

    def spawn(self, actor: Actor, name: str) -> Ref:
        """Start an actor at the top of the process, and return its address."""
        assert self.system is not None, "no process runs"
        ref = self._tops[name] = self.system.spawn(actor, name)
        return ref

    def tell(self, ref: Ref, message: Message) -> None:
        """Tell an actor a message, which is lost if the actor's process is dead."""
        if self.system is not None and self._lives(ref):
            with self.system.held_back():
                self.system.tell(ref, message)

    def carry(self, ref: Ref, message: Message) -> None:
        """Tell an actor a message through a network that may, by plan, deliver it twice or behind later messages."""
        if self._carried:
            fault = self._carried.pop(0)
            self.has_fired(fault, type(message).__name__)
            self.later(fault.size, lambda: self.tell(ref, message))
            if fault.kind == REORDER:
                return
        self.tell(ref, message)

    def later(self, ms: int, do: Callable[[], None], *, outside: bool = False) -> None:
        """Call `do` after `ms`, unless the process is dead by then; if `outside`, in any case."""
        self._serial += 1
        heappush(self._events, (self.now_ms + ms, self._serial, 0 if outside else self.processes, do))

    def find(self, path: str) -> Ref:
        """The address of a living actor by its path, "supervisor/door" say. Raises `ModelError` if there is none.

        In a setup, all steps that follow from spawned actors and told messages are taken first, as in a model."""
        if self._setting_up and self.system is not None and self.living(path) is None:
            self.system.settle()
        ref = self.living(path)
        if ref is not None:
            return ref
        refs = self.system.refs() if self.system is not None else ()
        return found_at(path, {path_of(ref): ref for ref, _ in refs})

    def living(self, path: str) -> Ref | None:
        """The living actor at a path; None if there is none."""
        name, *rest = path.split("/")
        ref = self._tops.get(name)
        for name in rest:
            ref = next((child for child in ref.children() if child.name == name), None) if ref is not None else None
        return ref

    def touched(self, name: str, key: Any = "") -> None:
        """Note that a part, or the state `key` of it, has changed: properties that read it are checked next."""
        self._touched[name, key] = None

    def take_touched(self) -> list[tuple[str, Any]]:
        """The parts touched since the last call."""
        touched, self._touched = list(self._touched), {}
        return touched

    def has_fired(self, fault: Fault, where: str) -> None:
        """Note that a fault of the plan has hit its target."""
        self.fired[fault.kind] += 1
        self.trace.add(f"{self.now_ms} fault {fault.number} {fault.kind} {where}")
        self.on_fault(fault, where)

    def ports(self) -> Mapping[str, SimulatedPort]:
        """All ports by name."""
        return {port.name: port for port in self._ports.values()}

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until nothing happens any more. Raises the errors of monitors."""
        for visit in self.plan.visits:
            port = next(port for port in self._ports.values() if type(port).visit is not SimulatedPort.visit)
            self._at(visit.at_ms, partial(port.visit, visit.number, visit.what))
        for fault in self.plan.faults:
            self._at(fault.at_ms, partial(self._come, fault))
        self._guarded(self.start)
        while self._advance():
            self._look()
            if self.system is not None and self.system.failure is not None:
                raise Broken("the system never fails", str(self.system.failure))
        self._look()
        for monitor in self.monitors:
            monitor.end()

    def start(self) -> None:
        """Start a process."""
        self.processes += 1
        self._queue = SeededQueue(self.chance)
        self._queue.now_ms = self.now_ms
        self._tops.clear()
        self.system = SimulatedSystem(self._clock, self._queue, self._step)
        self.trace.add(f"{self.now_ms} process {self.processes}")
        with self.system.held_back():  # no actor takes a step before the setup is done, unless it calls `find`
            self._setting_up = True
            self._setup(self)
            self._setting_up = False
            for port in self._ports.values():
                port.begin()

    def kill(self, *, power: bool, down_ms: int) -> None:
        """End the process at once, and start the next after `down_ms`."""
        if self.system is None:
            return
        self.crashes += self.system.crashes
        self.restarts += self.system.restarts
        self.system = None
        self._armed_kill = None
        self._dying = False
        self._poisoned = None
        self._events = [event for event in self._events if event[2] == 0]
        self._events.sort()
        for port in self._ports.values():
            port.died(power=power)
        for monitor in self.monitors:
            monitor.died()
        self.later(down_ms, self.start, outside=True)

    def _lives(self, ref: Ref) -> bool:
        """Whether an actor belongs to the running process."""
        while ref.parent is not None:
            ref = ref.parent
        return self._tops.get(ref.name) is ref

    def _at(self, ms: int, do: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._events, (ms, self._serial, 0, do))

    def _clock(self) -> float:
        return self.now_ms / 1000

    def _advance(self) -> bool:
        """Do the next event; False if there is none."""
        system, chance = self.system, self.chance
        if system is not None:
            system.budget = 1 + chance.below(LARGEST_BUDGET)
            if system.has_work() and chance.happens(GOES_ON):
                self._guarded(system.turn)
                return True
        moments = [self._events[0][0]] if self._events else []
        if system is not None:
            timer = system.next_timer()
            if timer is not None:
                moments.append(_ms_of(timer))
            wake = self._queue.next_wake()
            if wake is not None:
                moments.append(wake)
            if system.has_work():
                moments.append(self.now_ms)
        if not moments:
            return False
        self.now_ms = max(self.now_ms, min(moments))
        if self.now_ms > self.plan.until_ms + AFTER_MS:
            return False
        self._queue.now_ms = self.now_ms
        self._queue.wake()
        if self._events and self._events[0][0] <= self.now_ms and (len(moments) == 1 or chance.happens(1 / 2)):
            _, _, process, do = heappop(self._events)
            if process in (0, self.processes):
                self._guarded(do)
        elif system is not None:
            self._guarded(system.turn)
        return True

    def _guarded(self, do: Callable[[], object]) -> None:
        try:
            do()
        except Killed:
            if self._error is not None:
                raise self._error from None
            self._kill_by(self._armed_kill)

    def _give_up(self, error: Exception) -> None:
        """End the run with a monitor's error, which the system would else take for a crash of the actor in whose step it
        came."""
        self._error = error
        self._dying = True
        raise Killed from error

    def _die(self) -> None:
        self._dying = True
        raise Killed

    def _kill_by(self, fault: Fault | None) -> None:
        if fault is not None and fault is self._armed_kill and self.system is not None:
            self.has_fired(fault, fault.target)
            self.kill(power=fault.target == POWER, down_ms=fault.size)

    def _step(self, step: Callable[..., None], actor: Actor, message: Message, out: Any) -> None:
        """Run one step of an actor, with the faults that the plan has for it."""
        if self._dying:
            raise Killed
        ref: Ref = out.me
        self.steps += 1
        self.trace.step(self.now_ms, ref, message)
        try:
            self._count_in_a_minute()
            self._look()
        except Exception as error:  # noqa: BLE001 - as below
            self._give_up(error)
        if self._poisoned is not None and isinstance(message, Retry | Timer) and self._poisoned is content_of(message):
            self._poisoned = None
            raise Crashed
        fault = self._armed_for(actor) if self._armed else None
        if fault is not None:
            self._hit(fault, ref, message)
        step(actor, message, out)
        if fault is not None and fault.kind == CRASH and _effects_done(fault) is None:
            raise Crashed
        self.touched("@actor", ref)
        try:
            for monitor in self.monitors:
                monitor.stepped(ref, actor)
        except Exception as error:  # noqa: BLE001 - as below
            self._give_up(error)
        if fault is not None and fault.kind == CRASH:
            out.effects[_effects_done(fault) :] = [(PORT, _Strike(_crash), None)]
        elif self._armed_kill is not None:
            out.effects[self._armed_kill.number % HALF_EFFECTS :] = [(PORT, _Strike(self._die), None)]

    def _count_in_a_minute(self) -> None:
        minute, steps = self._minute
        now = self.now_ms // MINUTE_MS
        self._minute = (now, steps + 1 if minute == now else 1)
        if steps > STEPS_A_MINUTE:
            raise NoEnd(f"{STEPS_A_MINUTE:,} steps within a minute: actors tell each other things without end")

    def _look(self) -> None:
        if self._touched:
            for monitor in self.monitors:
                monitor.look()

    # --- faults -----------------------------------------------------------------------------------------------------

    def _come(self, fault: Fault) -> None:
        """Let a fault of the plan happen at its time."""
        if fault.kind in OF_ACTORS:
            self._armed.setdefault(fault.target, []).append((fault, _steps_before(fault)))
        elif fault.kind == JUMP:
            self.now_ms += fault.size
            self._queue.now_ms = self.now_ms
            self.has_fired(fault, "")
        elif fault.kind == KILL:
            if self.system is not None and self._armed_kill is None:
                self._armed_kill = fault
                self.later(IDLE_MS, lambda: self._kill_by(fault))
        elif fault.kind in (DUPLICATE, REORDER):
            self._carried.append(fault)
        else:
            port = next(port for port in self._ports.values() if fault.kind in port.kinds)
            if port.suffer(fault):
                self.has_fired(fault, port.name)

    def _armed_for(self, actor: Actor) -> Fault | None:
        name = type(actor).__name__
        waiting = self._armed.get(name)
        if not waiting:
            return None
        fault, before = waiting[0]
        if before:
            waiting[0] = (fault, before - 1)
            return None
        del waiting[0]
        if not waiting:
            del self._armed[name]
        return fault

    def _hit(self, fault: Fault, ref: Ref, message: Message) -> None:
        self.has_fired(fault, self.trace.path(ref))
        if fault.kind in (HANG, SLOW):
            each = 0 if fault.kind == HANG else 1 + fault.size // 40
            self._queue.lag(ref, self.now_ms + fault.size, each)
        elif fault.kind == POISON:
            self._poisoned = message
            raise Crashed


def _steps_before(fault: Fault) -> int:
    """How many steps of its actors a crash lets pass, so that it does not always hit the first."""
    return fault.size // CRASHES if fault.kind == CRASH else fault.size if fault.kind == POISON else 0


def _effects_done(fault: Fault) -> int | None:
    """After how many effects of its step a crash comes; None: within the step, once it has changed the actor."""
    done = fault.size % CRASHES
    return done - 1 if done else None


def kinds_of(parts: Sequence[Part]) -> dict[str, FaultKind]:
    """The kinds of faults that the parts declare, and those of every actor system that name no actor."""
    own = {kind: FaultKind((part.name,), 0, 7) for part in parts for kind in part.faults or ()}
    return {**own, JUMP: FaultKind(smallest=1000, largest=600_000)}


def _ms_of(seconds: float) -> int:
    """The time in whole milliseconds, rounded up."""
    ms = int(seconds * 1000)
    while ms / 1000 < seconds:
        ms += 1
    return ms
