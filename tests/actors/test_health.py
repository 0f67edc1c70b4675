"""The health watch: a port that falls silent is told of in time, one that answers never is; explored with crashes at any point,
and run on virtual time."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import anyio
import pytest
import trio
import trio.testing

from actors.actor import PORT, SET_TIMER, Actor, Out
from actors.health import ASKED, LATE, RESTING, SILENT, Beat, HealthWatch, Heartbeat, PortBack, PortSilent
from actors.mailbox import Ref
from actors.model import ActorModel, Scene
from actors.model_parts import Choice, Faults, Part
from actors.system import ActorSystem
from machines.checker import Outcome, check

EVERY, TIMEOUT = 1.0, 5.0


# --- explored ----------------------------------------------------------------------------------------------------------


class Working(NamedTuple):
    """What a port has to answer, in order, and whether it hangs."""

    waiting: tuple[Heartbeat, ...] = ()
    hangs: bool = False


class Watchable(Part):
    """A port that answers in order; as a fault it hangs, and may come back."""

    faults = ("hangs",)

    def initial(self) -> Working:
        return Working()

    def submit(self, state: Working, work: Any) -> Working:
        return state._replace(waiting=(*state.waiting, work))

    def choices(self, state: Working) -> Iterable[Choice]:
        if state.hangs:
            yield Choice("comes back", state._replace(hangs=False), fair=False)
            return
        if state.waiting:
            first, *rest = state.waiting
            beat = (first.reply_to, Beat(first.number, first.port))
            yield Choice("answers", state._replace(waiting=tuple(rest)), (beat,), prompt=True)
        yield Choice("hangs", state._replace(hangs=True), fault="hangs")


class Told(NamedTuple):
    """The ports that are silent as far as was told, and whether something was told that was known."""

    silent: frozenset[str] = frozenset()
    repeated: bool = False


class Board(Part):
    """Who is told."""

    def initial(self) -> Told:
        return Told()

    def submit(self, state: Told, work: Any) -> Told:
        silent = state.silent | {work.port} if isinstance(work, PortSilent) else state.silent - {work.port}
        return Told(silent, state.repeated or silent == state.silent)


def watching(*names: str, **faults: int) -> ActorModel:
    """A watch of these ports; its promises hold whatever the faults."""
    ports, board = [Watchable(name) for name in names], Board("board")

    def setup(scene: Scene) -> None:
        watched = tuple((port.name, scene.port(port)) for port in ports)
        scene.spawn(HealthWatch(watched, scene.port(board), EVERY, TIMEOUT), "health")

    model = ActorModel("health", setup, parts=[*ports, board], faults=Faults(sum(faults.values()), faults))

    def promise(name: str) -> None:
        model.leads_to(
            f"{name}: silence is told",
            lambda port, _: port.hangs,
            lambda port, told: name in told.silent or not port.hangs,
            of=[name, "board"],
        )
        model.leads_to(
            f"{name}: so is its end",
            lambda port, told: name in told.silent and not port.hangs,
            lambda port, told: name not in told.silent or port.hangs,
            of=[name, "board"],
        )
        model.always(
            f"{name}: one heartbeat at a time, and one for each crash",
            lambda port: len(port.waiting) <= 1 + faults.get("crash", 0) + 2 * faults.get("poison", 0),
            of=[name],
        )

    for name in names:
        promise(name)
    return model


def outcomes(model: ActorModel) -> dict[str, Outcome]:
    report = check(model)
    assert report.complete
    return {verdict.name: verdict.outcome for verdict in report.verdicts}


def failing(model: ActorModel) -> set[str]:
    return {name for name, outcome in outcomes(model).items() if outcome is not Outcome.HOLDS}


@pytest.mark.parametrize(
    "faults", [{}, {"hangs": 2}, {"hangs": 1, "crash": 2}, {"hangs": 1, "late": 2}, {"hangs": 1, "poison": 1, "cut": 1}]
)
def test_a_port_that_falls_silent_is_told_of_and_so_is_its_return(faults: dict[str, int]) -> None:
    model = watching("a", **faults)
    if "hangs" in faults:
        model.sometimes("it is told", lambda told: bool(told.silent), of=["board"])
    assert failing(model) == set()


def test_of_two_ports_each_is_told_of_for_itself() -> None:
    model = watching("a", "b", hangs=1)
    model.always("only the one that hung", lambda told: len(told.silent) <= 1, of=["board"])
    model.sometimes("b is told of", lambda told: told.silent == {"b"}, of=["board"])
    assert failing(model) == set()


@pytest.mark.parametrize("faults", [{}, {"crash": 2}, {"poison": 1}, {"late": 1}])
def test_one_that_answers_is_never_told_of(faults: dict[str, int]) -> None:
    model = watching("a", "b", **faults)
    model.always("never silent", lambda told: not told.silent, of=["board"])
    assert failing(model) == set()


def test_two_timers_that_are_late_against_one_answer_are_taken_for_silence() -> None:
    model = watching("a", late=2)
    model.always("never silent", lambda told: not told.silent, of=["board"])
    assert failing(model) == {"never silent"}


def test_news_alternate_and_only_a_crash_of_the_watch_repeats_one() -> None:
    def repeating(**faults: int) -> bool:
        model = watching("a", **faults)
        model.always("no news twice", lambda told: not told.repeated, of=["board"])
        return failing(model) == {"no news twice"}

    assert not repeating(hangs=2, late=2)
    assert repeating(hangs=1, crash=1)


# --- its steps ---------------------------------------------------------------------------------------------------------

ME, BOARD, DISK = Ref(Actor(), "health", None), "board", "the disk"


def effects(watch: HealthWatch, *messages: Any) -> list[Any]:
    """The effects of the last of these messages; a string is a timer, None the beginning."""
    out = Out(Ref)
    out.me = ME
    for message in messages:
        out.effects.clear()
        if message is None:
            watch.start(out)
        elif isinstance(message, str):
            watch.timeout(message, out)
        else:
            watch.receive(message, out)
    return out.effects


@pytest.fixture
def watch() -> HealthWatch:
    return HealthWatch((("disk", DISK),), BOARD, EVERY, TIMEOUT)


def phase_of(watch: HealthWatch) -> str:
    found = watch.watched.get("disk")
    assert found is not None
    return found.phase


def test_a_port_has_its_whole_time_to_answer_in_two_halves(watch: HealthWatch) -> None:
    assert effects(watch, None) == [(SET_TIMER, "disk", TIMEOUT / 2), (PORT, DISK, Heartbeat(1, "disk", ME))]
    assert phase_of(watch) == ASKED
    assert effects(watch, "disk") == [(SET_TIMER, "disk", TIMEOUT / 2)]
    assert phase_of(watch) == LATE
    assert effects(watch, "disk") == [(PORT, BOARD, PortSilent("disk"))]
    assert phase_of(watch) == SILENT


def test_one_that_answered_is_asked_again_after_the_pause(watch: HealthWatch) -> None:
    assert effects(watch, None, Beat(1, "disk")) == [(SET_TIMER, "disk", EVERY)]
    assert phase_of(watch) == RESTING
    assert effects(watch, "disk")[-1] == (PORT, DISK, Heartbeat(2, "disk", ME))


@pytest.mark.parametrize("number", [1, 3])
def test_a_stale_beat_changes_nothing(watch: HealthWatch, number: int) -> None:
    effects(watch, None, Beat(1, "disk"), "disk")
    before = watch.freeze()
    assert effects(watch, Beat(number, "disk")) == []
    assert watch.freeze() == before
    effects(watch, Beat(2, "disk"))
    assert effects(watch, Beat(2, "disk")) == [], "the same beat again"


def test_the_answer_that_comes_at_last_brings_the_port_back(watch: HealthWatch) -> None:
    back = effects(watch, None, "disk", "disk", Beat(1, "disk"))
    assert back == [(SET_TIMER, "disk", EVERY), (PORT, BOARD, PortBack("disk"))]


# --- run ---------------------------------------------------------------------------------------------------------------


class Answering:
    """A port that answers in its own task, as long as it is let."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._send, self._receive = anyio.create_memory_object_stream[Heartbeat](100)
        self.sound = anyio.Event()
        self.sound.set()

    def submit(self, work: Heartbeat) -> None:
        self._send.send_nowait(work)

    async def run(self) -> None:
        with self._send, self._receive:
            async for work in self._receive:
                await self.sound.wait()
                self._system.tell(work.reply_to, Beat(work.number, work.port))


class Noted:
    """A listener that writes down what it is told, and when."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.news: list[tuple[float, Any]] = []

    def submit(self, work: Any) -> None:
        self.news.append((self._now(), work))


def test_a_hang_is_told_within_pause_and_deadline_and_its_end_at_once() -> None:
    async def main() -> list[tuple[float, Any]]:
        system = ActorSystem()
        port, noted = Answering(system), Noted(trio.current_time)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: system.run(task_status=task_status))
            nursery.start_soon(port.run)
            began = trio.current_time()
            system.spawn(HealthWatch((("disk", port),), noted, EVERY, TIMEOUT), "health")
            await trio.sleep(3600.5)
            assert noted.news == [], "an hour in which it answered"
            port.sound = anyio.Event()
            await trio.sleep(60)
            port.sound.set()
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        return [(at - began, news) for at, news in noted.news]

    (silent_at, silent), (back_at, back) = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (silent, back) == (PortSilent("disk"), PortBack("disk"))
    assert 3600.5 < silent_at <= 3600.5 + EVERY + TIMEOUT
    assert back_at == pytest.approx(3660.5)
