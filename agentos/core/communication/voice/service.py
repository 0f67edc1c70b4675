"""The voice services: `VoiceService`, which blocks, and `AsyncVoiceService` for programs with an event loop.

`VoiceService` is the same service in a thread of its own: it starts its event loop at the first use, and every method
waits for the answer, except that audio only has to be put in the queue.
"""

import asyncio
import contextlib
import importlib.util
import os
import queue
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import trio

from actors.runtime.mailbox import Ref
from actors.runtime.tracing import TraceLine
from actors.voice.call_part import CallPart
from actors.voice.messages import Frames, Mismatched
from agentos.core.communication.voice.async_service import AsyncVoiceService, ServiceStatistics
from agentos.core.communication.voice.errors import ServiceClosed, no_room
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.running.blocking_calls import BlockingCall, BlockingCallHandler, BlockingCalls
from agentos.core.communication.voice.running.calls import Call, Calls
from agentos.core.communication.voice.running.inspection import ServicePicture
from agentos.core.communication.voice.running.legs import SessionSink
from agentos.core.communication.voice.running.resuming import ResumedSession
from agentos.core.communication.voice.running.session_trace import SessionTrace
from agentos.core.communication.voice.running.transcripts import Transcript
from agentos.core.communication.voice.sessions.listener import has_room
from agentos.core.communication.voice.sessions.stream_tickets import StreamTicket
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.chain import StoredLink
from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.storage.past_sessions import MOST_LINKS, SessionKey, SessionPage
from agentos.core.communication.voice.stt.base import SpeechEngine
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict
from machines.cross_checks import Disagreements
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.heads import Head
from machines.policy import VoicePolicy
from machines.recording import RecordingInfo
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from machines.verification import Examination

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["AsyncVoiceService", "ServiceStatistics", "VoiceService"]

log = logger(__name__)

T = TypeVar("T")
_END = object()


class _ThreadedService(AsyncVoiceService):
    """The service as `VoiceService` runs it: frames come from any thread, so they go through the inbox."""

    def _deliver(self) -> Callable[[Ref, Frames | Mismatched], None]:
        return self._runtime.system.post


class _Started:
    """Whether the service's thread has started, and why not.

    The thread says so without ever waiting for a lock: those who wait may be interrupted anywhere, by a signal handler that in
    turn waits for the thread. (A `Future` holds a lock for some steps.)
    """

    def __init__(self) -> None:
        self.done = False
        self._error: BaseException | None = None
        self._gate = threading.Lock()
        self._gate.acquire()

    def say(self, error: BaseException | None) -> None:
        """It has started, or has not because of `error`; once."""
        self._error, self.done = error, True
        self._gate.release()

    def wait(self) -> BaseException | None:
        """Wait until it was said; the error, if there was one."""
        if not self.done:
            with self._gate:  # whoever comes through lets the next one in
                pass
        return self._error


class BlockingSink:
    """Audio to the caller of one session, as a `SessionSink` that blocks."""

    def __init__(
        self, call: Callable[[Callable[[AsyncVoiceService], Awaitable[None]]], None], sink: SessionSink
    ) -> None:
        self._call = call
        self._sink = sink

    @property
    def sample_rate(self) -> int:
        """Samples a second; they are mono, signed 16 bit little-endian."""
        return self._sink.sample_rate

    def send(self, pcm: bytes) -> None:
        """Have these samples played behind those that wait; see `SessionSink.send`."""
        self._call(lambda _: self._sink.send(pcm))

    def clear(self) -> None:
        """Forget what was not played yet; see `SessionSink.clear`."""
        self._call(lambda _: self._sink.clear())


class VoiceService:
    """Voice sessions for programs without an event loop; safe from many threads.

    Its own thread and event loop (`settings.loop`, uvloop where it is installed and `settings.uvloop` allows) start with
    the first use. Use it in a `with` statement or call `close`; what is still open when the interpreter exits is closed
    then: sessions are stopped, evidence and recordings are flushed.

    In a thread that runs an event loop its methods work, but they block that loop, and a warning says so once. The errors
    that its methods raise are those of `AsyncVoiceService`, and so are `store`, `tracer_provider`, `providers`, `engines` and
    `parts`.

    `on_call` is run with the `BlockingCall` for each call that begins, created or resumed, in a thread of its own. What it
    raises is logged. A drain waits for it; when the service closes, it has five seconds from the end of the last call, and is
    not waited for any longer then.
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
        on_call: BlockingCallHandler | None = None,
        parts: Iterable[CallPart] = (),
    ) -> None:
        self.settings = settings if settings is not None else load_settings()
        self.policy = policy if policy is not None else VoicePolicy()
        self._store = store
        self._tracer_provider = tracer_provider
        self._providers, self._engines = tuple(providers), tuple(engines)
        self._on_call = on_call
        self._parts = tuple(parts)
        self._call_threads = anyio.CapacityLimiter(inf)  # one a call, and calls have a limit of their own
        self._lock = threading.RLock()  # a signal handler may close the service in the middle of anything
        self._thread: threading.Thread | None = None
        self._started: _Started | None = None
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._service: AsyncVoiceService | None = None
        self._closed = False
        self._warned = False
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop every session within its deadlines, make everything durable, and end the thread. Twice is once.

        At any moment, from any thread, also from a signal handler: a service that is being started ends as soon as it is there.
        """
        with self._lock:
            self._closed = True
            thread, portal, service = self._thread, self._portal, self._service
        ours = thread is not threading.current_thread() and self._pid == os.getpid()
        if ours and portal is not None and service is not None and thread is not None and thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has ended by itself meanwhile
                _start_in(portal, service.aclose)
        self._join()

    def drain(self) -> None:
        """Take no new calls, let those that run end by themselves for up to `drain_timeout_seconds`, then `close`.

        Blocks until that is done, while other threads go on with their calls; a new one gets `Draining`. A second call, from
        any thread, does not wait for running calls any longer: they are stopped now. A service that was never used is closed.
        """
        with self._lock:
            if self._thread is None:
                self._closed = True
        with contextlib.suppress(ServiceClosed, CancelledError):  # it has ended, or this was the end of its thread
            self._start(_drain).result()
        with self._lock:
            self._closed = True
        self._join()

    @property
    def ready(self) -> bool:
        """Whether new calls are taken, as far as there is room for them: it is neither draining nor closed, in this process."""
        service = self._service
        return not self._closed and self._pid == os.getpid() and (service is None or service.ready)

    def begin_drain(self) -> None:
        """Begin to drain, and return at once; nothing when it drains already. Raises `ServiceClosed` when it does not run."""

        async def call(service: AsyncVoiceService) -> None:
            service.begin_drain()

        self._call(call)

    def wait_closed(self) -> None:
        """Wait until the service has ended: closed or drained by another thread, or failed. At once when it never ran."""
        self._join()

    def check_room(self) -> None:
        """Whether a new call would be let in at this moment; see `AsyncVoiceService.check_room`."""

        async def call(service: AsyncVoiceService) -> None:
            service.check_room()

        self._call(call)

    def check_ready(self) -> None:
        """Whether a new call would be let in and put on record now; see `AsyncVoiceService.check_ready`."""
        self._call(lambda service: service.check_ready())

    # --- sessions --------------------------------------------------------------------------------------------------

    def create_session(  # noqa: PLR0913 - as above
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
        """Open a session; see `AsyncVoiceService.create_session`."""

        async def call(service: AsyncVoiceService) -> VoiceSession:
            return await service.create_session(
                project_id,
                provider,
                stt_provider,
                metadata,
                audio_format=audio_format,
                admin_token=admin_token,
                resumable=resumable,
                silence_timeout_seconds=silence_timeout_seconds,
                stt_options=stt_options,
            )

        return self._call(call)

    def evaluate_request(
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
        *,
        admin_token: str | None = None,
    ) -> PolicyVerdict:
        """What the policy would say to `create_session` with these arguments; see `AsyncVoiceService.evaluate_request`."""

        async def call(service: AsyncVoiceService) -> PolicyVerdict:
            return await service.evaluate_request(project_id, provider, stt_provider, metadata, admin_token=admin_token)

        return self._call(call)

    def resume(self, session_id: str, *, first_frame: int = 0) -> ResumedSession:
        """Go on with a session of a process that died; see `AsyncVoiceService.resume`."""
        return self._call(lambda service: service.resume(session_id, first_frame=first_frame))

    def list_resumable_sessions(self, project_id: str | None = None) -> list[VoiceSession]:
        """The sessions that wait to be resumed here, newest first."""
        return self._call(lambda service: service.list_resumable_sessions(project_id))

    def dispatch_audio_chunk(self, session_id: str, audio_data: bytes) -> None:
        """Hand a chunk of audio to a session; it is in its queue when this returns.

        It does not wait for the service's thread, only, up to `dispatch_timeout_seconds`, for room. Raises as
        `AsyncVoiceService.dispatch_audio_chunk` does.
        """
        service = self._service
        ours = service is not None and not self._closed and self._pid == os.getpid()
        door = service.door(session_id) if ours and service is not None else None
        if door is None:
            self._call(lambda service: service.dispatch_audio_chunk(session_id, audio_data))
        elif not door.offer(audio_data) and not door.offer_within(audio_data, self.settings.dispatch_timeout_seconds):
            raise no_room(session_id)

    def stop_session(self, session_id: str, *, caller_gone: bool = False) -> bool:
        """End a session; see `AsyncVoiceService.stop_session`."""
        return self._call(lambda service: service.stop_session(session_id, caller_gone=caller_gone))

    def get_session(self, session_id: str) -> VoiceSession | None:
        """A snapshot of the session as it is now; None when there is none with this id."""
        return self._call(lambda service: service.get_session(session_id))

    def recording(self, session_id: str, *, wait: bool = True) -> RecordingInfo | None:
        """The recording of a session that has stopped, once it is ready or has failed; see `AsyncVoiceService.recording`."""
        return self._call(lambda service: service.recording(session_id, wait=wait))

    def list_sessions(
        self, project_id: str | None = None, state: VoiceSessionState | str | None = None
    ) -> list[VoiceSession]:
        """Snapshots of all sessions, newest first; of one project or in one state if given."""
        return self._call(lambda service: service.list_sessions(project_id, state))

    def session_page(
        self,
        project_id: str | None = None,
        state: VoiceSessionState | str | None = None,
        *,
        limit: int,
        below: SessionKey | None = None,
    ) -> SessionPage:
        """A page of what `list_sessions` has; see `AsyncVoiceService.session_page`."""
        return self._call(lambda service: service.session_page(project_id, state, limit=limit, below=below))

    def list_active_sessions(self, project_id: str | None = None) -> list[VoiceSession]:
        """Snapshots of the sessions that take audio, newest first."""
        return self._call(lambda service: service.list_active_sessions(project_id))

    def events(self, session_id: str, after: int = 0) -> Iterator[VoiceEvent]:
        """The session's events above number `after`, and new ones as they come, until it has stopped. A slow reader misses
        partial results and levels, which the numbers of the events show, never anything else."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def pump(service: AsyncVoiceService) -> None:
            try:
                async for event in service.events(session_id, after):
                    if has_room(event, events.qsize()):
                        events.put(event)
            except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
                events.put(error)
            finally:
                events.put(_END)

        self._warn_of_a_loop(stacklevel=3)
        task = self._start(pump)
        try:
            while (event := events.get()) is not _END:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            task.cancel()

    def kept_events(self, session_id: str, after: int = 0, *, limit: int | None = None) -> list[VoiceEvent]:
        """The events of a session that were told until now; see `AsyncVoiceService.kept_events`."""
        return self._call(lambda service: service.kept_events(session_id, after, limit=limit))

    def transcript(self, session_id: str) -> Transcript:
        """The transcript of a session; see `AsyncVoiceService.transcript`."""
        return self._call(lambda service: service.transcript(session_id))

    def create_stream_ticket(self, session_id: str) -> StreamTicket:
        """A ticket that opens the browser stream of a session; see `AsyncVoiceService.create_stream_ticket`."""
        return self._call(lambda service: service.create_stream_ticket(session_id))

    def calls(self) -> BlockingCalls:
        """The calls of this service, those that run and then each that begins: an iterator of `BlockingCall` that waits for the
        next one, until the service has closed; see `AsyncVoiceService.calls`."""

        async def call(service: AsyncVoiceService) -> Calls:
            return service.calls()

        return BlockingCalls(self, self._wait_for, self._call(call))

    def evidence(self, session_id: str, after: int = 0, *, limit: int = MOST_LINKS) -> list[StoredLink]:
        """Evidence records of a session, in order; see `AsyncVoiceService.evidence`."""
        return self._call(lambda service: service.evidence(session_id, after, limit=limit))

    def examine_evidence(self, heads: Collection[Head] = ()) -> Examination:
        """Walk along the whole chain; see `AsyncVoiceService.examine_evidence`."""
        return self._call(lambda service: service.examine_evidence(heads))

    def evidence_disagreements(self, most: int) -> Disagreements:
        """What is stored, held against the chain; see `AsyncVoiceService.evidence_disagreements`."""
        return self._call(lambda service: service.evidence_disagreements(most))

    def note_evidence(self, record: EvidenceRecord) -> None:
        """Have a record put into the chain, without waiting for it."""

        async def call(service: AsyncVoiceService) -> None:
            service.note_evidence(record)

        self._call(call)

    def get_provider(self, provider_type: VoiceProvider | str) -> IVoiceProvider:
        """The provider of this type. Raises `InvalidRequest` (a `ValueError`) when there is none."""

        async def call(service: AsyncVoiceService) -> IVoiceProvider:
            return service.get_provider(provider_type)

        return self._call(call)

    def audio_sink(self, session_id: str) -> "BlockingSink":
        """Where audio to the caller of a running session goes; see `AsyncVoiceService.audio_sink`."""
        return BlockingSink(self._call, self._call(lambda service: service.audio_sink(session_id)))

    def provider_names(self) -> tuple[str, ...]:
        """What can be asked for as `provider`; see `AsyncVoiceService.provider_names`."""

        async def call(service: AsyncVoiceService) -> tuple[str, ...]:
            return service.provider_names()

        return self._call(call)

    def engine_names(self) -> tuple[str, ...]:
        """What can be asked for as `stt_provider`; see `AsyncVoiceService.engine_names`."""

        async def call(service: AsyncVoiceService) -> tuple[str, ...]:
            return service.engine_names()

        return self._call(call)

    def statistics(self) -> ServiceStatistics:
        """How the service is at this moment."""

        async def call(service: AsyncVoiceService) -> ServiceStatistics:
            return service.statistics()

        return self._call(call)

    def inspect(self, most_actors: int | None = None) -> ServicePicture:
        """A frozen picture of the whole service; see `AsyncVoiceService.inspect`."""

        async def call(service: AsyncVoiceService) -> ServicePicture:
            return service.inspect(most_actors)

        return self._call(call)

    @contextlib.contextmanager
    def trace(self, session_id: str) -> Iterator[Iterator[TraceLine]]:
        """Every step that the actors of a running session take while this is open; an iterator that waits for the next one.

        Where a slow reader has missed steps, the numbers of the lines have a hole. See `AsyncVoiceService.trace`.
        """

        async def begin(service: AsyncVoiceService) -> tuple[AsyncExitStack, SessionTrace]:
            stack = AsyncExitStack()
            return stack, await stack.enter_async_context(service.trace(session_id))

        stack, trace = self._call(begin)
        try:
            yield _each(lambda: self._call(lambda _: trace.batch()))
        finally:
            with contextlib.suppress(ServiceClosed):
                self._call(lambda _: stack.aclose())

    def _join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            with contextlib.suppress(
                RuntimeError
            ):  # whoever starts it was interrupted in the middle, and goes on after this
                thread.join()

    # --- its thread ------------------------------------------------------------------------------------------------

    def _call(self, call: Callable[[AsyncVoiceService], Awaitable[T]]) -> T:
        self._warn_of_a_loop(stacklevel=4)
        try:
            return self._start(call).result()
        except CancelledError:
            raise ServiceClosed from None

    def _wait_for(self, awaited: Callable[[], Awaitable[T]]) -> T:
        return self._call(lambda _: awaited())

    def _start(self, call: Callable[[AsyncVoiceService], Awaitable[T]]) -> "Future[T]":
        portal, service = self._running()
        try:
            return _start_in(portal, call, service)
        except RuntimeError as error:
            if "event loop thread" in str(error):
                raise
            raise ServiceClosed from None  # its thread has ended, or ends just now

    def _running(self) -> tuple[anyio.from_thread.BlockingPortal, AsyncVoiceService]:
        with self._lock:
            if self._closed:
                raise ServiceClosed
            if self._pid != os.getpid():
                raise ServiceClosed("this voice service belongs to the process that was forked; create a new one here")
            started = self._started
            if started is None:
                _close_at_exit(self)
                started = _Started()
                thread = threading.Thread(target=self._run, args=(started,), name="voice-service", daemon=True)
                try:
                    self._started, self._thread = started, thread
                    thread.start()
                except BaseException:  # Ctrl-C: the next use tries again
                    if thread.ident is None:
                        self._started = self._thread = None
                    raise
        # Not with the lock held: others, and a signal handler in this very thread, may end it meanwhile.
        error = started.wait()
        if error is not None:
            with self._lock:
                if self._started is started:  # the next use tries again
                    self._started = self._thread = None
            raise error
        assert self._portal is not None  # noqa: S101 - set before it has started
        assert self._service is not None  # noqa: S101
        return self._portal, self._service

    def _run(self, started: "_Started") -> None:
        options: dict[str, Any] = {}
        if self.settings.loop == "asyncio":
            installed = importlib.util.find_spec("uvloop") is not None
            options["use_uvloop"] = self.settings.uvloop == "on" or (self.settings.uvloop == "auto" and installed)
        try:
            anyio.run(self._main, started, backend=self.settings.loop, backend_options=options)
        except BaseException as error:
            if started.done:
                log.exception("the voice service failed and has ended")
            else:
                started.say(error)

    async def _main(self, started: "_Started") -> None:
        service = _ThreadedService(
            self.settings,
            policy=self.policy,
            store=self._store,
            tracer_provider=self._tracer_provider,
            providers=self._providers,
            engines=self._engines,
            on_call=None if self._on_call is None else self._handle,
            parts=self._parts,
        )
        async with anyio.from_thread.BlockingPortal() as portal:
            try:
                async with service:
                    if self._started is started:
                        self._portal, self._service = portal, service
                    started.say(None)
                    if self._closed or self._started is not started:  # before there was anything to close
                        await service.aclose()
                    await service.wait_closed()
            except Exception as error:
                if started.done:
                    raise
                started.say(error)  # as it is: the portal's task group would wrap it
            await portal.stop(cancel_remaining=True)  # nobody may go on waiting for a session that has ended

    async def _handle(self, call: Call) -> None:
        assert self._on_call is not None  # noqa: S101 - as `_main` sees to
        handler, blocking = self._on_call, BlockingCall(self, self._wait_for, call)

        def handle() -> None:
            try:
                handler(blocking)
            except SystemExit as error:  # it would end the loop of the service
                raise RuntimeError(f"SystemExit: {error}") from error

        await anyio.to_thread.run_sync(handle, abandon_on_cancel=True, limiter=self._call_threads)

    def _warn_of_a_loop(self, stacklevel: int) -> None:
        if not self._warned and _runs_a_loop():
            self._warned = True
            warnings.warn(
                "VoiceService blocks the event loop that runs in this thread; use AsyncVoiceService there",
                RuntimeWarning,
                stacklevel=stacklevel,
            )


def _each(batch: Callable[[], list[T]]) -> Iterator[T]:
    while found := batch():
        yield from found


def _runs_a_loop() -> bool:
    if trio.lowlevel.in_trio_run():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _drain(service: AsyncVoiceService) -> None:
    await service.drain()


def _start_in(
    portal: anyio.from_thread.BlockingPortal, call: Callable[..., Awaitable[T]], *arguments: Any
) -> "Future[T]":
    if not trio.lowlevel.in_trio_run():
        return portal.start_task_soon(call, *arguments)
    # trio refuses calls into any of its loops from a thread that runs one.
    with ThreadPoolExecutor(1, "voice-service-call") as aside:
        return aside.submit(portal.start_task_soon, call, *arguments).result()


_open_services: "weakref.WeakSet[VoiceService]" = weakref.WeakSet()
_registered = threading.Lock()
_exiting = threading.Event()


def _close_at_exit(service: VoiceService) -> None:
    """Close `service` when the interpreter exits, while threads can still be started and joined.

    `atexit` is too late for that: since 3.12 no thread can be started then, and the service needs its worker threads to
    flush. `threading._register_atexit`, which `concurrent.futures` uses for the same end, runs before.
    """
    if _exiting.is_set():
        raise ServiceClosed("the interpreter is exiting; no voice service can be started any more")
    if _registered.acquire(blocking=False):
        try:
            threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001
        except RuntimeError:
            _exiting.set()
            raise ServiceClosed("the interpreter is exiting; no voice service can be started any more") from None
    _open_services.add(service)


def _close_all() -> None:
    _exiting.set()
    for service in list(_open_services):
        service.close()
