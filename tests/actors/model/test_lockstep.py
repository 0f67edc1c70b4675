import random
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, NamedTuple

import anyio
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from actors.model.actor_model import ActorModel, Scene, Schedule
from actors.model.lockstep import Diverged, Lockstep, state_machine
from actors.model.parts import Choice, Faults, Part
from actors.runtime.actor import IGNORE, Actor, Exited, Gone, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import ActorSystem
from actors.runtime.timers import TimerQueue
from actors.voice_lab.model import voice_model


class Ring(NamedTuple):
    n: int


class Unlocked(NamedTuple):
    n: int


class Door(Actor):
    __slots__ = ("count", "lock", "phase", "rung")
    wiring = ("lock",)
    state = ("phase", "count", "rung")
    journal = ("count",)
    handles: ClassVar = {
        "shut": {Ring: "ring", Unlocked: IGNORE},
        "open": {Ring: "ring", Unlocked: "unlocked"},
    }

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.phase = "shut"
        self.count = 0
        self.rung: tuple[int, ...] = ()

    def ring(self, message: Ring, out: Out) -> None:
        self.rung += (message.n,)
        if self.phase == "shut":
            self.phase = "open"
            self.count += 1
            out.set_timer("shut", 5.0)
            out.port(self.lock, "unlock")

    def unlocked(self, message: Unlocked, out: Out) -> None:
        self.phase = "shut"
        out.cancel_timer("shut")

    def timeout(self, timer: str, out: Out) -> None:
        self.phase = "shut"


class Porter(Actor):
    __slots__ = ("door", "gone", "lock")
    wiring = ("lock",)
    state = ("door", "gone")
    journal = ("door",)
    handles: ClassVar = {Exited: "exited", Gone: "lost"}

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.door: Any = None
        self.gone = False

    def start(self, out: Out) -> None:
        self.door = out.spawn(Door(self.lock), "door")
        out.watch(self.door)

    def restarted(self, out: Out) -> None:
        if self.door is None:
            self.start(out)
        else:
            out.adopt(self.door)
            out.restart(self.door)

    def exited(self, message: Exited, out: Out) -> None:
        out.restart(message.ref)

    def lost(self, message: Gone, out: Out) -> None:
        self.gone = True


class Lock(Part):
    door: Any = None

    def initial(self) -> int:
        return 0

    def submit(self, state: int, work: Any) -> int:
        return min(state + 1, 3)

    def choices(self, state: int) -> Any:
        if state:
            yield Choice("opens", state - 1, ((self.door, Unlocked(state)),), prompt=True)
            yield Choice("jams", 0, fault="jam")


class Visitor(Part):
    door: Any = None

    def initial(self) -> int:
        return 4

    def choices(self, state: int) -> Any:
        if state:
            yield Choice("rings", state - 1, ((self.door, Ring(state)),))
            yield Choice("rings twice", max(0, state - 2), ((self.door, Ring(state)), (self.door, Ring(-state))))


def door_model(faults: int = 2, **options: Any) -> ActorModel:
    lock, visitor = Lock("lock"), Visitor("visitor")

    def setup(scene: Scene) -> None:
        scene.spawn(Porter(scene.port(lock)), "porter")
        lock.door = visitor.door = scene.find("porter/door")

    model = ActorModel("door", setup, parts=[lock, visitor], faults=Faults(total=faults), **options)
    model.always("the door is open or shut", lambda door: door.phase in {"open", "shut"}, of=["porter/door"])
    return model


def walk(make: Callable[[], ActorModel], seed: int, limit: int = 60) -> list[str]:
    """A run drawn by the seed, its faults included: what was done."""
    draw = random.Random(seed)
    steps = Lockstep(make)
    taken: list[str] = []
    while len(taken) < limit and (choices := steps.choices()):
        whole = [action for action in choices if steps.model.faults_in(action) == ((), 0)]
        action = draw.choice(choices if draw.random() < 0.3 or not whole else whole)
        taken.append(steps.model.label(action))
        steps.take(action)
    return taken


# ------------------------------------------------------------------------------------------------------------ the same


@cache
def walk_of_a_door(seed: int) -> list[str]:
    return walk(door_model, seed)


@pytest.mark.search
@pytest.mark.parametrize("seed", range(40))
def test_a_door_and_its_model_stay_the_same(seed: int) -> None:
    assert walk_of_a_door(seed)


SLOW = pytest.mark.slow, pytest.mark.timeout(600)
WALKS = [(0, range(4)), (1, range(4)), *[pytest.param(0, range(at, at + 6), marks=SLOW) for at in range(0, 30, 6)]]


@pytest.mark.search
@pytest.mark.parametrize(("refused", "walks"), WALKS, ids=lambda case: f"{getattr(case, 'start', case)}")
def test_the_voice_service_and_its_model_stay_the_same(refused: int, walks: range) -> None:
    def make() -> ActorModel:
        return voice_model(sessions=2, frames=2, stops=2, refused=refused, faults=Faults(total=2))

    assert sum(len(walk(make, seed)) for seed in walks) > 10 * len(walks)


@pytest.mark.search
@pytest.mark.parametrize("transcribed", [True, False])
def test_calls_that_silence_ends_and_their_model_stay_the_same(*, transcribed: bool) -> None:
    def make() -> ActorModel:
        return voice_model(silence=True, frames=2, stops=0, transcribed=transcribed, faults=Faults(total=1))

    labels = [label for seed in range(6) for label in walk(make, seed)]
    assert any("timer 'silence' comes due" in label for label in labels)
    assert any(("hears" if transcribed else "keeps a voice") in label for label in labels)


@pytest.mark.search
def test_the_walks_meet_every_kind_of_step() -> None:
    labels = [label for seed in range(40) for label in walk_of_a_door(seed)]

    for kind in ("before its step", "effects of its step", "is cut", "goes on", "comes due", "jams"):
        assert any(kind in label for label in labels), kind


# -------------------------------------------------------------------------------------------------------- differences


def test_a_dispatcher_that_takes_mail_in_another_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    push = ActorSystem._push

    def last_in_first_out(self: ActorSystem, ref: Ref, message: Any) -> None:
        push(self, ref, message)
        for lane in ref.lanes or ():
            lane.rotate(1)

    monkeypatch.setattr(ActorSystem, "_push", last_in_first_out)
    with pytest.raises(Diverged, match=r"after visitor: rings twice.*\n  porter/door\.rung: .*-4, 4.* in the system"):
        for seed in range(40):
            walk(door_model, seed)


def test_a_timer_that_survives_its_cancelling_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimerQueue, "cancel", lambda *_: None)

    with pytest.raises(Diverged, match=r"timers: \[\('porter/door', 'shut'\)\] in the system, \[\] in the model"):
        for seed in range(40):
            walk(door_model, seed)


def test_a_restart_that_forgets_the_journal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    restart = ActorSystem._restart

    def forgetful(self: ActorSystem, ref: Ref, *mail: Any) -> None:
        ref.journal = ()
        restart(self, ref, *mail)

    monkeypatch.setattr(ActorSystem, "_restart", forgetful)
    with pytest.raises(Diverged, match=r"porter(/door)?\.(door|count): "):
        for seed in range(40):
            walk(lambda: door_model(faults=3), seed)


def test_a_step_that_reads_what_is_outside_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Lockstep(door_model)
    rings = next(action for action in steps.choices() if steps.model.label(action) == "visitor: rings")
    steps.model.step(steps.state, rings)  # the model has taken it when the world changes
    monkeypatch.setattr(Door, "ring", lambda self, message, out: None)
    monkeypatch.setitem(Door.compiled["shut"], Ring, lambda self, message, out: None)

    with pytest.raises(Diverged) as caught:
        steps.take(rings)
    assert "after visitor: rings:" in str(caught.value)
    assert "porter/door.phase: 'shut' in the system, 'open' in the model" in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- its use


def test_what_is_not_enabled_can_not_be_taken() -> None:
    steps = Lockstep(door_model)
    gone = steps.choices()[0]
    while gone in steps.choices():
        steps.take(gone)

    with pytest.raises(ValueError, match="can't be taken here: visitor: rings"):
        steps.take(gone)


def test_any_order_has_no_system_beside_it() -> None:
    with pytest.raises(ValueError, match="turns"):
        Lockstep(lambda: door_model(schedule=Schedule.ANY_ORDER))


def test_after_a_crash_the_tables_are_as_they_were() -> None:
    before = {phase: dict(table) for phase, table in Door.compiled.items()}
    taken = [label for seed in range(3) for label in walk(door_model, seed)]

    assert any("crashes" in label for label in taken)
    assert Door.compiled == before
    assert all(type(table) is dict for table in Door.compiled.values())


# ----------------------------------------------------------------------------------------------------------- both loops


async def driven(make: Callable[[], ActorModel], seed: int) -> list[str]:
    """As `walk`, with the system's driver running."""
    draw = random.Random(seed)
    steps = Lockstep(make)
    taken = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(steps.system.run)
        while len(taken) < 40 and (choices := steps.choices()):
            cuts = [action for action in choices if steps.model.faults_in(action)[1]]
            action = draw.choice(cuts if cuts and draw.random() < 0.5 else choices)
            taken.append(steps.model.label(action))
            await steps.take_on_loop(action)
        tasks.cancel_scope.cancel()
    return taken


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(12), marks=pytest.mark.slow)], ids=["few", "more"])
async def test_a_running_driver_goes_on_with_what_was_cut(anyio_backend: str, seeds: range) -> None:
    taken = [label for seed in seeds for label in await driven(lambda: door_model(faults=3), seed)]

    assert "dispatcher: goes on" in taken
    assert any("the turn is cut" in label for label in taken)
    assert any("crashes" in label for label in taken)
    assert any("timer" in label for label in taken)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_the_voice_service_stays_the_same_on_a_loop(anyio_backend: str) -> None:
    for seed in range(4):
        assert await driven(lambda: voice_model(sessions=2, refused=1, faults=Faults(total=2)), seed)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_driver_that_does_not_go_on_is_not_waited_for(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.model.lockstep.DRIVER_SECONDS", 0.01)
    steps = Lockstep(lambda: door_model(faults=1))
    label = "visitor: rings twice; the turn is cut after 1 steps"
    steps.take(next(action for action in steps.choices() if steps.model.label(action) == label))
    goes_on = next(action for action in steps.choices() if steps.model.label(action) == "dispatcher: goes on")

    with pytest.raises(TimeoutError):
        await steps.take_on_loop(goes_on)


# ----------------------------------------------------------------------------------------------------------- hypothesis

FEW = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("backend", ["", "asyncio", "trio"])
def test_hypothesis_takes_the_steps(backend: str) -> None:
    run_state_machine_as_test(state_machine(door_model, backend=backend), settings=FEW)


@pytest.mark.parametrize("backend", ["", "asyncio", "trio"])
def test_hypothesis_finds_a_difference(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimerQueue, "cancel", lambda *_: None)

    with pytest.raises(Diverged) as caught:
        run_state_machine_as_test(
            state_machine(door_model, backend=backend), settings=settings(FEW, max_examples=100, print_blob=False)
        )
    assert "choice: lock: opens" in "\n".join(caught.value.__notes__)


def test_hypothesis_finds_a_property_that_does_not_hold() -> None:
    def make() -> ActorModel:
        model = door_model(faults=0)
        model.always("nobody comes in", lambda door: door.count == 0, of=["porter/door"])
        return model

    with pytest.raises(AssertionError, match="'nobody comes in' does not hold"):
        run_state_machine_as_test(state_machine(make), settings=FEW)
