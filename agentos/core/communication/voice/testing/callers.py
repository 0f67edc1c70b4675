"""Callers for tests: they open a session and speak into it, in real time or as fast as the service takes it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.testing.sounds import Sound
from machines.audio import FRAMES_PER_SECOND, AudioFormat
from machines.session import STTProvider, VoiceProvider

REAL_TIME: Final = 1.0
FRAMES_AT_ONCE: Final = 10  # of a caller that does not wait between them


class Caller(ABC):
    """Who speaks into the session `session_id`, whose audio is in `audio_format`. `frames` counts the frames of 20 ms that were
    spoken so far, so that the next one has that number."""

    def __init__(self, session_id: str, audio_format: AudioFormat) -> None:
        self.session_id = session_id
        self.audio_format = audio_format
        self.frames = 0

    async def say(self, sound: Sound, *, pace: float | None = None) -> range:
        """Speak; the numbers of the frames that the sound has in the session.

        A `pace` of 1 is real time, by the clock of the event loop, 2 is twice as fast; None is as fast as the session takes
        it. Raises `ValueError` for a sound in another format, and what refuses the audio.
        """
        if sound.format != self.audio_format:
            raise ValueError(f"the session has audio in {self.audio_format}, and the sound is in {sound.format}")
        if pace is not None and pace <= 0:
            raise ValueError(f"pace must be above 0, got {pace!r}")
        first, began = self.frames, anyio.current_time()
        together = FRAMES_AT_ONCE if pace is None else 1
        for at in range(0, sound.frames, together):
            if pace is not None:
                await anyio.sleep_until(began + at / FRAMES_PER_SECOND / pace)
            piece = sound.data[at * sound.format.frame_bytes : (at + together) * sound.format.frame_bytes]
            await self._send(piece)
            self.frames += len(piece) // sound.format.frame_bytes
            await anyio.lowlevel.checkpoint()
        return range(first, self.frames)

    @abstractmethod
    async def hang_up(self) -> str:
        """End the call, when all that was said has been taken: why the session ended. It may have ended before."""

    @abstractmethod
    async def _send(self, data: bytes) -> None:
        """Hand some whole frames to the session."""


class LocalCaller(Caller):
    """A caller in the process of the service."""

    def __init__(self, service: AsyncVoiceService, session_id: str, audio_format: AudioFormat) -> None:
        super().__init__(session_id, audio_format)
        self._service = service

    async def hang_up(self) -> str:
        """End the session: why it ended."""
        await self._service.stop_session(self.session_id)
        session = await self._service.get_session(self.session_id)
        if session is None or session.result is None:
            raise SessionNotFound(self.session_id)
        return session.result.reason.value

    async def _send(self, data: bytes) -> None:
        await self._service.dispatch_audio_chunk(self.session_id, data)


@asynccontextmanager
async def calling(
    service: AsyncVoiceService,
    project_id: str = "test",
    *,
    stt_provider: STTProvider | str = STTProvider.POCKETSPHINX,
    metadata: Mapping[str, Any] | None = None,
    audio_format: AudioFormat | None = None,
) -> AsyncGenerator[LocalCaller]:
    """A call to a service in this process, by the local provider. It is hung up when the block ends. If that
    fails, the service ends it when it closes. Raises as `create_session` does."""
    session = await service.create_session(
        project_id, VoiceProvider.LOCAL, stt_provider, metadata, audio_format=audio_format
    )
    caller = LocalCaller(service, session.session_id, session.audio_format)
    yield caller
    await caller.hang_up()
