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
from typing import Any, ClassVar, Final, Protocol

from msgspec import Struct

from actors.runtime.actor import IGNORE, Actor, ActorDeclarationError, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import Port
from actors.voice.messages import Drain, Emit, Facts, Frames, Resumption
from machines.events import VoiceEventType
from machines.frozen import FrozenDict
from machines.losses import Lost
from machines.names import NAME
from machines.reasons import LOST_ON_THE_WAY
from machines.strict_json import read_strictly, write_strictly

MOST_OUTCOME_BYTES: Final = 65_536  # of JSON, in the final record
NO_PORTS: FrozenDict[Port] = FrozenDict()


class Ports(Struct, frozen=True):
    """The ports that the voice actors hand work to. `others` are those of further parts, by name. `releases` are the same ports
    for the work that `CallPart.release` names: nothing that they raise gets to the call, which ends."""

    directory: Port
    media: Port
    speech: Port
    store: Port
    others: FrozenDict[Port] = NO_PORTS
    releases: FrozenDict[Port] = NO_PORTS

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
        """Put `message` into the mailbox of the actor at `ref`, which must handle it. Raises `TypeError` for another `ref`."""


class PortOfPart(Protocol):
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
        """A `part_reported` event of this part for the listeners of the call, as news for a `PartReport`. The payload is JSON;
        its field `part` is the part's name. Raises `TypeError` or `ValueError` for another payload."""
        if "part" in payload:
            raise ValueError("the field part of an event names the part that tells it: name the field otherwise")
        write_strictly(payload)
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

    def open_port(self, audio: CallAudio) -> PortOfPart:
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
        """The entry of this part in `SessionResult.parts`, a JSON object of at most `MOST_OUTCOME_BYTES`; None for no entry.
        Recorder, transcriber and quality have fields of their own in the result (`actors.voice.account`)."""
        del account
        return None


class UnmadeActor(Actor):
    """Stands in for the actor of a part that could not be made, and fails at once: so the call goes on, or ends, as with any
    part that crashes for good."""

    __slots__ = ("problem",)
    wiring = ("problem",)
    handles = {Frames: IGNORE, Drain: IGNORE}

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def start(self, out: Out) -> None:
        """Fail."""
        del out
        raise PartNotMade(self.problem)


class PartNotMade(Exception):
    """`CallPart.actor` raised, or gave no actor."""


def actor_of(part: CallPart, context: PartContext) -> Actor:
    """The actor of this part for one call; an `UnmadeActor` when the part does not make one."""
    try:
        actor: object = part.actor(context)
    except Exception as error:  # noqa: BLE001 - the fault of one part must not take the audio from the others
        return UnmadeActor(f"{type(error).__name__}: {error}")
    return actor if isinstance(actor, Actor) else UnmadeActor(f"{actor!r:.80} is no actor")


def outcome_of(part: CallPart, account: Any) -> Mapping[str, Any] | None:
    """The entry of this part in the result. It has the field `error` alone where `outcome` raises, or gives no JSON object or
    too large a one: no part keeps a call from its final record."""
    try:
        outcome: object = part.outcome(account)
    except Exception as error:  # noqa: BLE001 - see above
        return {"error": f"outcome() raised {type(error).__name__}"}
    if outcome is None:
        return None
    if not isinstance(outcome, Mapping):
        return {"error": f"outcome() gave {type(outcome).__name__}, not an object"}
    try:
        written = write_strictly(outcome)
        entry: Mapping[str, Any] = read_strictly(written)
    except (TypeError, ValueError, RecursionError) as error:
        return {"error": f"outcome() gave a value that is not JSON: {type(error).__name__}"}
    if len(written) > MOST_OUTCOME_BYTES:
        return {"error": f"outcome() gave {len(written):,} bytes, more than {MOST_OUTCOME_BYTES:,}"}
    return entry


def release_port(part: CallPart, facts: Facts, ports: Ports, out: Out) -> None:
    """Have the port of this part stop working for a call. A part whose `release` raises is told to listeners: nothing holds up
    the end of a call."""
    try:
        work = part.release(facts)
    except Exception as error:  # noqa: BLE001 - see above
        told = (("part", part.name), ("error", f"release() raised {type(error).__name__}"), ("restarted", False))
        out.port(ports.directory, Emit(facts.session_id, VoiceEventType.ERROR, told))
    else:
        if work is not None:
            out.port(ports.releases.get(part.port) or ports.of(part.port), work)


def parts_of(call_parts: tuple[CallPart, ...], facts: Facts) -> tuple[CallPart, ...]:
    """The parts that a call with these facts has, in their order."""
    return tuple([part for part in call_parts if part.takes(facts)])


def check_parts(call_parts: tuple[CallPart, ...]) -> None:
    """Raises `ActorDeclarationError` when two parts have one name, or some would wait for each other to drain; and for a part
    that has no proper name or port, or notices speech and does not say up to where (`CallPart.upto`)."""
    for part in call_parts:
        if not isinstance(part, CallPart):
            raise ActorDeclarationError(f"a part of a call is an instance of a CallPart, not {part!r:.80}")
        for kind, name in (("name", getattr(part, "name", None)), *((("port", part.port),) if part.port else ())):
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                problem = "is no lower-case letter with at most 63 letters, digits, _ and - behind it"
                raise ActorDeclarationError(f"the {kind} {name!r:.80} of {type(part).__name__} {problem}")
        if part.hears is not None and type(part).upto is CallPart.upto:
            raise ActorDeclarationError(f"the part {part.name!r} notices speech, so it needs the method upto")
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
