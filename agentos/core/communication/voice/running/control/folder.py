"""The folder `run` of a home: one Unix socket for each running service, for nobody but its user.

A killed process leaves its socket file behind. A connection to that file is refused, which shows that its process is dead;
`listen` and `running` remove such files. A socket gets its final name only once its service listens.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agentos.core.communication.voice.storage.folders import ensure_private_folder, keep_private
from agentos.core.time import utc_now_ms

HAS_SOCKETS: Final = hasattr(socket, "AF_UNIX")
SUFFIX: Final = ".sock"
BINDING: Final = ".binding"
LONGEST_ADDRESS: Final = 103  # bytes; what every platform takes, Linux a few more
BINDING_MS: Final = 60_000  # a socket that was bound takes no longer to be listened at
BACKLOG: Final = 16


def folder_of(home: Path) -> Path:
    """Where the sockets of a home are."""
    return home / "run"


def listen(home: Path, instance: str) -> tuple[socket.socket, Path]:
    """A socket that listens for clients of this instance, and its path, which the caller removes at the end. Raises
    `OSError`."""
    folder = folder_of(home)
    ensure_private_folder(folder)
    keep_private(folder)
    running(home)  # removes those of the dead
    path, binding = folder / f"{instance}{SUFFIX}", folder / f"{instance}{BINDING}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(binding) as address:
            listener.bind(address)
        binding.chmod(0o600)
        listener.listen(BACKLOG)
        binding.rename(path)
    except BaseException:
        listener.close()
        binding.unlink(missing_ok=True)
        raise
    return listener, path


def connect(path: Path, timeout_seconds: float) -> socket.socket:
    """A connection to the service behind a socket. Raises `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        with address_of(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def running(home: Path) -> list[Path]:
    """The sockets of the services that run, by name; those of dead ones are removed on the way."""
    if not HAS_SOCKETS:
        return []
    found = []
    for path in sorted(folder_of(home).glob("*")):
        if path.suffix == SUFFIX:
            if not _removed_if_dead(path):
                found.append(path)
        elif path.suffix == BINDING:
            with suppress(OSError):
                if utc_now_ms() - path.stat().st_mtime_ns // 1_000_000 > BINDING_MS:
                    _removed_if_dead(path)
    return found


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """What to bind or connect to: the path, or, when that is longer than a socket's address may be, a short way to it.

    Raises `OSError` (ENAMETOOLONG) where there is no short way, which is on every platform but Linux.
    """
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise OSError(
            errno.ENAMETOOLONG, "the path is too long for a socket; take a home with a shorter one", str(path)
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _removed_if_dead(path: Path) -> bool:
    try:
        connect(path, timeout_seconds=1).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return True
    except FileNotFoundError:
        return True
    except OSError:  # it is busy, or not ours
        return False
    return False
