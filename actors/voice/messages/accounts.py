"""The accounts of recorder, transcriber and quality: how far each part is, and what the part found."""

from msgspec import Struct

from actors.voice.messages.events import Fields
from machines.frozen import FrozenDict
from machines.recording import RecordingInfo


class Account(Struct, frozen=True):
    """The recorder's account: of the frames below `upto`, the media port kept `kept` (`n_bytes`, running SHA-256 `digest`);
    `lost` counts the others by reason. `recording` is the closed recording, in the last account of a recorded call."""

    upto: int
    kept: int
    n_bytes: int
    digest: str
    lost: tuple[tuple[str, int], ...]
    recording: RecordingInfo | None = None

    def detail(self) -> Fields:
        """The account as an evidence record has it, from which another process can go on."""
        return (
            ("upto_frame", self.upto),
            ("accounted", self.kept),
            ("bytes", self.n_bytes),
            ("digest", self.digest),
            ("dropped", FrozenDict(self.lost)),
        )


class Transcribed(Struct, frozen=True, gc=False):
    """The transcriber's account: the text so far, the number of frames heard, and the frames not heard by reason."""

    text: str
    heard: int
    unheard: tuple[tuple[str, int], ...]


class Levels(Struct, frozen=True, gc=False):
    """The account of the quality part: sums over the measured frames (`energy` of mean squares, the `peak`, clipped and silent
    frames), and the longest pause between two arrivals.

    The last four fields repeat the media port's totals behind the last measure: frames below `upto` were dealt with, of which
    `kept` with `n_bytes` bytes and the running SHA-256 `digest` were kept.
    """

    frames: int = 0
    energy: float = 0.0
    peak: float = 0.0
    clipped: int = 0
    silent: int = 0
    pause_ms: int = 0
    upto: int = 0
    kept: int = 0
    n_bytes: int = 0
    digest: str = ""
