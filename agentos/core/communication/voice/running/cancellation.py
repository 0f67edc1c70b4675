"""Tasks and threads whose end must be known although asyncio's own cancellation knows no shield.

Whoever waits for a thread can be cancelled; the thread goes on. So what it opens is closed by whoever comes last, and what is
to be closed is waited for, in this thread if there is no other way. Both are bounded by the deadlines of what runs in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from agentos.core.communication.voice.errors import ServiceClosed
from agentos.core.communication.voice.running.resources import CLOSING_GRACE_SECONDS, Files, ServiceResources
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import StoreFactory


class _Starting(TaskStatus[None]):
    """What a task says, and how it ended if it did before it said anything."""

    def __init__(self) -> None:
        self.said = anyio.Event()
        self.began = False
        self.error: Exception | None = None

    def started(self, value: None = None) -> None:
        del value
        self.began = True
        self.said.set()

    def check(self) -> None:
        """Raise what kept it from starting, if anything did."""
        if self.error is not None:
            raise self.error
        if not self.began:
            raise ServiceClosed("the voice service was cancelled while it started; create a new one")

    async def watch(self, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await run(*arguments, task_status=self)
        except Exception as error:
            if self.began:
                raise
            self.error = error
        finally:
            self.said.set()


async def start(group: TaskGroup, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """`group.start`, which on asyncio waits for ever when its task is cancelled before that has made its first step.

    An error of the task before it has started is raised as it is. Raises `ServiceClosed` when it ends without having started.
    """
    starting = _Starting()
    group.start_soon(starting.watch, run, *arguments)
    await starting.said.wait()
    starting.check()


class OwnTask:
    """On asyncio: what runs while a block is open, in a task that the block does not own.

    So the block may be left by another task than entered it, as fixtures of pytest are, which no cancel scope survives. As with
    `asyncio.TaskGroup`, the block is cancelled when what runs fails meanwhile.
    """

    def __init__(self, run: Callable[..., Awaitable[None]], close: Callable[[], None]) -> None:
        self._run = run
        self._close = close
        self._interrupted = False
        self._leaving = False

    async def __aenter__(self) -> None:
        """Start it. Raises its error when it fails before it has started, `ServiceClosed` when it ends."""
        self._host = asyncio.current_task()
        starting = _Starting()
        self._task = asyncio.get_running_loop().create_task(starting.watch(self._run))
        try:
            await starting.said.wait()
        except BaseException:
            self._leaving = True
            self._task.cancel()
            await self._ended()
            raise
        self._task.add_done_callback(self._done)
        starting.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have it end, and wait until it has, however often this is cancelled. Raises what it failed with, in a group."""
        self._leaving = True
        self._close()
        cancelled = await self._ended()
        failure = None if self._task.cancelled() else self._task.exception()
        if self._interrupted and self._host is not None:
            self._host.uncancel()
        if failure is not None and not (isinstance(error, asyncio.CancelledError) and not self._interrupted):
            raise BaseExceptionGroup("the voice service failed", [failure]) from None
        if cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise cancelled

    def _done(self, task: "asyncio.Task[None]") -> None:
        failed = not task.cancelled() and task.exception() is not None
        if failed and not self._leaving and self._host is not None and not self._host.done():
            self._interrupted = True
            self._host.cancel()

    async def _ended(self) -> asyncio.CancelledError | None:
        """Wait for the end of the task; the last cancellation that came meanwhile, if any."""
        cancelled = None
        while not self._task.done():
            try:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([self._task])
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled


async def open_files(settings: VoiceSettings, factory: StoreFactory) -> Files:
    """`ServiceResources.open_files` in a thread. Cancelled, it leaves nothing open. Raises `StoreError`."""
    opened: Future[Files] = Future()

    def open_in_thread() -> None:
        if opened.set_running_or_notify_cancel():
            try:
                opened.set_result(ServiceResources.open_files(settings, factory))
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                opened.set_exception(error)

    async def sheltered() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(open_in_thread)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(sheltered)
    except BaseException:
        if not opened.cancel():
            wait([opened], CLOSING_GRACE_SECONDS)
            opened.add_done_callback(_close)
        raise
    return opened.result()


def _close(opened: Future[Files]) -> None:
    if opened.exception() is None:
        ownership, store, spill = opened.result()
        spill.close()
        store.close()
        ownership.release()


async def close_sheltered(resources: ServiceResources) -> None:
    """`ServiceResources.close` in a thread. Cancelled past every shield, it blocks until that is done."""
    try:
        await anyio.to_thread.run_sync(resources.close)
    except BaseException:
        resources.close()
        raise
