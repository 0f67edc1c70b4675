"""Values as text for reports: the same text in every run, short enough to be read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import takewhile
from typing import Any, Final, NamedTuple

from msgspec import Struct

from machines.checker.model import Model

LONGEST: Final = 240  # characters of one value; an ellipsis marks the cut
_KEPT: Final = 24  # equal characters that are kept on either side of a difference
_NONE: Final = object()  # stands for a missing value
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class Change(NamedTuple):
    """A field that a step changed, with its value before and after as text."""

    field: str
    old: str
    new: str


def shown(value: Any) -> str:
    """`value` as text that does not depend on hash seeds or addresses: sets are sorted, addresses left out."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(shown, value))) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    named = _named(value)
    if named is not None:
        return f"{type(value).__name__}({', '.join(f'{name}={shown(item)}' for name, item in named.items())})"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + (",)" if len(value) == 1 else ")")
    mapped = _mapped(value)
    if mapped is not None:
        return "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in mapped.items()) + "}"
    return _ADDRESS.sub("", repr(value))


def bare(value: Any) -> str:
    """`value` as text that stands alone: like `shown`, but a plain word has no quotes."""
    if isinstance(value, str) and not isinstance(value, Enum) and value and value.isprintable():
        return value
    return shown(value)


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` with its middle left out when it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def one_line(text: str) -> str:
    """`text` without line breaks and control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def slug(text: str, longest: int = 60) -> str:
    """`text` as the name of a file or a function: lower-case letters, digits and underscores; never empty."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:longest].strip("_") or "unnamed"


def named_fields(model: Model[Any, Any], state: Any) -> dict[str, str]:
    """Each field of `state` as text; a field that is a mapping with text keys becomes several, named "field.key"."""
    found: dict[str, str] = {}
    _collect(found, "", model.fields(state).items())
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The differences between the fields of two states, as deep inside as both have the same form: "calls[0].answer", say. A
    missing value is shown as "(none)"; long values are cut to the part that differs.
    """
    found: list[Change] = []
    _compare_items(found, "", before, after)
    return found


def _compare_items(found: list[Change], name: str, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> None:
    for key in [*old, *(key for key in new if key not in old)]:
        place = f"{name}.{key}".lstrip(".") if isinstance(key, str) else f"{name}[{shown(key)}]"
        _compare(found, place, old.get(key, _NONE), new.get(key, _NONE))


def _compare(found: list[Change], name: str, old: Any, new: Any) -> None:
    if old is new:
        return
    parts, others = _parts(old), _parts(new)
    if type(old) is type(new) and parts is not None and others is not None:
        _compare_items(found, name, parts, others)
        return
    if _are_alike(old, new):
        _compare_items(found, name, dict(enumerate(old)), dict(enumerate(new)))
        return
    texts = ["(none)" if value is _NONE else bare(value) for value in (old, new)]
    if texts[0] != texts[1]:
        found.append(Change(name, *_contrast(*texts)))


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a value by name or key; None if it has none."""
    named = _named(value)
    return _mapped(value) if named is None else named


def _are_alike(old: Any, new: Any) -> bool:
    """Whether both are sequences of one length, in which every changed item kept its form."""
    if not (isinstance(old, tuple | list) and isinstance(new, tuple | list) and len(old) == len(new)):
        return False
    changed = [(one, other) for one, other in zip(old, new, strict=True) if one is not other and one != other]
    return bool(changed) and all(type(one) is type(other) and _parts(one) is not None for one, other in changed)


def _mapped(value: Any) -> Mapping[Any, Any] | None:
    """The items of a mapping, or of a value with `items` like a mapping's, in a fixed order; else None."""
    if isinstance(value, Mapping):
        return value
    kind = type(value)
    if not (callable(getattr(kind, "items", None)) and hasattr(kind, "__contains__")):
        return None
    return dict(sorted(value.items(), key=lambda item: shown(item[0])))


def _named(value: Any) -> dict[str, Any] | None:
    """The fields of a NamedTuple, dataclass or Struct whose text shows its fields; else None."""
    kind = type(value)
    names: Iterable[str] | None = None
    if isinstance(value, tuple):
        names = getattr(kind, "_fields", None)
    elif isinstance(value, Struct):
        own = takewhile(lambda it: it is not Struct, kind.__mro__)
        names = None if any("__repr__" in vars(it) for it in own) else kind.__struct_fields__
    elif is_dataclass(kind) and kind.__dataclass_params__.repr:  # type: ignore[attr-defined] # which all of them have
        names = tuple(field.name for field in fields(kind) if field.repr)
    return None if names is None else {name: getattr(value, name) for name in names}


def _collect(found: dict[str, str], prefix: str, items: Iterable[tuple[Any, Any]]) -> None:
    for name, value in items:
        if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
            _collect(found, f"{prefix}{name}.", value.items())
        else:
            found[f"{prefix}{name}"] = bare(value)


def _contrast(old: str, new: str) -> tuple[str, str]:
    if max(len(old), len(new)) <= LONGEST:
        return old, new
    head = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        head += 1
    tail = 0
    room = min(len(old), len(new)) - head
    while tail < room and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return _around(old, head, tail), _around(new, head, tail)


def _around(text: str, head: int, tail: int) -> str:
    """`text` with its first `head` letters cut to their last `_KEPT`, and its last `tail` letters to their first `_KEPT`."""
    start = head - _KEPT if head > 2 * _KEPT else 0
    end = len(text) - (tail - _KEPT if tail > 2 * _KEPT else 0)
    middle = shortened(text[start:end])
    return ("… " if start else "") + middle + (" …" if end < len(text) else "")
