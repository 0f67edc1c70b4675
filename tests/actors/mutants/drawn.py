"""Mutants that nobody chose: small changes of any statement in the shipped files, and a draw of some of them.

Each is known by a sentence that says where and what it is: by floor and file, whatever room that stands in. The draw goes by a
hash of seed and sentence, so that a change of the code elsewhere leaves it as it is, and so does a move.
"""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = (
    "actors/voice/session.py",
    "actors/voice/supervisor.py",
    "actors/voice/recorder.py",
    "actors/voice/transcriber.py",
    "actors/voice/quality.py",
    "actors/voice/evidence.py",
    "actors/voice/policy.py",
    "actors/voice/outbox.py",
    "machines/session.py",
    "machines/restart.py",
    "machines/policy.py",
)

Change = Callable[[ast.AST], None]


@dataclass(frozen=True)
class Drawn:
    """A file with one small change: `what` says which."""

    file: str
    what: str
    tree: ast.Module
    place: int
    change: Change

    def text(self) -> str:
        """The whole file with the change."""
        changed = copy.deepcopy(self.tree)
        self.change(list(ast.walk(changed))[self.place])
        return ast.unparse(ast.fix_missing_locations(changed))


def every_mutant(root: Path) -> Iterator[Drawn]:
    """All small changes of all the files, in the order of the code."""
    for file in FILES:
        tree = ast.parse((root / file).read_text())
        known_as = f"{file.partition('/')[0]}/{file.rpartition('/')[2]}"
        for place, node in enumerate(ast.walk(tree)):
            for what, change in _changes(node):
                yield Drawn(file, f"{known_as}: {what}", tree, place, change)


def draw(root: Path, seed: int, count: int) -> list[Drawn]:
    """`count` of them, each sentence at most once, the same ones for a seed as long as these are there."""
    by_sentence: dict[str, Drawn] = {}
    for mutant in every_mutant(root):
        by_sentence.setdefault(mutant.what, mutant)
    return sorted(by_sentence.values(), key=lambda one: hashlib.sha256(f"{seed} {one.what}".encode()).hexdigest())[
        :count
    ]


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What can be changed at a node, when it is handed the same node of a copy."""
    if isinstance(node, ast.FunctionDef) and node.name != "__init__":
        yield from _changes_of_statements(node)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and _names(node) == "handles":
        for at, (phase, table) in enumerate(zip(node.value.keys, node.value.values, strict=True)):
            rows = table.keys if isinstance(table, ast.Dict) else []
            for row, message in enumerate(rows):
                if phase is not None and message is not None and not _is_ignored(table, row):
                    yield f"ignore {ast.unparse(message)} in {ast.unparse(phase)}", _ignore(at, row)


def _changes_of_statements(function: ast.FunctionDef) -> Iterator[tuple[str, Change]]:
    for place, node in enumerate(ast.walk(function)):
        where = f"in {function.name}, "
        if isinstance(node, ast.If):
            yield f"{where}negate `if {ast.unparse(node.test)}`", _at(place, _negate)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield f"{where}one more than {node.value}", _at(place, _one_more)
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if not isinstance(block, list):
                continue
            for at, statement in enumerate(block):
                if not _is_call(statement):
                    continue
                text = ast.unparse(statement)
                yield f"{where}without `{text}`", _at(place, _drop(name, at))
                if at + 1 < len(block) and _is_call(block[at + 1]):
                    yield f"{where}`{ast.unparse(block[at + 1])}` before `{text}`", _at(place, _swap(name, at))


def _at(place: int, change: Change) -> Change:
    return lambda function: change(list(ast.walk(function))[place])


def _is_call(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def _is_ignored(table: ast.expr, row: int) -> bool:
    return isinstance(table, ast.Dict) and isinstance(table.values[row], ast.Name)


def _names(node: ast.Assign) -> str:
    return ast.unparse(node.targets[0])


def _ignore(at: int, row: int) -> Change:
    def change(node: ast.AST) -> None:
        assert isinstance(node, ast.Assign)
        assert isinstance(node.value, ast.Dict)
        table = node.value.values[at]
        assert isinstance(table, ast.Dict)
        table.values[row] = ast.parse("__import__('actors.runtime.actor').runtime.actor.IGNORE", mode="eval").body

    return change


def _negate(node: ast.AST) -> None:
    assert isinstance(node, ast.If)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _one_more(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int)
    node.value += 1


def _drop(name: str, at: int) -> Change:
    def change(node: ast.AST) -> None:
        getattr(node, name)[at] = ast.Pass()

    return change


def _swap(name: str, at: int) -> Change:
    def change(node: ast.AST) -> None:
        block = getattr(node, name)
        block[at], block[at + 1] = block[at + 1], block[at]

    return change
