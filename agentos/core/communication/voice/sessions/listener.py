"""A listener: the queue of events between the directory and one reader."""

from collections import deque

import anyio

from agentos.core.communication.voice.sessions.directory import PASSING
from machines.events import VoiceEvent

LISTENER_BOUND = 1000  # passing events that may wait for a slow listener; kept events always wait


def has_room(event: VoiceEvent | None, waiting: int) -> bool:
    """Whether to queue an event for a listener with `waiting` unread events; the end, None, is always queued."""
    return event is None or waiting < LISTENER_BOUND or event.event_type not in PASSING


class Listener:
    """Takes events as they come and hands them out one by one, to one task. A slow listener misses passing events, which
    `missed` counts, and no others."""

    def __init__(self) -> None:
        self.missed = 0
        self._events: deque[VoiceEvent | None] = deque()
        self._changed = anyio.Event()

    def __call__(self, event: VoiceEvent | None) -> None:
        """Take an event, in the loop's thread; None says that none will follow."""
        if has_room(event, len(self._events)):
            self._events.append(event)
            self._changed.set()
        else:
            self.missed += 1

    async def next(self) -> VoiceEvent | None:
        """Wait for the next event; None if none will follow."""
        while not self._events:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._events.popleft()
