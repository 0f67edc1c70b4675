"""Waiting for the recording of a session that has stopped to become one file."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from actors.runtime.loop import thread_waker
from agentos.core.communication.voice.errors import InvalidState, RecordingFinishing, SessionNotFound
from agentos.core.communication.voice.recording.finishing import RecordingFinisher
from machines.recording import RecordingInfo, RecordingState
from machines.session import VoiceSession

RETRY_SECONDS: Final = 1.0  # a recording of an hour takes some seconds
LOOK_SECONDS: Final = 2.0  # between two looks at a recording that another process finishes


async def finished_recording(
    finisher: RecordingFinisher,
    get_session: Callable[[str], Awaitable[VoiceSession | None]],
    session_id: str,
    *,
    wait: bool,
) -> RecordingInfo | None:
    """The recording of a session, once it is one file or has failed to become one; see `AsyncVoiceService.recording`. What
    `get_session` raises goes on: `ServiceClosed`, once the service has ended."""
    changed = anyio.Event()
    wake = thread_waker(lambda: changed.set())  # noqa: PLW0108 - another event each time
    with finisher.told(session_id, wake):
        while True:
            expected = finisher.expects(session_id)
            session = await get_session(session_id)
            if session is None:
                raise SessionNotFound(session_id)
            if session.result is None:
                raise InvalidState(session_id, session.state, "its recording is there once it has stopped")
            found = session.result.recording
            if not expected if found is None else found.state is not RecordingState.FINISHING:
                return found
            if not wait:
                finisher.nudge()
                raise RecordingFinishing(session_id, retry_after_seconds=RETRY_SECONDS)
            with anyio.move_on_after(LOOK_SECONDS):
                await changed.wait()
            changed = anyio.Event()
