"""The real system and its model in lockstep: both must be alike after each step.

    steps = Lockstep(door_model)          # two models of one kind: one is walked, the other's parts stand behind real actors
    while steps.choices():
        steps.take(steps.choices()[0])    # raises `Diverged` when the two are not the same afterwards

The model is walked in turns. At each step the `ActorSystem` gets the same event: the part's choice, the timer, the crashes
before a step or after some of its effects, the cut of the turn. Afterwards `Lockstep` compares every actor's fields, the armed
timers, the waiting mail and the parts' states. This tests the model's rules of the dispatcher, and it runs your own actors on a
real system with parts instead of ports.

`state_machine` lets hypothesis take the steps, also with the system's `run` running on asyncio or trio.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.lowlevel
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel

from actors.model.actor_model import Action, ActorModel, Crash, Scene, Schedule
from actors.model.parts import Answer, Choice, ModelToken, Part, found_at, path_of
from actors.model.stage import Address
from actors.runtime.actor import PORT, Actor, Exited, Retry, Shutdown, Timer
from actors.runtime.mailbox import HELD, Message, Ref, Step
from actors.runtime.system import ActorSystem, Token
from machines.frozen import FrozenMap
from machines.restart import CrashLog, Streak

if TYPE_CHECKING:
    from hypothesis.stateful import RuleBasedStateMachine

EPOCH: Final = 2.0**20  # seconds at which the clock begins, so that a moment of time can be told from any other number
TICK: Final = 2.0**-20  # seconds that pass with each reading of the clock
AT_ONCE: Final = 0.1  # seconds: timers that are due nearer together come due at once
DRIVER_SECONDS: Final = 10.0  # to wait for the running driver, which needs far less than one


class Diverged(AssertionError):
    """The system and its model differ after a step. The text names the step and the difference."""


class _Crash(Exception):
    """An actor's step raises this if its crash was chosen."""


_CRASHED: Final = f"{_Crash.__module__}.{_Crash.__qualname__}"


class _Striker:
    """A port that no actor is wired to: work for it crashes the actor halfway through its effects."""

    def submit(self, work: Any) -> None:
        raise _Crash


class _StruckTable(dict[type, Step]):
    """The steps of one phase, each wrapped by `strike`, also for messages that are not in the table."""

    def __init__(self, table: Mapping[type, Step], strike: Callable[..., None]) -> None:
        super().__init__(table)
        self._strike = strike

    def get(self, kind: type, default: Any = None) -> Any:
        return partial(self._strike, super().get(kind, default))


class _Told:
    """The event of a live token: setting it sends the reply to the part that made the token."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.set = then


class _LiveToken(Token):
    __slots__ = ("key", "part_name")

    def __init__(self, port: "_LivePort", key: Hashable) -> None:
        super().__init__()
        self.part_name = port.part.name
        self.key = key
        self.event = _Told(lambda: port.submit(Answer(key, self.value)))  # type: ignore[assignment] # only set() is called


class _LivePort:
    """A part behind real actors: it keeps the part's state, and takes the actors' work."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.state = part.initial()
        self._tokens: dict[Hashable, _LiveToken] = {}
        part.token = self._token  # type: ignore[method-assign,assignment]

    def _token(self, key: Hashable) -> _LiveToken:
        return self._tokens.setdefault(key, _LiveToken(self, key))  # one token for each key, as in the model

    def submit(self, work: Any) -> None:
        self.state = self.part.submit(self.state, work)


class _LiveScene:
    """The tools with which a model's `setup` builds a real system."""

    def __init__(self, system: ActorSystem, ports: Mapping[Part, _LivePort]) -> None:
        self._system = system
        self._ports = ports

    def port(self, part: Part) -> Any:
        return self._ports[part]

    def spawn(self, actor: Actor, name: str) -> Ref:
        return self._system.spawn(actor, name)

    def tell(self, ref: Ref, message: Message) -> None:
        self._system.tell(ref, message)

    def find(self, path: str) -> Ref:
        return found_at(path, {path_of(ref): ref for ref, _ in self._system.refs()})


class Lockstep:
    """A model and a real system that take the same steps. `make()` gives a new model in turns; it is called twice.

    A real system can take the parts' choices (their faults too), the next timers, any crash, a cut turn, and the dispatcher
    going on. Actors must get a part's port from `Scene.port`; a part that they get in any other way is not behind the real
    actors.
    """

    def __init__(self, make: Callable[[], ActorModel]) -> None:
        self.model, live = make(), make()
        if self.model.schedule is not Schedule.TURNS:
            raise ValueError("a real system takes turns: so must its model")
        self.now = EPOCH
        self.system = ActorSystem(clock=self._clock, control_bound=self.model.control_bound)
        self._ports = {part: _LivePort(part) for part in live.parts}
        live.setup(cast("Scene", _LiveScene(self.system, self._ports)))
        (self.state,) = self.model.initial()
        self._compare("the setup")

    def choices(self) -> list[Action]:
        """The actions that both can take next."""
        return [action for action, _ in self.model.successors(self.state) if self._is_possible(action)]

    def take(self, action: Action) -> None:
        """Take the action in both, and compare them.

        Raises `Diverged` if they differ afterwards, `ValueError` if the action can't be taken here.
        """
        after = self._after(action)
        with self._faults(action):
            self._do(action)
        self._arrive(action, after)

    async def take_on_loop(self, action: Action) -> None:
        """Like `take`, while the system's `run` is running in this loop, so that the driver goes on after a cut turn.

        Raises `TimeoutError` if the driver does not go on.
        """
        after = self._after(action)
        who, _ = self.model.event(action)
        _, cut = self.model.faults_in(action)
        with self._faults(action):
            if who == "dispatcher" and not cut:
                with anyio.fail_after(DRIVER_SECONDS):
                    while self.system.has_work():
                        await anyio.lowlevel.checkpoint()
            else:
                self._do(action)
        self._arrive(action, after)

    def _clock(self) -> float:
        """The time, a little later at each reading, so that timers come due in the order of their arming."""
        self.now += TICK
        return self.now

    def _after(self, action: Action) -> bytes:
        after = self.model.step(self.state, action)
        if after is None or not self._is_possible(action):
            raise ValueError(f"can't be taken here: {self.model.label(action)}")
        return after

    def _arrive(self, action: Action, after: bytes) -> None:
        self.state = after
        self._compare(self.model.label(action))

    # --- the system's side --------------------------------------------------------------------------------------------

    def _is_possible(self, action: Action) -> bool:
        timers = self.model.timers_in(action)
        due = self._next_due()
        if timers:
            return timers == [(path, key) for _, path, key in due]
        return not (
            due and due[0][0] <= self.now and self.model.event(action)[0] == "dispatcher"
        )  # the dispatcher would fire them too

    def _next_due(self) -> list[tuple[float, str, str]]:
        """The timers that come due next, at once: the time, the actor, and the key of each."""
        armed = sorted((timer.at, path_of(ref), timer.key) for ref, _ in self.system.refs() for timer in _timers(ref))
        return [timer for timer in armed if timer[0] < armed[0][0] + AT_ONCE]

    def _do(self, action: Action) -> None:
        who, what = self.model.event(action)
        if self.model.timers_in(action):
            self.now = max(self.now, self._next_due()[-1][0])
            self.system.turn()
        elif who == "dispatcher":
            self.system.turn()
        else:
            self._choose(next(part for part in self._ports if part.name == who), what)

    def _choose(self, part: Part, label: str) -> None:
        live = self._ports[part]
        choice: Choice | None = next((one for one in part.choices(live.state) if one.label == label), None)
        if choice is None:
            raise Diverged(f"the model's {part!r} may {label!r}, the one behind the system may not")
        live.state = choice.state
        with self.system.held_back():
            for ref, message in choice.tells:
                self.system.tell(ref, message)
            for other, work in choice.works:
                self._ports[other].submit(work)

    @contextmanager
    def _faults(self, action: Action) -> Iterator[None]:
        """A context in which the system has the crashes and the cut of an action."""
        crashes, cut = self.model.faults_in(action)
        budget = self.system.budget
        if cut:
            self.system.budget = cut
        try:
            with _crashing(crashes):
                yield
        finally:
            self.system.budget = budget

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _compare(self, after: str) -> None:
        ours, theirs = self._in_the_system(), self._in_the_model()
        wrong = [
            f"{name}: {_short(ours, name)} in the system, {_short(theirs, name)} in the model"
            for name in sorted({*ours, *theirs})
            if name not in ours or name not in theirs or ours[name] != theirs[name]
        ]
        if wrong:
            raise Diverged(f"after {after}:\n  " + "\n  ".join(wrong))

    def _in_the_system(self) -> dict[str, object]:
        found: dict[str, object] = {part.name: plain(port.state) for part, port in self._ports.items()}
        standing = []
        timers: list[tuple[str, str]] = []
        for ref, waiting in self.system.refs():
            actor = ref.actor
            if actor is not None:
                held = (
                    ref.status == HELD
                )  # the fields of a crashed actor mean nothing: it begins again from its journal
                values = {name: getattr(actor, name) for name in actor.state}
                if held:
                    fresh = actor.recover(ref.journal)
                    values = {name: getattr(fresh, name) for name in actor.journal}
                standing.append((path_of(ref), values, waiting, held))
                timers += [(path_of(ref), timer.key) for timer in _timers(ref)]
        return found | {"timers": sorted(timers)} | _standing(standing)

    def _in_the_model(self) -> dict[str, object]:
        model, state = self.model, self.state
        found = {name: plain(value) for name, value in model.states_of_parts(state).items()}
        standing = []
        for path, seen in model.actors(state):
            values = seen.values()
            kept = {name: values[name] for name in seen.journal} if seen.held else values
            standing.append((path, kept, seen.unread, seen.held))
        return found | {"timers": sorted(model.armed(state))} | _standing(standing)


def state_machine(make: Callable[[], ActorModel], *, backend: str = "") -> "type[RuleBasedStateMachine]":
    """A `RuleBasedStateMachine` that draws the next action, and takes it in the model that `make()` gives and in a real system.
    The model's `always` properties are its invariants, and `Diverged` is an error.

    With `backend`, "asyncio" or "trio", the system's `run` runs on such a loop, in a thread of its own.

    Use it like any other: `TestDoor = state_machine(door_model).TestCase`. Needs hypothesis.
    """
    from hypothesis import note  # noqa: PLC0415 - not there outside of tests
    from hypothesis import strategies as st  # noqa: PLC0415
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule  # noqa: PLC0415

    class LockstepMachine(RuleBasedStateMachine):
        """One walk; `steps` is the `Lockstep` that it walks."""

        steps: Lockstep | None = None

        @initialize()
        def begin(self) -> None:
            """Begin with a new system, and the model's initial state."""
            self.steps = Lockstep(make)
            self.loop = _Loop(backend, self.steps) if backend else None

        @rule(data=st.data())
        def take(self, data: Any) -> None:
            """Draw one of the choices and take it; the walk stays if there is none."""
            assert self.steps is not None
            choices = self.steps.choices()
            if choices:
                action = choices[data.draw(st.integers(0, len(choices) - 1), label="choice")]
                note(f"choice: {self.steps.model.label(action)}")
                if self.loop is None:
                    self.steps.take(action)
                else:
                    self.loop.take(action)

        @invariant()
        def always_holds(self) -> None:
            """Assert every `always` property in the current state."""
            if self.steps is not None:
                for claim in self.steps.model.properties():
                    if claim.kind == "always" and not claim.holds(self.steps.state):
                        raise AssertionError(f"always {claim.name!r} does not hold")

        def teardown(self) -> None:
            """End the loop, if there is one."""
            if self.steps is not None and self.loop is not None:
                self.loop.close()

    return LockstepMachine


class _Loop:
    """An event loop in a thread of its own, in which a system's driver runs."""

    def __init__(self, backend: str, steps: Lockstep) -> None:
        self._steps = steps
        self._context: AbstractContextManager[BlockingPortal] = start_blocking_portal(backend)
        self._portal = self._context.__enter__()
        self._driver, _ = self._portal.start_task(steps.system.run)

    def take(self, action: Action) -> None:
        self._portal.call(self._take, action)

    async def _take(self, action: Action) -> None:
        """Take the action, and let the driver go on after a cut turn before another choice can be drawn."""
        await self._steps.take_on_loop(action)
        model = self._steps.model
        while self._steps.system.has_work():
            going_on = [
                one for one in self._steps.choices() if model.event(one)[0] == "dispatcher" and model.is_fair(one)
            ]
            await self._steps.take_on_loop(going_on[0])

    def close(self) -> None:
        self._driver.cancel()
        self._context.__exit__(None, None, None)


@contextmanager
def _crashing(crashes: tuple[Crash, ...]) -> Iterator[None]:
    """A context in which the steps of these numbers crash: before their step, or after some of their effects. A step at poison
    crashes again."""
    if not crashes:
        yield
        return
    by_step = {crash.step: crash for crash in crashes}
    taken = 0
    poison: tuple[Any, Any, bool] | None = None  # the actor, the message, and whether it comes as a retry
    retried = False

    def strike(step: Callable[..., None], actor: Actor, message: Message, out: Any) -> None:
        nonlocal taken, poison, retried
        if message.__class__ is Retry:  # its step looks up the step of the message, which comes here then
            retried = True
            step(actor, message, out)
            return
        crash = by_step.get(taken)
        taken += 1
        again, retried = retried, False
        if poison is not None and poison[0] is out.me and poison[1] is message and poison[2] == again:
            poison = None
            raise _Crash
        if crash is not None and crash.before_step:
            if crash.poison:
                kept = isinstance(message, Timer) or (  # unchanged, however often it is tried
                    isinstance(message, Exited | Shutdown) and actor.holds_children
                )
                poison = None if again else (out.me, message, not kept)
            raise _Crash
        step(actor, message, out)
        if crash is not None:
            out.effects[crash.effects :] = [(PORT, _Striker(), None)]

    tables = [(kind.compiled, dict(kind.compiled)) for kind in _all_kinds(Actor)]
    try:
        for compiled, before in tables:
            compiled.update({phase: _StruckTable(table, strike) for phase, table in before.items()})
        yield
    finally:
        for compiled, before in tables:
            compiled.update(before)


def _all_kinds(kind: type[Actor]) -> Iterator[type[Actor]]:
    """Every subclass of the actor class that has a table."""
    for one in kind.__subclasses__():
        if "compiled" in one.__dict__:
            yield one
        yield from _all_kinds(one)


def _standing(actors: Iterable[tuple[str, Mapping[str, object], int, bool]]) -> dict[str, object]:
    """The compared parts of the actors, by path. Several actors of one path are told apart by their order."""
    found: dict[str, object] = {}
    of_path: Counter[str] = Counter()
    for path, values, unread, held in actors:
        of_path[path] += 1
        name = path if of_path[path] == 1 else f"{path}#{of_path[path]}"
        found |= {f"{name}.{field}": plain(value) for field, value in values.items()}
        found |= {f"{name} held": held, f"{name} unread": unread}
    return found


def plain(value: object) -> object:  # noqa: C901, PLR0911 - one line for each kind of value
    """A value with addresses, tokens and moments of time as text, so that a system's value can equal a model's."""
    if isinstance(value, Address | Ref):
        return f"<{path_of(value)}>"
    if isinstance(value, ModelToken):
        return f"<token {value.part.name} {value.key}>"
    if isinstance(value, _LiveToken):
        return f"<token {value.part_name} {value.key}>"
    if isinstance(value, _LivePort):
        return f"<part {value.part.name}>"
    if isinstance(value, Part):
        return f"<part {value.name}>"
    if isinstance(value, tuple):
        return type(value).__name__, *[plain(item) for item in value]
    if isinstance(value, frozenset):
        return type(value).__name__, frozenset([plain(item) for item in value])
    if isinstance(value, CrashLog | Streak):
        return "crashes"  # all crashes of a model are within one window, a system forgets them in time
    if isinstance(value, msgspec.Struct):
        return type(value).__name__, *[plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, BaseModel):
        return type(value).__name__, *[plain(item) for item in value.__dict__.values()]
    if isinstance(value, FrozenMap | Mapping):
        return type(value).__name__, frozenset([(plain(key), plain(item)) for key, item in value.items()])
    if isinstance(value, float):
        return 0.0 if value >= EPOCH else value  # a model has no moments of time
    return "crashed" if value == _CRASHED else value


def _timers(ref: Ref) -> Iterator[Any]:
    timer = ref.timers
    while timer is not None:
        if not timer.due:
            yield timer
        timer = timer.earlier


def _short(of: Mapping[str, object], name: str) -> str:
    return repr(of[name])[:300] if name in of else "nothing"
