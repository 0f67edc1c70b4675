"""The parts of every call, in the order in which a session spawns them and tells them of frames."""

from typing import Final

from actors.voice.call_part import CallPart
from actors.voice.quality import QualityPart
from actors.voice.recorder import RecorderPart
from actors.voice.transcriber import TranscriberPart

STANDARD_PARTS: Final[tuple[CallPart, ...]] = (QualityPart(), RecorderPart(), TranscriberPart())
