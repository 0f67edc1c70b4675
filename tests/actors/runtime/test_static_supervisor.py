"""Supervision: every strategy with every kind of child, explored with crashes at any point, and run on both loops."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest

from actors.model.actor_model import Schedule
from actors.model.lockstep import Lockstep
from actors.model.parts import Faults
from actors.runtime.actor import SHUTDOWN, Actor, Exited, Out, Shutdown
from actors.runtime.child_spec import AutoShutdown, ChildSpec, Restart, Strategy, Supervision, SupervisionError
from actors.runtime.mailbox import AUDIO, DROP_MAIL, KEEP_MAIL, MailRule, Ref
from actors.runtime.static_supervisor import Abandoned, StaticSupervisor
from actors.runtime.system import ActorSystem, SystemFailed
from machines.checker import Outcome, Report, check
from machines.checker.model import Model
from machines.restart import Backoff, Intensity
from tests.actors.runtime.supervision_models import restart_model, supervision_model

STRATEGIES = [strategy.value for strategy in Strategy]
RESTARTS = [restart.value for restart in Restart]
ONE_CRASH = Faults(total=1)
MIXED = ("permanent", "transient", "temporary")


def holds(model: Model[Any, Any]) -> Report:
    """The report on a model whose properties all hold."""
    report = check(model)
    assert [verdict.name for verdict in report.verdicts if verdict.outcome is not Outcome.HOLDS] == []
    return report


# --- explored ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_keeps_its_promises_with_each_kind_of_child(strategy: str, restart: str) -> None:
    holds(supervision_model(strategy=strategy, restart=restart, finishes=1, stops=1, faults=ONE_CRASH))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_children_of_different_kinds_go_together(strategy: str) -> None:
    crash = Faults(total=1, kinds={"crash": 1})
    holds(supervision_model(strategy=strategy, restart=MIXED, finishes=2, stops=1, limit=1, faults=crash))


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(name, marks=pytest.mark.slow) if name == Strategy.ONE_FOR_ALL.value else name for name in STRATEGIES],
)
def test_a_supervisor_that_fails_has_ended_its_children_and_may_begin_again(strategy: str) -> None:
    report = holds(supervision_model(strategy=strategy, finishes=2, limit=1, again=True, faults=ONE_CRASH))
    assert report.states > 1000


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_crashes_at_any_points_are_one_too_many_for_nobody(strategy: str) -> None:
    holds(supervision_model(strategy=strategy, stops=1, faults=Faults(total=2)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_cannot_be_told_to_shut_down_is_ended_at_once(strategy: str) -> None:
    holds(supervision_model(strategy=strategy, finishes=1, stops=1, deaf=("a", "c"), faults=ONE_CRASH))


@pytest.mark.parametrize("auto", ["any significant", "all significant"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_ends_with_those_who_are_significant(strategy: str, auto: str) -> None:
    crash = Faults(total=1, kinds={"crash": 1})
    holds(supervision_model(strategy=strategy, restart=MIXED, finishes=2, auto=auto, faults=crash))


def test_intensity_and_backoff_are_what_they_are_whenever_crashes_come() -> None:
    assert holds(restart_model()).states > 1000


def test_steps_in_any_order_change_nothing() -> None:
    holds(supervision_model(finishes=1, stops=1, schedule=Schedule.ANY_ORDER))


@pytest.mark.parametrize(("restart", "mail"), [("permanent", None), (MIXED, None), ("permanent", 0), ("permanent", 1)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_real_system_and_the_model_do_the_same(strategy: str, restart: Any, mail: int | None) -> None:
    def make() -> Any:
        return supervision_model(
            strategy=strategy, restart=restart, mail=mail, finishes=3, stops=1, faults=Faults(total=2)
        )

    for seed in range(6):
        steps = Lockstep(make)
        for turn in range(25):
            choices = steps.choices()
            if not choices:
                break
            steps.take(choices[(seed * 31 + turn * 17 + seed // 3) % len(choices)])


# --- run ---------------------------------------------------------------------------------------------------------------


class Frame:
    """A message of the audio lane."""

    lane = AUDIO

    def __init__(self, number: int) -> None:
        self.number = number


class Doer(Actor):
    """Notes what it is told, in its journal too; does "crash", "crash once" and "end". A stubborn one does not shut down."""

    __slots__ = ("log", "name", "stubborn", "world")
    wiring = ("name", "world", "stubborn")
    state = ("log",)
    journal = ("log",)
    handles: ClassVar = {str: "do", Frame: "frame", Shutdown: "shut_down"}

    def __init__(self, name: str, world: list[str], stubborn: bool) -> None:
        self.name = name
        self.world = world
        self.stubborn = stubborn
        self.log: tuple[Any, ...] = ()

    def start(self, out: Out) -> None:
        self.world.append(f"{self.name} begins")

    def do(self, message: str, out: Out) -> None:
        if message == "crash":
            raise ValueError(self.name)
        if message == "crash once" and message not in self.world:
            self.world.append(message)
            raise ValueError(self.name)
        self.log += (message,)
        if message == "end":
            out.stop()

    def frame(self, message: Frame, _: Out) -> None:
        self.log += (message.number,)

    def shut_down(self, _: Shutdown, out: Out) -> None:
        self.world.append(f"{self.name} is told")
        if not self.stubborn:
            out.stop()


class Deaf(Actor):
    """Can't be told to shut down."""

    __slots__ = ()
    handles: ClassVar = {str: "do"}

    def do(self, _: str, __: Out) -> None:
        raise ValueError("deaf")


class Listener(Actor):
    """Is told what was abandoned."""

    __slots__ = ("heard",)
    state = ("heard",)
    handles: ClassVar = {Abandoned: "abandoned"}

    def __init__(self) -> None:
        self.heard: tuple[Abandoned, ...] = ()

    def abandoned(self, message: Abandoned, _: Out) -> None:
        self.heard += (message,)


class Yard:
    """A supervisor with children a, b and c in a system whose clock a test turns."""

    def __init__(self, strategy: Strategy = Strategy.ONE_FOR_ONE, *, stubborn: str = "", **changes: Any) -> None:
        self.now = 0.0
        self.world: list[str] = []
        self.system = ActorSystem(clock=lambda: self.now)
        self.elders: dict[str, list[str]] = {}
        backoff = Backoff(first=1.0, factor=2.0, most=8.0, jitter=0.0, quiet=60.0)
        specs = [
            ChildSpec(name, partial(self.make, name, name in stubborn), **changes.get(name, {}))
            for name in ("a", "b", "c")
        ]
        auto = changes.get("auto", AutoShutdown.NEVER)
        limit = changes.get("limit", 5)
        self.listener = self.system.spawn(Listener(), "listener")
        self.supervisor = self.system.spawn(
            StaticSupervisor(
                Supervision(tuple(specs), strategy, Intensity(limit, 100.0), backoff, auto), self.listener
            ),
            "supervisor",
        )
        self.a, self.b, self.c = (child.ref for child in self.supervisor.actor.children)  # type: ignore[union-attr]

    def make(self, name: str, stubborn: bool, elders: Mapping[str, Ref]) -> Actor:
        self.elders[name] = list(elders)
        return Doer(name, self.world, stubborn)

    def tell(self, ref: Ref, *messages: Any) -> None:
        with self.system.held_back():
            for message in messages:
                self.system.tell(ref, message)

    def crash(self, ref: Ref) -> None:
        """One crash of a child that runs: its message kills it, and is set aside in the next life."""
        self.world[:] = [event for event in self.world if event != "crash once"]
        self.tell(ref, "crash once")

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self.system.turn() == 0.0:
            pass

    def log(self, ref: Ref) -> tuple[Any, ...]:
        log: tuple[Any, ...] = ref.actor.log  # type: ignore[union-attr]
        return log


def test_children_begin_in_order_and_know_those_before_them() -> None:
    yard = Yard()
    assert yard.world == ["a begins", "b begins", "c begins"]
    assert yard.elders == {"a": [], "b": ["a"], "c": ["a", "b"]}


def test_children_are_stopped_in_reverse_order_and_then_the_supervisor() -> None:
    yard = Yard()
    yard.world.clear()
    yard.system.tell(yard.supervisor, SHUTDOWN)
    assert yard.world == ["c is told", "b is told", "a is told"]
    assert [ref.name for ref, _ in yard.system.refs()] == ["listener"]
    assert yard.system.statistics().timers == 0


@pytest.mark.parametrize(
    ("strategy", "again"),
    [(Strategy.ONE_FOR_ONE, "b"), (Strategy.ONE_FOR_ALL, "abc"), (Strategy.REST_FOR_ONE, "bc")],
)
def test_the_strategy_says_who_begins_again_at_the_same_address(strategy: Strategy, again: str) -> None:
    yard = Yard(strategy)
    addresses = [yard.a, yard.b, yard.c]
    yard.world.clear()
    yard.crash(yard.b)
    assert [event for event in yard.world if "begins" in event] == [f"{name} begins" for name in again]
    assert [child.ref for child in yard.supervisor.actor.children] == addresses  # type: ignore[union-attr]
    yard.tell(yard.b, "hello")
    assert yard.log(yard.b)[-1] == "hello"


def test_one_that_crashed_alone_goes_on_from_its_journal_and_a_group_begins_anew() -> None:
    alone, group = Yard(), Yard(Strategy.ONE_FOR_ALL, b={"mail": DROP_MAIL})
    for yard in (alone, group):
        yard.tell(yard.a, "kept?")
        yard.tell(yard.b, "kept?")
        yard.crash(yard.b)
    assert alone.log(alone.b) == ("kept?", "crash once")
    assert (group.log(group.a), group.log(group.b)) == ((), ())


def test_the_first_crash_is_made_good_at_once_and_the_next_ones_wait_longer_and_longer() -> None:
    yard = Yard()
    waits = []
    for _ in range(4):
        yard.crash(yard.a)
        wait = yard.system.turn()
        waits.append(wait)
        if wait:
            yard.advance(wait)
    assert waits == [None, 1.0, 2.0, 4.0]
    yard.advance(60.0)
    yard.crash(yard.a)
    assert yard.system.turn() is None, "it was quiet for long enough"


def test_more_crashes_than_the_intensity_allows_end_the_children_and_then_fail() -> None:
    yard = Yard(limit=1)
    yard.crash(yard.a)
    yard.world.clear()
    yard.crash(yard.b)
    assert yard.world == ["crash once", "c is told", "a is told", "a begins", "b begins", "c begins"]
    assert yard.system.statistics().restarts >= 4, "and the system, its parent, began it again"


def test_a_parent_that_fails_too_takes_the_system_down(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _, error, __: failures.append(error))
    yard = Yard(limit=0)
    for _ in range(6):
        yard.crash(yard.a)
    (failure,) = failures
    assert isinstance(failure, SystemFailed)
    assert "a ended more often than it may be restarted: ValueError: a" in str(failure)


def test_a_transient_child_that_ends_is_done_and_a_permanent_one_begins_anew() -> None:
    yard = Yard(b={"restart": Restart.TRANSIENT})
    yard.tell(yard.a, "end")
    yard.tell(yard.b, "end")
    yard.tell(yard.b, "too late")
    assert yard.world[3:] == ["a begins"]
    assert yard.log(yard.a) == ()
    assert [letter.kind for letter in yard.system.dead_letters] == ["str"]


def test_a_temporary_child_never_begins_again() -> None:
    yard = Yard(c={"restart": Restart.TEMPORARY})
    yard.crash(yard.c)
    assert yard.c.actor is None
    assert yard.world == ["a begins", "b begins", "c begins", "crash once"]


def test_who_does_not_end_in_time_is_ended_and_the_listener_is_told() -> None:
    yard = Yard(stubborn="b", b={"shutdown": 2.0})
    yard.system.tell(yard.supervisor, SHUTDOWN)
    assert yard.c.actor is None
    assert yard.a.actor is not None, "its turn comes after b"
    yard.advance(1.9)
    assert yard.listener.actor.heard == ()  # type: ignore[union-attr]
    yard.advance(0.2)
    assert yard.listener.actor.heard == (Abandoned("b", yard.b),)  # type: ignore[union-attr]
    assert [ref.name for ref, _ in yard.system.refs()] == ["listener"]


def test_a_significant_child_ends_the_supervisor() -> None:
    yard = Yard(auto=AutoShutdown.ANY_SIGNIFICANT, b={"restart": Restart.TRANSIENT, "significant": True})
    yard.crash(yard.b)
    assert yard.supervisor.actor is not None, "a crash of it is made good"
    yard.tell(yard.b, "end")
    assert [ref.name for ref, _ in yard.system.refs()] == ["listener"]


@pytest.mark.parametrize(
    ("mail", "left"),
    [
        (KEEP_MAIL, ("crash once", "1", "2", "3", 7, 8, 9)),
        (DROP_MAIL, ()),
        (MailRule(2), ("crash once", "1", 7, 8)),
        (MailRule(2, "newest"), ("2", "3", 8, 9)),
    ],
)
def test_a_restart_keeps_as_much_mail_as_the_spec_says(mail: MailRule, left: tuple[Any, ...]) -> None:
    yard = Yard(a={"mail": mail})
    yard.tell(yard.a, "crash once", Frame(7), "1", "2", Frame(8), Frame(9), "3")
    assert yard.log(yard.a) == left
    dropped = yard.system.statistics().dead_letters.get("dropped at restart", 0)
    assert dropped == 7 - len(left)


def test_a_message_told_twice_that_crashes_once_each_time_is_not_set_aside() -> None:
    yard = Yard()
    message = "crash once"
    for _ in range(2):
        yard.world[:] = [event for event in yard.world if event != message]
        yard.tell(yard.a, message)
        yard.advance(1.0)
    assert yard.log(yard.a) == (message, message)
    assert yard.system.statistics().dead_letters == {}


def test_the_parent_is_told_of_an_exit_even_if_it_kills_it_twice() -> None:
    yard = Yard()
    kind = StaticSupervisor
    left = [2]
    whole = kind.compiled["running"][Exited]

    def shaky(actor: Any, message: Any, out: Out) -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError("not yet")
        whole(actor, message, out)

    kind.compiled["running"][Exited] = shaky
    try:
        yard.tell(yard.a, "crash")
    finally:
        kind.compiled["running"][Exited] = whole
    assert left == [0]
    yard.tell(yard.a, "hello")
    yard.advance(1.0)
    assert yard.log(yard.a) == ("hello",)


def nested(strategy: Strategy, world: list[str]) -> tuple[ActorSystem, Ref]:
    """A supervisor of a child "first", and of a supervisor of "a" and "b" that may restart nobody."""
    system = ActorSystem(clock=lambda: 0.0)
    inner = Supervision(
        tuple([ChildSpec(name, partial(_doer, name, world)) for name in ("a", "b")]), intensity=Intensity(0, 60.0)
    )
    outer = Supervision(
        (
            ChildSpec("first", partial(_doer, "first", world)),
            ChildSpec("inner", lambda _: StaticSupervisor(inner, None), shutdown=60.0),
        ),
        strategy,
    )
    return system, system.spawn(StaticSupervisor(outer, None), "outer")


def child(ref: Ref, at: int) -> Ref:
    found: Ref = ref.actor.children[at].ref  # type: ignore[union-attr]
    return found


def test_a_supervisor_that_fails_is_begun_again_by_the_one_above_with_the_addresses_of_its_children() -> None:
    world: list[str] = []
    system, outer = nested(Strategy.ONE_FOR_ONE, world)
    inner = child(outer, 1)
    before = [child(inner, 0), child(inner, 1)]
    world.clear()
    system.tell(before[0], "crash once")
    assert world == ["crash once", "b is told", "a begins", "b begins"]
    assert [child(inner, 0), child(inner, 1)] == before
    assert child(outer, 1) is inner


def test_a_supervisor_that_is_ended_with_its_group_begins_with_new_children() -> None:
    world: list[str] = []
    system, outer = nested(Strategy.ONE_FOR_ALL, world)
    inner = child(outer, 1)
    before = child(inner, 0)
    world.clear()
    system.tell(child(outer, 0), "crash once")
    assert world == ["crash once", "b is told", "a is told", "first begins", "a begins", "b begins"]
    assert child(outer, 1) is inner
    assert child(inner, 0) is not before
    assert before.actor is None
    assert sorted(ref.name for ref, _ in system.refs()) == ["a", "b", "first", "inner", "outer"]


def test_a_tree_is_shut_down_from_its_leaves() -> None:
    world: list[str] = []
    system, outer = nested(Strategy.ONE_FOR_ONE, world)
    world.clear()
    system.tell(outer, SHUTDOWN)
    assert world == ["b is told", "a is told", "first is told"]
    assert list(system.refs()) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: ChildSpec("a", lambda _: Deaf(), shutdown=-1.0), "can't be negative"),
        (lambda: ChildSpec("a", lambda _: Deaf(), significant=True), "significant and permanent"),
        (lambda: Supervision((ChildSpec("a", lambda _: Deaf()),) * 2), "two children have one name: a"),
        (
            lambda: Supervision((ChildSpec("a", lambda _: Deaf()),), auto_shutdown=AutoShutdown.ANY_SIGNIFICANT),
            "significant are: none",
        ),
    ],
)
def test_a_specification_that_contradicts_itself_is_refused(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(SupervisionError, match=says):
        wrong()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it_runs_on_each_loop(anyio_backend: str) -> None:
    system, world = ActorSystem(), []  # type: ActorSystem, list[str]
    specs = tuple(ChildSpec(name, partial(_doer, name, world)) for name in ("a", "b"))
    backoff = Backoff(first=0.01, jitter=0.5)
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        supervisor = system.spawn(
            StaticSupervisor(Supervision(specs, Strategy.ONE_FOR_ALL, Intensity(9, 60.0), backoff), None), "top"
        )
        first = supervisor.actor.children[0].ref  # type: ignore[union-attr]
        for times in range(2, 5):
            world[:] = [event for event in world if event != "crash once"]
            system.tell(first, "crash once")
            with anyio.fail_after(5):
                while world.count("b begins") < times:
                    await anyio.sleep(0.001)  # a backoff of some milliseconds is what is waited for
        system.tell(supervisor, SHUTDOWN)
        assert list(system.refs()) == []
        group.cancel_scope.cancel()


def _doer(name: str, world: list[str], _: Mapping[str, Ref]) -> Actor:
    return Doer(name, world, False)
