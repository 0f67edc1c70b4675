"""The parts of a call: actors that each work on the audio of one session.

A session spawns its parts with the first audio, in the order of its tuple of `CallPart`s, and treats them all alike:

    Frames       the session tells each part of every run of frames, in order.
    PartReport   a part tells its account as it grows, with the news for listeners and the evidence that come with it.
    Drain        no more frames follow. A part that comes `after` others is told once these have answered.
    PartAnswer   a drained part tells its whole account; told `Drain` again, it answers again.
    restart      the session restarts a part that crashed, from the part's journal, within the restart intensity.

The session is STOPPED when every part has answered, or at its drain deadline.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from actors.runtime.actor import Actor, ActorDeclarationError
from actors.runtime.mailbox import Ref
from actors.runtime.system import Port
from actors.voice.messages import Drain, Emit, Facts, Frames, Resumption
from machines.events import VoiceEventType
from machines.frozen import FrozenDict
from machines.losses import Lost
from machines.reasons import LOST_ON_THE_WAY

NO_PORTS: FrozenDict[Port] = FrozenDict()


class Ports(Struct, frozen=True):
    """The ports that the voice actors hand work to. `others` are those of further parts, by name."""

    directory: Port
    media: Port
    speech: Port
    store: Port
    others: FrozenDict[Port] = NO_PORTS

    def of(self, name: str) -> Port | None:
        """The port with this name, as evidence and metrics call it; None where there is none."""
        return self.media if name == "media" else self.speech if name == "speech" else self.others.get(name)


class CallAudio(Protocol):
    """The audio of running calls, and the way to the parts' actors, for the port of a part. Safe from any thread."""

    def take(self, session_id: str, first: int) -> bytes:
        """The bytes of the run of frames that begins with `first`, as a `Frames` message named it, in the call's audio format.

        A run can be taken once. A slow port holds no caller up: once more than `backlog_seconds` of audio wait for the port,
        the oldest run is given up. Raises `KeyError` for a run that was given up or taken, and for a call that is over.
        """

    def tell(self, ref: Ref, message: object) -> None:
        """Put `message` into the mailbox of the actor at `ref`, which must handle it."""


class PartPort(Protocol):
    """The port of a part. Work that takes time, reads files or asks the network is done here, outside of the actors."""

    def submit(self, work: Any) -> None:
        """Take a piece of work that an actor handed over with `out.port`. It must not block: the actors wait for it."""

    def close(self, seconds: float) -> bool:
        """End the port's threads and files; whether that was done within so many seconds."""


class Hears(str, Enum):
    """The sign by which a part notices speech: words that an engine understood, or voice in the sound."""

    WORDS = "words"
    VOICE = "voice"


class PartContext(Struct, frozen=True):
    """Everything that the actor of a part is made with.

    `session` is the session's address, `name` the part's name, and `place` the part's index among the parts of the call.
    `port` is the part's port, `directory` the directory's. `account` is the account to go on with. `others` has the
    addresses of the parts before this one, by name. An interim record is due every `account_frames` frames.
    """

    session: Ref
    name: str
    place: int
    facts: Facts
    port: Port | None
    directory: Port
    account: Any
    others: tuple[tuple[str, Ref], ...]
    account_frames: int

    def event(self, **payload: Any) -> Emit:
        """A `part_reported` event of this part for the listeners of the call, as news for a `PartReport`."""
        told = (("part", self.name), *payload.items())
        return Emit(self.facts.session_id, VoiceEventType.PART_REPORTED, told)

    def other(self, name: str) -> Ref:
        """The address of the part with this name, which must stand before this one. Raises `KeyError`."""
        return dict(self.others)[name]


class CallPart:
    """One kind of part, the same for every call: a subclass names its actor and says how to read its account.

    `name` is the actor's name below its session. `port` is the port that it works with, "" for none; see `open_port`. `after`
    names the parts that must have answered before this one drains. `hears` is set when it notices speech, so that silence can
    end a call. A call ends as failed when an `essential` part crashes more often than its intensity allows; without any other
    part the call goes on. Values of this class have no fields, so all of one class are equal.
    """

    name: ClassVar[str]
    kind: ClassVar[type[Actor]]
    port: ClassVar[str] = ""
    after: ClassVar[tuple[str, ...]] = ()
    hears: ClassVar[Hears | None] = None
    essential: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Raises `ActorDeclarationError` when the actor does not take frames and the drain in each of its phases."""
        super().__init_subclass__()
        for phase, table in cls.kind.compiled.items():
            for message in (Frames, Drain):
                if message not in table:
                    raise ActorDeclarationError(
                        f"{cls.kind.__name__} is the actor of the part {cls.name!r} and must handle {message.__name__} "
                        f"in its phase {phase!r}"
                    )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def takes(self, facts: Facts) -> bool:
        """Whether a call with these facts has this part."""
        del facts
        return True

    def begins_with(self, resumption: Resumption | None) -> Any:
        """The account before the first frame; with a `resumption`, the account of the dead process. None unless overridden."""
        del resumption
        return None

    def actor(self, context: PartContext) -> Actor:
        """A new actor for one call."""
        raise NotImplementedError

    def open_port(self, audio: CallAudio) -> PartPort:
        """Open the port that `port` names; called once, when the service starts, unless another part has opened it."""
        raise NotImplementedError

    def upto(self, account: Any) -> int:
        """The frame below which the part has dealt with everything; asked of parts that notice speech."""
        raise NotImplementedError

    def has_gaps(self, account: Any) -> bool:
        """Whether the part missed some of the audio, so that its silence proves nothing."""
        del account
        return False

    def release(self, facts: Facts) -> object | None:
        """The work that has the port stop working for a call whose part has not answered; None where the port need not know."""
        del facts
        return None

    def outcome(self, account: Any) -> Mapping[str, Any] | None:
        """The entry of this part in `SessionResult.parts`, as JSON values; None for no entry. Recorder, transcriber and quality
        have fields of their own in the result (`actors.voice.account`)."""
        del account
        return None


def parts_of(call_parts: tuple[CallPart, ...], facts: Facts) -> tuple[CallPart, ...]:
    """The parts that a call with these facts has, in their order."""
    return tuple([part for part in call_parts if part.takes(facts)])


def check_parts(call_parts: tuple[CallPart, ...]) -> None:
    """Raises `ActorDeclarationError` when two parts have one name, or some would wait for each other to drain."""
    names = [part.name for part in call_parts]
    if len({*names}) < len(names):
        raise ActorDeclarationError(f"two parts of a call have one name: {', '.join(names)}")
    drained: set[str] = set()
    while ready := [part.name for part in call_parts if part.name not in drained and drained.issuperset(part.after)]:
        drained.update(ready)
    if len(drained) < len(names):
        stuck = ", ".join([name for name in names if name not in drained])
        raise ActorDeclarationError(f"these parts of a call would never drain, by what they come after: {stuck}")


def hole_before(message: Frames, expected: int) -> tuple[Lost, ...]:
    """The frames between the `expected` one and the first of this run, by reason. Skipped frames stand right before the run;
    the others were lost between the door and the part."""
    losses, upto = [], message.first
    for reason, count in reversed(message.skipped):
        first = max(expected, upto - count)
        if first < upto:
            losses.append(Lost(first, upto - first, reason))
        upto = first
    if expected < upto:
        losses.append(Lost(expected, upto - expected, LOST_ON_THE_WAY))
    return tuple(reversed(losses))
