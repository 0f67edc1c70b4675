"""Write down anew which seed is the first that finds each bug, after a change of the actors or of a simulated day.

    python -m tests.actors.simulation_bugs.first_seeds

It takes a few seconds a bug, two at a time, prints each, and ends with 1 if one was not found in two hundred seeds.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.actors.fresh import Ask, fresh
from tests.actors.simulation_bugs.search import HERE, Bug, bugs, search

AT_ONCE = 2
SECONDS = 3600  # more than two hundred seeds take


def first_seed(ask: Ask, bug: Bug) -> int | None:
    seed: int | None = search(ask, bug, 0, SECONDS)["seed"]
    print(f"{Path(bug.file).stem}: {bug.name}: {seed}", flush=True)  # noqa: T201
    return seed


def with_seed(table: str, name: str, seed: int) -> str:
    """The text of a table in which the bug of this name has this seed; 0 is not written."""
    head = re.escape(f'name = "{name}"\n')
    line = f"seed = {seed}\n" if seed else ""
    return re.sub(f"({head})(seed = [0-9]+\n)?", lambda match: match[1] + line, table, count=1)


def main() -> int:
    found = bugs()
    with fresh(AT_ONCE) as ask, ThreadPoolExecutor(AT_ONCE) as pool:
        seeds = dict(zip((bug.name for bug in found), pool.map(partial(first_seed, ask), found), strict=True))
    for path in sorted(HERE.glob("*.toml")):
        table = path.read_text()
        for name, seed in seeds.items():
            table = with_seed(table, name, seed or 0)
        path.write_text(table)
    return int(None in seeds.values())


if __name__ == "__main__":
    sys.exit(main())
