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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.from_thread
import structlog
import trio

from actors.mailbox import Ref
from actors.messages import Frames
from actors.tracing import TraceLine
from agentos.core.communication.voice.async_service import AsyncVoiceService, ServiceStatistics
from agentos.core.communication.voice.errors import ServiceClosed, no_room
from agentos.core.communication.voice.inspection import ServicePicture
from agentos.core.communication.voice.providers.base import IVoiceProvider
from agentos.core.communication.voice.resuming import ResumedSession
from agentos.core.communication.voice.session_trace import SessionTrace
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from machines.audio import AudioFormat
from machines.events import VoiceEvent
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["AsyncVoiceService", "ServiceStatistics", "VoiceService"]

log = structlog.get_logger(__name__)

T = TypeVar("T")
_END = object()


class _ThreadedService(AsyncVoiceService):
    """The service as `VoiceService` runs it: frames come from any thread, so they go through the inbox."""

    def _deliver(self) -> Callable[[Ref, Frames], None]:
        return self._runtime.system.post


class VoiceService:
    """Voice sessions for programs without an event loop; safe from many threads.

    Its own thread and event loop (`settings.loop`, uvloop where it is installed and `settings.uvloop` allows) start with
    the first use. Use it in a `with` statement or call `close`; what is still open when the interpreter exits is closed
    then: sessions are stopped, evidence and recordings are flushed.

    In a thread that runs an event loop its methods work, but they block that loop, and a warning says so once. The errors
    that its methods raise are those of `AsyncVoiceService`, and so is `tracer_provider`.
    """

    def __init__(
        self,
        settings: VoiceSettings | None = None,
        *,
        policy: VoicePolicy | None = None,
        tracer_provider: "TracerProvider | None" = None,
    ) -> None:
        self.settings = settings if settings is not None else load_settings()
        self.policy = policy if policy is not None else VoicePolicy()
        self._tracer_provider = tracer_provider
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
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
        """Stop every session within its deadlines, make everything durable, and end the thread. Twice is once."""
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

    # --- sessions --------------------------------------------------------------------------------------------------

    def create_session(
        self,
        project_id: str,
        provider: VoiceProvider,
        stt_provider: STTProvider,
        metadata: Mapping[str, Any] | None = None,
        *,
        audio_format: AudioFormat | None = None,
        admin_token: str | None = None,
        resumable: bool = False,
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
            )

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

    def stop_session(self, session_id: str) -> bool:
        """End a session; see `AsyncVoiceService.stop_session`."""
        return self._call(lambda service: service.stop_session(session_id))

    def get_session(self, session_id: str) -> VoiceSession | None:
        """A snapshot of the session as it is now; None when there is none with this id."""
        return self._call(lambda service: service.get_session(session_id))

    def list_sessions(
        self, project_id: str | None = None, state: VoiceSessionState | None = None
    ) -> list[VoiceSession]:
        """Snapshots of all sessions, newest first; of one project or in one state if given."""
        return self._call(lambda service: service.list_sessions(project_id, state))

    def list_active_sessions(self, project_id: str | None = None) -> list[VoiceSession]:
        """Snapshots of the sessions that take audio, newest first."""
        return self._call(lambda service: service.list_active_sessions(project_id))

    def events(self, session_id: str, after: int = 0) -> Iterator[VoiceEvent]:
        """The session's events above number `after`, and new ones as they come, until it has stopped."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def pump(service: AsyncVoiceService) -> None:
            try:
                async for event in service.events(session_id, after):
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

    def get_provider(self, provider_type: VoiceProvider) -> IVoiceProvider:
        """The provider of this type. Raises `InvalidRequest` (a `ValueError`) when there is none."""

        async def call(service: AsyncVoiceService) -> IVoiceProvider:
            return service.get_provider(provider_type)

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
        if self._thread is not None and self._thread is not threading.current_thread() and self._pid == os.getpid():
            self._thread.join()

    # --- its thread ------------------------------------------------------------------------------------------------

    def _call(self, call: Callable[[AsyncVoiceService], Awaitable[T]]) -> T:
        self._warn_of_a_loop(stacklevel=4)
        try:
            return self._start(call).result()
        except CancelledError:
            raise ServiceClosed from None

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
            if self._thread is None:
                _close_at_exit(self)
                ready: Future[None] = Future()
                thread = threading.Thread(target=self._run, args=(ready,), name="voice-service", daemon=True)
                thread.start()
                try:
                    ready.result()
                except BaseException:
                    thread.join()
                    raise
                self._thread = thread
            assert self._portal is not None  # noqa: S101 - set before `ready`
            assert self._service is not None  # noqa: S101
            return self._portal, self._service

    def _run(self, ready: "Future[None]") -> None:
        options: dict[str, Any] = {}
        if self.settings.loop == "asyncio":
            installed = importlib.util.find_spec("uvloop") is not None
            options["use_uvloop"] = self.settings.uvloop == "on" or (self.settings.uvloop == "auto" and installed)
        try:
            anyio.run(self._main, ready, backend=self.settings.loop, backend_options=options)
        except BaseException as error:
            if ready.done():
                log.exception("the voice service failed and has ended")
            else:
                ready.set_exception(error)

    async def _main(self, ready: "Future[None]") -> None:
        service = _ThreadedService(self.settings, policy=self.policy, tracer_provider=self._tracer_provider)
        async with anyio.from_thread.BlockingPortal() as portal:
            try:
                async with service:
                    self._portal, self._service = portal, service
                    ready.set_result(None)
                    await service.wait_closed()
            except Exception as error:
                if ready.done():
                    raise
                ready.set_exception(error)  # as it is: the portal's task group would wrap it
            await portal.stop(cancel_remaining=True)  # nobody may go on waiting for a session that has ended

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
