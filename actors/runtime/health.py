"""The health watch: ports that are asked for a sign of life, and the news of those that give none.

    RESTING   it answered; it is asked again when the pause is over
    ASKED     a heartbeat is with it
    LATE      half of its time is over
    SILENT    all of its time is over, and the listener was told; no new heartbeat goes out until the port answers

A port answers from the thread that does its work, after the work that is queued there: so a port with a hung thread does not
answer. A deadline is two timers of half its length. If the event loop was blocked, the first timer may come before an answer
that already waits; the answer is then handled before the second timer, and the port does not count as silent.
"""

from typing import Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import CONTROL
from machines.frozen import FrozenMap

RESTING, ASKED, LATE, SILENT = "resting", "asked", "late", "silent"
_NUMBERS: Final = (
    8  # they come round again: a port has one heartbeat at a time, and one more for each crash of the watch
)


class Heartbeat(Struct, frozen=True):
    """Port work: tell `Beat(number, port)` to `reply_to` from where the work is done."""

    number: int
    port: str
    reply_to: object


class Beat(Struct, frozen=True, gc=False):
    """Port fact: the port's sign of life, as it was asked for."""

    lane: ClassVar[int] = CONTROL
    number: int
    port: str


class PortSilent(Struct, frozen=True, gc=False):
    """Listener work: the port has not answered in time."""

    port: str


class PortBack(Struct, frozen=True, gc=False):
    """Listener work: the port answers."""

    port: str


class WatchedPort(Struct, frozen=True):
    """How it stands with one port; `number` is that of its last heartbeat."""

    phase: str
    number: int


class HealthWatch(Actor):
    """Watches `ports`, pairs of a name and a port, and hands `PortSilent` and `PortBack` to the port `listener`.

    A heartbeat follows `every_seconds` after the last answer, and may take `timeout_seconds`. Each news is told once. Only
    after a crash of the watch itself, whose last news may not have gone out, the watch tells the listener the state of every
    port again; the listener must accept such repeats.
    """

    __slots__ = ("every_seconds", "listener", "ports", "timeout_seconds", "watched")
    wiring = ("ports", "listener", "every_seconds", "timeout_seconds")
    state = ("watched",)
    journal = state
    handles = {Beat: "beat"}

    def __init__(
        self, ports: tuple[tuple[str, Any], ...], listener: object, every_seconds: float, timeout_seconds: float
    ) -> None:
        self.ports = ports
        self.listener = listener
        self.every_seconds = every_seconds
        self.timeout_seconds = timeout_seconds
        self.watched: FrozenMap[str, WatchedPort] = FrozenMap()

    def start(self, out: Out) -> None:
        """Ask every port."""
        for name, _ in self.ports:
            self._set(name, WatchedPort(ASKED, 1))
            self._ask(name, out)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands: what may not have gone out, heartbeats and news, goes out again."""
        if not len(self.watched):
            self.start(out)
            return
        for name, _ in self.ports:
            phase = self._watched(name).phase
            out.port(self.listener, PortSilent(name) if phase == SILENT else PortBack(name))
            if phase == RESTING:
                out.set_timer(name, self.every_seconds)
            else:
                self._ask(name, out)

    def beat(self, message: Beat, out: Out) -> None:
        """The port answers; an answer to another heartbeat than its last is old."""
        watched = self._watched(message.port)
        if watched.phase == RESTING or message.number != watched.number:
            return
        self._set(message.port, replace(watched, phase=RESTING))
        out.set_timer(message.port, self.every_seconds)
        if watched.phase == SILENT:
            out.port(self.listener, PortBack(message.port))

    def timeout(self, timer: str, out: Out) -> None:
        """The pause of a port is over, or half of its time to answer."""
        watched = self._watched(timer)
        if watched.phase == RESTING:
            self._set(timer, WatchedPort(ASKED, watched.number % _NUMBERS + 1))
            self._ask(timer, out)
        elif watched.phase == ASKED:
            self._set(timer, replace(watched, phase=LATE))
            out.set_timer(timer, self.timeout_seconds / 2)
        else:
            self._set(timer, replace(watched, phase=SILENT))
            out.port(self.listener, PortSilent(timer))

    def _ask(self, name: str, out: Out) -> None:
        watched = self._watched(name)
        if watched.phase != SILENT:
            out.set_timer(name, self.timeout_seconds / 2)
        out.port(dict(self.ports)[name], Heartbeat(watched.number, name, out.me))

    def _watched(self, name: str) -> WatchedPort:
        watched = self.watched.get(name)
        if watched is None:
            raise LookupError(f"no port {name!r} is watched")
        return watched

    def _set(self, name: str, watched: WatchedPort) -> None:
        self.watched = self.watched.with_item(name, watched)
