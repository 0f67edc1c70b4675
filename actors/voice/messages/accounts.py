"""Messages of the parts of a call to their session: what became of the audio, and how good it is."""

from typing import ClassVar

from msgspec import Struct

from actors.runtime.mailbox import CONTROL
from actors.voice.messages.events import Emit
from actors.voice.messages.media import Kept
from machines.recording import RecordingInfo


class Spoken(Struct, frozen=True, gc=False):
    """Transcriber to session: words were heard just now, in an utterance that goes on. Told where silence ends the call."""

    lane: ClassVar[int] = CONTROL


class PortFailed(Struct, frozen=True, gc=False):
    """Recorder or transcriber to session: `port` ("media" or "speech") stopped answering, for `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    reason: str


class AudioLost(Struct, frozen=True, gc=False):
    """Recorder or transcriber to session: `count` frames from `first` on did not get through `port` ("media" or "speech"), for
    `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    first: int
    count: int
    reason: str


class Account(Struct, frozen=True, gc=False):
    """Recorder to session: of the frames below `upto`, `kept` were accounted for (`n_bytes`, running `digest`); those in
    `lost` were not, by reason."""

    lane: ClassVar[int] = CONTROL
    upto: int
    kept: int
    n_bytes: int
    digest: str
    lost: tuple[tuple[str, int], ...]


class Counted(Struct, frozen=True, gc=False):
    """Recorder to session: its account so far; `due` is set when that is to go into evidence."""

    lane: ClassVar[int] = CONTROL
    account: Account
    due: bool


class Recorded(Struct, frozen=True):
    """Recorder to session, the last one: the final account and the closed recording."""

    lane: ClassVar[int] = CONTROL
    account: Account
    recording: RecordingInfo | None


class Transcribed(Struct, frozen=True, gc=False):
    """Transcriber to session, the last one: the whole text, frames heard, and frames not heard by reason."""

    lane: ClassVar[int] = CONTROL
    text: str
    heard: int
    unheard: tuple[tuple[str, int], ...]


class Settled(Struct, frozen=True):
    """Transcriber to session: what is settled so far. `news` is what came of it, for those who listen: the session passes it on
    once it has this in its account, so that no end can say less than they heard. `spoken` is set when words are among it."""

    lane: ClassVar[int] = CONTROL
    transcribed: Transcribed
    news: Emit | None = None
    spoken: bool = False


class Levels(Struct, frozen=True, gc=False):
    """Sums over the frames that were measured: `energy` of mean squares, the `peak`, clipped and silent frames; and the longest
    pause from one arrival to the next."""

    frames: int = 0
    energy: float = 0.0
    peak: float = 0.0
    clipped: int = 0
    silent: int = 0
    pause_ms: int = 0


class Measured(Struct, frozen=True):
    """Quality to session: how the audio was so far, and the measure that came last, of which the session tells those who listen
    once it has this in its account."""

    lane: ClassVar[int] = CONTROL
    levels: Levels
    measure: Kept


class Assessed(Struct, frozen=True, gc=False):
    """Quality to session, the last one: how all of the audio was."""

    lane: ClassVar[int] = CONTROL
    levels: Levels
