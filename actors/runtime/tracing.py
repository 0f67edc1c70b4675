"""A trace of one actor and its descendants, step by step, while somebody wants one.

Following an actor exchanges the message table of its address for one whose look-ups are watched, and giving it up puts the
actor's own table back. So an actor that nobody follows runs the very code that it runs in a system without this module.

A line tells the type of a message and those of its fields that can't hold anything private: numbers, enum members and
addresses. It never tells a text, except the key of a timer, and of an error only the type.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from actors.runtime.actor import (
    CANCEL_TIMER,
    HOLD,
    KEEP_TIMER,
    PORT,
    POSTPONE,
    REFUSE,
    REPLY,
    RESTART,
    SET_TIMER,
    SPAWN,
    STOP,
    TELL,
    UNWATCH,
    WATCH,
    Actor,
    Effect,
    Gone,
    Out,
    Timer,
    content_of,
)
from actors.runtime.inspection import path_of, phase_of
from actors.runtime.mailbox import SYSTEM, Message, Ref, Step, Table
from actors.runtime.system import ActorSystem

Field = int | float | bool | str | None

PLAIN: Final = ("__struct_fields__", "_fields", "__dataclass_fields__")  # where plain values declare their fields
_NO_FIELD: Final = object()  # a slot that nothing was put into

VERBS: Final = {
    TELL: "tell",
    REPLY: "reply",
    PORT: "port",
    SET_TIMER: "set_timer",
    CANCEL_TIMER: "cancel_timer",
    SPAWN: "spawn",
    RESTART: "restart",
    STOP: "stop",
    WATCH: "watch",
    UNWATCH: "unwatch",
    POSTPONE: "postpone",
    REFUSE: "refuse",
    HOLD: "hold",
    KEEP_TIMER: "keep_timer",
}


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One step.

    `number` counts the steps of this trace from 1, `seconds` the time since it began on the system's clock. `actor` is the
    path of who took the step and `incarnation` its restarts; `phase` is where it stood before and `next_phase` after. `message`
    is the type of what it got, with the `fields` that are safe to tell. `effects` are what it asked for, in order, as in
    "tell recorder Frames"; they are carried out when the step has returned. When the step raised, `error` is the type of
    the error, and there are no effects.
    """

    number: int
    seconds: float
    actor: str
    incarnation: int
    phase: str
    next_phase: str
    message: str
    fields: dict[str, Field]
    effects: tuple[str, ...]
    error: str


class Tracer:
    """Follows actors of one system, for any number of traces at once. In the system's thread, and never from a step."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._followed: dict[Ref, _Followed] = {}

    def follow(self, root: Ref, on_line: Callable[[TraceLine], None], on_end: Callable[[], None]) -> "Trace":
        """Trace `root`, its children and those that they spawn, from now on.

        `on_line` gets each step as soon as it has returned; `on_end` is called once, when `root` has stopped for good, at once
        if it has. Both run between steps and must neither block, tell nor raise.
        """
        trace = Trace(self, self._system, root, on_line, on_end)
        self.join(_family(root), {trace})
        return trace

    def join(self, refs: Iterable[Ref], traces: "set[Trace]") -> None:
        """These actors are parts of these traces too."""
        for ref in refs:
            if ref not in self._followed:
                self._followed[ref] = _Followed(self, ref)
            self._followed[ref].traces |= traces

    def part(self, trace: "Trace") -> None:
        """This trace is over."""
        for ref, followed in list(self._followed.items()):
            followed.traces.discard(trace)
            if not followed.traces:
                followed.give_up()
                del self._followed[ref]


class Trace:
    """One trace; `end` it when nobody reads it any more. Twice is once."""

    def __init__(
        self,
        tracer: Tracer,
        system: ActorSystem,
        root: Ref,
        on_line: Callable[[TraceLine], None],
        on_end: Callable[[], None],
    ) -> None:
        self._tracer = tracer
        self._system = system
        self._on_line = on_line
        self._on_end = on_end
        self._began = system.now()
        self._number = 0
        self._over = False
        self._watcher = system.spawn(TraceWatcher(root, self), "trace")

    def end(self) -> None:
        """Nothing more is told."""
        if not self._over:
            self._part()
            self._system.tell(self._watcher, _Leave())

    def submit(self, _: Gone) -> None:
        """The traced actor has stopped for good."""
        if not self._over:
            self._part()
            self._on_end()

    def _part(self) -> None:
        self._over = True
        self._tracer.part(self)

    def tell(
        self, ref: Ref, before: str, message: str, fields: dict[str, Field], effects: tuple[str, ...], error: str
    ) -> None:
        """A part of the trace has taken a step."""
        self._number += 1
        self._on_line(
            TraceLine(
                number=self._number,
                seconds=round(self._system.now() - self._began, 6),
                actor=path_of(ref),
                incarnation=ref.incarnation,
                phase=before,
                next_phase=phase_of(ref),
                message=message,
                fields=fields,
                effects=effects,
                error=error,
            )
        )


class _Followed:
    """One actor whose steps are watched, and the traces that it is a part of."""

    def __init__(self, tracer: Tracer, ref: Ref) -> None:
        self.traces: set[Trace] = set()
        self._tracer = tracer
        self._ref = ref
        self._own_table = ref.table
        ref.table = {phase: WatchedTable(table, self._step) for phase, table in ref.table.items()}

    def give_up(self) -> None:
        """The actor runs by its own table again."""
        self._ref.table = self._own_table

    def _step(self, step: Step, actor: Actor, message: Message, out: Out) -> None:
        what = content_of(message)
        before, fields = phase_of(self._ref), safe_fields(what)
        effects, problem = out.effects, ""
        try:
            step(actor, message, out)
            self._tracer.join((ref for op, ref, _ in effects if op == SPAWN), self.traces)
        except Exception as error:
            effects, problem = [], type(error).__name__
            raise
        finally:
            told = tuple(map(_told, effects))
            for trace in tuple(self.traces):
                trace.tell(self._ref, before, type(what).__name__, fields, told, problem)


class WatchedTable(dict[type, Step]):
    """The table of one phase: what is looked up in it is run by `run`."""

    def __init__(self, table: Table, run: Callable[..., None]) -> None:
        super().__init__(table)
        self._run = run

    def get(self, kind: type, default: Any = None) -> Any:
        """The step for a message of this type, as it is run here."""
        return partial(self._run, super().get(kind, default))


class _Leave:
    """To the watcher: nobody wants to know any more."""

    lane = SYSTEM


class TraceWatcher(Actor):
    """Tells `trace` when `ref` has stopped for good."""

    __slots__ = ("ref", "trace")
    wiring = ("ref", "trace")
    handles = {Gone: "gone", _Leave: "leave"}

    def __init__(self, ref: Ref, trace: Trace) -> None:
        self.ref = ref
        self.trace = trace

    def start(self, out: Out) -> None:
        """Want to know."""
        out.watch(self.ref)

    def gone(self, message: Gone, out: Out) -> None:
        """Tell it, and go."""
        out.port(self.trace, message)
        out.stop()

    def leave(self, _: _Leave, out: Out) -> None:
        """Go without."""
        out.unwatch(self.ref)
        out.stop()


def safe_fields(message: Message) -> dict[str, Field]:
    """The fields of a message that can't hold anything private: numbers, enum members, addresses, and the key of a timer;
    those of a message inside it under both names, with a dot between."""
    if isinstance(message, Timer):
        return {"key": message.key, "live": message.live}
    return dict(_safe(message, inner=False))


def _safe(value: object, *, inner: bool) -> Iterator[tuple[str, Field]]:
    for name in _names(type(value), PLAIN if inner else (*PLAIN, "__slots__")):
        field = getattr(value, name, _NO_FIELD)
        if isinstance(field, Enum):
            yield name, field.value if isinstance(field.value, str | int | float) else field.name
        elif field is None or isinstance(field, bool | int | float):
            yield name, field
        elif isinstance(field, Ref):
            yield name, field.name
        elif not inner:
            for within, found in _safe(field, inner=True):
                yield f"{name}.{within}", found


def _names(cls: type, declared: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that a class declares in one of these ways; nothing else of a value is looked at."""
    return next((tuple(getattr(cls, names)) for names in declared if hasattr(cls, names)), ())


def _told(effect: Effect) -> str:
    op, to, what = effect
    if op in (SET_TIMER, KEEP_TIMER, CANCEL_TIMER):
        words = [to] if op == CANCEL_TIMER else [to, f"{what:g}"]
    elif op == REPLY:
        words = [type(what).__name__]
    elif op in (POSTPONE, REFUSE):
        words = [type(to).__name__]
    else:
        words = [to.name if isinstance(to, Ref) else type(to).__name__]
        words += [type(what).__name__] if op in (TELL, PORT) else []
    return " ".join([VERBS[op], *words])


def _family(ref: Ref) -> Iterator[Ref]:
    yield ref
    for child in ref.children():
        yield from _family(child)
