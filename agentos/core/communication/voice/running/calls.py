"""What a service tells its host of calls: that one began, and a handle for it.

Every session is told once to each `Calls` iterator that is open when it begins, and to the `on_call` handler. That a session
began is told when its record is durable, so nobody is told of a call that was refused.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Final, Protocol, Self
from weakref import WeakSet

import anyio
from anyio.abc import TaskStatus

from agentos.core.communication.voice.errors import ServiceClosed
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.running.session_events import SessionEvents
from agentos.core.communication.voice.running.transcripts import Transcript
from agentos.core.communication.voice.sessions.directory import Listing
from machines.session import VoiceSession, VoiceSessionState

log = logger(__name__)

ENDED_CALLS_WAITING: Final = 1000  # that may wait for a host that does not fetch them; calls that run always wait
HANDLER_GRACE_SECONDS: Final = 5.0  # for handlers when the service closes, after its last call has ended


class CallService(Protocol):
    """What a call asks of its service."""

    def events(self, session_id: str, after: int = 0) -> SessionEvents:
        """The events of a session."""

    async def transcript(self, session_id: str) -> Transcript:
        """The transcript of the session so far."""

    async def stop_session(self, session_id: str, *, caller_gone: bool = False) -> bool:
        """End a session."""


class Call:
    """A call of this service, running or ended, for the loop that the service runs in.

    `resumed` says that the call began in a process that died, and goes on here.
    """

    def __init__(self, service: CallService, listing: Listing, session: VoiceSession) -> None:
        self.session_id: str = session.session_id
        self.resumed = listing.known is not None
        self._service = service
        self._listing = listing
        self._session = session

    def __repr__(self) -> str:
        return f"<Call {self.session_id} {self.session.state.value}>"

    @property
    def session(self) -> VoiceSession:
        """A snapshot of the call's session at its last change; as it ended, with its result, once it has."""
        return self._listing.session or self._session

    @property
    def ended(self) -> bool:
        """Whether it has stopped."""
        return self.session.state is VoiceSessionState.STOPPED

    def events(self, after: int = 0) -> SessionEvents:
        """Its events above number `after`, then new ones as they come, until it has stopped; see `AsyncVoiceService.events`."""
        return self._service.events(self.session_id, after)

    async def transcript(self) -> Transcript:
        """The transcript of the call so far; see `AsyncVoiceService.transcript`."""
        return await self._service.transcript(self.session_id)

    async def stop(self, *, caller_gone: bool = False) -> bool:
        """End it; see `AsyncVoiceService.stop_session`."""
        return await self._service.stop_session(self.session_id, caller_gone=caller_gone)

    async def wait_ended(self) -> VoiceSession:
        """Wait until it has stopped; its session, with the `result`. Never fails: closing the service ends its calls, too."""
        if not self.ended:
            over = anyio.Event()
            self._listing.on_over.append(over.set)
            try:
                await over.wait()
            finally:
                self._listing.on_over.remove(over.set)
        return self.session


CallHandler = Callable[[Call], Awaitable[None] | None]


class Calls(AsyncIterator[Call]):
    """Calls as they begin. The iterator ends when the service has closed and its last call has ended.

    It has first the calls that ran already when it was made, then each that begins, also one that has ended by the time it is
    fetched. Several iterators get every call each; tasks that share one get every call once among them. A cancelled step takes
    no call. No call waits for its host: of calls that have ended, the oldest is left out when more than `ENDED_CALLS_WAITING`
    calls wait to be fetched. `missed` counts those, and the log names them. An iterator that is dropped costs nothing.
    """

    def __init__(self, running: Iterable[Call]) -> None:
        self.missed = 0
        self._waiting = deque(running)
        self._over = False
        self._news = anyio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Call:
        """The next call; waits until one begins."""
        if not await self.wait():
            raise StopAsyncIteration
        return self._waiting.popleft()

    async def wait(self) -> bool:
        """Whether there is a call to fetch, once that is known; False when none will follow."""
        while not self._waiting and not self._over:
            await self._news.wait()
        return self.any_waits

    @property
    def any_waits(self) -> bool:
        """Whether there is a call to fetch."""
        return bool(self._waiting)

    def fetch(self) -> Call | None:
        """The next call that waits, without waiting for one; from any thread."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def began(self, call: Call) -> None:
        """Hand out this call."""
        if len(self._waiting) >= ENDED_CALLS_WAITING:
            self._leave_one_out()
        self._waiting.append(call)
        self._tell()

    def end(self) -> None:
        """No call will follow those that wait."""
        self._over = True
        self._tell()

    def _leave_one_out(self) -> None:
        ended = next((call for call in self._waiting if call.ended), None)
        if ended is not None:
            self._waiting.remove(ended)
            self.missed += 1
            log.warning("call_missed", session_id=ended.session_id, waiting=len(self._waiting))

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


class Host:
    """Who embeds the service, as far as calls are told to it: open iterators, and its handler `on_call`, which `run` runs.

    The handler has a task of its own for each call. What it raises is logged, and hurts neither the call nor the service.
    """

    def __init__(self, service: CallService, on_call: CallHandler | None) -> None:
        self._service = service
        self._on_call = on_call
        self._iterators: WeakSet[Calls] = WeakSet()
        self._unhandled = 0
        self._handled = anyio.Event()

    def calls(self, running: Iterable[Listing]) -> Calls:
        """An iterator that has these calls first, and then those that begin."""
        known = ((listing, listing.session) for listing in running)
        calls = Calls(Call(self._service, listing, session) for listing, session in known if session is not None)
        self._iterators.add(calls)
        return calls

    def began(self, listing: Listing, session: VoiceSession) -> None:
        """A call began: tell everybody."""
        iterators = tuple(self._iterators)
        if iterators:
            call = Call(self._service, listing, session)
            self._unhandled += self._on_call is not None
            for calls in iterators:
                calls.began(call)

    def end(self) -> None:
        """The service has closed, and its last call has ended: iterators end, and handlers have `HANDLER_GRACE_SECONDS`."""
        for calls in tuple(self._iterators):
            calls.end()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the handler, if there is one, for each call, until `end`; cancel those that still run after their grace. A
        cancellation of this task changes none of that."""
        if self._on_call is None:
            task_status.started()
            return
        calls = self.calls(())
        task_status.started()
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as handlers:
                async for call in calls:
                    handlers.start_soon(self._handle, call, handlers.cancel_scope)
                handlers.cancel_scope.deadline = anyio.current_time() + HANDLER_GRACE_SECONDS

    async def idle(self) -> None:
        """Wait until the handler has returned for every call that began."""
        while self._unhandled:
            self._handled = anyio.Event()
            await self._handled.wait()

    async def _handle(self, call: Call, scope: anyio.CancelScope) -> None:
        assert self._on_call is not None  # noqa: S101 - nobody runs this without one
        try:
            doing = self._on_call(call)
            if isawaitable(doing):
                await doing
        except anyio.get_cancelled_exc_class():
            log.warning("call_handler_cancelled", session_id=call.session_id)
            if scope.cancel_called:
                raise
            # Its own: on asyncio, of a task that it waited for. It must not end those of the other calls.
        except ServiceClosed as error:
            log.warning("call_handler_cut_off", session_id=call.session_id, problem=str(error))
        except Exception:  # the host's own fault must not disturb the call
            log.exception("call_handler_failed", session_id=call.session_id)
        finally:
            self._unhandled -= 1
            self._handled.set()
