"""The voice service for programs that run an event loop: asyncio, uvloop or trio."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import anyio.to_thread
import trio
from anyio.abc import TaskStatus
from msgspec.structs import replace
from pydantic import SecretStr

from actors.runtime.loop import thread_waker
from actors.runtime.mailbox import Ref
from actors.runtime.system import AskTimeout, SystemStatistics
from actors.voice.call_part import CallPart
from actors.voice.messages import Denied, Facts, Frames, Mismatched, Opened, OpenSession
from agentos.core.communication.voice.errors import (
    EvidenceNotDurable,
    EvidenceUnavailable,
    InvalidRequest,
    InvalidState,
    NotResumable,
    PolicyDenied,
    ProviderNotConfigured,
    ServiceClosed,
    SessionNotFound,
    StopNotConfirmed,
    StoreError,
    Unrecordable,
    no_room,
)
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.providers.registry import Providers
from agentos.core.communication.voice.providers.transport import Transport
from agentos.core.communication.voice.recording.port import MediaStatistics
from agentos.core.communication.voice.running.admission import Admission, Load
from agentos.core.communication.voice.running.call_traces import CallTraces
from agentos.core.communication.voice.running.calls import CallHandler, Calls, Host
from agentos.core.communication.voice.running.cancellation import OwnTask, start
from agentos.core.communication.voice.running.fates import Fate, fates_of
from agentos.core.communication.voice.running.finished_recording import finished_recording
from agentos.core.communication.voice.running.inspection import ServicePicture
from agentos.core.communication.voice.running.legs import Legs, SessionSink
from agentos.core.communication.voice.running.part_ports import PartPorts
from agentos.core.communication.voice.running.request import make_facts, member, ports_of, read_request
from agentos.core.communication.voice.running.resources import Extensions, ServiceResources
from agentos.core.communication.voice.running.resuming import ResumedSession, Resuming, check_first_frame
from agentos.core.communication.voice.running.runtime import ServiceRuntime
from agentos.core.communication.voice.running.session_events import SessionEvents
from agentos.core.communication.voice.running.session_trace import SessionTrace
from agentos.core.communication.voice.running.transcripts import Transcript, transcript_of
from agentos.core.communication.voice.sessions.door import Door, DoorLock
from agentos.core.communication.voice.sessions.session_counts import SessionStatistics
from agentos.core.communication.voice.sessions.stream_tickets import NO_TOKEN, StreamTicket, StreamTickets
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.chain import StoredLink
from agentos.core.communication.voice.storage.head_notes import HeadStatistics
from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.storage.past_sessions import MOST_LINKS, SessionKey, SessionPage, reading
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.communication.voice.storage.writer import WriterStatistics
from agentos.core.communication.voice.stt.base import SpeechEngine
from agentos.core.communication.voice.stt.registry import Engines
from agentos.core.communication.voice.stt.statistics import SpeechStatistics
from machines.audio import FRAMES_PER_SECOND, AudioFormat
from machines.communication import PolicyVerdict
from machines.cross_checks import Disagreements
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.heads import Head
from machines.names import text_of
from machines.policy import VoicePolicy
from machines.problem import field_of
from machines.recording import RecordingInfo
from machines.session import EndReason, STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from machines.verification import Examination

READY_SECONDS: Final = 2.0  # for the store to show that it can be written: whoever asks often waits no longer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """How the service is: running sessions, what became of all of them, the load that decides about more, the actor system,
    each port, and the noting of heads, where it is on."""

    sessions: int
    calls: SessionStatistics
    load: Load
    actors: SystemStatistics
    media: MediaStatistics
    speech: SpeechStatistics
    store: WriterStatistics
    heads: HeadStatistics | None = None


class AsyncVoiceService:
    """Voice sessions for a program with an event loop.

    Either `async with AsyncVoiceService() as service:`, or, in a task group of the host's own,
    `await task_group.start(service.run)` and `await service.aclose()` at the end. `settings` default to the environment;
    `policy` to the rules of the specification; `store`, which opens a store of the host's own, to SQLite in the home. With
    an OpenTelemetry `tracer_provider` of the host's (extra `otel`) each call makes one trace when it ends. `providers` and
    `engines` can be asked for by their names, beside those of this package and of installed distributions; `UnusableExtension`
    is raised for one whose name is taken. A service runs once.

    `on_call`, a function or a coroutine function, is run with the `Call` for each call that begins, created or resumed, in a
    task of its own; a plain function must return at once. What it raises is logged, and disturbs neither the call nor the
    service. A drain waits for it as it does for calls. When the service closes, it has five seconds from the end of the last
    call, and is cancelled then.

    Each call has the further `parts`, beside its recorder, transcriber and quality part.

    Its methods are for the loop that it runs in. A cancelled call changes nothing that was not asked for: a session whose
    creation is cancelled is stopped again, a stop that is cancelled goes on.
    """

    def __init__(
        self,
        settings: VoiceSettings | None = None,
        *,
        policy: VoicePolicy | None = None,
        store: StoreFactory | None = None,
        tracer_provider: "TracerProvider | None" = None,
        providers: Iterable[IVoiceProvider] = (),
        engines: Iterable[SpeechEngine] = (),
        on_call: CallHandler | None = None,
        parts: Iterable[CallPart] = (),
    ) -> None:
        self.settings = settings if settings is not None else load_settings()
        self.policy = policy if policy is not None else VoicePolicy()
        self._traces = None if tracer_provider is None else CallTraces(tracer_provider)
        self._providers = Providers(self.settings, providers)
        self._engines = Engines(self.settings, engines)
        self.stream_tickets = StreamTickets()
        self._host = Host(self, on_call)
        self._parts = PartPorts(parts)
        self._legs = Legs(self._fail, self._note_late, self.settings.leg_timeout_seconds)
        self._runtime = ServiceRuntime(
            self.settings,
            self.policy,
            Extensions(self._engines, store if store is not None else StoreFactory(), self._parts),
            self._started,
            self._stopped,
            self._host,
            self._legs,
        )
        self._admission = Admission(self.settings)
        self._door_lock = DoorLock()
        self._stack = AsyncExitStack()

    # --- running ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if not trio.lowlevel.in_trio_run():
            await self._stack.enter_async_context(OwnTask(self.run, self._runtime.close))
            return self
        group = await self._stack.enter_async_context(anyio.create_task_group())
        try:
            await start(group, self.run)
        except BaseException:
            group.cancel_scope.cancel()
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        await self.aclose()
        if isinstance(error, Exception):
            # The host's own error goes on as it is; a task group that saw it would wrap it.
            return await self._stack.__aexit__(None, None, None)
        return await self._stack.__aexit__(kind, error, trace)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the service until it is closed or cancelled; started when sessions can be created.

        Cancellation stops every session within the drain deadline, makes the last records durable, and then goes on.
        Raises `StoreError` when the store can't be opened, `ServiceClosed` when the service has run before.
        """
        await self._runtime.run(task_status=task_status)

    async def aclose(self) -> None:
        """Ask `run` to stop every session, make everything durable, and end. Twice is once.

        Returns at once; the task that runs `run` ends when that is done.
        """
        self._runtime.close()

    async def drain(self) -> None:
        """Take no new calls, let those that run end by themselves for up to `drain_timeout_seconds`, stop what is left within
        its deadlines, make everything durable, and end.

        Returns when that is done; whoever asks for a new call meanwhile gets `Draining`. A second call does not wait for
        running calls any longer: they are stopped now. Cancelled, the drain goes on. A service that never ran is closed.
        """
        self._runtime.drain()
        await self._runtime.wait_closed()

    def begin_drain(self) -> None:
        """Begin to drain, and return at once; nothing when it drains already. Raises `ServiceClosed` when it does not run."""
        self._runtime.resources()
        if self.ready:
            self._runtime.drain()

    async def wait_closed(self) -> None:
        """Wait until the service has ended: closed, drained, cancelled or failed. Nothing of it is left then."""
        await self._runtime.wait_closed()

    @property
    def ready(self) -> bool:
        """Whether new calls are taken, as far as there is room for them: it runs, and is neither draining nor closed."""
        return self._runtime.ready

    def check_room(self) -> None:
        """Whether a new call, with speech to text, would be let in at this moment, as far as is known without asking the store.

        Raises what the call would get: `Overloaded`, `Draining`, `EvidenceUnavailable`, `ServiceClosed`.
        """
        resources = self._runtime.resources_for_a_call()
        transcribed = not self._does_without_transcript(resources)
        self._admission.check(len(resources.directory), resources.meter.load, ports_of(transcribed=transcribed))
        _check_home(resources)

    def _does_without_transcript(self, resources: ServiceResources) -> str:
        """Why a new call is only recorded: speech to text is too far behind, and the settings say so; "" when it is not."""
        record_only = self.settings.on_stt_unavailable == "record_only"
        return self._admission.speech_behind(resources.meter.load) if record_only else ""

    async def check_ready(self) -> None:
        """Whether a new call that the policy permits would be let in now: as `check_room`, and the store has shown within two
        seconds that it can be written, or shows it now. Raises as `check_room` does."""
        self.check_room()
        try:
            with anyio.fail_after(READY_SECONDS):
                await self._runtime.resources().store_port.check()
        except (StoreError, TimeoutError) as error:
            raise EvidenceUnavailable(str(error) or "it does not answer") from error

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(  # noqa: PLR0913 - what a session can be asked for with, all named
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
        *,
        audio_format: AudioFormat | None = None,
        admin_token: str | None = None,
        resumable: bool = False,
        silence_timeout_seconds: float | None = None,
        stt_options: Mapping[str, Any] | None = None,
    ) -> VoiceSession:
        """Open a session; it is there when its creation is durable in evidence.

        The provider and the engine are members of their enums, or their values, as in HTTP (`"local"`, `"whisper_local"`), or
        names that were handed over to the service or registered by an installed distribution. `stt_options` is what is asked of
        the engine, a JSON object; each engine says which options it takes.

        `metadata` is a JSON object; the keys `sensitive_data`, `international_call`, `recording_enabled`,
        `requires_data_access` (booleans), `from_number` and `admin_token` mean something to the policy. Recording is off
        unless `recording_enabled` asks for it. `admin_token`, here or in the metadata, is checked and never stored. A
        `resumable` session can be gone on with after its process died, with `resume`, for `resume_window_seconds`. A session
        in which nobody speaks for `silence_timeout_seconds` ends, with the reason `silence`; None means what the settings say.

        Raises `InvalidRequest` (a `ValueError`) naming the field, `ProviderNotConfigured` (a `ValueError`) naming the
        variable, `UnusableExtension` (a `ValueError`) naming the distribution, `STTUnavailable` (a `ValueError`),
        `PolicyDenied` (a `PermissionError`) with the verdict, `Overloaded` when there is no room, `Draining` when the service
        is about to end, `EvidenceUnavailable` (an `OSError`) when the record can't be made durable, `Unrecordable` (a
        `ValueError`) when something in it can't be recorded at all, `ServiceClosed`.
        """
        self._runtime.resources_for_a_call()
        settings = self.settings
        request = read_request(
            self.policy,
            settings,
            project_id=project_id,
            provider=self._providers.named(provider),
            stt_provider=self._engines.named(stt_provider),
            metadata=metadata,
            audio_format=audio_format,
            admin_token=admin_token,
            resumable=resumable,
            silence_timeout_seconds=silence_timeout_seconds,
            stt_options=stt_options,
        )
        self._check_provider(request.provider)
        token_valid = None if request.admin_token is None else await self._token_valid(request.admin_token)
        slow = self._providers.provider(request.provider).can_be_slowed
        facts = make_facts(request, settings, self._engines, admin_token_valid=token_valid, can_be_slowed=slow)
        resources = self._runtime.resources_for_a_call()
        if facts.stt_engine is not None and (behind := self._does_without_transcript(resources)):
            facts = replace(facts, stt_engine=None, fallback=behind)
        self._admission.check(
            len(resources.directory), resources.meter.load, ports_of(transcribed=facts.stt_engine is not None)
        )
        _check_home(resources)
        resources.directory.expect(facts, self._door(facts))
        try:
            answer = await self._runtime.ask(
                self._runtime.supervisor, lambda token: OpenSession(token, facts), settings.create_timeout_seconds
            )
        except AskTimeout:
            self._runtime.abandon(facts.session_id)
            raise EvidenceUnavailable("it did not answer in time") from None
        except BaseException:
            self._runtime.abandon(facts.session_id)
            raise
        if isinstance(answer, Opened):
            self._runtime.resources()  # closed meanwhile: the session is being stopped
            session = await self.get_session(facts.session_id)
            if session is None:
                raise SessionNotFound(facts.session_id)
            return session
        resources.directory.forget(facts.session_id)
        if isinstance(answer, Denied):
            raise PolicyDenied(answer.verdict, session_id=facts.session_id)
        problem = resources.store_port.unrecordable(facts.session_id)
        raise EvidenceUnavailable(answer.error) if problem is None else Unrecordable(problem)

    async def evaluate_request(
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
        *,
        admin_token: str | None = None,
    ) -> PolicyVerdict:
        """What the policy would say to `create_session` with these arguments. Nothing is made, and nothing goes into evidence.

        Raises `InvalidRequest` naming the field, `EvidenceUnavailable` when the token can't be checked, `ServiceClosed`.
        """
        self._runtime.resources()
        request = read_request(
            self.policy,
            self.settings,
            project_id=project_id,
            provider=self._providers.named(provider),
            stt_provider=self._engines.named(stt_provider),
            metadata=metadata,
            audio_format=None,
            admin_token=admin_token,
        )
        token_valid = None if request.admin_token is None else await self._token_valid(request.admin_token)
        return self.policy.evaluate_session_request(
            project_id, request.provider, request.stt_provider, request.metadata, admin_token_valid=token_valid
        )

    async def resume(self, session_id: str, *, first_frame: int = 0) -> ResumedSession:
        """Go on with a session of a process that died: its id, its account, its transcript, its recording and its evidence.

        The reply names the first frame that is expected: what comes next is that one. `first_frame` is the earliest that the
        caller can still send; what is lost before it, from the last durable frame on, is a gap that is declared, and silence in
        the recording. So a caller that keeps nothing gives the number of frames that it had sent. Bytes of a frame that was not
        whole are forgotten.

        Cancelled, it goes on; who comes again is told that the session runs. Raises `SessionNotFound`, `NotResumable` (an
        `InvalidState`) naming the state, `InvalidRequest` naming the field, `Overloaded` and `Draining` as for a new session,
        `EvidenceUnavailable` and `StoreError`, after which it can be tried again in time, `ServiceClosed`.
        """
        resources = self._runtime.resources_for_a_call()
        _check_id(session_id)
        check_first_frame(first_frame, self.settings)
        listing = resources.directory.listing(session_id)
        if listing is not None and listing.session is not None:
            raise NotResumable(session_id, listing.session.state, "it runs here")
        with anyio.CancelScope(shield=True):
            waiting = await anyio.to_thread.run_sync(resources.recovery.waiting, session_id)
        slow = True
        if waiting is not None:
            if not self._providers.has(text_of(waiting.provider)):
                problem = f"its provider {waiting.provider!r} is not registered here"
                raise NotResumable(session_id, waiting.state, problem)
            self._check_provider(waiting.provider)
            slow = self._providers.provider(waiting.provider).can_be_slowed
            needed = ports_of(transcribed=waiting.stt_engine != "none")
            self._admission.check(len(resources.directory), resources.meter.load, needed)
            _check_home(resources)
        resuming = Resuming(self._runtime, resources, self.settings, self._door, can_be_slowed=slow)
        return await resuming.resumed(session_id, first_frame)

    async def list_resumable_sessions(self, project_id: str | None = None) -> list[VoiceSession]:
        """The sessions of processes that died which wait to be resumed here, as they were left, newest first."""
        _check_filter(project_id, None)
        found = self._runtime.resources().recovery.orphans.resumable()
        chosen = [session for session in found if project_id in (None, session.project_id)]
        return sorted(chosen, key=lambda session: (session.created_at, session.session_id), reverse=True)

    async def dispatch_audio_chunk(self, session_id: str, audio_data: bytes) -> None:
        """Hand a chunk of audio to a session; it is accepted when this returns.

        A chunk may have any size up to `max_chunk_bytes`, bytes in the session's audio format; what is no whole frame waits
        for the next. When the session has no room, this waits up to `dispatch_timeout_seconds`. Where the provider's far end
        can't be slowed there always is room: the oldest audio that waits inside goes for it, declared as `backlog`. It does not
        yield to the loop when there is room, so a tight loop over a file should.

        Raises `SessionNotFound` or `InvalidState` naming the state (both a `ValueError`), `InvalidRequest`, `Overloaded`
        (nothing of the chunk was accepted).
        """
        resources = self._runtime.resources()
        listing = resources.directory.listing(session_id)
        if listing is None:
            raise await resources.past.refusal(session_id)
        if listing.door.offer(audio_data):
            return
        with anyio.move_on_after(self.settings.dispatch_timeout_seconds):
            while True:
                changed = anyio.Event()
                listing.door.on_room(thread_waker(changed.set))
                if listing.door.offer(audio_data):
                    return
                await changed.wait()
        raise no_room(session_id)

    async def stop_session(self, session_id: str, *, caller_gone: bool = False) -> bool:
        """End a session: audio that was accepted is recorded and transcribed first, within the drain deadline.

        Its reason is `stopped`, or `caller_gone` where nobody asked for the end, and the caller is not there any more.

        Returns True when the session is STOPPED and its final record durable, or when it had been stopped before (a second
        stop changes nothing); False when this service has no such session. One that waits to be resumed is ended as recovered.
        Raises `InvalidRequest` for an id that is no
        string, `EvidenceNotDurable` when the session has ended but its final record is not in the store yet, `ServiceClosed`
        when the service failed meanwhile, which has ended the session too. Stopping is never refused.
        """
        resources = self._runtime.resources()
        _check_id(session_id)
        listing = resources.directory.listing(session_id)
        if listing is None:
            if await reading(resources.recovery.end_orphan, session_id):
                return True
            session = await self.get_session(session_id)
            return session is not None and session.state is VoiceSessionState.STOPPED
        ended = await self._runtime.stop(listing, EndReason.CALLER_GONE if caller_gone else EndReason.STOPPED)
        if not ended.durable:
            raise EvidenceNotDurable(session_id, spilled=ended.spilled)
        return True

    async def get_session(self, session_id: str) -> VoiceSession | None:
        """A snapshot of the session as it is now, running or stopped; None when there is none with this id.

        Raises `StoreError` when the session is not running and the store can't be read.
        """
        resources = self._runtime.resources()
        if resources.directory.listing(session_id) is not None:
            return resources.directory.session(session_id)
        return await resources.past.session(session_id) if isinstance(session_id, str) else None

    async def recording(self, session_id: str, *, wait: bool = True) -> RecordingInfo | None:
        """The recording of a session that has stopped, once it is one file or has failed to become one; None without a
        recording.

        A call's end does not wait for that: whoever wants the file waits here, as long as it takes. A full disk puts it off
        until there is room, and another process may be the one that does it. Cancelled, the work goes on.

        Raises `SessionNotFound`, `InvalidState` for a session that has not stopped, `StoreError` when the store can't be read,
        `ServiceClosed` when the service ends meanwhile: the next one goes on with it. Without `wait` it raises
        `RecordingFinishing` where it would wait, and has the work looked at again.
        """
        _check_id(session_id)
        finisher = self._runtime.resources().finisher
        return await finished_recording(finisher, self.get_session, session_id, wait=wait)

    async def list_sessions(
        self, project_id: str | None = None, state: VoiceSessionState | str | None = None
    ) -> list[VoiceSession]:
        """Snapshots of all sessions, running and stopped, newest first; of one project or in one state if given.

        Raises `InvalidRequest` naming the field, `StoreError` when the store can't be read.
        """
        resources = self._runtime.resources()
        state = member(VoiceSessionState, state)
        _check_filter(project_id, state)
        chosen = [
            session for session in await resources.past.sessions(project_id) if state is None or session.state is state
        ]
        return sorted(chosen, key=lambda session: (session.created_at, session.session_id), reverse=True)

    async def session_page(
        self,
        project_id: str | None = None,
        state: VoiceSessionState | str | None = None,
        *,
        limit: int,
        below: SessionKey | None = None,
    ) -> SessionPage:
        """At most `limit` of what `list_sessions` has, from behind `below` on, which is the `next` of the page before. Sessions
        that come or end while somebody turns the pages move none of the others. Raises as `list_sessions` does."""
        past = self._runtime.resources().past
        state = member(VoiceSessionState, state)
        _check_filter(project_id, state)
        chosen = None if state is None else VoiceSessionState(state)
        return await past.page(project_id, chosen, limit=limit, below=below)

    async def list_active_sessions(self, project_id: str | None = None) -> list[VoiceSession]:
        """Snapshots of the sessions of this service that take audio (CREATED or ACTIVE), newest first."""
        _check_filter(project_id, None)
        taking = (VoiceSessionState.CREATED, VoiceSessionState.ACTIVE)
        sessions = [
            session
            for session in self._runtime.resources().directory.sessions()
            if session.state in taking and (project_id is None or session.project_id == project_id)
        ]
        return sorted(sessions, key=lambda session: (session.created_at, session.session_id), reverse=True)

    def events(self, session_id: str, after: int = 0) -> SessionEvents:
        """The session's events with a number above `after`, then new ones as they come, until it has stopped.

        Partial results and levels are only told to those who listen, so their numbers are missing later on. A listener
        that is slow misses partial results and levels, never anything else; `missed` counts them. Its first step raises
        `SessionNotFound`, and `InvalidRequest` when `after` is no number.
        """
        return SessionEvents(self._runtime.resources, session_id, after)

    async def kept_events(self, session_id: str, after: int = 0, *, limit: int | None = None) -> list[VoiceEvent]:
        """The events of a session above number `after` that were told until now, without partial results and levels; at most
        `limit`, none for a session that never was. Raises `StoreError` when the store can't be read, `ServiceClosed`."""
        return await self._runtime.resources().past.events(session_id, after, limit)

    async def transcript(self, session_id: str) -> Transcript:
        """The transcript of a session: its finished utterances and their text so far, or the transcript of the result once the
        session has stopped. Raises `SessionNotFound`, `StoreError` when the store can't be read, `ServiceClosed`."""
        session = await self.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        return transcript_of(session, await self.kept_events(session_id))

    async def create_stream_ticket(self, session_id: str) -> StreamTicket:
        """A ticket that opens the browser stream of a session once, within a minute, at any `voice_app` of this service. There
        may be none yet. No access token is behind it, so none that is revoked ends the stream.

        Raises `SessionNotFound`, `InvalidState` for a session that is ending or has stopped, `Overloaded` when too many tickets
        wait to be used, `StoreError`, `ServiceClosed`.
        """
        session = await self.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        return self.stream_tickets.issue_for(session, NO_TOKEN)

    def calls(self) -> Calls:
        """The calls of this service, those that run and then each that begins, created or resumed here: an async iterator of
        `Call`, which ends when the service has closed and its last call has ended. Raises `ServiceClosed`."""
        return self._host.calls(self._runtime.resources().directory.listings())

    async def evidence(self, session_id: str, after: int = 0, *, limit: int = MOST_LINKS) -> list[StoredLink]:
        """At most `limit` evidence records of a session, or of a refused request, behind place `after` of the chain, in order,
        each with its place and hashes. Raises `StoreError` when the store can't be read, `ServiceClosed`."""
        return await self._runtime.resources().past.evidence(session_id, after, limit)

    async def examine_evidence(self, heads: Collection[Head] = ()) -> Examination:
        """Walk along the whole chain, and say of noted heads whether it goes on from them; takes a second for some ten thousand
        records. Raises `StoreError` when the store can't be read, `ServiceClosed`."""
        return await self._runtime.resources().past.examination(heads)

    async def evidence_disagreements(self, most: int) -> Disagreements:
        """Hold sessions, events and recordings, as they are stored, against the chain: the first `most` that disagree, and how
        many there are. Takes about as long as a walk. Raises `StoreError` when the store can't be read, `ServiceClosed`."""
        return await self._runtime.resources().past.disagreements(most)

    def note_evidence(self, record: EvidenceRecord) -> None:
        """Have a record put into the chain, without waiting for it: it is stored, or waits in the spill file, as those of calls
        are. Raises `ServiceClosed`."""
        self._runtime.resources().store_port.note(record)

    def get_provider(self, provider_type: VoiceProvider | str) -> IVoiceProvider:
        """The provider of this type, or of this registered name. Raises `InvalidRequest` (a `ValueError`) when there is none,
        `UnusableExtension` (a `ValueError`) for one that is installed and broken."""
        return self._providers.provider(provider_type)

    def transport(self, name: VoiceProvider | str) -> Transport | None:
        """What carries the calls of a provider, for a gateway; None for one that brings nothing. Raises as `get_provider` does,
        and `ProviderNotConfigured`."""
        self._check_provider(name)
        return self._providers.provider(name).transport

    async def audio_sink(self, session_id: str) -> SessionSink:
        """Where audio to the caller of a running session goes, by its provider's transport.

        Raises `SessionNotFound`, and `InvalidState` (both a `ValueError`) for a session that does not run here, or whose
        provider can't send it any audio, now or at all; `ServiceClosed`.
        """
        resources = self._runtime.resources()
        _check_id(session_id)
        listing = resources.directory.listing(session_id)
        if listing is None or listing.session is None:
            raise await resources.past.refusal(session_id)
        transport = self._providers.provider(listing.session.provider).transport
        sink = None if transport is None else transport.audio_sink(session_id)
        if sink is None:
            raise InvalidState(session_id, listing.session.state, "its provider can't send audio to its caller")
        return SessionSink(sink, lambda: resources.directory.session(session_id), session_id)

    def provider_names(self) -> tuple[str, ...]:
        """What can be asked for as `provider`: this package's own, those handed over, those of installed distributions."""
        return self._providers.names()

    def engine_names(self) -> tuple[str, ...]:
        """What can be asked for as `stt_provider`, whether or not it is installed: the members, and what was registered."""
        return self._engines.names()

    def statistics(self) -> ServiceStatistics:
        """How the service is at this moment."""
        resources = self._runtime.resources()
        return ServiceStatistics(
            sessions=len(resources.directory),
            calls=resources.directory.statistics(),
            load=resources.meter.load,
            actors=self._runtime.system.statistics(),
            media=resources.media.statistics(),
            speech=resources.speech.statistics(),
            store=resources.store_port.writer.statistics(),
            heads=None if resources.heads is None else resources.heads.statistics(),
        )

    def inspect(self, most_actors: int | None = None) -> ServicePicture:
        """A frozen picture of the whole service: every actor with its mail, ages, restarts and timers, dead letters, ports,
        sessions by state, and how late the loop is. Nothing in it is private.

        With `most_actors` it has at most so many actors, those in the worst trouble first. It looks at every actor all the
        same, which holds the loop for some ten milliseconds in a service of a thousand sessions; a picture of all of them takes
        five times as long. Raises `ServiceClosed`.
        """
        return self._runtime.inspector().picture(most_actors)

    @asynccontextmanager
    async def trace(self, session_id: str) -> AsyncGenerator[SessionTrace]:
        """Every step that the actors of a running session take while this is open; an async iterator of `TraceLine`.

        It ends when the session has stopped. No step is held up: a reader that is slow misses the oldest lines, and `lost`
        counts them. A session that nobody traces pays nothing for this. Raises `SessionNotFound` or `InvalidState` when the
        session is not running here, `ServiceClosed`.
        """
        resources, inspector = self._runtime.resources(), self._runtime.inspector()
        if resources.directory.listing(session_id) is None:
            raise await resources.past.refusal(session_id)
        lines = inspector.trace(session_id)
        try:
            yield lines
        finally:
            lines.close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def token_store(self) -> TokenStore:
        """The access tokens of its home. Blocking, for threads. Raises `ServiceClosed` when it does not run."""
        return self._runtime.resources().tokens

    def voice_store(self) -> VoiceStore:
        """The store of its home, for a server that keeps what is its own there. Blocking, for threads. Raises
        `ServiceClosed` when it does not run."""
        return self._runtime.resources().store

    def snapshots(self, session_id: str) -> Callable[[], VoiceSession | None]:
        """A look at a session that runs here, which goes on to answer when this service has ended: as the session is now, or as
        it ended. None where it did not run here. Raises `ServiceClosed` when the service does not run."""
        listing = self._runtime.resources().directory.listing(session_id)
        return lambda: None if listing is None else listing.session

    def can_be_resumed(self, session: VoiceSession) -> bool:
        """Whether another process may go on with `session` when this one dies."""
        return session.resumable and self.settings.resume_window_seconds > 0

    def fates(self, session: VoiceSession, door: Door) -> Callable[[int], Fate]:
        """Asks what became of the frames of a running session (`fates_of`), for one who keeps its audio until it is safe.
        Raises `ServiceClosed` when the service does not run."""
        return fates_of(self._runtime.resources(), session, door, resumable=self.can_be_resumed(session))

    def door(self, session_id: str) -> Door | None:
        """The way into a running session for one who has its audio in another thread; None when it is not running."""
        listing = self._runtime.listing(session_id)
        return listing.door if listing is not None else None

    def _door(self, facts: Facts, first: int = 0) -> Door:
        return Door(
            facts.session_id,
            facts.audio_format,
            ports=1 if facts.stt_engine is None else 2,
            limit=int(self.settings.backlog_seconds * FRAMES_PER_SECOND),
            max_chunk=self.settings.max_chunk_bytes,
            can_be_slowed=facts.can_be_slowed,
            deliver=self._deliver(),
            lock=self._door_lock,
            first=first,
            taps=self._parts.taps(facts),
        )

    def _deliver(self) -> Callable[[Ref, Frames | Mismatched], None]:
        """How frames get into a session's mailbox."""
        return self._runtime.system.tell

    def _check_provider(self, name: VoiceProvider | str) -> None:
        valid, problem = self._providers.validate(name)
        if not valid:
            raise ProviderNotConfigured(text_of(name), field_of(problem), str(problem))

    def _started(self, session: VoiceSession) -> None:
        provider = self._providers.provider(session.provider)
        try:
            provider.on_session_created(session.session_id, session.metadata)
        finally:
            if provider.transport is not None:
                resumed = session.state is not VoiceSessionState.CREATED
                self._legs.began(session, provider.transport, resumed=resumed)

    def _stopped(self, session: VoiceSession, events: Sequence[VoiceEvent]) -> None:
        try:
            self._providers.provider(session.provider).on_session_stopped(session.session_id)
        finally:
            self._legs.ended(session)
            if self._traces is not None:
                self._traces.ended(session, events)

    async def _fail(self, session_id: str) -> None:
        """Have a session end that can't go on."""
        listing = self._runtime.listing(session_id)
        if listing is not None:
            with suppress(ServiceClosed, StopNotConfirmed):  # it is ended otherwise
                await self._runtime.stop(listing, EndReason.FAILED)

    def _note_late(self, record: EvidenceRecord) -> None:
        """As `note_evidence`, also while the service closes."""
        self._runtime.note(record)

    async def _token_valid(self, token: SecretStr) -> bool:
        try:
            with anyio.fail_after(self.settings.evidence_timeout_seconds):
                return await reading(self._runtime.resources().tokens.valid, token.get_secret_value())
        except OSError as error:  # also a timeout
            raise EvidenceUnavailable(str(error) or "it does not answer") from error


def _check_home(resources: ServiceResources) -> None:
    problem = resources.home.problem
    if problem is not None:
        raise EvidenceUnavailable(problem)


def _check_id(session_id: object) -> None:
    if not isinstance(session_id, str) or not session_id:
        raise InvalidRequest(f"session_id must be a non-empty string, got {session_id!r}", field="session_id")


def _check_filter(project_id: object, state: object) -> None:
    if project_id is not None and not isinstance(project_id, str):
        raise InvalidRequest(f"project_id must be a string, got {project_id!r}", field="project_id")
    if state is not None and not isinstance(state, VoiceSessionState):
        raise InvalidRequest(f"state must be a VoiceSessionState, got {state!r}", field="state")
