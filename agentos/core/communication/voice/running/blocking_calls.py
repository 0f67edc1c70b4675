"""Calls for a host without an event loop: the same handles, whose methods wait."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, Self, TypeVar

from agentos.core.communication.voice.errors import ServiceClosed
from agentos.core.communication.voice.running.calls import Call, Calls
from agentos.core.communication.voice.running.transcripts import Transcript
from machines.events import VoiceEvent
from machines.session import VoiceSession

T = TypeVar("T")


class BlockingService(Protocol):
    """What a call asks of its service, and waits for."""

    def events(self, session_id: str, after: int = 0) -> Iterator[VoiceEvent]:
        """The events of a session."""

    def transcript(self, session_id: str) -> Transcript:
        """The transcript of the session so far."""

    def stop_session(self, session_id: str, *, caller_gone: bool = False) -> bool:
        """End a session."""


class WaitFor(Protocol):
    """Waits in this thread for what is awaited on the loop of a service. Raises `ServiceClosed` when that ends before."""

    def __call__(self, awaited: Callable[[], Awaitable[T]]) -> T:
        """The answer."""


class BlockingCall:
    """A call of a `VoiceService`, running or ended; for any thread. `Call` says more of each method."""

    def __init__(self, service: BlockingService, wait_for: WaitFor, call: Call) -> None:
        self.session_id = call.session_id
        self.resumed = call.resumed
        self._service = service
        self._wait_for = wait_for
        self._call = call

    def __repr__(self) -> str:
        return repr(self._call)

    @property
    def session(self) -> VoiceSession:
        """A snapshot of the call's session at its last change; as it ended, with its result, once it has."""
        return self._call.session

    @property
    def ended(self) -> bool:
        """Whether it has stopped."""
        return self._call.ended

    def events(self, after: int = 0) -> Iterator[VoiceEvent]:
        """Its events above number `after`, then new ones as they come, until it has stopped."""
        return self._service.events(self.session_id, after)

    def transcript(self) -> Transcript:
        """The transcript of the call so far."""
        return self._service.transcript(self.session_id)

    def stop(self, *, caller_gone: bool = False) -> bool:
        """End it."""
        return self._service.stop_session(self.session_id, caller_gone=caller_gone)

    def wait_ended(self) -> VoiceSession:
        """Wait until it has stopped; its session, with the `result`. Closing the service ends its calls, too."""
        try:
            return self._wait_for(self._call.wait_ended)
        except ServiceClosed:
            if self.ended:
                return self.session
            raise


BlockingCallHandler = Callable[[BlockingCall], None]


class BlockingCalls(Iterator[BlockingCall]):
    """Calls of a `VoiceService` as they begin; see `Calls`. Threads that share one get every call once among them."""

    def __init__(self, service: BlockingService, wait_for: WaitFor, calls: Calls) -> None:
        self._service = service
        self._wait_for = wait_for
        self._calls = calls

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BlockingCall:
        """The next call; waits until one begins, or the service has closed."""
        while (call := self._calls.fetch()) is None:
            try:
                more = self._wait_for(self._calls.wait)
            except ServiceClosed:
                more = self._calls.any_waits
            if not more:
                raise StopIteration
        return BlockingCall(self._service, self._wait_for, call)

    @property
    def missed(self) -> int:
        """How many calls were left out because too many waited to be fetched."""
        return self._calls.missed
