"""How many connections are open at once: in all, by client, and of strangers, who have shown no good token or ticket yet.

Where a bound is reached, the stranger that came first goes, and the new one has its place: who is known within milliseconds,
as good clients are, is never in the way, and who says nothing can't hold a place against them. Only where no stranger can go is
the new one refused. `accepting.py` asks before a connection costs more than its descriptor.
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

GUEST: Final = "agentos_voice.guest"  # in the state of a scope of ASGI: the connection that the request came by
RETRY_SECONDS: Final = 1.0


class Guest:
    """One connection. `end` closes it at once, and is set by who serves it."""

    __slots__ = ("_connections", "client", "end")

    def __init__(self, connections: "Connections", client: str) -> None:
        self._connections: Connections | None = connections
        self.client = client
        self.end: Callable[[], Any] = lambda: None

    def known(self) -> None:
        """It has shown who it is: it keeps its place."""
        if self._connections is not None:
            self._connections.known(self)

    def left(self) -> None:
        """It is gone; more than once changes nothing."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            connections.left(self)


@dataclass(slots=True)
class _Client:
    open: int = 0
    strangers: dict[Guest, None] = field(default_factory=dict)  # in the order in which they came


class Connections:
    """The connections of one server, for one event loop: `total` in all, `per_client` from one address, `strangers` that are
    not known. Beside them the descriptors that are left count. Behind an address of the `proxies` stand many clients, whose
    addresses are not known at the socket: only the other bounds hold there."""

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
        """How many are open."""
        return self._open

    @property
    def strangers(self) -> int:
        """How many of them are not known."""
        return len(self._strangers)

    def admit(self, address: str | None, descriptor: int) -> Guest:
        """Let a connection in, which has this descriptor. Raises `Overloaded`, or `RateLimited` when its own client has too
        many."""
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
        """A stranger has shown who it is."""
        if self._strangers.pop(guest, self) is None:
            del self._clients[guest.client].strangers[guest]

    def left(self, guest: Guest) -> None:
        """A connection is gone."""
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
    """Whoever sent this request, or opened this WebSocket, has shown who it is. Without a server of ours nobody counts."""
    guest = (scope.get("state") or {}).get(GUEST)
    if guest is not None:
        guest.known()
