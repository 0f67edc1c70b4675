"""Taking connections from a socket, on both loops: one at a time, within the bounds. Whatever goes wrong with one of them, or
with the descriptors of the process, the next is taken."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from math import ceil
from typing import Final

import anyio

from agentos.core.communication.voice.errors import Overloaded, RateLimited, VoiceError
from agentos.core.communication.voice.gateway.access.connections import Connections, Guest
from agentos.core.communication.voice.gateway.problems import MEDIA_TYPE, problem_of
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import SAID_AGAIN_MS, Look
from agentos.core.time import monotonic_ms

RETRY_SECONDS: Final = 0.1  # when nothing can be accepted: others may close some meanwhile

log = logger(__name__)


async def accept(
    taken: socket.socket, connections: Connections, begin: Callable[[socket.socket, Guest], Awaitable[None]]
) -> None:
    """Accept connections until cancelled. `begin` serves one, in a task of its own or by callbacks, and returns soon; from then
    on the socket and its guest are in its hands.

    One that is refused gets a problem as its answer, as far as it can be sent without waiting, and is closed.
    """
    look = Look("connections that come in")
    said_ms = -SAID_AGAIN_MS
    while True:
        await anyio.wait_readable(taken)
        client: socket.socket | None = None
        try:
            client, address = taken.accept()
            client.setblocking(False)
            guest = connections.admit(address[0] if client.family != socket.AF_UNIX else None, client.fileno())
        except (Overloaded, RateLimited) as error:
            assert client is not None  # noqa: S101 - it was counted
            turn_away(client, error)
            if monotonic_ms() - said_ms >= SAID_AGAIN_MS:
                said_ms = monotonic_ms()
                log.warning("connections_refused", problem=str(error), refused=connections.refused)
            continue
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            continue  # it went away before it was let in
        except Exception:
            if client is not None:
                client.close()
            with look:
                raise
            await anyio.sleep(RETRY_SECONDS)
            continue
        try:
            await begin(client, guest)
        except Exception:
            guest.left()
            client.close()
            with look:
                raise


def turn_away(client: socket.socket, error: VoiceError) -> None:
    """Answer a connection with this error, if that goes without waiting, and close it."""
    problem = problem_of(error)
    body = problem.model_dump_json(exclude_none=True).encode()
    head = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        f"Retry-After: {ceil(problem.retry_after_seconds or 1)}",
        "Connection: close",
    ]
    with client, suppress(OSError):
        client.send("\r\n".join([*head, "", ""]).encode() + body)
        client.shutdown(socket.SHUT_WR)
