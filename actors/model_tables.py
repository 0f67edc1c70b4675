"""Values as small numbers: what a model of actors keeps its states in.

Each distinct value (a message, an actor's fields, a mailbox) is kept once and known by a number, so that a state of the whole
system is a few dozen bytes, and a step that was taken once is a lookup ever after.

Values are told apart with their types, deep down: equal NamedTuples of two classes, or True and 1, are two values here.
"""

import dataclasses
from array import array
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from actors.actor import Exited, Gone, Start
from machines.checker.model import UnhashableState
from machines.frozen import FrozenMap

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Table:
    """Values by number, from 1 on; 0 is no value. Each is one object here, however often an equal one was made.

    A value that is made of others is looked up by the numbers of its parts, so that a large one, most of which is known, costs
    little.
    """

    __slots__ = ("_by_id", "_numbers", "values")

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._by_id: dict[int, int] = {}  # of the objects in `values`, which therefore keep their ids
        self.values: list[Any] = [None]

    def number(self, value: Any) -> int:
        """The number of `value`, a new one if it was never seen.

        Raises `UnhashableState` for a value that could be changed, a list or a set say: it can't be part of a state.
        """
        number = self._by_id.get(id(value))
        return self._number(value) if number is None else number

    def one(self, value: Any) -> Any:
        """The object that stands for all that are equal to `value`."""
        return value if value.__class__ in _PLAIN else self.values[self.number(value)]

    def _number(self, value: Any) -> int:
        return self._numbered(self._key(value), value)

    def _numbered(self, key: Any, value: Any) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
            self._by_id[id(value)] = number
        return number

    def _part(self, value: Any) -> Any:
        """What a part is known by within a key: itself and its type if it is plain, its number else."""
        kind = value.__class__
        if kind is str or value is None:
            return value
        if kind is dict:  # deep in something immutable: JSON of a record, say, which nobody changes any more
            return self._numbered(self._items(value), value)
        return (kind, value) if kind in _PLAIN else self.number(value)

    def _items(self, value: Any) -> Any:
        part = self._part
        return value.__class__, frozenset([(part(key), part(item)) for key, item in value.items()])

    def _key(self, value: Any) -> Any:  # noqa: PLR0911 - one line for each kind of value
        kind = value.__class__
        part = self._part
        if isinstance(value, tuple):
            return kind, *[part(item) for item in value]
        if isinstance(value, msgspec.Struct) and kind.__struct_config__.frozen:
            return kind, *[part(getattr(value, name)) for name in value.__struct_fields__]
        if kind in _PLAIN or isinstance(value, Enum):
            return kind, value
        if kind.__hash__ is None:
            raise UnhashableState(f"{kind.__name__} can't be part of a state, it could be changed: {value!r}")
        if isinstance(value, FrozenMap | Mapping):
            return self._items(value)
        if isinstance(value, frozenset):
            return kind, frozenset([part(item) for item in value])
        if isinstance(value, BaseModel):
            return kind, *[part(item) for item in value.__dict__.values()]
        if isinstance(value, Exited | Gone | Start):
            return kind, *[part(getattr(value, name)) for name in kind.__slots__]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return kind, *[part(getattr(value, field.name)) for field in dataclasses.fields(value)]
        try:
            hash(value)
        except TypeError as error:
            raise UnhashableState(f"{kind.__name__} can't be part of a state: {value!r}") from error
        return kind, value

    def __len__(self) -> int:
        return len(self.values) - 1


class TupleTable:
    """Like `Table`, for tuples of numbers and names that need no look at their types; 0 is the empty one."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {(): 0}
        self.values: list[tuple[Any, ...]] = [()]

    def number(self, value: tuple[Any, ...]) -> int:
        """The number of `value`, a new one if it was never seen."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number

    def __len__(self) -> int:
        return len(self.values) - 1


def packed(numbers: list[int]) -> bytes:
    """A state: its numbers in two bytes each, or, if one of them is too large for that, in four with a byte behind them.
    Noughts at the end are left out."""
    if not numbers[-1]:
        numbers = numbers[: max(at for at, number in enumerate(numbers) if number) + 1]
    try:
        return array("H", numbers).tobytes()
    except OverflowError:
        return array("I", numbers).tobytes() + b"\0"


def unpacked(state: bytes) -> list[int]:
    """The numbers that a state is made of."""
    return array("I", state[:-1]).tolist() if len(state) % 2 else array("H", state).tolist()
