"""Accepting connections from a socket, on both loops: one at a time, within the bounds. A fault of one connection, or a lack of
file descriptors, does not keep the next from being accepted."""

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

RETRY_SECONDS: Final = 0.1  # if no connection can be accepted: others may close meanwhile

log = logger(__name__)


async def accept(
    taken: socket.socket, connections: Connections, begin: Callable[[socket.socket, Guest], Awaitable[None]]
) -> None:
    """Accept connections until cancelled. `begin` starts to serve one, in a task of its own or by callbacks, and returns soon;
    it owns the socket and its guest from then on.

    A refused connection gets a problem as its answer, as far as that can be sent without waiting, and is closed.
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
            assert client is not None  # noqa: S101 - set once the connection was counted
            turn_away(client, error)
            if monotonic_ms() - said_ms >= SAID_AGAIN_MS:
                said_ms = monotonic_ms()
                log.warning("connections_refused", problem=str(error), refused=connections.refused)
            continue
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            continue  # the client left before it was admitted
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
    """Answer a connection with this error, if the answer can be sent without waiting, and close it."""
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
