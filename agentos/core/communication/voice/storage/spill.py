"""A bounded file beside the store that takes final records while the store can't.

Its space is allocated when it is opened, so a full disk does not stop it, and it is appended and synced without the
database, so a locked or hung one doesn't either. The layout, big-endian:

    header  8 bytes magic, 8 bytes generation
    frames  as `machines.framing` has them; a payload is the JSON of one entry

Clearing writes the next generation, which makes every frame behind it unreadable at once. Reading ends at the first
frame that is not whole: what a crash tore was never acknowledged.

The file is locked (`flock`) for as long as its process lives; one that is not locked is an orphan, free to be taken in.
"""

import contextlib
import fcntl
import os
import re
import struct
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.failures import failed
from agentos.core.communication.voice.storage.folders import ensure_private_folder
from agentos.core.communication.voice.storage.store import BadEntry, Entry
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord, canonical_json
from machines.framing import FRAME, framed, whole_frames
from machines.session import VoiceSession

SUFFIX = ".spill"
MAGIC = b"avspill1"
HEADER = struct.Struct(">8sQ")
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ZEROS = bytes(1 << 16)


class SpillFull(StoreError):
    """The spill file has no room for these entries; none of them was added. `max_bytes` is its bound."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(f"the spill file {path} is full ({max_bytes:,} bytes): bring the store back", kind="full")
        self.max_bytes = max_bytes


class _Spilled(BaseModel):
    """An entry as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")

    record: EvidenceRecord
    session: VoiceSession | None
    events: tuple[VoiceEvent, ...]


class SpillFile:
    """One process's spill file. Made by `open` or found by `orphans`. Not safe for several threads at once.

    `owner` is whose it is, `path` where it is, `count` how many entries are in it. Failures of the file system are
    `StoreError`.
    """

    def __init__(self, descriptor: int, path: Path, max_bytes: int) -> None:
        self._descriptor: int | None = descriptor
        self._max_bytes = max_bytes
        self._end = HEADER.size
        self._generation = 0
        self.path = path
        self.owner = path.name.removesuffix(SUFFIX)
        self.count = 0

    @classmethod
    def open(cls, folder: Path, owner: str, max_bytes: int) -> Self:
        """Open (or make, mode 0600) the spill file of `owner` in `folder`, allocate `max_bytes` for it and lock it.

        `owner` is a file name of letters, digits, `.`, `_` and `-`. What an earlier process of the same owner left is
        kept. Raises `ValueError` for a bad owner or bound, `StoreError` "locked" when another process has it open,
        "full" when the space isn't there.
        """
        if not OWNER.fullmatch(owner):
            raise ValueError(f"owner must be letters, digits, '.', '_' and '-', at most 128, got {owner!r}")
        if max_bytes < 2 * HEADER.size:
            raise ValueError(f"max_bytes must be at least {2 * HEADER.size}, got {max_bytes}")
        path = Path(folder).absolute() / f"{owner}{SUFFIX}"
        fresh = False
        try:
            ensure_private_folder(path.parent)
            try:
                descriptor = _locked(path)
            except FileNotFoundError:
                descriptor, fresh = _made(path), True
        except OSError as error:
            raise failed(path, error) from error
        if descriptor is None:
            raise StoreError(f"the spill file {path} is open in another process", kind="locked")
        spill = cls(descriptor, path, max_bytes)
        try:
            spill._read_header()
            _allocate(descriptor, max_bytes)
            os.fsync(descriptor)
            spill._load()
        except OSError as error:
            if fresh:
                path.unlink(missing_ok=True)
            os.close(descriptor)
            raise error if isinstance(error, StoreError) else failed(path, error) from error
        return spill

    @classmethod
    def orphans(cls, folder: Path) -> list[Self]:
        """The spill files in `folder` whose process is gone, now locked by this one; unreadable ones are left alone.

        Take their entries into the store, then `clear` and `close` each.
        """
        found: list[Self] = []
        for path in sorted(Path(folder).absolute().glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError):  # gone, not ours to open, in use, or not to be read
                found.append(cls._orphan(path))
        return found

    @classmethod
    def orphan(cls, folder: Path, owner: str) -> Self | None:
        """The spill file that `owner`, whose process is gone, has left in `folder`, now locked by this one; None if none is.

        Raises `StoreError`: "locked" while another process has it, "corrupt" when it can't be read.
        """
        if not OWNER.fullmatch(owner):
            return None
        path = Path(folder).absolute() / f"{owner}{SUFFIX}"
        try:
            return cls._orphan(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise error if isinstance(error, StoreError) else failed(path, error) from error

    @classmethod
    def _orphan(cls, path: Path) -> Self:
        descriptor = _locked(path)
        if descriptor is None:
            raise StoreError(f"the spill file {path} is open in another process", kind="locked")
        spill = cls(descriptor, path, max_bytes=0)
        try:
            spill._max_bytes = os.fstat(descriptor).st_size
            spill._read_header()
            spill._load()
        except OSError:
            os.close(descriptor)
            raise
        return spill

    def add(self, entries: Sequence[Entry]) -> None:
        """Append entries and sync them to the disk; all are durable on return, or none counts as added.

        Raises `SpillFull` when they don't fit, `BadEntry` when one can't be written as JSON.
        """
        self._find_again()
        descriptor = self._opened()
        frames = bytearray()
        for entry in entries:
            frames += framed(_encoded(entry), self._generation)
        if self._end + len(frames) > self._max_bytes:
            raise SpillFull(self.path, self._max_bytes)
        try:
            _write(descriptor, frames, self._end)
            os.fsync(descriptor)
        except OSError as error:
            raise failed(self.path, error) from error
        self._end += len(frames)
        self.count += len(entries)

    def _find_again(self) -> None:
        """Make the file anew, with all that is in it, when it was deleted, perhaps with its folder: what only this process can
        still read would be gone with it."""
        descriptor = self._opened()
        try:
            if os.fstat(descriptor).st_nlink:
                return
            kept = self._frames()
            ensure_private_folder(self.path.parent)
            made = _made(self.path)
            if made is None:
                raise StoreError(f"the spill file {self.path} was replaced", kind="gone")
            try:
                _allocate(made, self._max_bytes)
                data = b"".join(framed(payload, 1) for payload in kept)
                _write(made, data, HEADER.size)
                os.fsync(made)
            except BaseException:
                os.close(made)
                raise
        except OSError as error:
            raise error if isinstance(error, StoreError) else failed(self.path, error) from error
        os.close(descriptor)
        self._descriptor, self._generation = made, 1
        self._end = HEADER.size + len(data)

    def entries(self) -> list[Entry]:
        """What is in the file, oldest first. Raises `StoreError` "corrupt" for a whole frame that is no entry."""
        found: list[Entry] = []
        for payload in self._frames():
            try:
                spilled = _Spilled.model_validate_json(payload)
            except ValidationError as error:
                problem = f"the spill file {self.path} holds an entry that this version can't read; keep it, and update"
                raise StoreError(problem, kind="corrupt") from error
            found.append(Entry(spilled.record, spilled.session, spilled.events))
        return found

    def clear(self) -> None:
        """Forget all entries, durably; the space stays allocated."""
        descriptor = self._opened()
        if self.count == 0 and self._end == HEADER.size:
            return
        try:
            _write(descriptor, HEADER.pack(MAGIC, self._generation + 1), 0)
            os.fsync(descriptor)
        except OSError as error:
            raise failed(self.path, error) from error
        self._generation += 1
        self._end = HEADER.size
        self.count = 0

    def close(self) -> None:
        """Unlock the file, and remove it when nothing is in it. A second close does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if self.count == 0:
                self.path.unlink(missing_ok=True)  # while locked, so nobody else has it open
        except OSError as error:
            raise failed(self.path, error) from error
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _opened(self) -> int:
        if self._descriptor is None:
            raise StoreError(f"the spill file {self.path} is closed", kind="io")
        return self._descriptor

    def _read_header(self) -> None:
        header = os.pread(self._opened(), HEADER.size, 0)
        magic, generation = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0)
        if magic != MAGIC:
            raise StoreError(f"{self.path} is no spill file of this version", kind="corrupt")
        self._generation = generation

    def _load(self) -> None:
        for payload in self._frames():
            self.count += 1
            self._end += FRAME.size + len(payload)

    def _frames(self) -> list[bytes]:
        descriptor = self._opened()
        try:
            size = os.fstat(descriptor).st_size
            read = partial(os.pread, descriptor)
            return [payload for payload, _ in whole_frames(read, HEADER.size, size, self._generation)]
        except OSError as error:
            raise failed(self.path, error) from error


def _encoded(entry: Entry) -> bytes:
    try:
        canonical_json(entry.record)  # refuses what the chain would refuse later
        return _Spilled(record=entry.record, session=entry.session, events=entry.events).model_dump_json().encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEntry(entry.record.id, str(error)) from error


def _made(path: Path) -> int | None:
    """A new file with its header, locked before it has its name, so that nobody takes it for an orphan; None if it is there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(descriptor, HEADER.pack(MAGIC, 1), 0)
        os.link(name, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        Path(name).unlink()
    return descriptor


def _locked(path: Path) -> int | None:
    """The open file, locked; None when another process has the lock, or removed the file meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _allocate(descriptor: int, n_bytes: int) -> None:
    missing_from = os.fstat(descriptor).st_size
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    for at in range(missing_from, n_bytes, len(ZEROS)):  # macOS: zeros take the space as well
        _write(descriptor, ZEROS[: n_bytes - at], at)


def _write(descriptor: int, data: bytes | bytearray, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
