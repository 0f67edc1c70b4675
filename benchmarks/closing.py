"""What does the end of long calls cost? Ten recorded calls of an hour, in one service that gets SIGTERM.

A process runs the service and speaks into all calls through `dispatch_audio_chunk`, as fast as they take it, then waits until
the media port has sealed what is full, as it would have while the calls ran in real time. From SIGTERM to its exit the kernel
counts its CPU. A second process starts a service on the same home, and waits for the recordings: each must have the samples
that were said. `--quick` takes calls of two minutes.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import numpy as np
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.signals import drain_on_signals
from machines.recording import RecordingState
from machines.session import STTProvider, VoiceProvider

CALLS: Final = 10
SECONDS, QUICK_SECONDS = 3_600, 120
NO_ENGINE: Final = STTProvider.GOOGLE  # an engine that is not installed: the session only records
CHUNK_BYTES: Final = 32_000  # a second
GOAL_SECONDS: Final = 5.0


def speech(call: int, seconds: int) -> Iterator[bytes]:
    """What is said in a call, a second at a time: the sample that comes along, again and again, each time with other noise."""
    sound, _ = soundfile.read(SAMPLE, dtype="int16")
    sound = np.resize(sound, (len(sound) // 16_000 + 1) * 16_000).reshape(-1, 16_000)
    noise = np.random.default_rng(call)
    for second in range(seconds):
        yield (sound[second % len(sound)] + noise.integers(-40, 40, 16_000)).astype("<i2").tobytes()


async def calls(home: str, seconds: int) -> None:
    """Have the calls, say so with the CPU time until then, and end with SIGTERM."""
    settings = load_settings(home=Path(home), on_stt_unavailable="record_only", drain_timeout_seconds=0)
    async with AsyncVoiceService(settings) as service, anyio.create_task_group() as group:
        await group.start(drain_on_signals, service)
        said: dict[str, str] = {}

        async def speak(call: int) -> None:
            session = await service.create_session("bench", VoiceProvider.LOCAL, NO_ENGINE, {"recording_enabled": True})
            digest = hashlib.sha256()
            for chunk in speech(call, seconds):
                await service.dispatch_audio_chunk(session.session_id, chunk)
                await anyio.lowlevel.checkpoint()
                digest.update(chunk)
            said[session.session_id] = digest.hexdigest()

        async with anyio.create_task_group() as speaking:
            for call in range(CALLS):
                speaking.start_soon(speak, call)
        segment = settings.recording_segment_seconds
        while len(list(settings.recordings.glob("*/*.flac"))) < CALLS * (seconds // segment) or any(
            (folder / file.with_suffix(".wav").name).exists()
            for folder in settings.recordings.iterdir()
            for file in folder.glob("*.flac")
        ):
            await anyio.sleep(0.1)
        used = os.times()
        print(json.dumps({"said": said, "cpu": used.user + used.system}), flush=True)


async def after(home: str, said: dict[str, str]) -> None:
    """Say how many of the recordings are there, with all that was said, and the CPU time that it took."""
    whole = 0
    async with AsyncVoiceService(load_settings(home=Path(home), on_stt_unavailable="record_only")) as service:
        for session_id, digest in said.items():
            found = await service.recording(session_id)
            if found is not None and found.state is RecordingState.READY:
                heard = hashlib.sha256()
                for block in soundfile.blocks(found.path, 1 << 16, dtype="int16"):
                    heard.update(block.astype("<i2").tobytes())
                whole += digest == heard.hexdigest() == found.digest
        used = os.times()
    print(json.dumps({"whole": whole, "cpu": used.user + used.system}), flush=True)


def lines(*, quick: bool) -> Iterator[str]:
    """The figures, one row for the end and one for what the next process finds."""
    seconds = QUICK_SECONDS if quick else SECONDS
    with tempfile.TemporaryDirectory() as home:
        process = _started("calls", home, seconds)
        assert process.stdout is not None
        before = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, status, used = os.wait4(process.pid, 0)
        took = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            raise RuntimeError(f"the service ended with {process.returncode}")
        cpu = used.ru_utime + used.ru_stime - before["cpu"]
        name = f"{CALLS} recorded calls of {seconds // 60} min"
        yield f"{name}, SIGTERM: {cpu:.2f} s of CPU until exit (goal {GOAL_SECONDS:g} s), {took:.1f} s in all"
        begun = time.monotonic()
        with _started("after", home, json.dumps(before["said"])) as process:
            found = json.loads(process.communicate()[0])
        took = time.monotonic() - begun
        yield f"{name}, after a restart: {found['whole']} of {CALLS} recordings, {found['cpu']:.1f} s of CPU, {took:.1f} s"


def _started(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.closing", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    if sys.argv[1] == "calls":
        anyio.run(calls, sys.argv[2], int(sys.argv[3]))
    else:
        anyio.run(after, sys.argv[2], json.loads(sys.argv[3]))
