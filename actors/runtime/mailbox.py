"""A mailbox: lanes, bounds, what overflows, and the reference that actors know each other by.

Mail travels in three lanes, and a higher one always goes first: SYSTEM (stops, exits, timers), CONTROL (policy, evidence,
transcripts) and AUDIO. Within a lane mail is first in, first out. Nearly every mailbox holds no message or one, so the one
sits in a slot; three deques are taken from a pool at the second and given back when they are empty.

What happens at a bound is the lane's own rule. AUDIO drops its oldest message and counts it: the receiver sees the hole in
the frame numbers and declares it. A full CONTROL lane is a failure of the receiver, told to its supervisor. SYSTEM has no
bound: one stop, one exit a child and one entry a timer is all that can be in it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from actors.runtime.actor import Actor, Timer

SYSTEM: Final = 0
CONTROL: Final = 1
AUDIO: Final = 2

IDLE: Final = 0  # no mail, nothing to do
READY: Final = 1  # in the ready queue, or its step is running
BORN: Final = 2  # in the ready queue for its first step, which comes before its mail
HELD: Final = 3  # it crashed; mail waits for its supervisor's decision
STOPPED: Final = 4  # gone; mail becomes a dead letter
UNBORN: Final = 5  # its spawn was asked for and not carried out; mail becomes a dead letter

CONTROL_BOUND: Final = (
    10_000  # far above what ever waits in a call; reaching its bound means that the receiver is stuck
)
AUDIO_BOUND: Final = 3_000  # a minute of single frames


class _Mark:
    """What stands in a slot when no message does, since None may be one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


EMPTY: Final = _Mark("EMPTY")  # no mail
SPREAD: Final = _Mark("SPREAD")  # the mail is in the lanes

M = TypeVar("M")

Message = object
"""A message to an actor: any value. The mailbox reads the `lane` of a message that has one, and nothing else."""

Journal = tuple[object, ...]
"""The values of an actor's journal fields, in their order."""

Step = Callable[[Any, Any, Any], None]
"""The function that handles a message: `step(actor, message, out)`. The table says which class and message it belongs to."""

Table = dict[type, Step]
"""The steps of one phase, by the type of the message."""

Lanes = tuple[deque[Message], deque[Message], deque[Message]]


class MailRule(Struct, frozen=True):
    """What a restart does to the mail that waits: in the control and the audio lane at most `most` messages are kept (all of
    them if None), the newest or the oldest. The system lane is always kept."""

    most: int | None = None
    kept: Literal["oldest", "newest"] = "oldest"

    def split(self, lane: list[M]) -> tuple[list[M], list[M]]:
        """The messages of a lane that are kept, and those that go, both in order."""
        if self.most is None or len(lane) <= self.most:
            return lane, []
        if self.kept == "oldest":
            return lane[: self.most], lane[self.most :]
        at = len(lane) - self.most
        return lane[at:], lane[:at]


KEEP_MAIL: Final = MailRule()
DROP_MAIL: Final = MailRule(0)


class ColdFields:
    """The fields that few actors need: messages `deferred` until the phase changes, the `watchers` of the actor's end, and its
    `incarnation`, if it was restarted."""

    __slots__ = ("deferred", "incarnation", "watchers")

    def __init__(self) -> None:
        self.deferred: list[Message] = []
        self.incarnation = 0
        self.watchers: list[Ref] = []


class Ref:
    """An actor's address. It is opaque: keep it, send it, tell it things; never look inside.

    It outlives its actor: a restarted actor answers at the same address, a stopped one is a dead letter.
    """

    __slots__ = (
        "actor",
        "cold",
        "elder",
        "journal",
        "journaled",
        "lanes",
        "name",
        "parent",
        "slot",
        "status",
        "table",
        "timers",
        "younger",
        "youngest",
    )

    actor: "Actor | None"
    elder: "Ref | None"  # the sibling that was spawned before it
    journal: Journal
    journaled: Callable[[Any], Journal] | None
    lanes: Lanes | None
    name: str
    parent: "Ref | None"
    cold: ColdFields | None
    slot: Message
    status: int
    table: dict[object, Table]
    timers: "Timer | None"  # the one that was set last; the others follow from it
    younger: "Ref | None"  # the sibling that was spawned after it
    youngest: "Ref | None"  # the child that was spawned last

    def __init__(self, actor: "Actor", name: str, parent: "Ref | None") -> None:
        cls = actor.__class__
        self.actor = actor
        self.table = cls.compiled
        self.journaled = cls.journal_of
        self.journal = ()
        self.name = name
        self.parent = parent
        self.slot = EMPTY
        self.status = UNBORN
        self.lanes = self.cold = self.timers = self.youngest = self.elder = self.younger = None

    def __repr__(self) -> str:
        return f"<Ref {self.name}#{self.incarnation}>"

    @property
    def incarnation(self) -> int:
        """How often the actor was restarted."""
        return 0 if self.cold is None else self.cold.incarnation

    @property
    def cold_fields(self) -> ColdFields:
        """The fields that few actors need, made at the first use."""
        if self.cold is None:
            self.cold = ColdFields()
        return self.cold

    def children(self) -> "Iterator[Ref]":
        """The living children, the youngest first."""
        child = self.youngest
        while child is not None:
            elder = child.elder
            yield child
            child = elder

    def join_family(self, parent: "Ref") -> None:
        """Become the youngest child of the parent. Siblings are linked, so that a parent of thousands costs nothing to
        leave and one of three no table."""
        elder = self.elder = parent.youngest
        if elder is not None:
            elder.younger = self
        parent.youngest = self

    def leave_family(self, parent: "Ref") -> None:
        """Be no child any more."""
        elder, younger = self.elder, self.younger
        if younger is not None:
            younger.elder = elder
            self.younger = None
        elif parent.youngest is self:
            parent.youngest = elder
        if elder is not None:
            elder.younger = younger
            self.elder = None


class MailboxOverflow(Exception):
    """The control lane of an actor is full: it no longer keeps up, and its supervisor must decide."""


class LanePool:
    """Deques for the mailboxes that hold more than one message, used again and again."""

    __slots__ = ("_free",)

    KEPT = 256  # more than ever wait at once in normal work; the rest is given back to the allocator

    def __init__(self) -> None:
        self._free: list[Lanes] = []

    def take(self) -> Lanes:
        """Three empty deques."""
        return self._free.pop() if self._free else (deque(), deque(), deque())

    def give_back(self, lanes: Lanes) -> None:
        """Return deques that are empty again."""
        if len(self._free) < self.KEPT:
            self._free.append(lanes)


def lane_of(message: object) -> int:
    """The lane a message travels in; CONTROL where its class names none."""
    lane: int = getattr(message, "lane", CONTROL)
    return lane


def depth(ref: Ref) -> int:
    """How many messages wait at `ref`, deferred ones and its first step included."""
    waiting = sum(map(len, ref.lanes)) if ref.lanes is not None else int(ref.slot is not EMPTY)
    waiting += ref.status == BORN
    return waiting + (len(ref.cold.deferred) if ref.cold is not None else 0)


def take_first(ref: Ref, pool: LanePool) -> Message:
    """The next message of a mailbox that has one, highest lane first."""
    lanes = ref.lanes
    if lanes is None:
        message, ref.slot = ref.slot, EMPTY
        return message
    system, control, audio = lanes
    message = (system or control or audio).popleft()
    if not (system or control or audio):
        ref.lanes = None
        ref.slot = EMPTY
        pool.give_back(lanes)
    return message


def waiting_in(ref: Ref, lane: int) -> tuple[Message, ...]:
    """The messages that wait in a lane, the next one first."""
    if ref.lanes is not None:
        return tuple(ref.lanes[lane])
    return (ref.slot,) if ref.slot is not EMPTY and lane_of(ref.slot) == lane else ()


def waiting(ref: Ref) -> list[Message]:
    """Every message that waits, the next one first; deferred ones last."""
    found = [message for lane in (SYSTEM, CONTROL, AUDIO) for message in waiting_in(ref, lane)]
    return found + (ref.cold.deferred if ref.cold is not None else [])


def put_back(ref: Ref, message: Message, pool: LanePool) -> None:
    """Put `message` before all other mail of its lane."""
    _spread(ref, pool)[lane_of(message)].appendleft(message)


def put(ref: Ref, message: Message, pool: LanePool, control_bound: int = CONTROL_BOUND) -> Message:
    """Put `message` behind the mail of its lane; the message that had to go, or EMPTY.

    Raises `MailboxOverflow` when `control_bound` messages are in the control lane.
    """
    if ref.slot is EMPTY:
        ref.slot = message
        return EMPTY
    number = lane_of(message)
    lane = _spread(ref, pool)[number]
    gone: Message = EMPTY
    if number == AUDIO and len(lane) >= AUDIO_BOUND:
        gone = lane.popleft()
    elif number == CONTROL and len(lane) >= control_bound:
        raise MailboxOverflow(f"{ref.name}: more than {control_bound} control messages wait")
    lane.append(message)
    return gone


def take_all(ref: Ref, pool: LanePool) -> list[Message]:
    """Every waiting message, the mailbox emptied; deferred ones last."""
    messages: list[Message] = []
    while ref.slot is not EMPTY:
        messages.append(take_first(ref, pool))
    if ref.cold is not None:
        messages.extend(ref.cold.deferred)
        ref.cold.deferred = []
    return messages


def take_out(ref: Ref, unwanted: Callable[[Message], bool], pool: LanePool) -> None:
    """Remove the unwanted messages, wherever they wait."""
    if ref.cold is not None:
        ref.cold.deferred = [message for message in ref.cold.deferred if not unwanted(message)]
    if ref.lanes is None:
        if ref.slot is not EMPTY and unwanted(ref.slot):
            ref.slot = EMPTY
        return
    for lane in ref.lanes:
        if any(map(unwanted, lane)):
            kept = [message for message in lane if not unwanted(message)]
            lane.clear()
            lane.extend(kept)
    if not any(ref.lanes):
        pool.give_back(ref.lanes)
        ref.lanes = None
        ref.slot = EMPTY


def _spread(ref: Ref, pool: LanePool) -> Lanes:
    """The lanes of a mailbox, into which its one message goes if it was in the slot."""
    lanes = ref.lanes
    if lanes is None:
        lanes = ref.lanes = pool.take()
        if ref.slot is not EMPTY:
            lanes[lane_of(ref.slot)].append(ref.slot)
        ref.slot = SPREAD
    return lanes
