"""A disk in virtual time: what was written is in its cache, what was synced is on it; it may be full, slow, hang, tear or lie.

A process that dies leaves the cache as it is. A machine that goes down takes the cache with it: what was written since the last
sync is there up to some byte, and gone behind it.
"""

from collections.abc import Callable
from typing import Final

from actors.simulation.plan import Chance

FSYNC_LOST, TORN_WRITE = "fsync lost", "torn write"
LATENCY_MS: Final = (1, 12)  # of a sync


class DiskFailed(Exception):
    """The disk did not do it, or only a part of it."""


class _File:
    def __init__(self) -> None:
        self.cache = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []


class SimulatedDisk:
    """The files of one machine. `now_ms` gives the time.

    Faults: it is full or hangs or is slow until a moment; the next syncs do nothing (`lies`); the next write is torn. When
    one of the last two has come, `on_fault` is told.
    """

    def __init__(
        self, chance: Chance, now_ms: Callable[[], int], on_fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self.full_until = self.hangs_until = self.slow_until = 0
        self.lies = 0
        self.tears = False
        self.lied = False  # since the last sync that was true
        self._chance = chance
        self._now_ms = now_ms
        self._on_fault = on_fault
        self._files: dict[str, _File] = {}

    def latency_ms(self) -> int:
        """How long a write with its sync takes that begins now."""
        now = self._now_ms()
        low, high = LATENCY_MS
        took = self._chance.between(low, high)
        if now < self.slow_until:
            took += self._chance.between(200, 1800)
        return max(0, self.hangs_until - now) + took

    def size(self, name: str) -> int:
        """The length of a file."""
        return len(self._files[name].cache) if name in self._files else 0

    def read(self, name: str, n: int, at: int) -> bytes:
        """`n` bytes of a file, fewer at its end."""
        return bytes(self._files[name].cache[at : at + n]) if name in self._files else b""

    def write(self, name: str, data: bytes, at: int, *, allocated: bool = False) -> None:
        """Write into the cache. `allocated` room is there even on a full disk. Raises `DiskFailed`, having written a part."""
        if self._now_ms() < self.full_until and not allocated:
            raise DiskFailed("no space left on the disk")
        if self.tears and data:
            self.tears = False
            self._on_fault(TORN_WRITE)
            self._put(name, data[: self._chance.below(len(data))], at)
            raise DiskFailed("the disk reports an error")
        self._put(name, data, at)

    def sync(self, name: str) -> None:
        """Make what was written durable; by a fault it only says so."""
        if self.lies:
            self.lies -= 1
            self.lied = True
            self._on_fault(FSYNC_LOST)
            return
        file = self._files.get(name)
        if file is not None:
            for at, data in file.unsynced:
                file.durable[at : at + len(data)] = data
            file.unsynced.clear()
        if not any(file.unsynced for file in self._files.values()):
            self.lied = False

    def crash(self) -> None:
        """The machine goes down."""
        for name in sorted(self._files):
            file = self._files[name]
            whole = self._chance.below(len(file.unsynced) + 1)
            for at, data in file.unsynced[:whole]:
                file.durable[at : at + len(data)] = data
            for at, data in file.unsynced[whole : whole + 1]:
                torn = data[: self._chance.below(len(data) + 1)]
                file.durable[at : at + len(torn)] = torn
            file.unsynced.clear()
            file.cache = bytearray(file.durable)

    def _put(self, name: str, data: bytes, at: int) -> None:
        file = self._files.setdefault(name, _File())
        file.cache[at : at + len(data)] = data
        file.unsynced.append((at, data))
