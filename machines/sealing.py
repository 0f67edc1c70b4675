"""Sealing: which members of a record stand in the chain, and which beside it.

A record can never change once a head was noted. A person's words or identity must be erasable. So no personal content stands in
a record. For each part of a record that has personal members, the record keeps

    "sealed": SHA-256(salt ‖ value) as lower-case hex

in place of these members. Beside the chain stand the salt, 32 random bytes, and the value, the canonical JSON of the members.
With both, anybody can check that this value was sealed. After both are erased the chain still holds, and the hash gives
nothing away.

The lists here say by operation which members may stand in a record. All other members are sealed, and of a host's own records
all members but `audit_trace_id` and `risk_tier`: so a new member never stands in the chain by mistake.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from machines.operations import (
    CHAIN_CARRIED_OVER,
    HEADS_NOTED,
    LEG_FAILED,
    OF_A_SESSION,
    RECORDING_FAILED,
    RECORDING_READY,
    SESSION_DENIED,
)

SALT_BYTES: Final = 32
SEALED: Final = "sealed"
PARTS: Final = ("request_summary", "response_summary", "response_summary.result", "metadata")
"""The parts of a record that may be sealed, each by itself."""

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class _Stands(Enum):
    """When a member may stand in a record: always, if its value is empty, or if its value is a code, which names nobody."""

    ALWAYS = "always"
    EMPTY = "empty"
    CODE = "code"


Shape: TypeAlias = Mapping[str, "_Stands | Shape"]

_NOTHING: Final[Shape] = MappingProxyType({})
_TRACE: Final[Shape] = MappingProxyType(
    {
        "audit_trace_id": _Stands.ALWAYS,
        "risk_tier": _Stands.ALWAYS,
        "verdict": _Stands.CODE,
        "number": _Stands.ALWAYS,
    }
)
_OF_A_HOST: Final[Mapping[str, Shape]] = MappingProxyType(
    {"metadata": {"audit_trace_id": _Stands.ALWAYS, "risk_tier": _Stands.ALWAYS}}
)


def _always(*names: str) -> "dict[str, _Stands | Shape]":
    return dict.fromkeys(names, _Stands.ALWAYS)


_CALL: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "request_summary": {
            **_always("session_id", "project_id", "provider", "stt_provider", "stt_engine", "stt_fallback"),
            **_always("audio_format", "recording_enabled", "silence_timeout_seconds"),
            "metadata": _Stands.EMPTY,
        },
        "response_summary": {
            **_always("state", "port", "first_frame", "upto_frame", "frames"),
            **_always("accounted", "bytes", "digest", "dropped", "recovered", "resumed"),
            **_always("refused_number", "refused_operation", "audio_ms", "media_ms"),
            "reason": _Stands.CODE,
            "refused": _Stands.CODE,
            "hint": _Stands.EMPTY,
            "error": _Stands.EMPTY,
            "result": {
                **_always("reason", "drained", "frames", "recording", "quality", "stopped_at", "mismatches"),
                "transcript": _Stands.EMPTY,
            },
        },
        "metadata": _TRACE,
    }
)
_DOOR: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "request_summary": {
            "reason": _Stands.CODE,
            "method": _Stands.CODE,
            **_always("who", "since", "refusals", "reasons", "tokens"),
        },
        "metadata": _TRACE,
    }
)
_CHAIN: Final[Mapping[str, Shape]] = MappingProxyType(
    {"request_summary": _always("records", "held", "place", "head", "hashes", "fault", "at_seq"), "metadata": _TRACE}
)
_RECORDING: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "request_summary": _always("recording_id", "session_id"),
        "response_summary": {
            **_always("state", "sample_rate", "channels", "samples", "gaps", "digest"),
            "reason": _Stands.CODE,
        },
        "metadata": _TRACE,
    }
)
_LEG: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "request_summary": _always("leg_id", "session_id", "provider"),
        "response_summary": {"step": _Stands.CODE},
        "metadata": _TRACE,
    }
)
SHAPES: Final[Mapping[str, Mapping[str, Shape]]] = MappingProxyType(
    {
        **dict.fromkeys((*OF_A_SESSION, SESSION_DENIED), _CALL),
        **dict.fromkeys((RECORDING_READY, RECORDING_FAILED), _RECORDING),
        LEG_FAILED: _LEG,
        **dict.fromkeys(("access_refused", "access_refusals"), _DOOR),
        **dict.fromkeys((CHAIN_CARRIED_OVER, HEADS_NOTED), _CHAIN),
    }
)
"""What may stand in the records of each operation of ours."""


class Content(NamedTuple):
    """The sealed content of one part of a record: which part, the salt, and the canonical JSON of its members."""

    part: str
    salt: bytes
    value: str


def split(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The record with the members that may stand in the chain, and by part the members that are still to be sealed."""
    shapes = SHAPES.get(record.get("operation", ""), _OF_A_HOST)
    apart: dict[str, dict[str, Any]] = {}
    plain = {
        name: _split(value, shapes.get(name, _NOTHING), name, apart)
        if name in PARTS and isinstance(value, dict)
        else value
        for name, value in record.items()
    }
    return plain, apart


def _split(members: Mapping[str, Any], shape: Shape, part: str, apart: dict[str, dict[str, Any]]) -> dict[str, Any]:
    stand: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    for name, value in members.items():
        stands = shape.get(name)
        if isinstance(stands, Mapping) and isinstance(value, dict):
            stand[name] = _split(value, stands, f"{part}.{name}", apart)
        elif _may_stand(value, stands):
            stand[name] = value
        else:
            moved[name] = value
    if moved:
        apart[part] = moved
    return stand


def _may_stand(value: object, stands: "_Stands | Shape | None") -> bool:
    if stands is None:
        return False
    if stands is _Stands.CODE:
        return not value or (isinstance(value, str) and _CODE.fullmatch(value) is not None)
    return stands is _Stands.ALWAYS or not value


def commitment(salt: bytes, value: str) -> str:
    """The seal of a value: the salted hash. Raises `UnicodeEncodeError` for a text that is not UTF-8."""
    return hashlib.sha256(salt + value.encode()).hexdigest()


def seal(plain: dict[str, Any], apart: Mapping[str, str], salts: Iterable[bytes]) -> list[Content]:
    """Put the seals of `apart`, canonical JSON by part, into the record `plain` from `split`; each seal takes its own salt.

    Returns the contents to store beside the chain.
    """
    contents = [Content(part, salt, value) for (part, value), salt in zip(apart.items(), salts, strict=True)]
    for content in contents:
        members = _members(plain, content.part)
        if members is not None:
            members[SEALED] = commitment(content.salt, content.value)
    return contents


def seals(record: Mapping[str, Any]) -> dict[str, str]:
    """The seals of a record of the chain, by part."""
    found: dict[str, str] = {}
    for part in PARTS:
        members = _members(record, part)
        if members is not None and isinstance(sealed := members.get(SEALED), str):
            found[part] = sealed
    return found


def unsealed(record: dict[str, Any], contents: Iterable[Content]) -> dict[str, Any]:
    """Put the contents back into a record of the chain, in place, and return it. Erased contents stay sealed.

    Raises `ValueError` for a value that is no JSON object.
    """
    for content in sorted(contents, key=lambda one: one.part):
        members = _members(record, content.part)
        value = json.loads(content.value)
        if members is None or not isinstance(value, dict):
            raise ValueError(f"the content of {content.part} has no place in the record")
        members.pop(SEALED, None)
        members.update(value)
    return record


def fault_of(record: Mapping[str, Any], contents: Sequence[Content]) -> str | None:
    """The fault between a record and its contents, or None. An erased content is no fault."""
    sealed = seals(record)
    for content in contents:
        if content.part not in sealed:
            return f"a content beside the chain says that it belongs to its {content.part}, where nothing is sealed"
        if not _opens(sealed[content.part], content):
            return f"the content of its {content.part} beside the chain is not the one that was sealed"
    return None


def _opens(sealed: str, content: Content) -> bool:
    """Whether the content has this seal. Salts have one length: otherwise a byte could move between salt and value unseen."""
    if not isinstance(content.salt, bytes) or len(content.salt) != SALT_BYTES:
        return False
    try:
        return commitment(content.salt, content.value) == sealed
    except UnicodeEncodeError:
        return False


def _members(record: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    found: Any = record
    for name in part.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else None
