"""Code of a user that a command runs: how it is found, and who is to blame when it fails."""

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
    """What a module has under this name. Raises `InputError` if it has nothing, or can't be imported."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does: a user's models are where the user is
    with blamed(f"can't import {module}"):
        found = import_module(module)
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise InputError(f"the module {module} has no {attribute!r}") from None


def described_type(value: Any) -> str:
    """What kind of value something is, for a message."""
    return f"a value of the type {type(value).__name__}"


@contextmanager
def blamed(problem: str) -> Iterator[None]:
    """What a user's code raises, as one line that says where."""
    try:
        yield
    except (InputError, ModelError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        raise InputError(f"{problem}: {type(error).__name__}: {one_line(str(error))}{at}") from error
