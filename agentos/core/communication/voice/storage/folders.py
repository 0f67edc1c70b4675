"""Folders of a home: only their owner may look into them, whatever the umask, and a power cut takes back nothing in them."""

import os
import stat
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def ensure_private_folder(folder: Path) -> None:
    """Make `folder`, and each folder above it that is missing, with the mode 0700. It may be there. Raises `OSError`.

    `Path.mkdir` gives its mode to the last folder only, and what the umask leaves to those above it.
    """
    try:
        folder.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        ensure_private_folder(folder.parent)
        folder.mkdir(FOLDER_MODE, exist_ok=True)
    except OSError:  # there already; that is not always what the system says first
        if not folder.is_dir():
            raise


def keep_private(folder: Path) -> None:
    """Take from group and others what they may do with `folder`, if it is there. Raises `OSError`."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & _OTHERS:
        folder.chmod(mode & ~_OTHERS)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
