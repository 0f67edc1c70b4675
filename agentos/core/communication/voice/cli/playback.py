"""Playing a sound file as a call: in real time or as fast as possible; the session is stopped in any case."""

import importlib.util
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskStatus

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.audio.files import AudioFileError, SoundFile
from agentos.core.communication.voice.cli.exits import Interrupted
from agentos.core.communication.voice.errors import (
    EvidenceNotDurable,
    InvalidState,
    Overloaded,
    ServiceClosed,
    SessionNotFound,
    StoreError,
)
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.time import monotonic_ms
from machines.audio import FRAME_MS, FRAMES_PER_SECOND, AudioFormat
from machines.events import VoiceEvent, VoiceEventType
from machines.session import VoiceProvider, VoiceSession

FRAMES_AT_ONCE: Final = (
    10  # with `fast`: large enough to be quick, small enough for other tasks of the loop to run in between
)
RECORDING_SECONDS: Final = 60.0  # to wait for the file: enough for a recording of ten hours


class View(Protocol):
    """Shows the call while it runs."""

    def event(self, event: VoiceEvent) -> None:
        """Show an event of the session."""

    def progress(self, seconds: float) -> None:
        """Show that so many seconds of the file were played."""


class NoView:
    """A view that shows nothing."""

    def event(self, event: VoiceEvent) -> None:
        """Do nothing."""

    def progress(self, seconds: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class PlaybackPlan:
    """The file to play, and the session to request. With `fast`, the file is played as fast as the session takes it."""

    sound: SoundFile
    audio_format: AudioFormat
    project_id: str
    stt_provider: str
    stt_options: Mapping[str, Any]
    metadata: Mapping[str, Any]
    admin_token: str | None = field(repr=False)
    fast: bool
    silence_timeout_seconds: float | None = None


@dataclass(slots=True)
class Played:
    """The result of a played call.

    `session` is STOPPED. `signum` is the signal that ended the call early, `problem` an error that did not keep it from
    stopping. `fallback` says why another engine ran than the requested one; `took_seconds` is the time from creation to end.
    """

    session: VoiceSession
    signum: int | None = None
    problem: Exception | None = None
    fallback: str = ""
    took_seconds: float = 0.0


def loop_options(backend: str, settings: VoiceSettings) -> dict[str, Any]:
    """The options of `anyio.run` for a loop: uvloop, if it is installed and the settings allow it."""
    if backend != "asyncio":
        return {}
    installed = importlib.util.find_spec("uvloop") is not None
    return {"use_uvloop": settings.uvloop == "on" or (settings.uvloop == "auto" and installed)}


async def play(plan: PlaybackPlan, settings: VoiceSettings, view: View) -> Played:
    """Run one call in a service of its own, and close the service.

    SIGINT and SIGTERM stop the call in order; further signals change nothing, since the stop has its deadlines. Raises the
    errors of `create_session`, `StoreError`, and `Interrupted` if a signal came before there was a session.
    """
    return await _Playback(plan, settings, view).run()


class _Playback:
    """One call; see `play`."""

    def __init__(self, plan: PlaybackPlan, settings: VoiceSettings, view: View) -> None:
        self._plan = plan
        self._settings = settings
        self._view = view
        self._signum: int | None = None
        self._interruptible = anyio.CancelScope()
        self._fallback = ""

    async def run(self) -> Played:
        async with anyio.create_task_group() as group:
            await group.start(self._watch_signals)
            async with AsyncVoiceService(self._settings) as service:
                played = await self._converse(service)
            group.cancel_scope.cancel()
        return played

    async def _watch_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for signum in signals:
                if self._signum is None:
                    self._signum = int(signum)
                    self._interruptible.cancel()

    async def _converse(self, service: AsyncVoiceService) -> Played:
        plan = self._plan
        session: VoiceSession | None = None
        problem: Exception | None = None
        begun_ms, took_ms = monotonic_ms(), 0
        async with anyio.create_task_group() as listeners:
            with self._interruptible:
                session = await service.create_session(
                    plan.project_id,
                    VoiceProvider.LOCAL,
                    plan.stt_provider,
                    plan.metadata,
                    audio_format=plan.audio_format,
                    admin_token=plan.admin_token,
                    silence_timeout_seconds=plan.silence_timeout_seconds,
                    stt_options=plan.stt_options,
                )
                listeners.start_soon(self._listen, service, session.session_id)
                problem = await self._play(service, session.session_id)
            if session is not None:
                problem = await _stop(service, session.session_id) or problem
                took_ms = monotonic_ms() - begun_ms
                if problem is None:
                    await _recorded(service, session.session_id)
                session = await service.get_session(session.session_id) or session
            listeners.cancel_scope.cancel()
        if session is None:
            raise Interrupted(self._signum or signal.SIGINT)
        return Played(session, self._signum, problem, self._fallback, took_ms / 1000)

    async def _listen(self, service: AsyncVoiceService, session_id: str) -> None:
        async for event in service.events(session_id):
            if event.event_type is VoiceEventType.STT_FALLBACK:
                self._fallback = str(event.payload["reason"])
            self._view.event(event)

    async def _play(self, service: AsyncVoiceService, session_id: str) -> Exception | None:
        """Play the file to its end, or until the session takes no more; return the file's error, if there was one."""
        frame_bytes = self._plan.audio_format.frame_bytes
        step = frame_bytes * (FRAMES_AT_ONCE if self._plan.fast else 1)
        start_ms, frames = monotonic_ms(), 0
        try:
            async for second in self._seconds():
                for at in range(0, len(second), step):
                    chunk = second[at : at + step]
                    if self._plan.fast:
                        await anyio.lowlevel.checkpoint()
                    else:
                        await _until(start_ms + frames * FRAME_MS)
                    await _dispatch(service, session_id, chunk)
                    frames += -(-len(chunk) // frame_bytes)
                    self._view.progress(frames * FRAME_MS / 1000)
            if not self._plan.fast:
                await _until(start_ms + frames * FRAME_MS)
        except AudioFileError as error:
            return error
        except (InvalidState, SessionNotFound):
            pass  # the session ended by itself; its result says why
        return None

    async def _seconds(self) -> AsyncIterator[bytes]:
        """The file, decoded a second at a time in a thread."""
        blocks = self._plan.sound.blocks(FRAMES_PER_SECOND)
        while block := await anyio.to_thread.run_sync(next, blocks, b""):
            yield block


async def _stop(service: AsyncVoiceService, session_id: str) -> Exception | None:
    try:
        await service.stop_session(session_id)
    except EvidenceNotDurable as error:
        return error
    return None


async def _recorded(service: AsyncVoiceService, session_id: str) -> None:
    """Wait for the file of the recording. If it is not ready in time, the next service finishes it."""
    with anyio.move_on_after(RECORDING_SECONDS), suppress(InvalidState, ServiceClosed, StoreError):
        await service.recording(session_id)


async def _until(due_ms: int) -> None:
    await anyio.sleep(max(0, due_ms - monotonic_ms()) / 1000)


async def _dispatch(service: AsyncVoiceService, session_id: str, chunk: bytes) -> None:
    # This loop ends: a session that takes nothing for its idle time, or lasts too long, stops itself and refuses the chunk.
    while True:
        try:
            await service.dispatch_audio_chunk(session_id, chunk)
        except Overloaded as error:
            await anyio.sleep(error.retry_after_seconds)
        else:
            return
