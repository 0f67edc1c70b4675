"""The spill files of one home as its writer sees them: its own, which it fills, and the orphans that dead processes left.

What stands in them goes into the store before anything newer. The store skips ids that it has, so that a file which was
taken in and could not be cleared does no harm. For an entry that can't be stored as it is another one goes in (`mending.py`),
so that no file is kept for the sake of one record.
"""

import threading
from collections.abc import Callable, Sequence

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.storage.mending import mended, said_of
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore

log = logger(__name__)


class SpillFiles:
    """Fills `own` from one thread, and takes everything into `store` from another.

    `on_taken_in(entries)` is called, in the thread that takes in, with the entries of a file that are in the store now.
    `behind` is set while something is left because the store failed; with `look_for_orphans` the next `take_in` searches the
    folder.
    """

    def __init__(self, own: SpillFile, store: VoiceStore, on_taken_in: Callable[[list[Entry]], None]) -> None:
        self._own = own
        self._store = store
        self._on_taken_in = on_taken_in
        self._lock = threading.Lock()  # held while a spill file is touched, never while the database is
        self._in_own: set[str] = set()  # ids of the records that were put into our own file
        self._orphans: list[SpillFile] = []
        self._unreadable: set[SpillFile] = set()
        self.behind = False
        self.look_for_orphans = True

    @property
    def count(self) -> int:
        """How many entries are in the files."""
        return self._own.count + sum(spill.count for spill in self._orphans)

    def add(self, entries: Sequence[Entry]) -> None:
        """Make entries durable in our own file, those that are not in it yet. Raises `StoreError` or `BadEntry`."""
        with self._lock:
            new = {entry.record.id: entry for entry in entries if entry.record.id not in self._in_own}
            self._own.add(list(new.values()))
            self._in_own |= new.keys()

    def close(self) -> None:
        """Close the files; what is still in them is taken in at the next start."""
        with self._lock:
            for spill in (*self._orphans, self._own):
                try:
                    spill.close()
                except StoreError:
                    log.exception("a spill file could not be closed; the next start takes it in")

    def take_in(self) -> Exception | None:
        """Bring what was spilled into the store; the store's error if it failed."""
        if self.look_for_orphans:
            self.look_for_orphans = False
            with self._lock:
                self._orphans += self._found_orphans()
        for spill in (*self._orphans, self._own):
            if spill in self._unreadable:
                continue
            error = self._take_in_file(spill)
            if error is not None:
                self.behind = True
                self.look_for_orphans = True
                return error
            if spill is not self._own and spill not in self._unreadable:
                self._orphans.remove(spill)
        self.behind = False
        return None

    def _take_in_file(self, spill: SpillFile) -> Exception | None:
        while True:
            with self._lock:
                count = spill.count
                try:
                    entries = spill.entries()
                except StoreError:
                    log.exception("a spill file can't be read and is left as it is")
                    self._unreadable.add(spill)
                    return None
            error = self._append(spill, entries)
            if error is not None:
                return error
            if spill in self._unreadable:
                return None
            with self._lock:
                if spill.count != count:
                    continue  # more was spilled meanwhile; what is in already is skipped by its id
                try:
                    spill.clear()
                    if spill is self._own:
                        self._in_own.clear()
                    else:
                        spill.close()
                except StoreError:
                    log.exception("a spill file could not be cleared; its entries are stored, and skipped next time")
            if entries:
                log.info("%d spilled entries are in the store", len(entries))
                self._on_taken_in(entries)
            return None

    def _append(self, spill: SpillFile, entries: list[Entry]) -> Exception | None:
        error = self._attempt(spill, entries)
        if error is None or isinstance(error, StoreError):
            return error
        for entry in entries:
            error = self._attempt(spill, [entry])
            if isinstance(error, StoreError):
                return error
            if error is None:
                continue
            log.error("the record %s of %s can't be stored as it is: %s", entry.record.id, spill.path, said_of(error))
            error = self._attempt(spill, [mended(entry, said_of(error))])
            if isinstance(error, StoreError):
                return error
            if isinstance(error, BadEntry):
                log.error("evidence is lost: nothing can stand for the record %s: %s", entry.record.id, said_of(error))
            elif error is not None:
                log.error("%s is kept: %s", spill.path, said_of(error))
                self._unreadable.add(spill)
        return None

    def _attempt(self, spill: SpillFile, entries: list[Entry]) -> Exception | None:
        try:
            self._store.append(entries, owner=spill.owner)
        except Exception as error:  # noqa: BLE001 - the caller decides what it means
            return error
        return None

    def _found_orphans(self) -> list[SpillFile]:
        try:
            return SpillFile.orphans(self._own.path.parent)
        except OSError:
            log.exception("the folder of the spill files can't be read")
            return []
