"""Bounds on open connections: in all, by client, and of strangers, which have shown no valid token or ticket yet.

At the bound of a client, that client's oldest stranger is closed; at any other bound, the oldest stranger of all. The new
connection takes its place: good clients authenticate within milliseconds, and so are hardly ever closed, and silent clients
can't keep them out. Only if there is no such stranger, the new connection is refused. `accepting.py` calls `admit` right after
`accept()`, when the connection has cost only a descriptor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Scope

from agentos.core.communication.voice.errors import Overloaded, RateLimited
from agentos.core.communication.voice.gateway.access.limits import client_of
from agentos.core.communication.voice.gateway.access.proxies import is_proxy
from agentos.core.communication.voice.open_files import connections_below, open_files_limit
from agentos.core.communication.voice.settings import Network

GUEST: Final = "agentos_voice.guest"  # in the state of an ASGI scope: the connection of the request
RETRY_SECONDS: Final = 1.0


class Guest:
    """One open connection. `end` closes it at once; the server that serves the connection sets `end`."""

    __slots__ = ("_connections", "client", "end")

    def __init__(self, connections: "Connections", client: str) -> None:
        self._connections: Connections | None = connections
        self.client = client
        self.end: Callable[[], Any] = lambda: None

    def known(self) -> None:
        """Note that the client has authenticated: the connection is no stranger any more."""
        if self._connections is not None:
            self._connections.known(self)

    def left(self) -> None:
        """Note that the connection is closed; calling it again changes nothing."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            connections.left(self)


@dataclass(slots=True)
class _Client:
    open: int = 0
    strangers: dict[Guest, None] = field(default_factory=dict)  # oldest first


class Connections:
    """The connections of one server, for one event loop: at most `total` in all (fewer if descriptors run short), `per_client`
    from one client (an IPv4 address or an IPv6 /64 network), and `strangers` unauthenticated ones. Many clients connect through
    an address of the `proxies`, so `per_client` does not hold for these addresses."""

    def __init__(self, *, total: int, per_client: int, strangers: int, proxies: Sequence[Network] = ()) -> None:
        self._total = total
        self._per_client = per_client
        self._most_strangers = strangers
        self._proxies = proxies
        self._clients: dict[str, _Client] = {}
        self._strangers: dict[Guest, None] = {}
        self._open = 0
        self.refused = 0
        self.displaced = 0

    def __len__(self) -> int:
        """How many connections are open."""
        return self._open

    @property
    def strangers(self) -> int:
        """How many open connections are strangers."""
        return len(self._strangers)

    def admit(self, address: str | None, descriptor: int) -> Guest:
        """Admit a connection with this descriptor. Raises `Overloaded`, or `RateLimited` if its own client has too many."""
        name = client_of(address)
        client = self._clients.get(name)
        too_many = client is not None and client.open >= self._per_client and not is_proxy(address, self._proxies)
        if client is not None and too_many and not self._displace(client.strangers):
            self.refused += 1
            raise RateLimited(
                f"{self._per_client:,} connections are open, as many as a client may have",
                retry_after_seconds=RETRY_SECONDS,
            )
        problem = None
        if descriptor >= connections_below(open_files_limit()):
            problem = "no more files can be opened"
        elif self._open >= self._total:
            problem = f"{self._open:,} connections are open"
        if problem is not None and not self._displace(self._strangers):
            self.refused += 1
            raise Overloaded(problem, retry_after_seconds=RETRY_SECONDS)
        if len(self._strangers) >= self._most_strangers:
            self._displace(self._strangers)
        guest = Guest(self, name)
        client = self._clients.setdefault(name, _Client())
        client.open += 1
        client.strangers[guest] = self._strangers[guest] = None
        self._open += 1
        return guest

    def known(self, guest: Guest) -> None:
        """Count a connection as a stranger no more."""
        if self._strangers.pop(guest, self) is None:
            del self._clients[guest.client].strangers[guest]

    def left(self, guest: Guest) -> None:
        """Count a connection no more."""
        self.known(guest)
        client = self._clients[guest.client]
        client.open -= 1
        self._open -= 1
        if not client.open:
            del self._clients[guest.client]

    def _displace(self, strangers: dict[Guest, None]) -> bool:
        oldest = next(iter(strangers), None)
        if oldest is None:
            return False
        self.displaced += 1
        oldest.left()
        oldest.end()
        return True


def known(scope: Scope) -> None:
    """Note that the client of this request or WebSocket has authenticated. Does nothing under another server, which does not
    count connections."""
    guest = (scope.get("state") or {}).get(GUEST)
    if guest is not None:
        guest.known()
