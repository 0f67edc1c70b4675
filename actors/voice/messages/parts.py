"""Messages between a session and the parts of its call."""

from typing import Any, ClassVar, Final

from msgspec import Struct

from actors.runtime.mailbox import AUDIO, CONTROL
from actors.voice.messages.directory import Metered
from actors.voice.messages.events import Emit, Fields
from machines.operations import AUDIO_ACCOUNTED, OPERATIONS

OWN_OPERATIONS: Final = frozenset(OPERATIONS) - {AUDIO_ACCOUNTED}  # the recorder writes that one
OWN_FIELDS: Final = frozenset({"state", "result"})


class Drain(Struct, frozen=True, gc=False):
    """Session to part: no more frames follow; finish the work, then tell `PartAnswer`. It travels behind the audio."""

    lane: ClassVar[int] = AUDIO


class PartRecord(Struct, frozen=True):
    """An evidence record that a part asks its session to write: the operation, and its outcome as (name, value) pairs.

    `failed` gives the record the status of a failure. An `interim` record says what the final record of the session will say
    as well, so the session leaves it out once it is ending. Raises `ValueError` for an operation that is the session's own, and
    for the names `state` and `result` in the detail, which each record of a session has.
    """

    operation: str
    detail: Fields
    failed: bool = False
    interim: bool = False

    def __post_init__(self) -> None:
        if self.operation in OWN_OPERATIONS:
            raise ValueError(f"{self.operation} is an operation of the session: name the record of a part otherwise")
        for name, _ in self.detail:
            if name in OWN_FIELDS:
                raise ValueError(
                    f"{name} is a field of the session's own in each record: name that of a part otherwise"
                )


class PartReport(Struct, frozen=True):
    """Part to session: the part's `account` so far, which replaces the one before.

    `place` is the part's index among the parts of the call. `news` goes to the listeners once the session has the account: no
    result can say less than the listeners heard. `record` goes into evidence. `spoken` says that the part heard a speaker since
    its last report (see `CallPart.hears`).
    """

    lane: ClassVar[int] = CONTROL
    place: int
    account: Any
    news: tuple[Emit | Metered, ...] = ()
    record: PartRecord | None = None
    spoken: bool = False


class PartAnswer(Struct, frozen=True):
    """Part to session, the last message: the part at `place` has drained, and `account` is its whole account."""

    lane: ClassVar[int] = CONTROL
    place: int
    account: Any


class PortFailed(Struct, frozen=True, gc=False):
    """Part to session: the part's `port` ("media", "speech", or the name of another part's port) stopped answering, for
    `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    reason: str


class AudioLost(Struct, frozen=True, gc=False):
    """Part to session: `count` frames from `first` on did not get through the part's `port`, for `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    first: int
    count: int
    reason: str
