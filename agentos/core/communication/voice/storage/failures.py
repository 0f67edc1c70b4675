"""What the file system raises, as the one `StoreError` that says what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.core.communication.voice.errors import FailureKind, StoreError, VoiceError

_ERRNO_KINDS: dict[int | None, FailureKind] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
    errno.EPERM: "readonly",
    errno.EAGAIN: "locked",
}
_ADVICE: dict[FailureKind, str] = {
    "full": "the disk is full: free some space",
    "locked": "another process holds the database's lock: try again, or see which one it is",
    "corrupt": "it is no SQLite database, or a damaged one: restore a copy or move the file away",
    "readonly": "it can't be written: check the permissions and the mount",
    "io": "the file system failed: check the disk",
    "schema": "its tables are not those of this version",
    "gone": "put it back where it was, or start again on what is there now",
}


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn what the file system raises into `StoreError`."""
    try:
        yield
    except VoiceError:
        raise
    except OSError as error:
        raise failed(path, error) from error


def failed(path: Path, error: OSError) -> StoreError:
    """The `StoreError` that a failure of the file system at `path` is."""
    return failure_of(path, _ERRNO_KINDS.get(error.errno, "io"), error)


def gone(path: Path, problem: str) -> StoreError:
    """The `StoreError` for a file that is no longer where its process opened it."""
    return StoreError(f"{path} {problem}; {_ADVICE['gone']}", kind="gone")


def failure_of(path: Path, kind: FailureKind, error: BaseException | None) -> StoreError:
    """The `StoreError` of this kind, with what it was and what to do."""
    return StoreError(f"the store {path} failed ({error}); {_ADVICE[kind]}", kind=kind)
