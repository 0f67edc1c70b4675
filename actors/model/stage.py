"""The stage of a model of actors: the values that states refer to by number, and the steps of the real actor classes.

Each step is taken once for (actor, state, message) and remembered; some steps of each kind are taken twice, to check that both
give the same result. `actors.model.turns` has the dispatcher's rules around the steps.
"""

import traceback
from typing import Any, Final, NamedTuple, TypeVar

from actors.model.parts import Answer, ModelToken, Part
from actors.model.tables import Table, TupleTable, unpacked
from actors.runtime.actor import (
    HOLD,
    KEEP_TIMER,
    PORT,
    POSTPONE,
    REFUSE,
    REPLY,
    RESTART,
    SET_TIMER,
    SPAWN,
    START,
    START_AGAIN,
    STOP,
    TELL,
    UNWATCH,
    WATCH,
    Actor,
    Exited,
    Out,
    begin_again,
    refused,
)
from actors.runtime.mailbox import AUDIO_BOUND, SYSTEM, Message, lane_of
from machines.checker.model import ModelError, NotRepeatable, UnhashableState

T = TypeVar("T")

# The places of a state: these, then the parts, then the actors, one number each.
BUDGETS, TIMERS, ANSWERED, QUEUE, NOTES, HEAD = range(6)

# The places of a cell, a mailbox and its actor: a tuple, or a list while the state is open. As in a real mailbox, a single
# message has a slot of its own, and lanes are made for the second. CRASHES counts the crashes of top actors only.
BODY, STATUS, SLOT, LANES, DEFERRED, WATCHERS, CRASHES = range(7)

# Notes that are no mistakes: an actor's path and a message that was set aside; an actor's path and a timer that came early.
SET_ASIDE: Final = "set aside"
EARLY: Final = "early"

UNBORN_CELL: Final = 0
NO_CHILDREN: Final[frozenset[tuple[str, int]]] = frozenset()
TWICE: Final = 25  # the first steps of a kind that are all taken twice; later only one in so many
LOOKED_AT: Final = 16  # changeable values that are checked each time that a step is taken twice
BROKEN: Final = -1  # an effect that can't be carried out: the system crashes the actor there

Cell = list[Any]
"""The fields of one actor's cell: its body, its status, and the others at the places that are named above."""

Note = tuple[Any, ...]
"""A note on a run, of a mistake or of something that properties ask for: its kind, then the values of that kind."""

Effects = tuple[tuple[int, Any, Any], ...]
CANCEL_ALL: Final = -1

Arming = tuple[int, int, Any, float]
"""An operation on timers: its code, the actor's number, the timer's key, the seconds. SET, KEEP and CANCEL work like the
effects of these names. CANCEL_ALL has several keys: it cancels all other timers of the actor."""


class Address:
    """An actor's address in a model, in place of the run time's `Ref`. Opaque to actors, and one object for one actor."""

    __slots__ = ("body", "name", "number", "ordinal", "parent", "path")

    def __init__(self, number: int, name: str, parent: "Address | None", ordinal: int, body: int) -> None:
        self.number = number
        self.name = name
        self.parent = parent
        self.ordinal = ordinal
        self.body = body
        self.path: str = name if parent is None else f"{parent.path}/{name}"

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{self.path}>"


class Body(NamedTuple):
    """An actor between two steps: its class, its wiring, its state, and how many children of each name it has spawned."""

    kind: type[Actor]
    wiring: tuple[object, ...]
    values: tuple[object, ...]
    spawned: frozenset[tuple[str, int]]


class Fired(NamedTuple):
    """A timer that came due, waiting in the mailbox."""

    key: str


class Void(Fired):
    """A timer that came due and was set again or cancelled before its turn: the actor takes it, and does nothing."""

    __slots__ = ()


class Tried(NamedTuple):
    """A message on which its actor crashed, waiting to be tried once more, in place of the run time's `Retry`."""

    message: Any


class Taken(NamedTuple):
    """The result of a step: the body afterwards, the effects, whether the phase changed, the error if the step raised, and the
    data that faults need: the actor, and its number of effects, as ~n for mail that is never tried again."""

    body: int
    effects: Effects
    moved: bool
    error: str
    step: tuple[int, int]


class CoverageKey(NamedTuple):
    """A kind of step: an actor class, a phase of it, and the class of a message."""

    actor: str
    phase: str
    message: str


class Stage:
    """The values that states refer to by number: addresses, bodies, messages, mailboxes; and the steps taken so far."""

    def __init__(
        self, parts: list[Part], allowed_errors: tuple[type[Exception], ...], audio_bound: int, control_bound: int
    ) -> None:
        self.parts = parts
        self.part_numbers = {part: number for number, part in enumerate(parts)}
        self.allowed_errors = allowed_errors
        self.audio_bound = min(audio_bound, AUDIO_BOUND)
        self.control_bound = control_bound
        self.first_actor = self.length = HEAD + len(parts)  # the length of a state with all actors
        self.addresses: list[Address] = []
        self._known: dict[object, Address] = {}
        self.values = Table()  # bodies, messages, tokens, the parts' states and work
        self.lanes: dict[int, int] = {}  # of each message
        self.tuples = TupleTable()  # budgets, timers, tokens answered, ready queues, mistakes
        self.cells = TupleTable()
        self.idle: dict[int, int] = {}  # the cell of a body that waits for mail
        self._taken: list[dict[tuple[int, int], Taken]] = []
        self._submitted: dict[tuple[int, int, int], tuple[int, str]] = {}
        self._armed: dict[tuple[int, tuple[Arming, ...]], int] = {}
        self._recovered: dict[int, int] = {}
        self._same: dict[Any, Any] = {}
        self.times: dict[CoverageKey, int] = {}  # how many different steps of a kind were taken
        self.coverage: dict[CoverageKey, bool] = {}
        self.start = self.message(START)
        self.start_again = self.message(START_AGAIN)
        self.void = self.message(Void(""))

    def opened(self, state: bytes) -> list[int]:
        """The numbers of a state, with a place for every actor that was spawned in any state."""
        numbers = unpacked(state)
        missing = self.length - len(numbers)
        return numbers + [UNBORN_CELL] * missing if missing else numbers

    # --- numbers ------------------------------------------------------------------------------------------------------

    def message(self, message: Message) -> int:
        """The number of a message."""
        number = self.values.number(message)
        if number not in self.lanes:
            content = content_of(message)
            self.lanes[number] = SYSTEM if isinstance(content, Fired) else lane_of(content)
        return number

    def body(self, actor: Actor, spawned: frozenset[tuple[str, int]], wiring: tuple[object, ...] | None = None) -> int:
        """The number of the body of an actor in its current state; `wiring` may be given to save making it."""
        one = self.values.one
        try:
            if wiring is None:
                wiring = one(tuple([one(getattr(actor, name)) for name in actor.wiring]))
            return self.values.number(
                Body(type(actor), wiring, tuple([one(value) for value in actor.freeze()]), spawned)
            )
        except UnhashableState as error:
            raise UnhashableState(f"{type(actor).__name__}.{self._changeable(actor)}: {error}") from error

    def _changeable(self, actor: Actor) -> str:
        """The first field whose value can't be part of a state."""
        for name in (*actor.wiring, *actor.state):
            try:
                self.values.one(getattr(actor, name))
            except UnhashableState:
                return name
        return "?"

    def address(self, actor: Actor, name: str, parent: Address | None, ordinal: int) -> Address:
        """The address of the actor that `parent` spawns as its child number `ordinal` of this name: always the same object."""
        body = self.body(actor, NO_CHILDREN)
        key = (parent, name, ordinal, body)
        address = self._known.get(key)
        if address is None:
            address = Address(len(self.addresses), name, parent, ordinal, body)
            if any(part.name == address.path for part in self.parts):
                raise ModelError(f"a part and an actor have one name: {address.path}")
            self._known[key] = address
            self.addresses.append(address)
            self.length += 1
            self._taken.append({})
        return address

    def actor(self, body: int) -> Actor:
        """An actor object in this state, for one use."""
        kind, wiring, values, _ = self.values.values[body]
        actor: Actor = kind(*wiring)
        actor.thaw(values)
        return actor

    def recovered(self, body: int) -> int:
        """The body after a restart: from the actor's journal, with its counts of spawned children."""
        found = self._recovered.get(body)
        if found is None:
            old = self.actor(body)
            _, wiring, _, spawned = self.values.values[body]
            journal = tuple([getattr(old, name) for name in old.journal])
            found = self._recovered[body] = self.body(old.recover(journal), spawned, wiring)
        return found

    def begun_anew(self, body: int) -> int:
        """The body after a restart without the journal, with its counts of spawned children."""
        _, wiring, _, spawned = self.values.values[body]
        return self.body(self.actor(body).recover(()), spawned, wiring)

    def last_words(self, body: int, mail: tuple[int, ...]) -> tuple[Any, ...]:
        """The actor's `last_words`, made from its journal and this unread mail."""
        values = self.values.values
        if not values[body].kind.has_last_words:
            return ()
        return self.actor(self.recovered(body)).last_words(tuple([content_of(values[message]) for message in mail]))

    def phase(self, body: int) -> object:
        """The phase of an actor."""
        return self.actor(body).phase

    def handles_exits(self, body: int) -> bool:
        """Whether the actor handles the ends of its children in its phase."""
        kind = self.values.values[body].kind
        return Exited in kind.compiled.get(self.phase(body), ())

    # --- steps --------------------------------------------------------------------------------------------------------

    def is_own(self, message: int) -> bool:
        """Whether an actor sends this mail to itself: it is dropped with the actor's incarnation."""
        return message in {self.start, self.start_again} or isinstance(self.values.values[message], Fired)

    def lasts(self, body: int, message: int) -> bool:
        """Whether the message is a timer that came due and survives a crash of its actor."""
        what = self.values.values[message]
        return what.__class__ is Fired and what.key in self.values.values[body].kind.lasting

    def take(self, ref: int, body: int, message: int) -> Taken:
        """The result of the step of the actor at `ref` with this message."""
        memo = self._taken[ref]
        key = (body, message)
        taken = memo.get(key)
        if taken is None:
            taken = memo[key] = self._take(ref, body, message)
        return taken

    def _take(self, ref: int, body: int, message: int) -> Taken:
        kind = self.values.values[body].kind
        what = content_of(self.values.values[message])
        try:
            first = self._step(ref, body, message)
        except UnhashableState as error:
            raise UnhashableState(f"{kind.__name__} at {what!r}: {error}") from error
        covered = CoverageKey(kind.__name__, phase_text(self.phase(body)), type(what).__name__)
        times = self.times[covered] = self.times.get(covered, 0) + 1
        if times <= TWICE or times % TWICE == 0:
            if self._step(ref, body, message) != first:
                raise NotRepeatable(
                    f"{kind.__name__} gave two different results for {what!r}; look for a clock, chance, `id()`, the order of "
                    "a set, or a field that is changed in place",
                    state=self.actor(body).freeze(),
                )
            try:
                self.values.look_again(LOOKED_AT)
            except NotRepeatable as error:
                raise NotRepeatable(f"at or before {kind.__name__}'s step with {what!r}: {error}") from error
        effective = first.body != body or any(op != REFUSE for op, _, _ in first.effects) or bool(first.error)
        if not self.is_own(message):
            self.coverage[covered] = self.coverage.get(covered, False) or effective
        return first

    def _step(self, ref: int, body: int, message: int) -> Taken:
        actor = self.actor(body)
        spawned = dict(self.values.values[body].spawned)

        def new_ref(child: Actor, name: str, me: Any) -> Any:
            spawned[name] = spawned.get(name, 0) + 1
            return self.address(child, name, me, spawned[name])

        out = Out(new_ref)
        out.me = self.addresses[ref]
        phase = actor.phase
        what = content_of(self.values.values[message])
        try:
            if message == self.start:
                actor.start(out)
            elif message == self.start_again:
                begin_again(actor, out)
            elif isinstance(what, Fired):
                if message != self.void:
                    actor.timeout(what.key, out)
            else:
                actor.compiled[phase].get(what.__class__, refused)(actor, what, out)
        except ModelError:  # a child can't be spawned in a model
            raise
        except Exception as error:  # noqa: BLE001 - any error of a step goes to the supervisor, as in the system
            unexpected = "" if isinstance(error, self.allowed_errors) else "!"
            faulty = self._for_faults(ref, 0, body, message)
            return Taken(body, (), False, f"{unexpected}{_error_text(error)}", faulty)
        after = self.body(actor, frozenset(spawned.items()), self.values.values[body].wiring)
        effects = tuple([self._effect(*effect) for effect in out.effects])
        return Taken(after, effects, actor.phase is not phase, "", self._for_faults(ref, len(effects), body, message))

    def _for_faults(self, ref: int, effects: int, body: int, message: int) -> tuple[int, int]:
        """The actor of a step, and its number of effects, as ~n if its message is never tried again."""
        again = not self.is_own(message) or self.lasts(body, message)
        return ref, effects if again else ~effects

    def _effect(self, op: int, a: Any, b: Any) -> tuple[int, Any, Any]:
        if op == PORT:
            return op, self.part(a), self.values.number(b)
        if op == REPLY:
            if not isinstance(a, ModelToken):
                return BROKEN, f"a reply to {a!r}, which is no token", None
            return op, self.values.number(a), self.values.number(Answer(a.key, b))
        if op in {TELL, SPAWN, RESTART, STOP, HOLD, WATCH, UNWATCH}:
            if not isinstance(a, Address):
                return BROKEN, f"{a!r} is no address", None
            return op, a.number, self.message(b) if op == TELL else b
        if op in {POSTPONE, REFUSE}:
            return op, self.message(a), None
        return op, a, b

    def part(self, part: Any) -> int:
        """The number of a part. Raises `ModelError` if the part is not in the model."""
        number = self.part_numbers.get(part) if isinstance(part, Part) else None
        if number is None:
            raise ModelError(f"work was handed to {part!r}, which is no part of the model")
        return number

    # --- timers and tokens --------------------------------------------------------------------------------------------

    def armed(self, timers: int, arming: tuple[Arming, ...]) -> int:
        """The armed timers, in the order of their arming, after these operations."""
        key = (timers, arming)
        found = self._armed.get(key)
        if found is None:
            order = list(self.tuples.values[timers])
            for op, ref, key_or_keys, seconds in arming:
                order = [timer for timer in order if not disarms((op, ref, key_or_keys, seconds), timer[0], timer[1])]
                if op == SET_TIMER or (op == KEEP_TIMER and all(timer[:2] != (ref, key_or_keys) for timer in order)):
                    order.append((ref, key_or_keys, seconds))
            found = self._armed[key] = self.tuples.number(tuple(order))
        return found

    def same(self, of_a_turn: T) -> T:
        """One object for all equal values of turns, of which there are few kinds."""
        found: T = self._same.setdefault(of_a_turn, of_a_turn)
        return found

    def answered(self, tokens: int, more: tuple[int, ...]) -> int:
        """The answered tokens, with some more."""
        return self.tuples.number(tuple(sorted({*self.tuples.values[tokens], *more})))

    # --- parts --------------------------------------------------------------------------------------------------------

    def submit(self, part: int, state: int, work: int) -> tuple[int, str]:
        """The state of a part after it took work, and the error if the part raised one."""
        key = (part, state, work)
        found = self._submitted.get(key)
        if found is None:
            found = self._submitted[key] = self._submit(part, state, work)
            if self._submit(part, state, work) != found:
                raise NotRepeatable(
                    f"{self.parts[part]!r} took {self.values.values[work]!r} in two different ways; look for a clock, chance, "
                    "`id()`, the order of a set, or something that is kept in the part instead of its state",
                    state=self.values.values[state],
                )
        return found

    def _submit(self, part: int, state: int, work: int) -> tuple[int, str]:
        try:
            after = self.parts[part].submit(self.values.values[state], self.values.values[work])
        except NotImplementedError as error:
            raise ModelError(str(error)) from error
        except Exception as error:  # noqa: BLE001 - a port that raises crashes the actor that asked
            return state, _error_text(error)
        return self.state_of(part, after), ""

    def state_of(self, part: int, state: object) -> int:
        """The number of a part's state. Raises `UnhashableState` that names the part."""
        try:
            return self.values.number(state)
        except UnhashableState as error:
            raise UnhashableState(f"{self.parts[part]!r}: {error}") from error


def disarms(arming: Arming, ref: int, key: str) -> bool:
    """Whether this operation ends an armed timer, or begins its time anew."""
    op, whose, which, _ = arming
    if whose != ref or op == KEEP_TIMER:
        return False
    return key not in which if op == CANCEL_ALL else key == which


def content_of(message: Message) -> Message:
    """The message itself, also if it waits to be tried once more."""
    return message.message if message.__class__ is Tried else message


def _error_text(error: Exception) -> str:
    """The text of an error in `Exited`."""
    return "".join(traceback.format_exception_only(error)).strip()


def message_text(stage: Stage, message: int) -> str:
    """A message as a line of a report."""
    what = content_of(stage.values.values[message])
    if isinstance(what, Fired):
        return "timer that is void" if message == stage.void else f"timer {what.key!r}"
    return value_text(what)


def mistakes_in(notes: tuple[Note, ...]) -> list[Note]:
    """The mistakes among a state's notes: failures that no run may have."""
    return [note for note in notes if note[0] not in {SET_ASIDE, EARLY}]


def set_aside_in(stage: Stage, notes: tuple[Note, ...]) -> tuple[tuple[str, object], ...]:
    """The messages that killed their actor twice: the actor's path, and the message."""
    return tuple([(note[1], stage.values.values[note[2]]) for note in notes if note[0] == SET_ASIDE])


def early_in(notes: tuple[Note, ...]) -> tuple[tuple[str, str], ...]:
    """The timers that came due before an answer that a sound port would have given in time: the actor's path, and the key."""
    return tuple([(note[1], note[2]) for note in notes if note[0] == EARLY])


def mistake_text(mistake: Note) -> str:
    """A mistake as a line of a report: the failure, the actor and its phase, and the message."""
    kind, actor, phase, message, error = mistake
    return f"{kind}: {actor} in {phase!r} at {message}" + (f", {error}" if error else "")


def value_text(value: object) -> str:
    """A value as a line of a report: its class and its plain fields."""
    text = repr(value)
    return text if len(text) <= 100 else type(value).__name__


def phase_text(value: object) -> str:
    """The name of a phase in coverage and reports."""
    return str(getattr(value, "value", value))
