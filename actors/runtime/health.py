"""The health watch: ports that are asked for a sign of life, and the news of those that give none.

    RESTING   it answered; it is asked again when the pause is over
    ASKED     a heartbeat is with it
    LATE      half of its time is over
    SILENT    all of its time is over, and that was told; it has the heartbeat still, and gets no other

A port answers from where it does its work, behind what it has to do already: so that one whose thread hangs does not answer,
however well the rest of it is. A deadline is two timers, one after the other: a loop that was held up for long finds the first
one due before the answer that waits beside it, and the second one gives that answer its turn.
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
    after a crash of the watch itself, when nobody can know whether the last one went out, it is told again how each port
    stands: for a listener that knows that already it is no news.
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
