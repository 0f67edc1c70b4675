"""Cancelled at any await, once or twice, a service leaves no session that has not STOPPED and nothing of its own.

A run is cut at its k-th turn: on asyncio a turn of the loop, on trio a step of a task. On asyncio there is also what knows no
shield: cancelling all tasks, as `asyncio.run` does when a second Ctrl-C comes.
"""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSessionState
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.time import monotonic_ms

FRAMES = bytes(640 * 3)
PATIENCE = 20  # seconds
FEWEST = 40  # turns of a run that does what it should
STRIDE = 3  # the usual run cuts at every third turn
AGAIN = (1, 2, 5, 13)  # how many turns later the second cancellation comes

# A task that is cancelled before its first step leaves a coroutine behind that Python complains of.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
Verified = Callable[[], int]


async def host(settings: VoiceSettings, acknowledged: list[str], engine: STTProvider) -> None:
    """A host that uses everything of a service that awaits."""

    async def create(recording: bool) -> str:
        made = await service.create_session("p", VoiceProvider.LOCAL, engine, {"recording_enabled": recording})
        acknowledged.append(made.session_id)
        return made.session_id

    async with AsyncVoiceService(settings) as service:
        first = await create(recording=True)
        await service.dispatch_audio_chunk(first, FRAMES)
        second = await create(recording=False)
        await service.dispatch_audio_chunk(second, FRAMES)
        await service.stop_session(first)
        assert [event async for event in service.events(first)]
        await service.list_sessions()
        await create(recording=False)
        await service.drain()


class Cut(NamedTuple):
    """When a run is cancelled: at a turn, and again so many turns later (0: not again); `pierced`: past every shield."""

    at: int
    again: int = 0
    pierced: bool = False


class _CountingLoop(asyncio.SelectorEventLoop):
    """A loop that calls `turned(n)` before its n-th turn."""

    turns = 0
    turned: Callable[[int], None] | None = None

    def _run_once(self) -> None:
        if self.turned is not None:
            self.turns += 1
            self.turned(self.turns)
        super()._run_once()  # type: ignore[misc]


def cut_on_asyncio(settings: VoiceSettings, acknowledged: list[str], engine: STTProvider, cut: Cut) -> bool:
    """Run the host and cut it; whether it was cut before it ended."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _CountingLoop)
        me = asyncio.current_task()
        task = asyncio.create_task(host(settings, acknowledged, engine))

        def turned(turn: int) -> None:
            if turn == cut.at or (cut.again and turn == cut.at + cut.again):
                for victim in asyncio.all_tasks(loop) - {me} if cut.pierced else {task}:
                    victim.cancel()

        loop.turned = turned
        await asyncio.wait([task], timeout=PATIENCE)
        loop.turned = None
        assert task.done()
        assert asyncio.all_tasks() == {me}
        if task.cancelled():
            return True
        task.result()
        return loop.turns >= cut.at

    with asyncio.Runner(loop_factory=_CountingLoop) as runner:
        return runner.run(main())


class _Steps(trio.abc.Instrument):
    def __init__(self, stepped: Callable[[int], None]) -> None:
        self._steps = 0
        self._stepped = stepped

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        self._stepped(self._steps)


def cut_on_trio(settings: VoiceSettings, acknowledged: list[str], engine: STTProvider, cut: Cut) -> bool:
    """As `cut_on_asyncio`; the second cancellation is that of a scope further out."""

    async def main() -> bool:
        inner, outer = trio.CancelScope(), trio.CancelScope()

        def stepped(step: int) -> None:
            if step == cut.at:
                inner.cancel()
            elif cut.again and step == cut.at + cut.again:
                outer.cancel()

        instrument = _Steps(stepped)
        trio.lowlevel.add_instrument(instrument)
        try:
            with trio.fail_after(PATIENCE), outer, inner:
                await host(settings, acknowledged, engine)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return inner.cancel_called

    return trio.run(main)


LOOPS = {"asyncio": cut_on_asyncio, "trio": cut_on_trio}
WAYS = pytest.mark.parametrize(
    ("loop", "again", "pierced"),
    [
        pytest.param("asyncio", False, False, id="asyncio-once"),
        pytest.param("asyncio", True, False, id="asyncio-twice"),
        pytest.param("asyncio", False, True, id="asyncio-all-tasks-once"),
        pytest.param("asyncio", True, True, id="asyncio-all-tasks-twice"),
        pytest.param("trio", False, False, id="trio-once"),
        pytest.param("trio", True, False, id="trio-twice"),
    ],
)


def open_files() -> set[str]:
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{descriptor.name} {descriptor.readlink()}")
        except OSError:
            continue
    return found


def children() -> set[str]:
    return {pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


class Checks:
    """What must hold after each run in a home of its own."""

    def __init__(self, folder: Path, make_settings: MakeSettings) -> None:
        self.folder = folder
        self.make_settings = make_settings
        self.files = open_files()
        self.threads = set(threading.enumerate())
        self.children = children()

    def run(self, loop: str, cut: Cut, engine: STTProvider = STTProvider.WHISPER) -> bool:
        settings = self.make_settings(
            home=self.folder / f"{loop}-{cut.at}-{cut.again}-{cut.pierced}", drain_timeout_seconds=0.01, stt_workers=1
        )
        acknowledged: list[str] = []
        was_cut = LOOPS[loop](settings, acknowledged, engine, cut)
        self._nothing_is_left(cut)
        if settings.database.exists():
            self._all_have_stopped(settings, acknowledged, cut)
        return was_cut

    def _nothing_is_left(self, cut: Cut) -> None:
        deadline = monotonic_ms() + 1000 * PATIENCE
        while (left := self._threads_left()) and monotonic_ms() < deadline:
            for thread in left:
                thread.join(0.1)  # idle threads of the loop's pool end with the loop, a moment later
        assert left == set(), cut
        if cut.pierced:
            gc.collect()  # asyncio's own transport of a worker, and coroutines that never ran, which Python complains of here
        assert open_files() - self.files == set(), cut
        assert children() - self.children == set(), cut  # one that an earlier test left may end meanwhile

    def _threads_left(self) -> set[threading.Thread]:
        left = set(threading.enumerate()) - self.threads
        return {
            thread for thread in left if not thread.name.startswith("Trio thread")
        }  # trio keeps idle ones for later

    def _all_have_stopped(self, settings: VoiceSettings, acknowledged: list[str], cut: Cut) -> None:
        with VoiceStore.open(settings.database, busy_timeout_seconds=5) as store:
            found = store.verify()
            sessions = {session.session_id: session for session in store.sessions()}
            assert found.ok, (cut, found)
            assert set(acknowledged) <= set(sessions), cut
            for session_id, session in sessions.items():
                assert session.state is VoiceSessionState.STOPPED, cut
                assert session.result is not None, cut
                operations = [record.operation for record in store.evidence(session_id)]
                assert operations[0] == "session_created", (cut, operations)
                assert operations[-1] == "session_stopped", (cut, operations)
                assert operations.count("session_stopped") == 1, (cut, operations)
                frames = session.result.frames
                assert frames.accepted == frames.accounted + sum(frames.dropped.values()), cut
                assert frames.accepted == frames.transcribed + sum(frames.untranscribed.values()), cut
        assert list(settings.home.glob("*.spill")) == [], cut


@WAYS
def test_cancelled_at_a_spread_of_turns(
    loop: str, again: bool, pierced: bool, tmp_path: Path, make_settings: MakeSettings
) -> None:
    checks = Checks(tmp_path, make_settings)
    turn = 1
    while checks.run(loop, Cut(turn, AGAIN[turn % len(AGAIN)] if again else 0, pierced)):
        turn += STRIDE
    assert turn > FEWEST


@pytest.mark.slow
@pytest.mark.parametrize("again", [0, 3, 21])
@pytest.mark.parametrize(("loop", "pierced"), [("asyncio", False), ("asyncio", True), ("trio", False)])
def test_cancelled_at_every_turn(
    loop: str, again: int, pierced: bool, tmp_path: Path, make_settings: MakeSettings
) -> None:
    checks = Checks(tmp_path, make_settings)
    turn = 1
    while checks.run(loop, Cut(turn, again, pierced)):
        turn += 1
    assert turn > FEWEST


# Not twice past every shield: then nobody is left to close asyncio's own transport of a worker that was killed.
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("loop", "pierced"), [("asyncio", False), ("asyncio", True), ("trio", False)])
def test_cancelled_while_worker_processes_run(
    loop: str, pierced: bool, tmp_path: Path, make_settings: MakeSettings
) -> None:
    checks = Checks(tmp_path, make_settings)
    turn = 20
    while checks.run(loop, Cut(turn, 0 if pierced else 2, pierced), STTProvider.POCKETSPHINX):
        turn += 4 * STRIDE + 1
    assert turn > FEWEST
