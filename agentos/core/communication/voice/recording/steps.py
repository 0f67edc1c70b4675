"""Long work on files in steps of some milliseconds, which its caller may break off between two steps."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


class NoLongerWanted(Exception):
    """The work was broken off: its result is no longer wanted."""


def taken(steps: Generator[None, None, T], wanted: Callable[[], bool]) -> T:
    """Take all steps and return their result. Raises `NoLongerWanted` between two steps when `wanted` turns false."""
    with closing(steps):
        while wanted():
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
    raise NoLongerWanted
