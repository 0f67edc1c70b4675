"""What do others take for the same? pykka for a tell and an ask, livekit-agents for a frame, each in turns with ours.

On asyncio, by the CPU time of the process, since a peer may work in threads of its own; medians. A peer that is not
installed is left out:

    pip install pykka livekit-agents
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio

from actors.runtime.system import ActorSystem
from agentos.core.communication.voice.async_service import AsyncVoiceService
from benchmarks.frames import FRAME, NO_ENGINE, settings
from benchmarks.mailbox import Ask, Ping, Sink
from machines.session import VoiceProvider

MESSAGES, ASKS, FRAMES = 20_000, 5_000, 5_000


def lines(*, quick: bool) -> Iterator[str]:
    """A row for each peer that is there."""
    runs = 3 if quick else 5
    for package, question in (("pykka", _pykka), ("livekit.agents", _livekit)):
        if find_spec(package.partition(".")[0]) is None:
            yield f"{package}: not installed"
        else:
            yield from asyncio.run(question(import_module(package), runs))


async def _pykka(pykka: Any, runs: int) -> list[str]:
    class Counter(pykka.ThreadingActor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_receive(self, message: Any) -> int | None:
            self.count += 1
            return self.count if message is ASK else None

    counter = Counter.start()
    async with anyio.create_task_group() as group:
        system = ActorSystem()
        await group.start(system.run)
        sink, ping = system.spawn(Sink(), "sink"), Ping(0)

        async def tell(rounds: int) -> None:
            for _ in range(rounds):
                system.tell(sink, ping)

        async def ask(rounds: int) -> None:
            for _ in range(rounds):
                await system.ask(sink, Ask, 1.0)

        async def tell_theirs(rounds: int) -> None:
            for _ in range(rounds):
                counter.tell(PING)
            counter.ask(ASK)  # it has done all before

        async def ask_theirs(rounds: int) -> None:
            for _ in range(rounds):
                counter.ask(ASK)

        found = [
            await _in_turns("a tell, pykka", tell, tell_theirs, MESSAGES, runs),
            await _in_turns("an ask, pykka", ask, ask_theirs, ASKS, runs),
        ]
        group.cancel_scope.cancel()
    counter.stop()
    return found


PING, ASK = object(), object()


async def _livekit(agents: Any, runs: int) -> list[str]:
    """From an audio input to the voice detector, which counts; the input yields after each frame, and so does ours."""
    rtc, io = import_module("livekit.rtc"), import_module("livekit.agents.voice.io")
    frame = rtc.AudioFrame(FRAME, 16_000, 1, len(FRAME) // 2)
    taken, all_taken = asyncio.Semaphore(0), asyncio.Event()
    left = 0

    def detected(some: Any) -> None:
        nonlocal left
        left -= isinstance(some, rtc.AudioFrame)
        if not left:
            all_taken.set()

    class Source(io.AudioInput):  # type: ignore[misc]
        async def __anext__(self) -> Any:
            await taken.acquire()
            await asyncio.sleep(0)
            return frame

    theirs = agents.AgentSession(vad=_detector(agents, detected))
    theirs.input.audio = Source(label="frames")
    await theirs.start(agents.Agent(instructions=""))

    async def frames_theirs(rounds: int) -> None:
        nonlocal left
        left = rounds
        all_taken.clear()
        for _ in range(rounds):
            taken.release()
        await all_taken.wait()

    with tempfile.TemporaryDirectory() as home:
        async with AsyncVoiceService(settings(home)) as service:
            session = await service.create_session("bench", VoiceProvider.LOCAL, NO_ENGINE)
            door = service.door(session.session_id)

            async def frames(rounds: int) -> None:
                for _ in range(rounds):
                    while door is not None and not door.offer(FRAME):
                        await asyncio.sleep(0.001)
                    await asyncio.sleep(0)

            found = await _in_turns("a frame, livekit-agents", frames, frames_theirs, FRAMES, runs)
    await theirs.aclose()
    return [found]


def _detector(agents: Any, detected: Callable[[Any], None]) -> Any:
    """A voice detector that only calls `detected` with what comes."""

    class Detection(agents.vad.VADStream):  # type: ignore[misc]
        async def _main_task(self) -> None:
            async for some in self._input_ch:
                detected(some)

    class Detector(agents.vad.VAD):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(capabilities=agents.vad.VADCapabilities(update_interval=0.02))

        def stream(self) -> Detection:
            return Detection(self)

    return Detector()


async def _in_turns(
    name: str,
    ours: Callable[[int], Awaitable[None]],
    theirs: Callable[[int], Awaitable[None]],
    rounds: int,
    runs: int,
) -> str:
    async def each(run: Callable[[int], Awaitable[None]]) -> float:
        began = time.process_time()
        await run(rounds)
        return (time.process_time() - began) / rounds * 1e6

    pairs = [(await each(ours), await each(theirs)) for _ in range(runs + 1)][1:]
    mine, other = (statistics.median(values) for values in zip(*pairs, strict=True))
    times = statistics.median(theirs / ours for ours, theirs in pairs)
    return f"{name:<32} {other:>8.2f} us, ours {mine:>8.2f} us: {times:>6.1f} times ours"
