"""Is a service that has run many thousand sessions as it was at the start? `python -m benchmarks soak`.

Sessions one after another, each with a little audio and every tenth recorded; then many at once, all recorded. Memory is
sampled on the way: the resident set, and the blocks that Python has allocated, which is exact where the resident set is not.
The slope is that of a straight line through the samples of the second half, per session, with its standard error. Tasks, open
files, threads and processes are counted before and after. The database is in a file system in memory, if there is one.
"""

import gc
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.lowlevel

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.open_files import allow_open_files
from agentos.core.communication.voice.running.admission import memory_bytes
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from machines.session import STTProvider, VoiceProvider

SESSIONS, AT_ONCE = 20_000, 300
NO_ENGINE = STTProvider.GOOGLE  # an engine that is not installed: the session only records
WARM_UP = 100  # sessions: imports, pools and caches fill
SAMPLES = 200
DEADLINES = 2_000
MEMORY_FILES = "/dev/shm" if Path("/dev/shm").is_dir() else None
FRAMES = bytes(640 * 3)
SECOND = bytes(32_000)
BLOCKS, BYTES = 0.1, 256.0  # what a session may leave and still count as nothing: one thing in ten sessions
TAKEN_AT_ONCE = (
    2 * 2**20
)  # bytes that the allocator takes from the system in steps: in a short run one step is no slope


class InUse(NamedTuple):
    """What is open and alive in this process."""

    tasks: int
    files: int
    threads: int
    processes: int


@dataclass(frozen=True, slots=True)
class Slope:
    """How much one more session takes, and how sure that is."""

    each: float
    error: float

    def is_nothing(self, tolerance: float) -> bool:
        """Whether it is 0 within its noise, or small enough to be called so; what falls was given back."""
        return self.each <= max(3 * self.error, tolerance)


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak found: the memory that a session takes for good, and what is in use before and after."""

    sessions: int
    seconds: float
    resident: Slope
    blocks: Slope
    resident_bytes: tuple[int, int]
    before: InUse
    after: InUse

    @property
    def ok(self) -> bool:
        """Whether nothing grew."""
        in_steps = max(BYTES, TAKEN_AT_ONCE / self.sessions)
        return self.resident.is_nothing(in_steps) and self.blocks.is_nothing(BLOCKS) and self.before == self.after


def in_use() -> InUse:
    """The counts at this moment; the helper threads of the loop's pool come and go, and are not counted."""
    gc.collect()
    threads = [thread for thread in threading.enumerate() if "voice" in thread.name]
    children = [pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    return InUse(
        len(anyio.get_running_tasks()), len(list(Path("/proc/self/fd").iterdir())), len(threads), len(children)
    )


def slope(counts: Sequence[int], values: Sequence[int]) -> Slope:
    """The slope of a straight line through the second half of the points, by least squares, and its standard error."""
    half = len(counts) // 2
    x, y = counts[half:], values[half:]
    each, begin = statistics.linear_regression(x, y)
    mean = statistics.fmean(x)
    residual = sum((b - begin - each * a) ** 2 for a, b in zip(x, y, strict=True)) / max(1, len(x) - 2)
    return Slope(each, (residual / sum((a - mean) ** 2 for a in x)) ** 0.5)


async def soak(settings: VoiceSettings, sessions: int = SESSIONS, at_once: int = AT_ONCE) -> Soaked:
    """Run so many sessions one after another, and so many at once."""
    allow_open_files(at_once)
    counts, resident, blocks = array("q"), array("q"), array("q")  # an int would be a block of its own
    async with AsyncVoiceService(settings) as service:
        for number in range(WARM_UP):
            await _call(service, recorded=number % 10 == 0, audio=FRAMES)
        await _at_once(service, at_once)
        before, began = in_use(), time.monotonic()
        step = max(1, sessions // SAMPLES)
        for number in range(sessions):
            if number % step == 0:
                await _deadlines_forgotten()
                gc.collect()
                counts.append(number)
                resident.append(memory_bytes())
                blocks.append(sys.getallocatedblocks())
            await _call(service, recorded=number % 10 == 0, audio=FRAMES)
        seconds = time.monotonic() - began
        await _at_once(service, at_once)
        after = in_use()
    return Soaked(
        sessions, seconds, slope(counts, resident), slope(counts, blocks), (resident[0], memory_bytes()), before, after
    )


async def _deadlines_forgotten() -> None:
    """Has the loop let go of deadlines that are over. trio keeps up to a thousand of them, and twice those that are not, before
    it looks: in a short run they would be a slope."""
    for _ in range(DEADLINES):
        with anyio.move_on_after(3600):  # noqa: ASYNC100 - what is left of it is the point
            pass
    await anyio.lowlevel.checkpoint()


async def _at_once(service: AsyncVoiceService, sessions: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(sessions):
            group.start_soon(_recorded_call, service)


async def _recorded_call(service: AsyncVoiceService) -> None:
    await _call(service, recorded=True, audio=SECOND)


async def _call(service: AsyncVoiceService, *, recorded: bool, audio: bytes) -> None:
    session = await service.create_session("soak", VoiceProvider.LOCAL, NO_ENGINE, {"recording_enabled": recorded})
    await service.dispatch_audio_chunk(session.session_id, audio)
    await service.stop_session(session.session_id)
    await service.recording(session.session_id)


async def line(loop: str, *, quick: bool) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FILES) as home:
        settings = load_settings(home=Path(home), on_stt_unavailable="record_only", stop_timeout_seconds=60)
        found = await soak(settings, SESSIONS // 20 if quick else SESSIONS)
    first, last = (each / 2**20 for each in found.resident_bytes)
    return (
        f"{found.sessions:,} sessions and {AT_ONCE} at once  {loop:<8} {found.seconds:,.0f} s  "
        f"memory {found.resident.each:+.0f} ± {found.resident.error:.0f} bytes a session ({first:.0f} to {last:.0f} MiB), "
        f"blocks {found.blocks.each:+.4f} ± {found.blocks.error:.4f} a session  "
        f"{tuple(found.before)} to {tuple(found.after)} tasks, files, threads, processes  {'ok' if found.ok else 'GROWS'}"
    )
