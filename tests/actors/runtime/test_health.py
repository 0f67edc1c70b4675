"""The health watch: a port that falls silent is told of in time, one that answers never is; explored with crashes at any point,
and run on virtual time."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from actors.model.actor_model import ActorModel
from actors.model.parts import Faults
from actors.runtime.actor import PORT, SET_TIMER, Actor, Out
from actors.runtime.health import ASKED, LATE, RESTING, SILENT, Beat, HealthWatch, Heartbeat, PortBack, PortSilent
from actors.runtime.mailbox import Ref
from actors.runtime.system import ActorSystem
from machines.checker import Outcome, check
from tests.actors.runtime.health_model import EVERY, TIMEOUT, health_model

# --- explored ----------------------------------------------------------------------------------------------------------


def outcomes(model: ActorModel) -> dict[str, Outcome]:
    report = check(model)
    assert report.complete
    return {verdict.name: verdict.outcome for verdict in report.verdicts}


def failing(model: ActorModel) -> set[str]:
    return {name for name, outcome in outcomes(model).items() if outcome is not Outcome.HOLDS}


def watching(*names: str, **faults: int) -> ActorModel:
    return health_model(names, faults=Faults(sum(faults.values()), faults))


@pytest.mark.parametrize(
    "faults", [{"hangs": 2}, {"hangs": 1, "crash": 2}, {"hangs": 1, "late": 2}, {"hangs": 1, "poison": 1, "cut": 1}]
)
def test_a_port_that_falls_silent_is_told_of_and_so_is_its_return(faults: dict[str, int]) -> None:
    assert failing(watching("a", **faults)) == set()


def test_of_two_ports_each_is_told_of_for_itself() -> None:
    model = watching("a", "b", hangs=1)
    model.always("only the one that hung", lambda told: len(told.silent) <= 1, of=["board"])
    model.sometimes("b is told of", lambda told: told.silent == {"b"}, of=["board"])
    assert failing(model) == set()


@pytest.mark.parametrize("faults", [{}, {"crash": 2}, {"poison": 1}, {"cut": 1}, {"late": 1}])
def test_one_that_answers_is_never_told_of(faults: dict[str, int]) -> None:
    assert failing(watching("a", "b", **faults)) == set()


def test_two_timers_that_are_late_against_one_answer_are_taken_for_silence() -> None:
    assert failing(watching("a", late=2)) == {"one that answers is never told of"}


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
