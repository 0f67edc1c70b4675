"""How many sessions, fifty frames a second each, hold in one process with the 99th percentile of lateness under 20 ms?

One pacer feeds a twentieth of the sessions each millisecond, as a server does that reads many sockets in one wake-up.
Lateness is the time from when a frame was due until it has passed the actors and is in the hands of the media port.
"""

import tempfile
import time
from pathlib import Path

import anyio
import numpy as np

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.open_files import allow_open_files
from agentos.core.communication.voice.settings import load_settings
from machines.session import STTProvider, VoiceProvider

NO_ENGINE = STTProvider.GOOGLE  # an engine that is not installed: the session only records

FRAME_SECONDS = 0.02
SLOTS = 20  # of a millisecond each
WARM_UP_SECONDS = 1.0


async def line(loop: str, sessions: int, *, recording: bool, seconds: float) -> str:
    """One row: the percentiles of lateness, and the CPU that the process took."""
    allow_open_files(sessions)
    samples = (np.sin(np.arange(320) / 320 * 2 * np.pi * 9) * 8000).astype("<i2").tobytes()
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(home=Path(home), on_stt_unavailable="record_only", stop_timeout_seconds=60)
        async with AsyncVoiceService(settings) as service:
            doors = []
            for _ in range(sessions):
                session = await service.create_session(
                    "bench", VoiceProvider.LOCAL, NO_ENGINE, {"recording_enabled": recording}
                )
                doors.append(service.door(session.session_id))
            late: list[float] = []
            refused = 0
            slots = [doors[at::SLOTS] for at in range(SLOTS)]
            began = time.perf_counter() + 0.1
            cpu = 0.0
            for tick in range(int((WARM_UP_SECONDS + seconds) / FRAME_SECONDS * SLOTS)):
                due = began + tick * FRAME_SECONDS / SLOTS
                wait = due - time.perf_counter()
                await anyio.sleep(max(0.0, wait))
                if tick == int(WARM_UP_SECONDS / FRAME_SECONDS * SLOTS):
                    late.clear()
                    cpu = time.process_time()
                for door in slots[tick % SLOTS]:
                    if door is None or not door.offer(samples):
                        refused += 1
                    late.append(time.perf_counter() - due)
            cpu = (time.process_time() - cpu) / seconds
    p50, p99 = np.percentile(np.array(late) * 1000, [50, 99])
    what = "FLAC and SHA-256" if recording else "SHA-256, no encoding"
    verdict = "ok" if p99 < FRAME_SECONDS * 1000 and not refused else "OVER"
    return (
        f"{sessions:,} sessions, {what:<24} {loop:<8} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  {cpu:5.2f} cores"
        f"  {refused} refused  {verdict}"
    )
