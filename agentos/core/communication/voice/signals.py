"""Draining on SIGTERM and SIGINT, for hosts that want it: a service never touches signals by itself.

The first signal begins a drain, the second shortens it, and the host's own handlers are back when the service has ended. Use
it in the main thread; Python gives signals to no other.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import anyio
from anyio.abc import TaskStatus

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.service import VoiceService

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def drain_on_signals(
    service: AsyncVoiceService, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Wait until `service` has ended, and drain it when SIGTERM or SIGINT comes; another one shortens the drain.

    Await it as the last line of `async with service:`, or start it in a task group beside the host's own work. Cancelled,
    it gives the signals back; a drain that has begun goes on.
    """
    async with anyio.create_task_group() as group:
        await group.start(_drain_at_each, service)
        task_status.started()
        await service.wait_closed()
        group.cancel_scope.cancel()


async def _drain_at_each(service: AsyncVoiceService, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*SIGNALS) as signals:
        task_status.started()
        async with anyio.create_task_group() as drains:
            async for _ in signals:
                drains.start_soon(service.drain)


@contextmanager
def draining_on_signals(service: VoiceService) -> Iterator[threading.Event]:
    """While the block runs, SIGTERM and SIGINT drain `service`; another one shortens the drain.

    Gives an event that is set when a drain has ended: a main thread with nothing else to do waits for it. When the block is
    left while a drain is under way, this waits for its end.
    """
    drained = threading.Event()
    came: SimpleQueue[int | None] = SimpleQueue()  # its `put` may be called from a signal handler
    drains: list[threading.Thread] = []

    def drain() -> None:
        service.drain()
        drained.set()

    def watch() -> None:
        while came.get() is not None:
            drains.append(threading.Thread(target=drain, name="voice-service-drain"))
            drains[-1].start()

    before = {signum: signal.signal(signum, lambda number, _: came.put(number)) for signum in SIGNALS}
    watching = threading.Thread(target=watch, name="voice-service-signals", daemon=True)
    watching.start()
    try:
        yield drained
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        came.put(None)
        watching.join()
        for thread in drains:
            thread.join()
