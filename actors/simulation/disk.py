"""A disk in virtual time: writes go into its cache, a sync makes them durable; it may be full, slow, hang, tear or lie.

A process that dies leaves the cache as it is. A machine that goes down loses the cache: of the bytes written since the last
sync, those up to some byte are kept, and those behind it are lost.
"""

from collections.abc import Callable
from typing import Final

from actors.simulation.plan import Chance

FSYNC_LOST, TORN_WRITE = "fsync lost", "torn write"
LATENCY_MS: Final = (1, 12)  # of a sync


class DiskFailed(Exception):
    """The disk did not write the data, or only a part of it."""


class _CachedFile:
    def __init__(self) -> None:
        self.cache = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []


class SimulatedDisk:
    """The files of one machine. `now_ms` gives the time.

    Faults: the disk is full, hangs or is slow until a moment; its next syncs do nothing (`lies`); its next write is torn. The
    disk calls `on_fault` when a sync has lied or a write was torn.
    """

    def __init__(
        self, chance: Chance, now_ms: Callable[[], int], on_fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self.full_until = self.hangs_until = self.slow_until = 0
        self.lies = 0
        self.tears = False
        self.lied = False  # whether a sync has lied since the last true sync
        self._chance = chance
        self._now_ms = now_ms
        self._on_fault = on_fault
        self._files: dict[str, _CachedFile] = {}

    def latency_ms(self) -> int:
        """How long a write with its sync takes if it begins now."""
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
        """Write into the cache. A full disk still takes writes into `allocated` room.

        Raises `DiskFailed`, after writing a part.
        """
        if self._now_ms() < self.full_until and not allocated:
            raise DiskFailed("no space left on the disk")
        if self.tears and data:
            self.tears = False
            self._on_fault(TORN_WRITE)
            self._put(name, data[: self._chance.below(len(data))], at)
            raise DiskFailed("the disk reports an error")
        self._put(name, data, at)

    def sync(self, name: str) -> None:
        """Make the writes durable; a lying disk only claims to."""
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
        """Let the machine go down."""
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
        file = self._files.setdefault(name, _CachedFile())
        file.cache[at : at + len(data)] = data
        file.unsynced.append((at, data))
