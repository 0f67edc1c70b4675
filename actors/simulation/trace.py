"""The trace of a run: one line for each step, the same text on every machine, and the hash of all lines.

A line has the actor of a step and the message: its type, its plain fields, and those of values in it. No line depends on memory
addresses or on the order of a hash table.
"""

import hashlib
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final

from msgspec import Struct

from actors.runtime.actor import Retry, Start, Timer
from actors.runtime.inspection import path_of
from actors.runtime.mailbox import Message, Ref
from actors.runtime.system import Token

BLOCK: Final = 512  # lines that are hashed at once
PLAIN: Final[dict[type, Callable[[Any], str]]] = {
    int: repr,
    float: repr,
    str: repr,
    bool: repr,
    type(None): repr,
}


class SimulatedToken(Token):
    """The token of an ask in a simulation; `then` is called with the reply. `name` is its name in traces."""

    __slots__ = ("name",)

    def __init__(self, name: str, then: Callable[[Any], object]) -> None:
        super().__init__()
        self.name = name
        self.event = _Answered(self, then)  # type: ignore[assignment] # only its set() is called


class _Answered:
    def __init__(self, token: Token, then: Callable[[Any], object]) -> None:
        self._token = token
        self._then = then

    def set(self) -> None:
        self._then(self._token.value)


class RunTrace:
    """The lines of a run: the last `keep` of them, and the number and the hash of all."""

    def __init__(self, *, keep: int = 0) -> None:
        self.count = 0
        self.lines: list[str] = []
        self._keep = keep
        self._paths: dict[Ref, str] = {}
        self._by_kind: dict[type, Callable[[Any, int], str]] = {}
        self._waiting: list[str] = []
        self._digest = hashlib.sha256()

    def step(self, ms: int, ref: Ref, message: Message) -> None:
        """Add the line of an actor's step."""
        self.add(f"{ms} {self.path(ref)} {self.text(message)}")

    def add(self, line: str) -> None:
        """Add any other line."""
        self.count += 1
        waiting = self._waiting
        waiting.append(line)
        if len(waiting) >= BLOCK:
            self._hash()

    def path(self, ref: Ref) -> str:
        """The path of an actor."""
        known = self._paths.get(ref)
        if known is None:
            known = self._paths[ref] = path_of(ref)
        return known

    def text(self, value: object) -> str:
        """The canonical text of a message."""
        return self._text(value, 2)

    def hexdigest(self) -> str:
        """The SHA-256 of all lines so far."""
        self._hash()
        return self._digest.hexdigest()

    def _hash(self) -> None:
        if self._waiting:
            self._digest.update(("\n".join(self._waiting) + "\n").encode())
            if self._keep:
                self.lines = [*self.lines, *self._waiting][-self._keep :]
            self._waiting.clear()

    def _text(self, value: object, depth: int) -> str:
        kind = value.__class__
        plain = PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        return (self._by_kind.get(kind) or self._learn(kind))(value, depth)

    def _learn(self, kind: type) -> Callable[[Any, int], str]:
        """A function that makes the text of values of this type."""
        text: Callable[[Any, int], str]
        if kind is tuple:
            text = self._items
        elif kind is Ref:
            text = lambda value, _: f"<{self.path(value)}>"  # noqa: E731 - one of several
        elif issubclass(kind, Enum):
            text = lambda value, _: repr(value.value)  # noqa: E731
        elif kind is Timer:
            text = lambda value, _: f"Timer({value.key!r},{value.live})"  # noqa: E731
        elif kind is Start:
            text = lambda value, _: f"Start({value.again})"  # noqa: E731
        elif kind is Retry:
            text = lambda value, depth: f"Retry({self._text(value.message, depth)})"  # noqa: E731
        elif kind is SimulatedToken:
            text = lambda value, _: f"<token {value.name}>"  # noqa: E731
        else:
            text = partial(self._fields, kind.__name__, _names(kind))
        self._by_kind[kind] = text
        return text

    def _items(self, value: tuple[object, ...], depth: int) -> str:
        return f"({','.join([self._text(item, depth) for item in value])})"

    def _fields(self, name: str, fields: tuple[str, ...], value: object, depth: int) -> str:
        if not depth or not fields:
            return name
        return f"{name}({','.join([self._text(getattr(value, field), depth - 1) for field in fields])})"


def _names(kind: type) -> tuple[str, ...]:
    """The field names of a type, in the order of their declaration; empty for a type that does not declare them."""
    if issubclass(kind, Struct):
        return kind.__struct_fields__
    declared: Any = getattr(kind, "_fields", None) or getattr(kind, "__slots__", ())
    return declared if isinstance(declared, tuple) else ()
