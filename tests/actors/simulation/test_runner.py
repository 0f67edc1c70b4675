"""The simulator: one seed decides everything, actors lag, faults come by plan, promises are watched, plans are made smaller."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec import Struct

from actors.model.actor_model import ActorModel
from actors.model.lockstep import Lockstep
from actors.model.parts import Choice, Outside, Part
from actors.pytest_plugin import check_simulation
from actors.runtime.actor import Actor, Out, Shutdown
from actors.runtime.child_spec import ChildSpec, Restart, Strategy, Supervision
from actors.runtime.mailbox import Ref
from actors.runtime.static_supervisor import StaticSupervisor
from actors.simulation.plan import HOUR_MS, Chance, Fault, Plan, drawn_faults
from actors.simulation.runner import FaultKind, PromiseBroken, Simulation, World
from actors.simulation.runs import SimulationReport, run_seeds
from actors.simulation.shrink import shrunk
from machines.checker import ModelError
from machines.restart import Backoff, Intensity

ROOT = Path(__file__).parents[3]
SIX_MINUTES = 0.1
LAST = 20


class Parcel(Struct, frozen=True):
    number: int
    sender: Ref


class Receipt(Struct, frozen=True):
    number: int


class Courier(Actor):
    """Sends parcels one after the other, each until it is received."""

    __slots__ = ("desk", "network", "number")
    wiring = ("network", "desk")
    state = ("number",)
    journal = state
    handles: ClassVar = {Receipt: "receipt"}

    def __init__(self, network: Any, desk: Ref) -> None:
        self.network = network
        self.desk = desk
        self.number = 1

    def start(self, out: Out) -> None:
        out.port(self.network, (self.desk, Parcel(self.number, out.me)))
        out.set_timer("again", 30.0)

    def receipt(self, message: Receipt, out: Out) -> None:
        if message.number == self.number < LAST:
            self.number += 1
            self.start(out)
        elif message.number == self.number:
            out.cancel_timer("again")

    def timeout(self, timer: str, out: Out) -> None:
        self.start(out)


class Desk(Actor):
    """Takes each parcel once, if it is `careful`."""

    __slots__ = ("careful", "network", "taken")
    wiring = ("network", "careful")
    state = ("taken",)
    journal = state
    handles: ClassVar = {Parcel: "parcel"}

    def __init__(self, network: Any, careful: bool) -> None:
        self.network = network
        self.careful = careful
        self.taken: tuple[int, ...] = ()

    def parcel(self, message: Parcel, out: Out) -> None:
        if not self.careful or message.number not in self.taken:
            self.taken = (*self.taken, message.number)
        out.port(self.network, (message.sender, Receipt(message.number)))


FAULTS = {
    "crash": FaultKind(("Courier", "Desk"), 0, 50),
    "poison": FaultKind(("Courier", "Desk"), 0, 10),
    "hang": FaultKind(("Courier", "Desk"), 1_000, 60_000),
    "slow": FaultKind(("Courier", "Desk"), 1_000, 60_000),
    "clock jump": FaultKind(("",), 1_000, 60_000),
    "lost": FaultKind(),
    "duplicated": FaultKind(),
}


def parcels(*, careful: bool = True, faults: dict[str, FaultKind] = FAULTS) -> Simulation:
    network = Outside("network")

    def setup(world: World) -> None:
        desk = world.spawn(Desk(world.port(network), careful), "desk")
        world.spawn(Courier(world.port(network), desk), "courier")

    simulation = Simulation("parcels", setup, parts=[network], faults=faults, faults_in_a_day=2400.0)
    simulation.always("no parcel is taken twice", lambda desk: len({*desk.taken}) == len(desk.taken), of=["desk"])
    simulation.at_end("every parcel arrives", lambda desk: len(desk.taken) == LAST, of=["desk"])
    simulation.at_end("nothing is left", lambda timers, network: timers == network == (), of=["@timers", "network"])
    return simulation


def without(kind: str) -> dict[str, FaultKind]:
    return {name: of for name, of in FAULTS.items() if name != kind}


# --- one seed ------------------------------------------------------------------------------------------------------------


def test_a_seed_is_the_same_run_wherever_it_runs() -> None:
    day = parcels().run(3, SIX_MINUTES)
    assert parcels().run(3, SIX_MINUTES) == day
    assert parcels().run(4, SIX_MINUTES).trace_hash != day.trace_hash
    assert day.trace_hash == "e2284488d2ddeacf10d3564401283eb65d6f6b270425ae19e2dc24b7529bbfb5"


@pytest.mark.parametrize("hash_seed", ["0", "1", "77"])
def test_it_does_not_depend_on_the_order_of_hash_tables(hash_seed: str) -> None:
    program = (
        "from actors.voice_lab.simulation import voice_simulation\nprint(voice_simulation().run(5, 2).trace_hash)\n"
        "from tests.actors.simulation.test_runner import parcels\nprint(parcels().run(3, 0.1).trace_hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    from actors.voice_lab.simulation import voice_simulation  # noqa: PLC0415 - only here

    assert done.stdout.split() == [voice_simulation().run(5, 2).trace_hash, parcels().run(3, SIX_MINUTES).trace_hash]


def test_the_lines_of_a_trace_name_who_when_and_what_without_addresses_in_memory() -> None:
    simulation = parcels()
    day = simulation.follow(simulation.plan(3, SIX_MINUTES), keep_lines=10_000)
    assert day.lines[0] == "0 process 1"
    assert any(line.endswith("desk Parcel(1,<courier>)") for line in day.lines)
    assert any(line.endswith("courier Receipt(1)") for line in day.lines)
    assert not any("0x" in line or "object at" in line for line in day.lines)
    assert len(day.lines) >= day.steps


def test_actors_that_are_right_hold_in_every_seed_and_every_kind_of_fault_comes() -> None:
    report = run_seeds(parcels, range(100), SIX_MINUTES)
    assert (report.problem, report.failing) == ("", [])
    assert set(report.faults) == set(FAULTS)
    assert all(report.faults.values())
    assert min(report.shares.values()) > 0.05


def test_an_actor_lags_while_others_take_many_turns() -> None:
    """Another order than that of the queue, and one actor that sleeps for longer than any step."""
    simulation = parcels(faults={"hang": FaultKind(("Desk",), 200_000, 200_000)})
    plan = Plan(1, HOUR_MS, (), (Fault(1, "hang", 0, "Desk", 200_000),))
    day = simulation.follow(plan, keep_lines=1000)
    turns = [line.split()[1] for line in day.lines if int(line.split()[0]) < 200_000 and " fault " not in line]
    assert turns.count("desk") == 1  # the step at which it hangs
    assert turns.count("courier") >= 6
    assert day.failure is None


def test_faults_are_those_of_the_plan_and_no_others() -> None:
    simulation = parcels()
    assert simulation.follow(Plan(1, HOUR_MS, (), ())).faults == {}
    plan = Plan(1, HOUR_MS, (), (Fault(1, "crash", 0, "Courier", 0), Fault(2, "lost", 0, "", 0)))
    day = simulation.follow(plan)
    assert (day.faults, day.crashes, day.restarts) == ({"crash": 1, "lost": 1}, 1, 1)


def test_a_kill_starts_another_process_with_new_actors() -> None:
    simulation = parcels()
    plan = Plan(1, HOUR_MS, (), (Fault(1, "kill", 60_000, "process", 5000),))
    day = simulation.follow(plan, keep_lines=1000)
    assert (day.processes, day.faults) == (2, {"kill": 1})
    assert [line.split()[0] for line in day.lines].count("0") > 1
    assert any(line.endswith("process 2") for line in day.lines)
    assert sum("desk Parcel(1," in line for line in day.lines) >= 2  # a journal in memory dies with its process


@pytest.mark.parametrize("power", ["process", "power"])
def test_a_kill_comes_to_a_process_that_does_nothing_too(power: str) -> None:
    plan = Plan(1, HOUR_MS, (), (Fault(1, "kill", 3_000_000, power, 5000),))
    assert parcels().follow(plan).processes == 2


# --- what is found -------------------------------------------------------------------------------------------------------


class Napping(Part):
    """Answers what it is asked in time; what it asks itself while it naps may take any time, or never come."""

    def initial(self) -> Any:
        return ()

    def submit(self, state: Any, work: Any) -> Any:
        return (*state, work)

    def choices(self, state: Any) -> Iterable[Choice]:
        yield Choice("wakes", state, fair=False)
        if state:
            yield Choice("answers", state[1:], ((state[0], Receipt(1)),), prompt=True)


class Asking(Actor):
    """Asks a port every minute, and counts the answers that came and those that were late."""

    __slots__ = ("answered", "late", "port")
    wiring = ("port",)
    state = ("answered", "late")
    handles: ClassVar = {Receipt: "receipt"}

    def __init__(self, port: Any) -> None:
        self.port = port
        self.answered = self.late = 0

    def start(self, out: Out) -> None:
        out.set_timer("ask", 60.0)

    def receipt(self, message: Receipt, out: Out) -> None:
        self.answered += 1
        out.cancel_timer("late")

    def timeout(self, timer: str, out: Out) -> None:
        if timer == "late":
            self.late += 1
        elif self.answered + self.late < LAST:
            out.port(self.port, out.me)
            out.set_timer("late", 2.0)
            out.set_timer("ask", 60.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_port_answers_in_time_whatever_else_it_may_be_about_to_do(seed: int) -> None:
    port = Napping("port")
    simulation = Simulation(
        "asking", lambda world: world.spawn(Asking(world.port(port)), "asking"), parts=[port], faults={}
    )
    simulation.at_end("all answers came in time", lambda one: (one.answered, one.late) == (LAST, 0), of=["asking"])
    assert simulation.run(seed, 1.0).failure is None


def test_a_mistake_is_found_with_its_promise_seed_and_step() -> None:
    report = run_seeds(lambda: parcels(careful=False), range(30), SIX_MINUTES)
    assert report.failing
    failure = report.failing[0].failure
    assert failure is not None
    assert failure.promise == "no parcel is taken twice"
    assert failure.step > 0
    assert "taken" in failure.detail
    assert report.problem.startswith(f"{len(report.failing)} of 30 seeds break a promise")


def test_a_plan_that_fails_is_made_smaller_and_still_fails() -> None:
    simulation = parcels(careful=False)
    day = next(day for day in (simulation.run(seed, SIX_MINUTES) for seed in range(50)) if day.failure)
    whole = simulation.plan(day.seed, SIX_MINUTES)
    plan, last, runs = shrunk(simulation, day, SIX_MINUTES)
    assert len(plan.faults) < len(whole.faults)
    assert plan.until_ms < whole.until_ms
    assert {*plan.faults} <= {*whole.faults}
    assert 0 < runs <= 200
    assert last.failure is not None
    assert last.failure.promise == day.failure.promise  # type: ignore[union-attr]
    assert simulation.follow(plan).failure == last.failure


def test_only_what_fails_can_be_made_smaller() -> None:
    simulation = parcels()
    with pytest.raises(ValueError, match="broke no promise"):
        shrunk(simulation, simulation.run(1, SIX_MINUTES), SIX_MINUTES)


def test_an_error_of_a_property_is_not_taken_for_a_crash_of_the_actor() -> None:
    simulation = parcels()
    simulation.always("wrong", lambda desk: desk.nothing_like_that, of=["desk"])
    with pytest.raises(AttributeError, match="nothing_like_that"):
        simulation.run(1, SIX_MINUTES)


def test_actors_that_talk_without_end_are_stopped() -> None:
    class Echo(Actor):
        __slots__ = ()
        handles: ClassVar = {int: "echo"}

        def start(self, out: Out) -> None:
            out.tell(out.me, 1)

        def echo(self, message: int, out: Out) -> None:
            out.tell(out.me, message)

    day = Simulation("echo", lambda world: world.spawn(Echo(), "echo")).run(1, 1.0)
    assert day.failure is not None
    assert day.failure.promise == "time goes on"


def test_a_system_that_fails_breaks_a_promise() -> None:
    class Broken(Actor):
        __slots__ = ()

        def start(self, out: Out) -> None:
            raise RuntimeError("never")

    day = Simulation("broken", lambda world: world.spawn(Broken(), "broken")).run(1, 1.0)
    assert day.failure is not None
    assert day.failure.promise == "the system never fails"
    assert "never" in day.failure.detail


def test_a_kind_of_fault_that_hardly_comes_fails_many_seeds_but_not_a_few() -> None:
    simulation = parcels(faults={**FAULTS, "crash": FaultKind(("Nobody",))})
    days = [simulation.run(seed, SIX_MINUTES) for seed in range(20)]
    kinds = tuple(FAULTS)
    assert SimulationReport(days, SIX_MINUTES, kinds).problem == "fired in fewer than 1% of the seeds: crash"
    assert SimulationReport(days[:19], SIX_MINUTES, kinds).problem == ""


def test_several_processes_find_what_one_does() -> None:
    alone, together = run_seeds(parcels, range(6), SIX_MINUTES), run_seeds(parcels, range(6), SIX_MINUTES, processes=2)
    assert together == alone
    assert [day["seed"] for day in together.as_json()["days"]] == [0, 1, 2, 3, 4, 5]


# --- the fixture ---------------------------------------------------------------------------------------------------------


def test_the_assertion_gives_the_report_or_says_what_was_broken() -> None:
    assert check_simulation(parcels(), seeds=range(3), hours=SIX_MINUTES).problem == ""
    with pytest.raises(PromiseBroken, match=r"no parcel is taken twice \(seed \d+, step \d+, at") as caught:
        check_simulation(parcels(careful=False), seeds=range(30), hours=SIX_MINUTES)
    assert caught.value.promise == "no parcel is taken twice"
    assert caught.value.plan.seed == caught.value.seed


# --- what is drawn -------------------------------------------------------------------------------------------------------


def test_draws_are_within_their_bounds_and_reach_them() -> None:
    chance = Chance(1, "test")
    assert {chance.between(2, 4) for _ in range(100)} == {2, 3, 4}
    assert {chance.below(2) for _ in range(100)} == {0, 1}
    assert {chance.one_of("ab") for _ in range(100)} == {"a", "b"}
    assert 300 < sum(chance.happens(0.4) for _ in range(1000)) < 500
    assert Chance(1, "other").random() != Chance(1, "test").random()


def test_faults_are_numbered_in_the_order_of_their_times() -> None:
    faults: Sequence[Fault] = drawn_faults(Chance(7, "test"), FAULTS, 40, HOUR_MS)
    assert [one.number for one in faults] == list(range(1, 41))
    assert [one.at_ms for one in faults] == sorted(one.at_ms for one in faults)
    assert {one.kind for one in faults} == set(FAULTS)
    for one in faults:
        kind = FAULTS[one.kind]
        assert one.target in kind.targets
        assert kind.smallest <= one.size <= kind.largest


# ------------------------------------------------------------------------------------------- supervised actors, and setups


class Stock(Actor):
    __slots__ = ("sold",)
    state = ("sold",)
    journal = state
    handles: ClassVar = {str: "take"}

    def __init__(self) -> None:
        self.sold = 0

    def take(self, message: str, out: Out) -> None:
        self.sold += 1


class Till(Actor):
    __slots__ = ("stock",)
    wiring = ("stock",)
    handles: ClassVar = {str: "sell", Shutdown: "close"}

    def __init__(self, stock: Ref) -> None:
        self.stock = stock

    def sell(self, message: str, out: Out) -> None:
        out.tell(self.stock, message)

    def close(self, message: Shutdown, out: Out) -> None:
        out.stop()


SHOP = Supervision(
    (
        ChildSpec("stock", lambda _: Stock()),
        ChildSpec("till", lambda elders: Till(elders["stock"]), Restart.TRANSIENT, shutdown=2.0),
    ),
    Strategy.REST_FOR_ONE,
    Intensity(limit=1_000, window=60.0),
    Backoff(first=0.5, most=10.0),
)
BOUGHT = 20


class Customers(Part):
    till: Any = None

    def initial(self) -> int:
        return BOUGHT

    def choices(self, left: int) -> Any:
        if left:
            yield Choice("buys", left - 1, ((self.till, "bread"),))

    def setup(self, scene: Any) -> None:
        scene.spawn(StaticSupervisor(SHOP, None), "shop")
        self.till = scene.find("shop/till")


def shop(**faults: FaultKind) -> Simulation:
    customers = Customers("customers")
    simulation = Simulation("shop", customers.setup, parts=[customers], faults=faults, faults_in_a_day=500)
    simulation.always(
        "nothing is sold twice",
        lambda it, left: not it.alive or it.sold <= BOUGHT - left,
        of=["shop/stock", "customers"],
    )
    return simulation


def test_supervised_actors_are_simulated_with_the_setup_of_their_model() -> None:
    simulation = shop()
    simulation.at_end("all is sold", lambda it: it.sold == BOUGHT, of=["shop/stock"])
    for seed in range(10):
        assert simulation.run(seed, 1.0).failure is None


def test_they_are_begun_again_and_found_again_after_crashes_and_kills() -> None:
    simulation = shop(crash=FaultKind(("Till", "Stock"), 0, 50), kill=FaultKind(("",), 1_000, 5_000))
    days = [simulation.run(seed, 6.0) for seed in range(10)]
    assert [day.failure for day in days] == [None] * len(days)
    assert sum(day.restarts for day in days) > 0
    assert sum(day.processes for day in days) > len(days)


@pytest.mark.parametrize("begin", ["simulation", "model", "lockstep"])
def test_a_setup_that_looks_for_nobody_is_told_who_is_there(begin: str) -> None:
    customers = Customers("customers")

    def setup(scene: Any) -> None:
        scene.spawn(StaticSupervisor(SHOP, None), "shop")
        scene.find("shop/tills")

    def model() -> ActorModel:
        return ActorModel("shop", setup, parts=[customers])

    with pytest.raises(ModelError, match=r"no actor 'shop/tills' lives by now; did you mean 'shop/till'"):
        if begin == "simulation":
            Simulation("shop", setup, parts=[customers]).run(1)
        elif begin == "model":
            list(model().initial())
        else:
            Lockstep(model)


def test_a_world_says_whom_it_does_not_find() -> None:
    seen: list[str] = []

    class Looks:
        def __init__(self, world: World) -> None:
            self.world = world

        def stepped(self, ref: Ref, actor: Actor) -> None:
            pass

        def look(self) -> None:
            with pytest.raises(ModelError, match=r"no actor 'nobody' lives by now; there is 'shop'"):
                self.world.find("nobody")
            seen.append(self.world.find("shop/till").name)
            assert self.world.living("nobody") is None

        def died(self) -> None:
            pass

        def end(self) -> None:
            pass

    customers = Customers("customers")
    Simulation("shop", customers.setup, parts=[customers], monitors=[Looks]).run(1, 0.1)
    assert set(seen) == {"till"}
