"""Holds an event, or a result, against the definition of its fields."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from machines import payloads
from machines.events import VoiceEvent, VoiceEventType
from machines.payloads import ERRORS, EVENTS, OF_A_PART, Field


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


KINDS: Mapping[str, Callable[[Any], bool]] = {
    payloads.TEXT: lambda value: isinstance(value, str),
    payloads.WHOLE: _is_whole,
    payloads.NUMBER: _is_number,
    payloads.NUMBER_OR_NULL: lambda value: value is None or _is_number(value),
    payloads.FLAG: lambda value: isinstance(value, bool),
    payloads.LIST: lambda value: isinstance(value, (list, tuple)),
    payloads.OBJECT: lambda value: isinstance(value, Mapping),
    payloads.OBJECT_OR_NULL: lambda value: value is None or isinstance(value, Mapping),
    payloads.TEXT_OR_NULL: lambda value: value is None or isinstance(value, str),
}


def fits(value: Mapping[str, Any], fields: Sequence[Field], *, more: bool = False) -> bool:
    """Whether an object has these fields, each of its type, and no other, unless it may have `more`."""
    names = {field.name for field in fields}
    needed = {field.name for field in fields if field.always}
    return (
        needed <= set(value)
        and (more or set(value) <= names)
        and all(KINDS[field.kind](value[field.name]) for field in fields if field.name in value)
    )


def is_defined(event: VoiceEvent) -> bool:
    """Whether an event has the fields that its definition gives it."""
    _, fields, more = EVENTS[event.event_type]
    if event.event_type is not VoiceEventType.ERROR:
        return fits(event.payload, fields, more=more)
    variants = ERRORS.get(str(event.payload.get("part")), OF_A_PART)
    return any(fits(event.payload, (*fields, *variant.fields)) for variant in variants)
