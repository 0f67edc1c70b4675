"""News of an actor for the listeners of a session."""

from typing import Any

from msgspec import Struct

from machines.events import VoiceEventType

Fields = tuple[tuple[str, Any], ...]
"""Names with their JSON values, in order: the payload of an event, or the detail of a record."""


class Emit(Struct, frozen=True):
    """Directory work: tell the listeners of a session a `VoiceEvent` of this type."""

    session_id: str
    event_type: VoiceEventType
    payload: Fields = ()
