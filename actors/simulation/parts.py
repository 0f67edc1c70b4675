"""Ports in a simulation: they take work at once, and answer later, in virtual time.

A `Part`, as models have them, is a port as it is: it answers by one of its choices after a drawn while, and takes a choice that
is a fault when the plan says so. A port of one's own derives from `SimulatedPort`.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from actors.model.parts import Answer, Choice, Part
from actors.simulation.plan import Fault
from actors.simulation.trace import SimulatedToken

if TYPE_CHECKING:
    from actors.simulation.world import World

PROMPT_MS: Final = (1, 250)  # what a sound port takes
FREE_MS: Final = (1, 20_000)  # what may take any time
WHOLE: Final = "whole"


class SimulatedPort:
    """The base of ports. It belongs to one run; the world is where it finds the time, chance, and the actors.

    `kinds` are the faults that it knows.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name

    def begin(self) -> None:
        """A process starts: the first one, or one after `died`."""

    def died(self, *, power: bool) -> None:
        """The process was killed, and all that it had scheduled; with `power`, the whole machine went down."""

    def submit(self, work: Any) -> None:
        """Take work of an actor. Raising is a crash of the actor that asked."""
        raise NotImplementedError(f"{self.name} takes no {type(work).__name__}")

    def visit(self, number: int, what: Any) -> None:
        """Something comes from outside, by plan."""
        raise NotImplementedError(f"nobody visits {self.name}")

    def suffer(self, fault: Fault) -> bool:
        """Have a fault of one of its kinds; False if there is nothing that it could hit now, and it is to be forgotten."""
        raise NotImplementedError(f"{self.name} has no {fault.kind}")

    @property
    def state(self) -> Any:
        """What properties see of it."""
        return None


class _Answering:
    """An answer that is under way; one that comes `soon` has to, and anything else may take its time."""

    __slots__ = ("soon",)

    def __init__(self, soon: bool) -> None:  # noqa: FBT001 - the only thing that there is to say
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
        """The part's state, where it has one."""
        return self.states.get(WHOLE)

    def begin(self) -> None:
        """A part that is a client begins by itself."""
        if not self.states:
            self.states[WHOLE] = self.part.initial()
        self._busy.clear()
        for key in self.states:
            self._go_on(key)

    def submit(self, work: Any) -> None:
        """As the part does."""
        key = self._key_of(work)
        before = self.states.get(key)
        self.states[key] = self.part.submit(self.part.initial() if before is None else before, work)
        self.world.touched(self.name, key)
        self._go_on(key)

    def suffer(self, fault: Fault) -> bool:
        """Take a choice that is a fault of this kind, as soon as there is one."""
        self._wanted.append(fault)
        for key in list(self.states):
            if self._fail(key, list(self.part.choices(self.states[key]))):
                break
        return False  # it says itself when it has

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
        if not choice.fair and chance.happens(1 / 4):  # it need never happen: what has to still does
            sound = [choice for choice in sound if choice.fair]
            if not sound:
                return
            choice = chance.one_of(sound)
        low, high = self._prompt_ms if soon else FREE_MS
        answering = self._busy[key] = _Answering(soon)
        self.world.later(chance.between(low, high), lambda: self._answer(key, answering, choice.label))

    def _answer(self, key: Hashable, answering: "_Answering", label: str) -> None:
        if self._busy.get(key) is not answering:
            return  # something was to be said sooner
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
