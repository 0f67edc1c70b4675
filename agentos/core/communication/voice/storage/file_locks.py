"""Ownership by file locks: an owner holds a lock on a file of its own in the home, and the lock dies with its process.

While the file of an owner is locked, the owner lives; when the lock can be taken, or the file is gone, the owner is dead.
Whoever takes its place holds its lock. The lock is `flock`: no process id that could be given to another process decides
anything.
"""

import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import Final

from agentos.core.communication.voice.errors import LocksUnavailable, StoreError
from agentos.core.communication.voice.storage.failures import failed, failures, gone
from agentos.core.communication.voice.storage.folders import ensure_private_folder
from agentos.core.communication.voice.storage.spill import OWNER
from agentos.core.time import monotonic_ms

SUFFIX: Final = ".owner"
NOBODY: Final = "nobody"  # stands for an owner whose name can't be a file's: no service has such a name
TAKE_SECONDS: Final = 5.0  # others hold a new file only while they look at it
POLL_SECONDS: Final = 0.01
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class FileLocks:
    """The `Owners` of the home `folder`, by lock files in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder).absolute()

    def take(self, owner: str) -> "FileLock":
        """Become `owner`; the folder is made when it is missing. Raises `LocksUnavailable` on a file system without locks."""
        path = self._folder / f"{owner}{SUFFIX}"
        with failures(self._folder):
            ensure_private_folder(self._folder)
        deadline = monotonic_ms() + int(TAKE_SECONDS * 1000)
        while (descriptor := _locked(path)) is None:
            if monotonic_ms() >= deadline:
                raise StoreError(f"{path} is locked by another process: start again", kind="locked")
            time.sleep(POLL_SECONDS)
        return FileLock(descriptor, path)

    def take_over(self, owner: str) -> "FileLock | None":
        """Take the place of `owner` if it is dead. Raises as `take` does."""
        path = self._path(owner)
        descriptor = _locked(path)
        return None if descriptor is None else FileLock(descriptor, path)

    def is_dead(self, owner: str) -> bool:
        """Whether nobody holds the lock of `owner` now. Raises as `take` does."""
        path = self._path(owner)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise failed(path, error) from error
        try:
            return _try_lock(path, descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """The owners that have a lock file, dead or alive."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner if OWNER.fullmatch(owner) else NOBODY}{SUFFIX}"


class FileLock:
    """The lock of one owner, held: an `Ownership`. Made by `FileLocks`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: int | None = descriptor
        self._path = path
        self.owner = path.name.removesuffix(SUFFIX)
        _held.add(self)

    def check(self) -> None:
        """Whether the lock still says that its owner lives. Raises `StoreError` "gone" when its file was deleted, moved or
        replaced: to every other process the owner is dead then."""
        try:
            held = self._descriptor is not None and self._is_at_its_place(self._descriptor)
        except (FileNotFoundError, NotADirectoryError):
            raise gone(self._path, "was deleted or moved, so that others take this process for dead") from None
        except OSError as error:
            raise failed(self._path, error) from error
        if not held:
            raise gone(self._path, "was replaced, so that others take this process for dead")

    def _is_at_its_place(self, descriptor: int) -> bool:
        return os.path.samestat(self._path.lstat(), os.fstat(descriptor))

    def sign(self) -> None:
        """Leave a sign of life. Raises `StoreError`."""
        with failures(self._path):
            if self._descriptor is not None:
                os.utime(self._descriptor)

    def signed_ms(self) -> int:
        """When the owner left its last sign of life, in milliseconds since the epoch. Raises `StoreError`."""
        with failures(self._path):
            return 0 if self._descriptor is None else os.fstat(self._descriptor).st_mtime_ns // 1_000_000

    def release(self) -> None:
        """Give the lock up and remove its file: nothing of this owner is left. A second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if self._is_at_its_place(descriptor):
                self._path.unlink()  # while locked: who has opened it sees that it is no longer there
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failed(self._path, error) from error
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Close the file and leave it where it is: whoever looks next finds a dead owner with its last sign of life.

        In a forked child the lock is the parent's, and stays.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """The file, made when it is missing, locked; None when another holds it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise failed(path, error) from error
        try:
            if not _try_lock(path, descriptor, fcntl.LOCK_EX):
                os.close(descriptor)
                return None
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed between the two calls: the name stands for another file now


def _try_lock(path: Path, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise LocksUnavailable(path.parent) from error
        raise failed(path, error) from error
    return True


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


# A child that was forked shares the lock: it would keep a dead parent alive for all others.
os.register_at_fork(after_in_child=_forget_all)
