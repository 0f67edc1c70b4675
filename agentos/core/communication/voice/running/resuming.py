"""Going on with a session of a process that died."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock

import anyio
import anyio.to_thread
from msgspec.structs import replace

from actors.runtime.system import AskTimeout
from actors.voice.messages import Facts, Opened, ResumeSession
from agentos.core.communication.voice.errors import EvidenceUnavailable, InvalidRequest, SessionNotFound, StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.recovery.resumption import Restored
from agentos.core.communication.voice.running.resources import ServiceResources
from agentos.core.communication.voice.running.runtime import ServiceRuntime
from agentos.core.communication.voice.sessions.door import Door
from agentos.core.communication.voice.settings import VoiceSettings
from machines.audio import FRAMES_PER_SECOND
from machines.session import VoiceSession

log = logger(__name__)

NOT_RESUMED = "the session was not resumed, and still waits to be"
UNDECIDED = "the session goes on as soon as its record is durable, or waits to be resumed"


@dataclass(frozen=True, slots=True)
class ResumedSession:
    """A session that goes on: as it is now, and the first frame (20 ms) that is expected of its caller.

    Every frame below `next_frame` is in the session's account, kept or declared as lost, and is not to be sent again.
    """

    session: VoiceSession
    next_frame: int


def check_first_frame(first_frame: object, settings: VoiceSettings) -> int:
    """The number of a frame that a session can have. Raises `InvalidRequest`."""
    longest = int(settings.max_session_seconds * FRAMES_PER_SECOND)
    if not isinstance(first_frame, int) or isinstance(first_frame, bool) or not 0 <= first_frame <= longest:
        problem = f"first_frame must be the number of a frame from 0 to {longest:,}, got {first_frame!r}"
        raise InvalidRequest(problem, field="first_frame")
    return first_frame


class Resuming:
    """One attempt to go on with a session. Whatever interrupts it, the session goes on or waits again."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        resources: ServiceResources,
        settings: VoiceSettings,
        door: Callable[[Facts, int], Door],
        *,
        can_be_slowed: bool,
    ) -> None:
        self._runtime = runtime
        self._resources = resources
        self._settings = settings
        self._door = door
        self._can_be_slowed = can_be_slowed
        self._lock = Lock()
        self._given_up = self._claimed = False

    async def resumed(self, session_id: str, first_frame: int) -> ResumedSession:
        """The session, as it goes on here.

        Raises as `Recovery.restored` does, `EvidenceUnavailable` when its record can't be made durable, `Draining`,
        `ServiceClosed`.
        """
        with anyio.CancelScope(shield=True):
            session = await self._go_on(restored := await self._restored(session_id, first_frame))
        return ResumedSession(session, restored.resumption.account.upto)

    async def _restored(self, session_id: str, first_frame: int) -> Restored:
        try:
            restored = await anyio.to_thread.run_sync(self._restore, session_id, first_frame)
            self._runtime.resources_for_a_call()  # closed meanwhile: nobody would answer
        except BaseException:
            with self._lock:  # or cancelled past every shield: the thread goes on, or has just ended
                self._given_up = True
                if self._claimed:
                    self._resources.recovery.orphans.give_back(session_id)
            raise
        return restored

    def _restore(self, session_id: str, first_frame: int) -> Restored:
        recovery = self._resources.recovery
        found = recovery.restored(session_id, first_frame, self._settings.recording_segment_seconds)
        with self._lock:
            self._claimed = True
            if self._given_up:
                recovery.orphans.give_back(session_id)
        return found

    async def _go_on(self, restored: Restored) -> VoiceSession:
        facts, resumption = replace(restored.facts, can_be_slowed=self._can_be_slowed), restored.resumption
        resources, session_id, settings = self._resources, restored.facts.session_id, self._settings
        try:
            door = self._door(facts, resumption.account.upto)
        except BaseException:  # a part that a host brings, which does not say whether the call has it
            resources.recovery.orphans.give_back(session_id)
            raise
        resources.media.carry_on(session_id, restored.carried)
        resources.store_port.keep_events(restored.untold)
        resources.directory.expect_again(
            facts, door, resumption.state, restored.next_event, partial(self._settle, session_id)
        )
        try:
            answer = await self._runtime.ask(
                self._runtime.supervisor,
                lambda token: ResumeSession(token, facts, restored.verdict, resumption),
                max(settings.create_timeout_seconds, 2 * settings.evidence_timeout_seconds),
            )
        except AskTimeout:
            self._runtime.no_longer_awaited(session_id)
            raise EvidenceUnavailable("it did not answer in time", UNDECIDED) from None
        except BaseException:
            self._runtime.no_longer_awaited(session_id)
            raise
        if not isinstance(answer, Opened):
            resources.directory.forget(session_id)
            raise EvidenceUnavailable(answer.error, NOT_RESUMED)
        session = resources.directory.session(session_id) or await resources.past.session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        return session

    def _settle(self, session_id: str, goes_on: bool) -> None:  # noqa: FBT001 - the directory's word
        """Whoever asked may be gone: the actors say what becomes of the session."""
        orphans = self._resources.recovery.orphans
        if not goes_on:
            self._resources.media.let_go(session_id)
            orphans.give_back(session_id)
            return
        try:
            orphans.done(session_id)
        except StoreError as error:
            log.warning("the lock file of a dead process is left", session_id=session_id, problem=str(error))
