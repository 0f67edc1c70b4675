"""Tables that number values, in which a model of actors keeps its states.

Each distinct value (a message, an actor's fields, a mailbox) is kept once and known by a number. So a state of the whole system
is a few dozen bytes, and a step that was taken once is a lookup afterwards.

Values are told apart by their types too, at every depth: equal NamedTuples of two classes, or True and 1, are two values here.

Changeable values are refused. Exceptions are a dict within an immutable value, and an object with a hash of its own: a table
takes these on trust, and checks them again now and then, since changing a numbered value would change every state that has it.
"""

import dataclasses
from array import array
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import FunctionType
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel

from actors.model.parts import Part
from actors.runtime.actor import Exited, Gone, Start
from machines.checker.model import NotRepeatable, UnhashableState
from machines.frozen import FrozenDict, FrozenMap

T = TypeVar("T")

_KNOWN_BY_IDENTITY: Final = (Part, Exited, Gone, Start, type, FunctionType)  # known by identity
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Table:
    """Values by number, from 1 on; 0 is no value. All equal values are one object here.

    A compound value is looked up by the numbers of its parts, so that a large value with mostly known parts costs little.
    """

    __slots__ = ("_by_id", "_changeable", "_looked_at", "_numbers", "_on_trust", "values")

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._changeable: list[int] = []  # the numbers of values that are, or hold, values taken on trust
        self._on_trust = False  # whether the current value is one of these
        self._looked_at = 0
        self._by_id: dict[int, int] = {}  # by `id()` of the objects in `values`, which stay alive there
        self.values: list[Any] = [None]

    def number(self, value: object) -> int:
        """The number of `value`, a new one if it was never seen.

        Raises `UnhashableState` for a changeable value, a list or a set say, which can't be part of a state.
        """
        number = self._by_id.get(id(value))
        return self._number(value) if number is None else number

    def one(self, value: T) -> T:
        """The one object for all values equal to `value`."""
        return value if value.__class__ in _PLAIN else self.values[self.number(value)]

    def _number(self, value: Any) -> int:
        trusted = _is_taken_on_trust(value.__class__)
        above, self._on_trust = self._on_trust or trusted, trusted
        number = self._numbered(self._key(value), value)
        self._on_trust = above
        return number

    def _numbered(self, key: object, value: object) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
            self._by_id[id(value)] = number
            if self._on_trust:
                self._changeable.append(number)
        return number

    def look_again(self, most: int | None = None) -> None:
        """Check the next `most` values that were taken on trust, or all of them. Raises `NotRepeatable` for a changed value."""
        count = len(self._changeable)
        for _ in range(count if most is None else min(most, count)):
            self._looked_at = (self._looked_at + 1) % count
            number = self._changeable[self._looked_at]
            value = self.values[number]
            try:
                key = self._items(value) if value.__class__ is dict else self._key(value)
                same = self._numbers.get(key) == number
            except UnhashableState:
                same = False
            if not same:
                raise NotRepeatable(
                    f"a {value.__class__.__name__} was changed in place after it had become part of a state; make a new one "
                    f"instead. It is now {value!r}"
                )

    def _part(self, value: object) -> object:
        """The key of a part within a compound key: the part and its type if it is plain, else its number."""
        kind = value.__class__
        if kind is str or value is None:
            return value
        if kind is dict:  # within an immutable value: the JSON of a record, say
            self._on_trust = True
            return self._numbered(self._items(value), value)
        return (kind, value) if kind in _PLAIN else self.number(value)

    def _items(self, value: Any) -> object:
        part = self._part
        return value.__class__, frozenset([(part(key), part(item)) for key, item in value.items()])

    def _key(self, value: Any) -> object:  # noqa: PLR0911 - one line for each kind of value
        kind = value.__class__
        part = self._part
        if isinstance(value, tuple):
            if kind.__dictoffset__ and value.__dict__:
                raise _could_be_changed(value)
            return kind, *[part(item) for item in value]
        if isinstance(value, msgspec.Struct) and kind.__struct_config__.frozen:
            return kind, *[part(getattr(value, name)) for name in value.__struct_fields__]
        if kind in _PLAIN or isinstance(value, Enum):
            return kind, value
        if _can_be_changed(kind) or _has_fields_unseen(value):
            raise _could_be_changed(value)
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


def _could_be_changed(value: object) -> UnhashableState:
    return UnhashableState(
        f"{value.__class__.__name__} can't be part of a state, it could be changed: {value!r}; make it a NamedTuple, or a "
        "frozen Struct or dataclass, and of a list, set or dict a tuple, frozenset or `machines.frozen.FrozenMap`"
    )


@cache
def _can_be_changed(kind: type) -> bool:
    """Whether values of a class are meant to be changeable, even if they have a hash."""
    if dataclasses.is_dataclass(kind):
        return not kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return kind.__hash__ is None or issubclass(kind, msgspec.Struct)  # frozen structs were handled before


def _has_fields_unseen(value: object) -> bool:
    """Whether this object has state although only its identity is known: fields, or an iterator's position. Parts keep only
    settings in themselves."""
    kind = value.__class__
    if kind.__hash__ is not object.__hash__ or dataclasses.is_dataclass(kind) or isinstance(value, _KNOWN_BY_IDENTITY):
        return False
    slots = (name for base in kind.__mro__ for name in base.__dict__.get("__slots__", ()))
    return bool(getattr(value, "__dict__", None)) or any(slots) or hasattr(kind, "__next__")


@cache
def _is_taken_on_trust(kind: type) -> bool:
    """Whether a value of this class is taken on trust: it, or a value in it, could be changed."""
    if issubclass(kind, Mapping):
        return not issubclass(kind, FrozenMap | FrozenDict)
    sealed = (tuple, msgspec.Struct, Enum, BaseModel, *_KNOWN_BY_IDENTITY)
    return kind.__dictoffset__ != 0 and not issubclass(kind, sealed) and not dataclasses.is_dataclass(kind)


class TupleTable:
    """Like `Table`, for tuples of numbers and names, without type checks; 0 is the empty tuple."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {(): 0}
        self.values: list[tuple[Any, ...]] = [()]

    def number(self, value: tuple[object, ...]) -> int:
        """The number of `value`, a new one if it was never seen."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number

    def __len__(self) -> int:
        return len(self.values) - 1


def packed(numbers: list[int]) -> bytes:
    """Pack the numbers of a state: two bytes each, or, if a number is too large, four bytes each and one byte behind them.
    Zeros at the end are left out."""
    if not numbers[-1]:
        numbers = numbers[: max(at for at, number in enumerate(numbers) if number) + 1]
    try:
        return array("H", numbers).tobytes()
    except OverflowError:
        return array("I", numbers).tobytes() + b"\0"


def unpacked(state: bytes) -> list[int]:
    """Unpack the numbers of a state."""
    return array("I", state[:-1]).tolist() if len(state) % 2 else array("H", state).tolist()
