"""What the storage tests share."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL_DISK_BYTES = 2 << 20


@pytest.fixture
def small_disk(new_file_system: Callable[[int], Path]) -> Path:
    """A real file system of 2 MiB."""
    return new_file_system(SMALL_DISK_BYTES)


@pytest.fixture
def fill_disk(small_disk: Path) -> Callable[[], Path]:
    """Leaves no space on the small disk; returns the file to remove when there shall be some again."""

    def fill() -> Path:
        stuffing = small_disk / "stuffing"
        with stuffing.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return stuffing

    return fill
