"""Messages about a session's audio on its way in."""

from typing import ClassVar

from msgspec import Struct

from actors.runtime.mailbox import AUDIO


class Frames(Struct, frozen=True, gc=False):
    """`count` frames from number `first` on are at the door: `n_bytes` in all, arrived at `at_ms` (monotonic).

    The first audio of a session may be less than a frame; then `count` is 0. `skipped` are the frames right before that were
    never to come, by reason.
    """

    lane: ClassVar[int] = AUDIO
    first: int
    count: int
    n_bytes: int
    at_ms: int
    skipped: tuple[tuple[str, int], ...] = ()


class Mismatched(Struct, frozen=True, gc=False):
    """So much audio came in so much time, by the clock of its capture, in milliseconds; `reason` says whether that is too much
    or too little. It travels behind the audio."""

    lane: ClassVar[int] = AUDIO
    reason: str
    audio_ms: int
    media_ms: int
