"""Patches to shipped code, and what a checker that runs in a fresh interpreter says of the code with them.

A patch stands in one of the tables beside this file, by the file that it changes: what it breaks in life, the promise that
must fail, and the smallest model that shows it.
"""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COPIED = ("machines", "actors")
MODELS = ("tests/actors/supervision_models.py", "tests/actors/health_model.py")


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
        """The model and what it is called with, as the checker's process reads it."""
        return arguments_of({**self.model, "of": self.of} if self.of else self.model)


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
    """A model's settings as the checker's process reads them."""
    return json.dumps(model, sort_keys=True)


def patches() -> list[Patch]:
    """All of them, by file and in the order in which they stand there."""
    found: list[Patch] = []
    for table in sorted(HERE.glob("*.toml")):
        content = tomllib.loads(table.read_text())
        found += [Patch(**{"file": content["file"], "of": content.get("of", ""), **row}) for row in content["mutant"]]
    return found


def copy_with(changes: Mapping[str, str], to: Path) -> Path:
    """A copy of the floors that the model needs, with some files' text replaced."""
    for name in COPIED:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for models in MODELS:
        (to / models).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / models, to / models)
    for file, text in changes.items():
        (to / file).write_text(text)
    return to


def checked(copy: Path, arguments: str) -> Answer:
    """What the checker says of the code in `copy`, in an interpreter that has seen no other."""
    ran = subprocess.run(
        [sys.executable, str(HERE / "check_one.py"), arguments],
        env={"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if ran.returncode:
        return Answer({}, {}, 0, ran.stderr.strip().rsplit("\n", 1)[-1])
    return Answer(**json.loads(ran.stdout))
