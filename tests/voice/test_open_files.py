"""The limit on open files is raised when a program asks for it, and never by the service."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from agentos.core.communication.voice.open_files import (
    MOST_OPEN_FILES,
    calls_for,
    most_open_files,
    next_descriptor,
    open_files_limit,
)

CODE = """
import resource
from agentos.core.communication.voice.open_files import allow_open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_open_files({sessions})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def soft_limit_for(sessions: int, code: str = CODE) -> int:
    done = subprocess.run(
        [sys.executable, "-c", code.format(sessions=sessions)], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_the_soft_limit_is_raised_for_as_many_sessions() -> None:
    assert soft_limit_for(100) == 1_124


def test_a_limit_that_is_high_enough_stays() -> None:
    assert soft_limit_for(100, CODE.replace("256", "2048")) == 2_048


def test_where_nothing_can_be_opened_any_more_the_limit_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_descriptor() < open_files_limit()

    def too_many(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", too_many)
        found = next_descriptor()
    assert found == open_files_limit()


@pytest.mark.parametrize(("limit", "calls"), [(160, 50), (1_024, 320), (20_000, 9_360), (1_048_576, 523_648)])
def test_the_calls_for_which_there_are_descriptors(limit: int, calls: int) -> None:
    assert calls_for(limit) == calls


@pytest.mark.parametrize(
    ("hard", "most"), [(4_096, 4_096), (2**30, MOST_OPEN_FILES), (resource.RLIM_INFINITY, MOST_OPEN_FILES)]
)
def test_the_limit_of_a_server_is_one_that_can_be_reached(
    hard: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    assert most_open_files() == most
