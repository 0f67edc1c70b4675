"""Events on their way from the directory to one who listens."""

from collections import deque

import anyio

from agentos.core.communication.voice.sessions.directory import PASSING
from machines.events import VoiceEvent

LISTENER_BOUND = 1000  # passing events that may wait for a slow listener; kept events always wait


class Listener:
    """Takes events as they come and hands them out one by one; one that is slow misses passing events, no others."""

    def __init__(self) -> None:
        self._events: deque[VoiceEvent | None] = deque()
        self._changed = anyio.Event()

    def __call__(self, event: VoiceEvent | None) -> None:
        """Take an event, in the loop's thread; None says that none will follow."""
        if event is None or len(self._events) < LISTENER_BOUND or event.event_type not in PASSING:
            self._events.append(event)
            self._changed.set()

    async def next(self) -> VoiceEvent | None:
        """The next event; waits until there is one. None when none will follow."""
        while not self._events:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._events.popleft()
