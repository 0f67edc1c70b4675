"""Ports in a simulation: they take work at once, and answer later, in virtual time.

A `PartPort` makes a model's `Part` a port: after a random delay it takes one of the part's choices, and a choice that is a
fault only when the plan has such a fault. For other ports, derive from `SimulatedPort`.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from actors.model.parts import Answer, Choice, Part
from actors.simulation.plan import Fault
from actors.simulation.trace import SimulatedToken

if TYPE_CHECKING:
    from actors.simulation.world import World

PROMPT_MS: Final = (1, 250)  # before a prompt choice
FREE_MS: Final = (1, 20_000)  # before any other choice
WHOLE: Final = "whole"


class SimulatedPort:
    """The base of ports. A port belongs to one run; its world has the time, the random numbers, and the actors.

    `kinds` are the faults that it can have.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name

    def begin(self) -> None:
        """A process starts: the first process, or the next after `died`."""

    def died(self, *, power: bool) -> None:
        """The process was killed, with all that it had scheduled; with `power`, the whole machine went down."""

    def submit(self, work: Any) -> None:
        """Take work of an actor. An error raised here crashes that actor."""
        raise NotImplementedError(f"{self.name} takes no {type(work).__name__}")

    def visit(self, number: int, what: Any) -> None:
        """Handle visit `number` of the plan, an event from outside with the content `what`."""
        raise NotImplementedError(f"nobody visits {self.name}")

    def suffer(self, fault: Fault) -> bool:
        """Suffer a fault of one of the port's kinds. True if it has hit, which the world then records. False if there is
        nothing to record now: the port drops the fault, or keeps it and calls `world.has_fired` when it hits."""
        raise NotImplementedError(f"{self.name} has no {fault.kind}")

    @property
    def state(self) -> Any:
        """The port's state, as properties see it."""
        return None


class _Answering:
    """A scheduled choice of a part; `soon` if its delay is the short one, so that later work does not replace it."""

    __slots__ = ("soon",)

    def __init__(self, soon: bool) -> None:  # noqa: FBT001 - the only argument
        self.soon = soon


class PartPort(SimulatedPort):
    """A `Part` as a port. `key_of(work)` tells which of several independent states the work belongs to."""

    def __init__(
        self,
        world: "World",
        part: Part,
        key_of: Callable[[Any], Hashable] = lambda _: WHOLE,
        prompt_ms: tuple[int, int] = PROMPT_MS,
    ) -> None:
        super().__init__(world, part.name)
        self.part = part
        self.kinds = tuple(part.faults or ())
        self.states: dict[Any, Any] = {}
        self._key_of = key_of
        self._prompt_ms = prompt_ms
        self._busy: dict[Hashable, _Answering] = {}
        self._wanted: list[Fault] = []  # faults that had nothing to hit so far
        self._tokens: dict[Hashable, SimulatedToken] = {}
        part.token = self._token  # type: ignore[method-assign,assignment]

    @property
    def state(self) -> Any:
        """The state of a part with a single state."""
        return self.states.get(WHOLE)

    def begin(self) -> None:
        """Let the part take its first choices, as a client does by itself."""
        if not self.states:
            self.states[WHOLE] = self.part.initial()
        self._busy.clear()
        for key in self.states:
            self._go_on(key)

    def submit(self, work: Any) -> None:
        """Hand the work to the part."""
        key = self._key_of(work)
        before = self.states.get(key)
        self.states[key] = self.part.submit(self.part.initial() if before is None else before, work)
        self.world.touched(self.name, key)
        self._go_on(key)

    def suffer(self, fault: Fault) -> bool:
        """Keep the fault until the part has a choice of its kind, and take that choice. False: `_fail` reports the fault."""
        self._wanted.append(fault)
        for key in list(self.states):
            if self._fail(key, list(self.part.choices(self.states[key]))):
                break
        return False  # `_fail` reports the fault when it happens

    def _fail(self, key: Hashable, choices: list[Choice]) -> bool:
        for fault in self._wanted:
            bad = [choice for choice in choices if choice.fault == fault.kind]
            if bad:
                self._wanted.remove(fault)
                self.world.has_fired(fault, self.name)
                self._take(key, bad[fault.size % len(bad)])
                return True
        return False

    def _go_on(self, key: Hashable) -> None:
        busy = self._busy.get(key)
        if busy is not None and busy.soon:
            return
        choices = list(self.part.choices(self.states[key]))
        if busy is None and self._wanted and self._fail(key, choices):
            return
        sound = [choice for choice in choices if not choice.fault]
        soon = any(choice.prompt for choice in sound)
        if not sound or (busy is not None and not soon):
            return
        chance = self.world.chance
        choice = chance.one_of(sound)
        if not choice.fair and chance.happens(1 / 4):  # an unfair choice need never happen: take a fair one
            sound = [choice for choice in sound if choice.fair]
            if not sound:
                return
            choice = chance.one_of(sound)
        low, high = self._prompt_ms if soon else FREE_MS
        answering = self._busy[key] = _Answering(soon)
        self.world.later(chance.between(low, high), lambda: self._answer(key, answering, choice.label))

    def _answer(self, key: Hashable, answering: "_Answering", label: str) -> None:
        if self._busy.get(key) is not answering:
            return  # an earlier answer has replaced this one
        del self._busy[key]
        sound = [choice for choice in self.part.choices(self.states[key]) if not choice.fault]
        chosen = next((choice for choice in sound if choice.label == label), None) or next(iter(sound), None)
        if chosen is not None:
            self._take(key, chosen)

    def _take(self, key: Hashable, choice: Choice) -> None:
        world = self.world
        self.states[key] = choice.state
        world.trace.add(f"{world.now_ms} {self.name}: {choice.label}")
        world.touched(self.name, key)
        for ref, message in choice.tells:
            world.tell(ref, message)
        for other, work in choice.works:
            world.port(other).submit(work)
        self._go_on(key)

    def _token(self, key: Hashable) -> SimulatedToken:
        if key not in self._tokens:
            name = f"{self.name}:{key}"
            self._tokens[key] = SimulatedToken(name, lambda value: self.submit(Answer(key, value)))
        return self._tokens[key]
