"""What can be seen of a running actor system from outside, without disturbing it: a frozen picture, made on demand.

Nothing is noted while messages pass, so only whoever asks for a picture pays for it. A picture names actors, phases, timers and
types of messages. It never holds a message, what is in one, or the text of an error.

How long mail waits is found out by looking. A look notes the message that is next in each lane of a mailbox; a later one that
finds the same message there knows that it has waited since then at least. So an age is a lower bound: it counts from the first
look that found the message next in its lane, and a message behind others, or one that came and went between two looks, is not
seen. Of an actor that stands still it is the truth but for the time between two looks. A message is known by its identity: an
object that is told to one actor again and again counts as one message while each look finds it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from actors.runtime.actor import ANY_PHASE, START, Start, content_of
from actors.runtime.mailbox import BORN, EMPTY, HELD, IDLE, READY, SYSTEM, Message, Ref, depth, lane_of
from actors.runtime.system import ActorSystem, DeadLetter, SystemStatistics

STATUS: Final = {IDLE: "idle", READY: "ready", BORN: "starting", HELD: "held"}


@dataclass(frozen=True, slots=True)
class MailPicture:
    """The messages that wait at one actor, by lane; `deferred` ones wait for its next phase. The first step of a new actor
    counts as one of the lane `system`."""

    system: int
    control: int
    audio: int
    deferred: int

    @property
    def depth(self) -> int:
        """All of them."""
        return self.system + self.control + self.audio + self.deferred


@dataclass(frozen=True, slots=True)
class TimerPicture:
    """An armed timer of one actor, and in how many seconds it is due; 0 when it is due and its message waits."""

    key: str
    seconds_left: float


@dataclass(frozen=True, slots=True)
class ActorPicture:
    """One actor.

    `path` are the names from the top of the system down, with a slash between; `kind` is its class; `phase` is empty for an
    actor without phases. `status` is "idle" (no mail), "ready" (its turn will come), "starting" (its first step will) or
    "held" (it crashed and waits for its supervisor's decision). `waiting_seconds` is the age of its oldest mail, as the
    module defines it; None without mail. `incarnation` counts its restarts.
    """

    path: str
    kind: str
    phase: str
    status: str
    mail: MailPicture
    waiting_seconds: float | None
    incarnation: int
    timers: tuple[TimerPicture, ...]


@dataclass(frozen=True, slots=True)
class DeadLetterPicture:
    """A message that reached nobody: to whom, its type, why, and the type of the error that it caused, if any."""

    to: str
    kind: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class SystemPicture:
    """An actor system at one moment.

    `actors` come in the order of trouble: held ones first, then by the age of their oldest mail, their depth and their
    restarts; a parent before its children where these are equal. `left_out` of them were not asked for. `dead_letters` are
    the last ones, oldest first; `statistics` counts all.
    """

    statistics: SystemStatistics
    actors: tuple[ActorPicture, ...]
    left_out: int
    dead_letters: tuple[DeadLetterPicture, ...]


class SystemInspector:
    """Looks at one actor system, in its thread and between its steps; see the module.

    A `look` sees the ready queue, where all mail waits except that of held actors and what was deferred, and the mailboxes
    that had mail before: it costs next to nothing while nobody waits. A `picture` looks at every actor.
    """

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._seen: dict[Ref, _Look] = {}

    def look(self) -> None:
        """Note what waits now."""
        self._look({*self._seen, *self._system.waiting()})

    def longest_wait(self) -> float:
        """The age of the oldest mail that the last look has found, in seconds; 0 when nothing waited."""
        return max((self._age(ref) or 0.0 for ref in self._seen), default=0.0)

    def picture(self, most: int | None = None) -> SystemPicture:
        """The system now, with `most` actors at most; all of them if None."""
        found = list(self._system.refs())
        self._look([ref for ref, waiting in found if waiting])
        worst = sorted(
            [ref for ref, waiting in found if waiting or ref.cold is not None], key=self._trouble, reverse=True
        )
        known = set(worst)
        chosen = [*worst, *(ref for ref, _ in found if ref not in known)][:most]
        return SystemPicture(
            self._system.statistics(),
            tuple(map(self._actor, chosen)),
            len(found) - len(chosen),
            tuple(map(_letter, self._system.dead_letters)),
        )

    def _look(self, refs: Iterable[Ref]) -> None:
        now = self._system.now()
        before = self._seen
        looks = {ref: _Look(ref, before.get(ref), now) for ref in refs}
        self._seen = {ref: look for ref, look in looks.items() if look.oldest}

    def _age(self, ref: Ref) -> float | None:
        look = self._seen.get(ref)
        return None if look is None else self._system.now() - min(since for _, since in look.oldest)

    def _trouble(self, ref: Ref) -> tuple[bool, float, int, int]:
        return (ref.status == HELD, self._age(ref) or 0.0, depth(ref), ref.incarnation)

    def _actor(self, ref: Ref) -> ActorPicture:
        age = self._age(ref)
        return ActorPicture(
            path=path_of(ref),
            kind=type(ref.actor).__name__,
            phase=phase_of(ref),
            status=STATUS[ref.status],
            mail=_mail(ref),
            waiting_seconds=None if age is None else round(age, 3),
            incarnation=ref.incarnation,
            timers=tuple(self._timers(ref)),
        )

    def _timers(self, ref: Ref) -> Iterator[TimerPicture]:
        timer = ref.timers
        while timer is not None:
            yield TimerPicture(timer.key, round(max(0.0, timer.at - self._system.now()), 3))
            timer = timer.earlier


class _Look:
    """What was next in each lane of a mailbox, and since when that is known to wait."""

    __slots__ = ("incarnation", "oldest")

    def __init__(self, ref: Ref, before: "_Look | None", now: float) -> None:
        self.incarnation = ref.incarnation
        self.oldest = [
            (message, self._since(message, before, now)) for message in map(content_of, _next_of_each_lane(ref))
        ]

    def _since(self, message: Message, before: "_Look | None", now: float) -> float:
        if before is None or (isinstance(message, Start) and self.incarnation != before.incarnation):
            return now  # every restart tells the same `Start`
        return next((since for known, since in before.oldest if known is message), now)


def path_of(ref: Ref) -> str:
    """The names from the top of the system down to this actor, with a slash between."""
    names = [ref.name]
    while ref.parent is not None:
        ref = ref.parent
        names.append(ref.name)
    return "/".join(reversed(names))


def phase_of(ref: Ref) -> str:
    """The phase of an actor as text; empty when it has none, or is gone."""
    phase = ANY_PHASE if ref.actor is None else ref.actor.phase
    if phase is ANY_PHASE:
        return ""
    return str(phase.value) if isinstance(phase, Enum) else str(phase)


def _next_of_each_lane(ref: Ref) -> list[Message]:
    found = [lane[0] for lane in ref.lanes or () if lane]
    if ref.lanes is None and ref.slot is not EMPTY:
        found.append(ref.slot)
    if ref.status == BORN:
        found.append(START)
    if ref.cold is not None and ref.cold.deferred:
        found.append(ref.cold.deferred[0])
    return found


def _mail(ref: Ref) -> MailPicture:
    counts = [0, 0, 0]
    if ref.lanes is not None:
        counts = [len(lane) for lane in ref.lanes]
    elif ref.slot is not EMPTY:
        counts[lane_of(ref.slot)] += 1
    counts[SYSTEM] += ref.status == BORN
    system, control, audio = counts
    return MailPicture(system, control, audio, deferred=len(ref.cold.deferred) if ref.cold is not None else 0)


def _letter(letter: DeadLetter) -> DeadLetterPicture:
    error = letter.error.partition(":")[0].rpartition(".")[2]
    return DeadLetterPicture(letter.to, letter.kind, letter.reason, error if error.isidentifier() else "")
