"""Limits for one client: requests, connections, and the bytes of a request.

Callers pass times, in milliseconds of the monotonic clock. Memory is bounded, however many clients come.
"""

import ipaddress
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from agentos.core.communication.voice.errors import Overloaded, RateLimited, RequestTooLarge, RequestTooSlow

MAX_CLIENTS: Final = 10_000  # told apart by one limit; half a megabyte
IPV6_CLIENT_BITS: Final = 64  # a network that one client has to itself
LOCAL: Final = "local"  # a client without an address, connected by a socket file
EVERYBODY_ELSE: Final = ""  # the clients that share one allowance because there are too many to tell apart


def client_of(address: str | None) -> str:
    """The name of a client for limits: its IPv4 address, or the /64 network of its IPv6 address."""
    if address is None:
        return LOCAL
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, IPV6_CLIENT_BITS), strict=False))


class RateLimit:
    """`per_second` requests for each client, and up to `burst` at once, by the generic cell rate algorithm (ITU-T I.371).

    The limit keeps one number for a client: the time at which all its requests would have come at the allowed rate. Once
    `max_clients` have a number that still counts, further clients share a single allowance; no client's number is forgotten.
    """

    def __init__(self, per_second: float, burst: int, *, max_clients: int = MAX_CLIENTS) -> None:
        if not (0 < per_second < math.inf and burst >= 1 and max_clients >= 1):
            raise ValueError(f"a rate and a burst are above 0, got {per_second!r} a second and {burst!r} at once")
        self._interval_ms = 1000 / per_second
        self._ahead_ms = self._interval_ms * (burst - 1)
        self._max_clients = max_clients
        self._due: dict[str, float] = {}
        self._next_sweep_ms = -math.inf

    def admit(self, client: str, now_ms: float) -> None:
        """Count a request. If the client has to wait, raises `RateLimited`, and does not count the request."""
        if client not in self._due and len(self._due) >= self._max_clients:
            client = self._place(client, now_ms)
        due = max(self._due.get(client, now_ms), now_ms)
        wait_ms = due - now_ms - self._ahead_ms
        if wait_ms > 0:
            raise RateLimited("too many requests", retry_after_seconds=math.ceil(wait_ms) / 1000)
        self._due[client] = due + self._interval_ms

    def _place(self, client: str, now_ms: float) -> str:
        if now_ms >= self._next_sweep_ms:
            self._next_sweep_ms = (
                now_ms + self._interval_ms + self._ahead_ms
            )  # sooner, hardly any number can be dropped
            self._due = {known: due for known, due in self._due.items() if due > now_ms}
        return client if len(self._due) < self._max_clients else EVERYBODY_ELSE

    def __len__(self) -> int:
        """How many clients are told apart now."""
        return len(self._due)


class ConnectionLimit:
    """At most `per_client` connections at once for each client, and `total` for all. `too_many` is the error's text for a
    client at its limit, behind its number of connections."""

    def __init__(
        self, per_client: int, total: int, too_many: str = "connections are open, as many as a client may have"
    ) -> None:
        self._per_client = per_client
        self._total = total
        self._too_many = too_many
        self._open: dict[str, int] = {}
        self._all = 0

    @contextmanager
    def counted(self, client: str) -> Iterator[None]:
        """Count one more connection of the client within the block.

        Raises `RateLimited` if the client has too many, `Overloaded` if all clients together have.
        """
        if self._open.get(client, 0) >= self._per_client:
            raise RateLimited(f"{self._per_client} {self._too_many}", retry_after_seconds=1)
        if self._all >= self._total:
            raise Overloaded(f"{self._total:,} connections are open", retry_after_seconds=1)
        self._open[client] = self._open.get(client, 0) + 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]

    def __len__(self) -> int:
        """How many connections are open."""
        return self._all


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int, timeout_seconds: float) -> bytes:
    """The whole body of an HTTP request (ASGI).

    Raises `RequestTooLarge` as soon as its header or its bytes exceed `limit_bytes`, `RequestTooSlow` if it has not come whole
    within `timeout_seconds`, and Starlette's `ClientDisconnect` if the client went away.
    """
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if told.isdigit() and int(told[:20]) > limit_bytes:
        raise RequestTooLarge(limit_bytes)
    body = bytearray()
    with anyio.move_on_after(timeout_seconds):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > limit_bytes:
                raise RequestTooLarge(limit_bytes)
            if not message.get("more_body", False):
                return bytes(body)
    raise RequestTooSlow(timeout_seconds)
