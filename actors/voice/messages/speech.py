"""Messages between a transcriber and the speech port."""

from typing import Any, ClassVar, Final

from msgspec import Struct

from actors.runtime.mailbox import CONTROL, Ref
from machines.audio import AudioFormat
from machines.frozen import FrozenDict
from machines.session import STTProvider

NO_OPTIONS: Final[FrozenDict[Any]] = FrozenDict()


class Word(Struct, frozen=True):
    """A recognised word with its place in the call, in milliseconds of media time; confidence is 0 to 1 where known."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None


class Listen(Struct, frozen=True):
    """Port work: begin to transcribe a session with `engine`, made with the session's `options`, a frozen JSON object."""

    session_id: str
    engine: STTProvider | str
    audio_format: AudioFormat
    reply_to: Ref
    options: FrozenDict[Any] = NO_OPTIONS


class Hear(Struct, frozen=True, gc=False):
    """Port work: transcribe `count` frames from `first` on."""

    session_id: str
    first: int
    count: int


class Finish(Struct, frozen=True, gc=False):
    """Port work: no more audio; tell the last words, then `Finished`."""

    session_id: str


class Abandon(Struct, frozen=True, gc=False):
    """Port work: forget the session at once; nothing more is told about it."""

    session_id: str


class Heard(Struct, frozen=True, gc=False):
    """Port fact: the engine is done with every frame below `upto`, except those declared lost. `frames` counts the frames
    settled since the last `Heard`, also one in an `Utterance`."""

    lane: ClassVar[int] = CONTROL
    upto: int
    frames: int


class Partial(Struct, frozen=True, gc=False):
    """Port fact: the text of the current utterance so far, which may still change."""

    lane: ClassVar[int] = CONTROL
    text: str


class Utterance(Struct, frozen=True):
    """Port fact: a finished utterance, with word times where the engine has them. `heard` is the `Heard` that is
    due with it, in the same message, so that the transcriber never counts words before their frames."""

    lane: ClassVar[int] = CONTROL
    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()
    heard: Heard | None = None


class Unheard(Struct, frozen=True, gc=False):
    """Port fact: `count` frames from `first` on will not be transcribed, for `reason` (worker_died, worker_hung, …)."""

    lane: ClassVar[int] = CONTROL
    first: int
    count: int
    reason: str


class Finished(Struct, frozen=True, gc=False):
    """Port fact, the last one: every frame is accounted for as heard or unheard and every utterance has been told."""

    lane: ClassVar[int] = CONTROL


class SpeechSilent(Struct, frozen=True, gc=False):
    """Port fact: the port, or the worker that has this session, gives no sign of life (`reason` says which). Sessions
    that finish must not wait for it; running sessions may, since no audio is lost yet."""

    lane: ClassVar[int] = CONTROL
    reason: str
