"""The few things about an event loop that anyio has no call for: its clock, and waking it from another thread at once."""

import asyncio
from collections.abc import Callable

import trio


def loop_clock() -> Callable[[], float]:
    """The clock of the loop that is running, in seconds; under a test's virtual clock, virtual seconds."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_clock().current_time  # `trio.current_time` looks this clock up each time
    return asyncio.get_running_loop().time


def thread_waker(callback: Callable[[], None]) -> Callable[[], None]:
    """A function that any thread may call to have `callback` run in this loop soon. It does not wait.

    anyio's calls from threads wait for their result, which costs a round trip; this is one write to the loop's pipe. Raises
    `RuntimeError` (trio: `RunFinishedError`, which is one) when the loop is over.
    """
    if trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()

        def wake_trio() -> None:
            token.run_sync_soon(callback, idempotent=True)

        return wake_trio
    loop = asyncio.get_running_loop()

    def wake_asyncio() -> None:
        loop.call_soon_threadsafe(callback)

    return wake_asyncio
