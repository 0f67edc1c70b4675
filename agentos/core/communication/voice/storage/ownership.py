"""Whose sessions are whose: a service holds a lock on a file of its own in the home, and the lock dies with its process.

Every stored session names its owner. While the file of an owner is locked, nobody else touches its sessions; when the lock
can be taken, or the file is gone, the owner is dead. Whoever ends the sessions of a dead owner holds that owner's lock
meanwhile, so that two never do it at once, and dies with it as well. The lock is `flock`: no process id that could be given
to another process decides anything.
"""

import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import Final, Self

from agentos.core.communication.voice.errors import LocksUnavailable, StoreError
from agentos.core.communication.voice.storage.failures import failed, gone
from agentos.core.communication.voice.storage.folders import ensure_private_folder
from agentos.core.communication.voice.storage.spill import OWNER
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.time import monotonic_ms
from machines.session import VoiceSession

SUFFIX: Final = ".owner"
NOBODY: Final = "nobody"  # stands for an owner whose name can't be a file's: no service has such a name
TAKE_SECONDS: Final = 5.0  # others hold a new file only while they look at it
POLL_SECONDS: Final = 0.01
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class Ownership:
    """The lock of one owner, held. Made by `take` for oneself, by `of_dead` for an owner that is gone."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: int | None = descriptor
        self._path = path
        self.owner = path.name.removesuffix(SUFFIX)
        _held.add(self)

    @classmethod
    def take(cls, folder: Path, owner: str) -> Self:
        """Become `owner`, a name that nobody else has, in the home `folder`, which is made when it is missing.

        To be done before anything of this owner is stored. Raises `LocksUnavailable` on a file system without locks, and
        `StoreError`.
        """
        path = Path(folder).absolute() / f"{owner}{SUFFIX}"
        try:
            ensure_private_folder(path.parent)
        except OSError as error:
            raise failed(path.parent, error) from error
        deadline = monotonic_ms() + int(TAKE_SECONDS * 1000)
        while (descriptor := _locked(path)) is None:
            if monotonic_ms() >= deadline:
                raise StoreError(f"{path} is locked by another process: start again", kind="locked")
            time.sleep(POLL_SECONDS)
        return cls(descriptor, path)

    @classmethod
    def of_dead(cls, folder: Path, owner: str) -> Self | None:
        """Take the place of `owner` if it is dead; None while it lives, or while somebody else has taken its place.

        Raises as `take` does.
        """
        path = _path(folder, owner)
        descriptor = _locked(path)
        return None if descriptor is None else cls(descriptor, path)

    def check(self) -> None:
        """Whether the lock still says that its owner lives. Raises `StoreError` "gone" when its file was deleted, moved or
        replaced: to every other process the owner is dead then."""
        try:
            here = self._path.lstat()
            held = None if self._descriptor is None else os.fstat(self._descriptor)
        except (FileNotFoundError, NotADirectoryError):
            raise gone(self._path, "was deleted or moved, so that others take this process for dead") from None
        except OSError as error:
            raise failed(self._path, error) from error
        if held is None or (here.st_dev, here.st_ino) != (held.st_dev, held.st_ino):
            raise gone(self._path, "was replaced, so that others take this process for dead")

    def sign(self) -> None:
        """Leave a sign of life. Raises `StoreError`."""
        try:
            if self._descriptor is not None:
                os.utime(self._descriptor)
        except OSError as error:
            raise failed(self._path, error) from error

    def signed_ms(self) -> int:
        """When the owner left its last sign of life, in milliseconds since the epoch. Raises `StoreError`."""
        try:
            return 0 if self._descriptor is None else os.fstat(self._descriptor).st_mtime_ns // 1_000_000
        except OSError as error:
            raise failed(self._path, error) from error

    def release(self) -> None:
        """Give the lock up and remove its file: nothing of this owner is left. A second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            self._path.unlink(missing_ok=True)  # while locked: who has opened it sees that it is no longer there
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


def is_dead(folder: Path, owner: str) -> bool:
    """Whether nobody holds the lock of `owner` now. Changes nothing. Raises as `Ownership.take` does."""
    path = _path(folder, owner)
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


def owners(folder: Path) -> list[str]:
    """The owners that have a lock file in `folder`, dead or alive."""
    return sorted(path.name.removesuffix(SUFFIX) for path in Path(folder).absolute().glob(f"*{SUFFIX}"))


def sessions_of_the_dead(store: VoiceStore) -> list[VoiceSession]:
    """The sessions in the store that are not STOPPED and that nobody owns. Raises `StoreError`."""
    return _sessions(store, dead=True)


def sessions_of_the_living(store: VoiceStore) -> list[VoiceSession]:
    """The sessions in the store that are not STOPPED and run in a process that lives. Raises `StoreError`."""
    return _sessions(store, dead=False)


def _sessions(store: VoiceStore, *, dead: bool) -> list[VoiceSession]:
    home = store.path.parent
    by_owner = store.unfinished().items()
    return [session for owner, sessions in by_owner if is_dead(home, owner) is dead for session in sessions]


def _path(folder: Path, owner: str) -> Path:
    return Path(folder).absolute() / f"{owner if OWNER.fullmatch(owner) else NOBODY}{SUFFIX}"


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


_held: "weakref.WeakSet[Ownership]" = weakref.WeakSet()


def _forget_all() -> None:
    for ownership in list(_held):
        ownership.forget()


# A child that was forked shares the lock: it would keep a dead parent alive for all others.
os.register_at_fork(after_in_child=_forget_all)
