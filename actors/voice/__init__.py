"""The actors of a voice call (session, supervisor, policy, evidence, and the parts of a call) and their messages.

The names here are for a further part of a call; each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from machines.facade import facade

if TYPE_CHECKING:
    from actors.voice.call_part import CallAudio, CallPart, Hears, PartContext, PortOfPart, hole_before
    from actors.voice.standard_parts import STANDARD_PARTS

__all__ = ["STANDARD_PARTS", "CallAudio", "CallPart", "Hears", "PartContext", "PortOfPart", "hole_before"]

__getattr__, __dir__ = facade(
    __name__,
    {
        "CallAudio": "call_part",
        "CallPart": "call_part",
        "Hears": "call_part",
        "PartContext": "call_part",
        "PortOfPart": "call_part",
        "STANDARD_PARTS": "standard_parts",
        "hole_before": "call_part",
    },
)
