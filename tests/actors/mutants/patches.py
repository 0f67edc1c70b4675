"""Patches to shipped code, and what a checker that has seen no other code says of the code with them.

A patch stands in one of the tables beside this file, by the file that it changes: what it breaks in life, the promise that
must fail, and the smallest model that shows it.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.actors.fresh import ROOT, Ask, Died

HERE = Path(__file__).parent
SECONDS = 550  # of a processor, for one model


@dataclass(frozen=True)
class Patch:
    """`old`, which stands in `file` exactly once, becomes `new`. The model is the voice model unless `of` names
    another. `scar` numbers a failure that other systems are known for:
    1 calls that outlive their end, 3 calls that keep their slot, 7 states that race."""

    file: str
    name: str
    breaks: str
    promise: str
    old: str
    new: str
    model: Mapping[str, Any] = field(default_factory=dict)
    scar: int = 0
    of: str = ""

    @property
    def arguments(self) -> str:
        """The model and what it is called with, as text."""
        return arguments_of({**self.model, "of": self.of} if self.of else self.model)

    @property
    def changes(self) -> dict[str, str]:
        """The new text of the file, by its path."""
        return {self.file: (ROOT / self.file).read_text().replace(self.old, self.new)}


@dataclass(frozen=True)
class Answer:
    """What the checker said: the outcome of each property, the steps of each counterexample, and what kept it from checking."""

    outcomes: Mapping[str, str]
    paths: Mapping[str, int]
    states: int
    error: str

    @property
    def failed(self) -> tuple[str, ...]:
        """The properties that fail."""
        return tuple(sorted(name for name, outcome in self.outcomes.items() if outcome == "fails"))


def arguments_of(model: Mapping[str, Any]) -> str:
    """A model's settings as text, the same for the same settings."""
    return json.dumps(model, sort_keys=True)


def patches() -> list[Patch]:
    """All of them, by file and in the order in which they stand there."""
    found: list[Patch] = []
    for table in sorted(HERE.glob("*.toml")):
        content = tomllib.loads(table.read_text())
        found += [Patch(**{"file": content["file"], "of": content.get("of", ""), **row}) for row in content["mutant"]]
    return found


def checked(ask: Ask, arguments: str, changes: Mapping[str, str], only: Sequence[str] = ()) -> Answer:
    """The checker's verdicts on a model with changed files: on the `only` properties, or whether any fails."""
    try:
        return Answer(**ask(HERE / "check_one.py", [json.loads(arguments), list(only)], changes, SECONDS))
    except Died as died:
        return Answer({}, {}, 0, str(died))
