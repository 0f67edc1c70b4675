"""A user's own code that a command runs: importing it, and errors that point into it."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from agentos.core.communication.voice.cli.exits import InputError, one_line
from machines.checker.model import ModelError


def imported(module: str, attribute: str) -> Any:
    """The attribute of a module. Raises `InputError` if there is none, or the module can't be imported."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # like `python -m`: a user's models are in the current folder
    with blamed(f"can't import {module}"):
        found = import_module(module)
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise InputError(f"the module {module} has no {attribute!r}") from None


def described_type(value: Any) -> str:
    """The kind of a value in words, for a message."""
    return f"a value of the type {type(value).__name__}"


@contextmanager
def blamed(problem: str) -> Iterator[None]:
    """A context that turns an error of a user's code into one line with its place."""
    try:
        yield
    except (InputError, ModelError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        raise InputError(f"{problem}: {type(error).__name__}: {one_line(str(error))}{at}") from error
