"""Work for a client that is still connected: a long reply is cancelled when its client goes away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import Receive


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncIterator[None]:
    """Run the block, and cancel it when the client of this HTTP request goes away; the code after the block goes on."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        yield
        group.cancel_scope.cancel()
