"""What does a 20 ms frame cost in the loop's thread, from the door through session, recorder and quality to the ports?

Transcription is off, as in the goal; the media port's own thread takes the frames, and its CPU is not counted here.
"""

import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.service import VoiceService
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from benchmarks.lifecycle import VERDICT, facts
from benchmarks.reference import PlainService
from benchmarks.yard import Figure, SideBySide, measure, measure_beside
from machines.session import STTProvider, VoiceProvider

NO_ENGINE = STTProvider.GOOGLE  # an engine that is not installed: the session only records

FRAME = bytes(640)
SESSIONS = 50
FRAME_GOAL = 2.4  # times by hand
BATCH = 64  # frames between two turns of the loop, as from a socket that has many


def settings(home: str, **more: object) -> VoiceSettings:
    """Settings that only record nothing: frames are digested and measured."""
    return load_settings(home=Path(home), on_stt_unavailable="record_only", backlog_seconds=600, **more)


async def figures(loop: str, runs: int) -> list[SideBySide]:
    """The cost of a frame, on the loop that is running."""
    with tempfile.TemporaryDirectory() as home:
        plain = PlainService(Path(home) / "by-hand", VERDICT)
        plain_doors = [plain.open(replace(facts(number), stt_engine=None)) for number in range(SESSIONS)]
        async with AsyncVoiceService(settings(home)) as service:
            sessions = [
                (await service.create_session("bench", VoiceProvider.LOCAL, NO_ENGINE)).session_id
                for _ in range(SESSIONS)
            ]
            doors = [service.door(session_id) for session_id in sessions]

            async def frames(rounds: int) -> None:
                for at in range(rounds):
                    door = doors[at % SESSIONS]
                    while door is not None and not door.offer(FRAME):
                        await anyio.sleep(0.001)
                    if at % BATCH == 0:
                        await anyio.lowlevel.checkpoint()

            async def by_hand(rounds: int) -> None:
                for at in range(rounds):
                    while not plain_doors[at % SESSIONS].offer(FRAME):
                        await anyio.sleep(0.001)
                        plain.turn()
                    if at % BATCH == 0:
                        plain.turn()
                        await anyio.lowlevel.checkpoint()

            name = "a frame: door, session, recorder, quality"
            found = await measure_beside(name, loop, frames, by_hand, 20_000, goal=FRAME_GOAL, runs=runs)
        plain.close()
        return [found]


def blocking_figures(runs: int) -> list[Figure]:
    """The cost of a frame in the thread that calls the blocking service."""
    with tempfile.TemporaryDirectory() as home, VoiceService(settings(home)) as service:
        session = service.create_session("bench", VoiceProvider.LOCAL, NO_ENGINE)

        def frames(rounds: int) -> None:
            put = service.dispatch_audio_chunk
            session_id = session.session_id
            for _ in range(rounds):
                put(session_id, FRAME)

        return [measure("blocking: a frame in the calling thread (6 us)", "-", frames, 5_000, goal=None, runs=runs)]
