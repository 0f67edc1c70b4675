"""An actor: a synchronous step. A message comes in, its state changes, effects go out as data.

A step never awaits, reads a clock, draws a random number or does I/O. What it wants done in the world it asks for through
`Out`, as one ordered list of effects; the system carries them out after the step. A step that raises did nothing: its
effects are discarded, and the actor begins again from its journal.

A subclass declares, as data:

    __slots__   every field
    wiring      the fields that never change (references, settings): exactly the parameters of `__init__`, in order
    state       the fields that change, with immutable values; `phase` among them if the actor has phases
    journal     the part of `state` that survives a crash; it is committed with each step, before the first effect
    lasting     the keys of the timers that survive a crash; all others die with it
    handles     {phase: {MessageType: method name, DEFER or IGNORE}}, or {MessageType: ...} for an actor without phases

The declaration is checked when the class is made: every field is declared once, every method exists and takes, by its
annotation, the messages that it is named for, and every message type that one phase handles is handled, deferred or ignored in
every other phase. What reaches an actor without standing in
its table is a dead letter, counted, and never changes it. An actor has phases if, and only if, `phase` is part of its state.
"""

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, UnionType
from typing import Annotated, Any, ClassVar, Final, ForwardRef, TypeVar, Union, get_args, get_origin

from msgspec import Struct

from actors.runtime.mailbox import KEEP_MAIL, SYSTEM, Journal, MailRule, Message, Ref, Step, Table, lane_of

TELL: Final = 0
REPLY: Final = 1
PORT: Final = 2
SET_TIMER: Final = 3
CANCEL_TIMER: Final = 4
SPAWN: Final = 5
RESTART: Final = 6
STOP: Final = 7
WATCH: Final = 8
UNWATCH: Final = 9
POSTPONE: Final = 10
REFUSE: Final = 11
HOLD: Final = 12
KEEP_TIMER: Final = 13

Effect = tuple[int, Any, Any]
"""An effect that a step asks for: one of the numbers above, and two values whose types the number decides."""

LONGEST_TIMER_SECONDS: Final = (
    3_155_760_000.0  # a century; beyond, it is milliseconds, an epoch, or meant to be no timer
)


class _Rule:
    """A word in a `handles` table that is not a method."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


DEFER: Final = _Rule("DEFER")  # keep it until the phase changes, then take it before newer mail
IGNORE: Final = _Rule("IGNORE")  # take it and do nothing: declared, so not a dead letter

ANY_PHASE: Final = "any"  # the phase of an actor that declares none


class Start:
    """The first message of every incarnation."""

    lane = SYSTEM
    __slots__ = ("again",)

    def __init__(self, *, again: bool) -> None:
        self.again = again


START: Final = Start(again=False)
START_AGAIN: Final = Start(again=True)


class Retry:
    """A message that its actor crashed on, put back before the other mail of its lane. Its step is that of the message; if
    it crashes again the message is set aside. So it is this delivery that was tried before, not this message."""

    __slots__ = ("lane", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.lane = lane_of(message)


def content_of(message: Message) -> Message:
    """The message itself, out of a retry."""
    return message.message if isinstance(message, Retry) else message


class Shutdown:
    """Told by a supervisor: finish what must be finished, and stop yourself with `out.stop()`, within your deadline.

    It is meant for one incarnation: one that still waits when the actor is held (see `Out.hold`) is void.
    """

    lane = SYSTEM
    __slots__ = ()


SHUTDOWN: Final = Shutdown()


class Exited:
    """Told to the parent: `ref` crashed with `error`, or stopped by itself (`error` is None), at `at` seconds.

    A crashed child is held, its mail with it, until its parent restarts or stops it. `dropped` is the message that killed it
    twice and was set aside with this crash, for a parent that must not lose it. `last_words` are those of `Actor.last_words`.
    """

    lane = SYSTEM
    __slots__ = ("at", "dropped", "error", "last_words", "ref")

    def __init__(
        self, ref: Ref, error: str | None, at: float, dropped: Any = None, last_words: tuple[Effect, ...] = ()
    ) -> None:
        self.ref = ref
        self.error = error
        self.at = at
        self.dropped = dropped
        self.last_words = last_words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exited) and (self.ref, self.error, self.at) == (other.ref, other.error, other.at)

    def __hash__(self) -> int:
        return hash((Exited, self.ref, self.error, self.at))

    def __repr__(self) -> str:
        return f"Exited({self.ref!r}, {self.error!r})"


class Gone:
    """Told to those who watch `ref`: it stopped for good."""

    lane = SYSTEM
    __slots__ = ("ref",)

    def __init__(self, ref: Ref) -> None:
        self.ref = ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gone) and self.ref is other.ref

    def __hash__(self) -> int:
        return hash((Gone, self.ref))


class Timer(Struct, order=True):
    """An armed timer of one actor, and the message that its firing is. Timers are in the order of their times, and then
    of their setting, which `serial` counts.

    It is void (`live` is False) once it was set again or cancelled, or its actor died and it is none that lasts, even if it
    already waits in the mailbox. `due` is set when it has fired. `earlier` is the timer of the same actor that was set before
    it.
    """

    lane: ClassVar[int] = SYSTEM
    at: float
    serial: int
    ref: Ref
    key: str
    earlier: "Timer | None" = None
    due: bool = False
    live: bool = True

    def leave_chain(self) -> None:
        """Be no timer of the actor any more."""
        later = self.ref.timers
        if later is self:
            self.ref.timers = self.earlier
            return
        while later is not None:
            if later.earlier is self:
                later.earlier = self.earlier
                return
            later = later.earlier

    def rejoin_chain(self) -> None:
        """Be a timer of the actor again, and the latest: its step raised, so it has not come yet."""
        self.live = True
        self.earlier, self.ref.timers = self.ref.timers, self


class TimerError(ValueError):
    """A timer was to be set for `seconds` that no timer can have: less than none, not a number, more than a century."""

    def __init__(self, key: str, seconds: object) -> None:
        super().__init__(
            f"the timer {key!r} can't be set for {seconds!r}: give seconds, from 0 to {LONGEST_TIMER_SECONDS:,.0f}"
        )
        self.key = key
        self.seconds = seconds


class Out:
    """What a step may ask for: one ordered list of effects, carried out when the step has returned.

    `me` is the address of the actor whose step is running.
    """

    __slots__ = ("_add", "effects", "me", "new_ref")

    def __init__(self, new_ref: Callable[["Actor", str, Ref], Ref]) -> None:
        self.effects: list[Effect] = []
        self._add = self.effects.append
        self.me: Any = None
        self.new_ref = new_ref

    def tell(self, ref: Ref, message: object) -> None:
        """Put `message` into the mailbox of `ref`."""
        self._add((TELL, ref, message))

    def reply(self, token: object, value: object) -> None:
        """Answer an ask. A token answers once; a second or late answer is a dead letter."""
        self._add((REPLY, token, value))

    def port(self, port: object, work: object) -> None:
        """Hand `work` to a port. What comes of it arrives as a message."""
        self._add((PORT, port, work))

    def set_timer(self, key: str, seconds: float) -> None:
        """Have `timeout(key)` called after `seconds`, from 0 to `LONGEST_TIMER_SECONDS`; a timer of the same key is replaced.

        Behind `stop()` of the actor itself it is no timer. Raises `TimerError` for anything else than such a number."""
        numeric = isinstance(seconds, (float, int)) and seconds.__class__ is not bool
        if not (numeric and 0.0 <= seconds <= LONGEST_TIMER_SECONDS):
            raise TimerError(key, seconds)
        self._add((SET_TIMER, key, seconds))

    def keep_timer(self, key: str, seconds: float) -> None:
        """Let a timer go on as it is, armed or due; set it for `seconds` if there is none. It is what `restarted` asks for
        those that last (see `Actor.lasting`). Raises `TimerError` as `set_timer` does."""
        self.set_timer(key, seconds)
        self.effects[-1] = (KEEP_TIMER, key, seconds)

    def cancel_timer(self, key: str) -> None:
        """Cancel a timer; its `timeout` will not be called, even if it was due already."""
        self._add((CANCEL_TIMER, key, None))

    def spawn(self, actor: "Actor", name: str) -> Ref:
        """The address of a new child, started when the effect is carried out."""
        ref = self.new_ref(actor, name, self.me)
        self._add((SPAWN, ref, None))
        return ref

    def adopt(self, ref: Ref) -> None:
        """After a crash: start a child whose address the journal holds, unless it was started already."""
        self._add((SPAWN, ref, None))

    def restart(self, ref: Ref, mail: MailRule = KEEP_MAIL) -> None:
        """Begin a held child again from its journal, with as much of its mail as the rule says.

        A child that runs is left alone; and for a parent that holds its children, one whose exit is still in the parent's mail.
        """
        self._add((RESTART, ref, mail))

    def hold(self, ref: Ref) -> None:
        """End a child's incarnation with its journal, and its children for good: its address and its mail wait for a restart,
        which begins it anew, or a stop."""
        self._add((HOLD, ref, None))

    def stop(self, ref: Ref | None = None) -> None:
        """Stop a child, or this actor itself, and its children first. Waiting mail becomes dead letters."""
        self._add((STOP, self.me if ref is None else ref, None))

    def watch(self, ref: Ref) -> None:
        """Be told `Gone(ref)` when it stops for good; at once if it has."""
        self._add((WATCH, ref, None))

    def unwatch(self, ref: Ref) -> None:
        """No longer be told."""
        self._add((UNWATCH, ref, None))

    def release(self, effects: tuple[Effect, ...]) -> None:
        """Ask for effects that were kept as data until now."""
        self.effects.extend(effects)


class ActorDeclarationError(TypeError):
    """An actor class declares its fields or its message table wrongly; raised when the class is made."""


class HandlerMismatch(ActorDeclarationError):
    """A `handles` table names a method for a message that the method's annotation does not take, or that annotation can't be
    resolved.

    `actor` is the class, `phase` the phase (None for an actor without phases), `message` the type of the message, `method` the
    method's name, `annotation` what stands at its message parameter.
    """

    def __init__(
        self, actor: type, phase: object, message: type, method: str, annotation: object, problem: str
    ) -> None:
        where = "" if phase is None else f"phase {phase!r}: "
        super().__init__(f"{actor.__name__}: {where}{method}() is named for {message.__name__}, {problem}")
        self.actor = actor
        self.phase = phase
        self.message = message
        self.method = method
        self.annotation = annotation


class Actor:
    """The base of every actor; see the module for what a subclass declares."""

    __slots__ = ()

    wiring: ClassVar[tuple[str, ...]] = ()
    state: ClassVar[tuple[str, ...]] = ()
    journal: ClassVar[tuple[str, ...]] = ()
    handles: ClassVar[Mapping[Any, Any]] = {}

    lasting: ClassVar[tuple[str, ...]] = ()
    """The keys of the timers that outlast a crash, since they are deadlines that somebody was promised. Such a timer keeps its
    moment while the actor is held, and comes then, also if that was before; one whose step raised is due until a step of it is
    whole. `restarted` says with `Out.keep_timer` which of them the actor still needs, and arms them in the same way if a crash
    came before they were; those that it neither keeps nor sets are cancelled before its first effect. A stop or a hold (see
    `Out.hold`) cancels all."""

    holds_children: ClassVar[bool] = False
    """Whether a child that stops itself is held (see `Out.hold`), so that it can be begun again at its address. Such a
    parent loses neither news of an exit nor the word to end, even if it crashes on them twice: nobody else would ever decide on
    its children."""

    compiled: ClassVar[dict[object, Table]] = {}
    journal_of: ClassVar[Callable[[Any], Journal] | None] = None
    starts: ClassVar[bool] = False
    has_last_words: ClassVar[bool] = False
    frozen_of: ClassVar[Callable[[Any], Journal]] = staticmethod(lambda _: ())

    phase: Any = ANY_PHASE

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        super().__init_subclass__()
        if abstract:
            return
        _check_fields(cls)
        _check_lasting(cls)
        for name in _CALLED_BY_THE_SYSTEM:
            _refuse_suspended(cls, name, getattr(cls, name))
        cls.compiled = _compile(cls)
        defers = any(step is _defer for table in cls.compiled.values() for step in table.values())
        cls.journal_of = staticmethod(_values_of(cls.journal)) if cls.journal or defers else None
        cls.frozen_of = staticmethod(_values_of(cls.state))
        cls.starts = cls.start is not Actor.start
        cls.has_last_words = cls.last_words is not Actor.last_words

    def start(self, out: Out) -> None:
        """The first step of a new actor."""

    def restarted(self, out: Out) -> None:
        """The first step after a crash, with the journal's fields as they were committed; `start` unless overridden."""
        self.start(out)

    def last_words(self, mail: tuple[Message, ...]) -> tuple[Effect, ...]:
        """What must be said in its stead if it never begins again, as its journal stands and with this unread mail. The parent
        is told with each crash."""
        return ()

    def timeout(self, timer: str, out: Out) -> None:
        """The step of a timer that has come due."""
        raise NotImplementedError(f"{type(self).__name__} set the timer {timer!r} and has no timeout()")

    def receive(self, message: object, out: Out) -> None:
        """The step for `message`, looked up in the table; what the system does inline for each message."""
        self.compiled[self.phase].get(message.__class__, _refuse)(self, message, out)

    def freeze(self) -> tuple[object, ...]:
        """The values of the `state` fields, in their order."""
        return type(self).frozen_of(self)

    def thaw(self, values: tuple[object, ...]) -> None:
        """Set the `state` fields to what `freeze` gave."""
        for name, value in zip(self.state, values, strict=True):
            setattr(self, name, value)

    def recover(self, journal: Journal) -> "Actor":
        """A new actor with this one's wiring and the committed journal: what a restart begins with."""
        fresh = type(self)(*(getattr(self, name) for name in self.wiring))
        for name, value in zip(self.journal, journal, strict=False):
            setattr(fresh, name, value)
        return fresh


def as_committed(ref: Ref) -> Actor | None:
    """The actor at this address as its last whole step left it, for whoever acts in its stead; None when it has stopped."""
    return None if ref.actor is None else ref.actor.recover(ref.journal)


def _ignore(actor: Actor, message: object, out: Out) -> None:
    """The step of a message that is declared to mean nothing in this phase."""


def _defer(actor: Actor, message: object, out: Out) -> None:
    out.effects.append((POSTPONE, message, None))


def _refuse(actor: Actor, message: object, out: Out) -> None:
    """The step of what is not in the table. That a retry is found here keeps tables to what actors handle."""
    if message.__class__ is Retry:
        actor.receive(message.message, out)
        return
    out.effects.append((REFUSE, message, None))


def _start(actor: Actor, message: Start, out: Out) -> None:
    (begin_again if message.again else type(actor).start)(actor, out)


def begin_again(actor: Actor, out: Out) -> None:
    """The first step after a crash. Before all else, those lasting timers end that it does not ask for."""
    actor.restarted(out)
    if actor.lasting:
        asked = {key for op, key, _ in out.effects if op in {KEEP_TIMER, SET_TIMER}}
        out.effects[:0] = [(CANCEL_TIMER, key, None) for key in actor.lasting if key not in asked]


def _timeout(actor: Actor, message: Timer, out: Out) -> None:
    if message.live:
        message.live = False
        message.leave_chain()
        try:
            actor.timeout(message.key, out)
        except Exception:
            message.rejoin_chain()
            raise


refused: Final = _refuse
ignored: Final = _ignore
_OWN: Final[Table] = {Start: _start, Timer: _timeout}


def _values_of(names: tuple[str, ...]) -> Callable[[Actor], Journal]:
    """A function that gives these fields of an actor. It runs with each step, so it is made as source, like the methods of a
    dataclass: an `attrgetter` takes twice as long."""
    fields = "".join(f"actor.{name}, " for name in names)
    made: Callable[[Actor], Journal] = eval(f"lambda actor: ({fields})")  # noqa: S307 - names of fields
    return made


_CALLED_BY_THE_SYSTEM: Final = (
    "start",
    "restarted",
    "timeout",
    "receive",
    "last_words",
    "freeze",
    "thaw",
    "recover",
)


def _refuse_suspended(cls: type[Actor], name: str, method: Callable[..., object]) -> None:
    """Refuse a method that would only make a coroutine or a generator: nobody awaits it, so it would never run."""
    if is_suspended(method):
        raise ActorDeclarationError(
            f"{cls.__name__}.{name} is an async function or has a yield: a step runs at once and never waits; what it wants "
            "done it asks for through `out`, and takes what comes of it as a message"
        )


def is_suspended(function: Callable[..., object], *, but_generators: bool = False) -> bool:
    """Whether calling this function runs nothing of it, because it is async or, unless these are welcome, a generator. Wrappers
    that say what they wrap are looked through."""
    function = inspect.unwrap(function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    return not but_generators and inspect.isgeneratorfunction(function)


def _check_fields(cls: type[Actor]) -> None:
    slots = [name for base in cls.__mro__ for name in _slots(base)]
    if "__dict__" in dir(cls):
        raise ActorDeclarationError(f"{cls.__name__}: declare __slots__ (also in its bases)")
    declared = [*cls.wiring, *cls.state]
    if sorted(slots) != sorted(declared):
        odd = sorted(set(slots) ^ set(declared)) or sorted(name for name in declared if declared.count(name) > 1)
        raise ActorDeclarationError(
            f"{cls.__name__}: each slot is either wiring or state, once; look at {', '.join(odd)}"
        )
    if not set(cls.journal) <= set(cls.state):
        raise ActorDeclarationError(f"{cls.__name__}: the journal is a part of the state")
    parameters = tuple(inspect.signature(cls).parameters)
    if parameters != cls.wiring:
        raise ActorDeclarationError(f"{cls.__name__}: __init__ takes {parameters}, the wiring is {cls.wiring}")


def _check_lasting(cls: type[Actor]) -> None:
    keys = cls.lasting
    if not (isinstance(keys, tuple) and all(isinstance(key, str) and key for key in keys)):
        raise ActorDeclarationError(f"{cls.__name__}: lasting is a tuple of the keys of timers, not {keys!r}")
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ActorDeclarationError(f"{cls.__name__}: lasting names a timer twice: {', '.join(twice)}")


def _slots(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _compile(cls: type[Actor]) -> dict[object, Table]:
    handles = cls.handles
    flat = all(isinstance(key, type) for key in handles)
    if handles and flat == ("phase" in cls.state):
        raise ActorDeclarationError(
            f"{cls.__name__}: a table by phase needs `phase` in the state, any other must not have it"
        )
    if handles and flat:
        handles = {ANY_PHASE: handles}
    types = {kind for table in handles.values() for kind in table}
    compiled: dict[object, Table] = {}
    for phase, table in handles.items():
        missing = sorted(kind.__name__ for kind in types - set(table))
        if missing:
            raise ActorDeclarationError(f"{cls.__name__}: phase {phase!r} says nothing of {', '.join(missing)}")
        compiled[phase] = {kind: _step(cls, phase, kind, rule) for kind, rule in table.items()} | _OWN
    return compiled or {ANY_PHASE: dict(_OWN)}


def _step(cls: type[Actor], phase: object, kind: type, rule: object) -> Step:
    if rule is DEFER:
        return _defer
    if rule is IGNORE:
        return _ignore
    method = getattr(cls, rule, None) if isinstance(rule, str) else None
    if not (isinstance(rule, str) and inspect.isfunction(method)):
        raise ActorDeclarationError(f"{cls.__name__}: no method {rule!r}")
    _refuse_suspended(cls, rule, method)
    _check_taken(cls, phase, kind, rule, inspect.unwrap(method))
    return method


def _check_taken(cls: type[Actor], phase: object, kind: type, name: str, function: FunctionType) -> None:
    """Refuse a message that the annotation of the method's message parameter does not take; without one it takes all."""
    code = function.__code__
    if code.co_argcount < len(("self", "message")):
        return  # it takes what comes as *arguments
    parameter = code.co_varnames[1]
    annotation = function.__annotations__.get(parameter, Any)
    told = None if phase is ANY_PHASE else phase
    try:
        taken = _takes(annotation, kind, lambda text: _resolved(text, cls, function))
    except Exception as error:
        problem = f"and its annotation {_named(annotation)} can't be resolved: {error}"
        raise HandlerMismatch(cls, told, kind, name, annotation, problem) from error
    if not taken:
        problem = f"but its parameter {parameter!r} takes {_named(annotation)}"
        raise HandlerMismatch(cls, told, kind, name, annotation, problem)


def _takes(annotation: Any, kind: type, resolved: Callable[[str], object]) -> bool:
    """Whether a parameter with this annotation takes an instance of `kind`; if only a type checker can tell, it does."""
    if annotation is Any:
        return True
    base = get_origin(annotation) or annotation
    if isinstance(base, type) and base not in {UnionType, Annotated}:
        return _is_subclass(kind, base)
    return any(_takes(one, kind, resolved) for one in _alternatives(annotation, resolved))


def _alternatives(annotation: Any, resolved: Callable[[str], object]) -> tuple[object, ...]:
    """The annotations one of which must take what this one takes; it is no class."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return (resolved(annotation),)
    if isinstance(annotation, TypeVar):
        return annotation.__constraints__ or (annotation.__bound__ or Any,)
    origin = get_origin(annotation)
    if origin is Union or origin is UnionType:
        return get_args(annotation)
    if origin is Annotated:
        return (annotation.__origin__,)
    if annotation is None:
        return (type(None),)
    return (getattr(annotation, "__value__", Any),)  # that of `type Either = Ping | Pong`, from Python 3.12 on


def _is_subclass(kind: type, base: type) -> bool:
    try:
        return issubclass(kind, base)
    except TypeError:  # a protocol that can't be told at run time
        return True


def _resolved(text: str, cls: type[Actor], function: FunctionType) -> object:
    """The value of an annotation that is a text. Its names are looked up in the module of the function; those of classes that
    were made inside a function, among the messages of the table and in the class."""
    names = function.__globals__
    try:
        return eval(text, names)  # noqa: S307 - an annotation, as typing.get_type_hints evaluates it
    except NameError:
        tables = [cls.handles, *(table for table in cls.handles.values() if isinstance(table, Mapping))]
        known = {kind.__name__: kind for table in tables for kind in table if isinstance(kind, type)}
        return eval(text, names, {**known, **vars(cls)})  # noqa: S307 - as above


def _named(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
