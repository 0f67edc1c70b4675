"""The events of one session for a program that follows it: those that were kept, then those to come."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Self

from agentos.core.communication.voice.errors import InvalidRequest, SessionNotFound
from agentos.core.communication.voice.running.resources import ServiceResources
from agentos.core.communication.voice.sessions.listener import Listener
from machines.events import VoiceEvent, VoiceEventType


class SessionEvents(AsyncIterator[VoiceEvent]):
    """The events of a session above number `after`, in order; the iterator ends when the session has stopped.

    It listens from its first step on. No event is held up: a reader that is slow misses partial results and levels, which
    `missed` counts, and no others. The first step raises `SessionNotFound`, `InvalidRequest` when `after` is no number,
    `StoreError` and `ServiceClosed`. For one task, on the loop of the service.
    """

    def __init__(self, resources: Callable[[], ServiceResources], session_id: str, after: int) -> None:
        self._listener = Listener()
        self._events = self._each(resources, session_id, after)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> VoiceEvent:
        """The next event; waits until there is one."""
        return await anext(self._events)

    async def aclose(self) -> None:
        """Listen no longer. Twice is once."""
        await self._events.aclose()

    @property
    def missed(self) -> int:
        """How many partial results and levels came while too many events waited to be read."""
        return self._listener.missed

    async def _each(
        self, ask: Callable[[], ServiceResources], session_id: str, after: int
    ) -> AsyncGenerator[VoiceEvent]:
        resources = ask()
        if not isinstance(after, int):
            raise InvalidRequest(f"after must be the number of an event, got {after!r}", field="after")
        listing = resources.directory.listing(session_id)
        if listing is None:
            known = await resources.past.session(session_id) if isinstance(session_id, str) else None
            if known is None:
                raise SessionNotFound(session_id)
            async with aclosing(resources.past.each_event(session_id, after)) as stored:
                async for event in stored:
                    yield event
            return
        listing.listeners.append(self._listener)
        try:
            told = list(listing.events)
            first = told[0].number if told else listing.next_number
            async with aclosing(resources.past.each_event(session_id, after, first)) as stored:
                async for event in stored:
                    yield event
                    after = event.number
            for event in told:
                if event.number > after:
                    yield event
                    after = event.number
                    if event.event_type is VoiceEventType.SESSION_STOPPED:
                        return
            while (coming := await self._listener.next()) is not None:
                if coming.number > after:
                    yield coming
                    if coming.event_type is VoiceEventType.SESSION_STOPPED:
                        return
        finally:
            listing.listeners.remove(self._listener)
