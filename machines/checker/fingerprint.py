"""64-bit fingerprints of states: less memory, and a small chance that two states are taken for one.

A fingerprint depends on the state's values alone, so it is the same in every process and on every machine. Python's `hash` is
salted for text, and weak for small tuples.
"""

import marshal
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

from msgspec.structs import astuple

from machines.checker.model import UnhashableState

_BITS: Final = 64
_ATOMS: Final = (int, str, bytes, bool, float, complex, type(None))
# Marshal's oldest format: newer formats also write whether a text is interned, which is not part of its value.
_BY_VALUE: Final = 0


def fingerprint(state: Any) -> int:
    """The fingerprint of `state`, made of plain values, tuples, frozen sets, enums, frozen dataclasses and msgspec structs.

    Dataclasses, structs and enums are told apart by module, name and values. A NamedTuple has that of the tuple that it equals,
    an enum of text that of its text. Numbers of different types have different ones, also where they are equal: `True`, `1` and
    `1.0` are three states here. Raises `UnhashableState` for a value of any other type.
    """
    try:
        written = marshal.dumps(state, _BY_VALUE)
    except ValueError:
        written = marshal.dumps(_plain(state), _BY_VALUE)
    return int.from_bytes(blake2b(written, digest_size=_BITS // 8).digest(), "little")


def collision_bound(states: int) -> float:
    """An upper bound for the probability that any two of so many states had the same fingerprint."""
    return min(1.0, states * (states - 1) / 2.0 / (1 << _BITS))


def _plain(value: Any) -> Any:
    """`value` in terms of what marshal can write."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, Enum):
        if isinstance(value, str | int):
            return _plain(value.value)
        return (_class_of(value), value.name)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, frozenset):
        return frozenset(map(_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return (_class_of(value), *(_plain(getattr(value, field.name)) for field in fields(value)))
    if hasattr(value, "__struct_fields__"):
        return (_class_of(value), *map(_plain, astuple(value)))
    if isinstance(value, int | float | str):
        return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    raise UnhashableState(
        f"a value of type {type(value).__qualname__} has no fingerprint that is the same in every process", state=value
    )


def _class_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
