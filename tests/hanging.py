"""A test that hangs ends the run, with its name: the last resort behind pytest-timeout, whose signal a test can hold up."""

import faulthandler
import os
from collections.abc import Generator
from typing import Any

import pytest

GRACE_SECONDS = float(os.environ.get("HANGING_GRACE_SECONDS", "60"))  # behind the test's own limit

_stderr = 2  # the process's own, not what pytest puts there to catch what a test prints


def pytest_configure() -> None:
    global _stderr  # noqa: PLW0603 - one for the process
    _stderr = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Every thread's stack goes to standard error, then the process ends; of a worker, xdist tells which test that was."""
    if (limit := limit_of(item)) and not item.config.getoption("usepdb"):
        faulthandler.dump_traceback_later(limit + GRACE_SECONDS, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def limit_of(item: pytest.Item) -> float:
    """Seconds that pytest-timeout lets the test run: its mark, the command line, the project's setting; 0 is for ever."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    asked = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if asked is None else asked)
