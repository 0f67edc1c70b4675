"""A message of an actor for those who listen to a session."""

from typing import Any

from msgspec import Struct

from machines.events import VoiceEventType


class Emit(Struct, frozen=True):
    """Directory work: a `VoiceEvent` of this type for those who listen."""

    session_id: str
    event_type: VoiceEventType
    payload: tuple[tuple[str, Any], ...] = ()
