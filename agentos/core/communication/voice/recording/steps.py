"""Long work on files in steps of some milliseconds, which whoever does it may give up between two of them."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


class GivenUp(Exception):
    """Nobody waits for the work any more."""


def taken(steps: Generator[None, None, T], wanted: Callable[[], bool]) -> T:
    """Take the steps and give what they return. Raises `GivenUp` between two of them when nobody wants it any more."""
    with closing(steps):
        while wanted():
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
    raise GivenUp
