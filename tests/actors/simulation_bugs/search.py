"""The bugs of the tables beside this file, and the search for one: days of the voice simulation of code that has it."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from tests.actors.fresh import ROOT, Ask

HERE = Path(__file__).parent
SEEDS = 200


class Bug(NamedTuple):
    """`old`, which stands in `file` exactly once, becomes `new`; what that `breaks` in life. `seed` is the first of all that
    found it when it was written down: the search begins there, and still ends when two hundred have found nothing."""

    file: str
    name: str
    breaks: str
    old: str
    new: str
    seed: int = 0


def bugs() -> list[Bug]:
    found: list[Bug] = []
    for path in sorted(HERE.glob("*.toml")):
        content = tomllib.loads(path.read_text())
        found += [Bug(content["file"], **row) for row in content["bug"]]
    return found


def search(ask: Ask, bug: Bug, first: int, seconds: int) -> dict[str, Any]:
    """What `find_one` says of the code that has the bug, from this seed on, within so many seconds of a processor."""
    changes = {bug.file: (ROOT / bug.file).read_text().replace(bug.old, bug.new)}
    found: dict[str, Any] = ask(HERE / "find_one.py", [first, SEEDS], changes, seconds)
    return found
