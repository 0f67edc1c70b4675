"""Cancelled at any await, once or twice, a service leaves no session that has not STOPPED and nothing of its own.

`tests/voice/cutting.py` says what a turn is.
"""

import gc
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSessionState
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.time import monotonic_ms
from tests.voice.cutting import LOOPS, PATIENCE, Cut

FRAMES = bytes(640 * 3)
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
        was_cut = LOOPS[loop](partial(host, settings, acknowledged, engine), cut)
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
            gc.collect()  # coroutines that never ran, which Python complains of here
        assert open_files() - self.files == set(), cut
        assert children() - self.children == set(), cut  # one that an earlier test left may end meanwhile

    def _threads_left(self) -> set[threading.Thread]:
        left = set(threading.enumerate()) - self.threads
        return {
            thread for thread in left if not thread.name.startswith("Trio thread")
        }  # trio keeps idle ones for later

    def _all_have_stopped(self, settings: VoiceSettings, acknowledged: list[str], cut: Cut) -> None:
        with open_store(settings.database, busy_timeout_seconds=5) as store:
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("again", [0, 2])
@pytest.mark.parametrize(("loop", "pierced"), [("asyncio", False), ("asyncio", True), ("trio", False)])
def test_cancelled_while_worker_processes_run(
    loop: str, again: int, pierced: bool, tmp_path: Path, make_settings: MakeSettings
) -> None:
    checks = Checks(tmp_path, make_settings)
    turn = 20
    while checks.run(loop, Cut(turn, again, pierced), STTProvider.POCKETSPHINX):
        turn += 4 * STRIDE + 1
    assert turn > FEWEST
