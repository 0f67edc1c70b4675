"""Messages between a recorder and the media port."""

from typing import ClassVar

from msgspec import Struct

from actors.runtime.mailbox import CONTROL, Ref
from machines.audio import AudioFormat
from machines.recording import RecordingInfo


class OpenMedia(Struct, frozen=True):
    """Port work: begin the account of a session's audio, and its recording when `recording` is set. One that can't be slowed
    goes on whatever waits; where `voices` is set, frames with voice are looked for."""

    session_id: str
    audio_format: AudioFormat
    recording: bool
    reply_to: Ref
    can_be_slowed: bool = True
    voices: bool = False


class Keep(Struct, frozen=True, gc=False):
    """Port work: digest, measure and, when recording, write `count` frames from `first` on."""

    session_id: str
    first: int
    count: int


class CloseMedia(Struct, frozen=True, gc=False):
    """Port work: all frames were handed over; close the recording and tell the account."""

    session_id: str


class Kept(Struct, frozen=True, gc=False):
    """Port fact: every frame below `upto` is dealt with. Since the last such fact: `frames` kept, their mean square and peak
    (full scale 1.0), clipped and silent frames, and `voiced` ones, where these are looked for, of those that the disk refused
    too. Since the beginning of the call, so that no fact which is set aside is missed in the account: frames `kept`,
    `n_bytes`, and the running SHA-256, `digest`."""

    lane: ClassVar[int] = CONTROL
    upto: int
    frames: int
    mean_square: float
    peak: float
    clipped: int
    silent: int
    kept: int
    n_bytes: int
    digest: str
    voiced: int = 0


class MediaLost(Struct, frozen=True, gc=False):
    """Port fact: `count` frames from `first` on could not be kept, for `reason`; silence stands in their place."""

    lane: ClassVar[int] = CONTROL
    first: int
    count: int
    reason: str


class MediaClosed(Struct, frozen=True):
    """Port fact, the last one: the recording is closed (`recording` is None when none was made)."""

    lane: ClassVar[int] = CONTROL
    recording: RecordingInfo | None
    digest: str


class MediaSilent(Struct, frozen=True, gc=False):
    """Port fact: the port gives no sign of life. Closing sessions must not wait for this port; running sessions may, since no
    audio is lost yet."""

    lane: ClassVar[int] = CONTROL
