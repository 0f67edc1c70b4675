"""The states of a model of actors, as properties see them: actors by path, parts by name, timers, the remaining faults."""

from collections import deque
from collections.abc import Callable, Container, Hashable, Sequence
from difflib import get_close_matches
from operator import itemgetter
from typing import Any, Final, NamedTuple

from actors.model.stage import (
    BODY,
    BUDGETS,
    DEFERRED,
    HEAD,
    LANES,
    NOTES,
    SLOT,
    STATUS,
    TIMERS,
    Stage,
    early_in,
    set_aside_in,
)
from actors.runtime.actor import Actor
from actors.runtime.mailbox import HELD, STOPPED, UNBORN
from machines.checker.model import ModelError, Reading, UnhashableState

KEPT: Final = 4_096  # remembered actors for properties, and aspects of things: some hundred bytes each


class Seen:
    """An actor as a property sees it: its fields by name, and whether it lives.

    An actor that is not `alive` is `unborn`, `held` (it crashed and waits for its supervisor) or `stopped`; an unborn or
    stopped actor has no fields. `unread` messages are in its mailbox; `journal` names the fields that survive a crash.
    """

    def __init__(self, status: int, actor: Actor | None, unread: int) -> None:
        self.unborn = status == UNBORN
        self.stopped = status == STOPPED
        self.held = status == HELD
        self.alive = not (self.unborn or self.stopped)
        self.unread = unread
        self.journal = () if actor is None else actor.journal
        self._actor = actor

    def values(self) -> dict[str, Any]:
        """All fields of the actor by name, also those with the name of an attribute of this class."""
        actor = self._actor
        return {} if actor is None else {name: getattr(actor, name) for name in actor.state}

    def __getattr__(self, name: str) -> Any:
        actor = object.__getattribute__(self, "_actor")
        if actor is None:
            raise AttributeError(
                f"an actor that is {'unborn' if self.unborn else 'stopped'} has no {name!r}; see `alive`"
            )
        return getattr(actor, name)


class Aspect(NamedTuple):
    """The part of a thing that a property reads, instead of the whole: `what(thing)`, a hashable value.

    A property that reads little is decided sooner: it is asked once for all states with equal readings."""

    thing: str
    what: Callable[[Any], Hashable]


Read = str | Aspect
"""A thing by its name, or one aspect of it."""


class Views:
    """Reads states for properties. Readings are taken from many states at once; the things themselves are made only for a
    reading for which the property has not answered yet."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unpacked: tuple[bytes, list[int]] = (b"", [])
        self._batches: deque[StateBatch] = deque(maxlen=2)  # the states before and after some steps
        self._readings: dict[tuple[Read, ...], Reading] = {}
        self._aspects: dict[Aspect, dict[int, int]] = {}
        self._places: dict[str, list[int]] = {}
        self._part_names: frozenset[str] = frozenset()
        self._placed = -1
        self._seen_cells: dict[int, Seen] = {}

    def unpack(self, state: bytes) -> list[int]:
        """The numbers of a state; not to be changed."""
        known, numbers = self._unpacked
        if known is not state or len(numbers) != self._stage.length:
            numbers = self._stage.opened(state)
            self._unpacked = (state, numbers)
        return numbers

    def no_mistake(self, kind: str) -> Callable[[bytes], bool]:
        """A condition: the state has no mistake of this kind."""

        def holds(state: bytes) -> bool:
            number = self.unpack(state)[NOTES]
            return not number or all(note[0] != kind for note in self._stage.tuples.values[number])

        return holds

    # --- one state ------------------------------------------------------------------------------------------------------

    def condition(self, holds: Callable[..., bool], of: Sequence[Read]) -> Callable[[bytes], bool]:
        """`holds` as a condition on states: it gets the things named by `of`."""
        return lambda state: bool(holds(*self._read(of, state)))

    def step_condition(self, holds: Callable[..., bool], of: Sequence[Read]) -> Callable[[bytes, Any, bytes], bool]:
        """`holds` as a condition on steps: it gets the things named by `of` before and after the step."""
        return lambda before, _, after: bool(holds(*self._read(of, before), *self._read(of, after)))

    def _read(self, of: Sequence[Read], state: bytes) -> list[Any]:
        numbers = self._stage.opened(state)
        found: list[Any] = []
        for one in of:
            name = one.thing if isinstance(one, Aspect) else one
            number = last_of(numbers, self.places(name))
            if isinstance(one, Aspect):
                aspect = self._aspects.get(one, {}).get(number) or self._aspect_of(one, number)
                found.append(self._stage.values.values[aspect])
            else:
                found.append(self._thing(name, number))
        return found

    def _thing(self, name: str, number: int) -> Any:
        stage = self._stage
        if name == "@timers":
            return tuple([(stage.addresses[ref].path, what) for ref, what, _ in stage.tuples.values[number]])
        if name == "@faults":
            return stage.tuples.values[number][0]
        if name == "@set_aside":
            return set_aside_in(stage, stage.tuples.values[number])
        if name == "@early":
            return early_in(stage.tuples.values[number])
        if name in self._part_names:
            return stage.values.values[number]
        return self._seen(number)

    # --- many states at once --------------------------------------------------------------------------------------------

    def reading(self, of: Sequence[Read]) -> Reading:
        """The function that reads these things in many states: one function for each sequence of things."""

        def read(states: Sequence[bytes]) -> list[Any]:
            columns = [self._column(states, one) for one in of]
            return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

        return self._readings.setdefault(tuple(of), read)

    def readable(self, of: Sequence[Read]) -> tuple[Read, ...]:
        """`of`, checked for form. Raises `ModelError` if a property can't read it; `missing` checks the paths later."""
        if isinstance(of, str | Aspect):
            raise ModelError(f"`of` is a list, of=[{of!r}] perhaps, and not {of!r}")
        if not of:
            raise ModelError("a property must say what it reads: of=[...]")
        for one in of:
            name = one.thing if isinstance(one, Aspect) else one
            if not isinstance(name, str) or (isinstance(one, Aspect) and not callable(one.what)):
                raise ModelError(f"what is read is a name or an Aspect(name, function), not {one!r}")
            if isinstance(one, Aspect) and type(one.what).__hash__ is None:
                raise ModelError(f"the function of an aspect of {name!r} can't be hashed: {one.what!r}")
            if name.startswith("@") and not self.places(name):
                known = ", ".join(repr(known) for known in self._names() if known.startswith("@"))
                raise ModelError(f"there is no {name!r}; there are {known}")
        return tuple(of)

    def missing(self, of: Sequence[Read], may_be_unborn: Container[str]) -> str:
        """A sentence on the first thing of `of` that no state had, with similar names; empty if there was each."""
        for one in of:
            name = one.thing if isinstance(one, Aspect) else one
            if not self.places(name) and name not in may_be_unborn:
                like = " or ".join(map(repr, get_close_matches(name, self._names())))
                meant = f"; did you mean {like}?" if like else f"; there are {', '.join(map(repr, self._names()))}."
                return (
                    f"no part is called {name!r} and no actor ever was{meant} "
                    f"If that is no mistake, say may_be_unborn({name!r})"
                )
        return ""

    def _names(self) -> list[str]:
        """The names that can be read, as far as the states so far have shown."""
        self.places("")
        return sorted(self._places)

    def _column(self, states: Sequence[bytes], read: Read) -> list[Any]:
        """The number of one thing, or of its aspect, in each of these states."""
        length = self._stage.length
        for batch in self._batches:
            if batch.states is states and batch.length == length:
                break
        else:
            batch = StateBatch(states, length, list(map(self._stage.opened, states)))
            self._batches.append(batch)
        if isinstance(read, Aspect):
            return self._aspect(batch, read)
        return batch.column(read, self.places(read))

    def _aspect(self, batch: "StateBatch", aspect: Aspect) -> list[int]:
        numbers = batch.column(aspect.thing, self.places(aspect.thing))
        known = self._aspects.setdefault(aspect, {})
        new = set(numbers).difference(known)
        if len(known) + len(new) > KEPT:
            known.clear()
            new = set(numbers)
        for number in new:  # by number, since equal values of different types are two
            known[number] = self._aspect_of(aspect, number)
        return list(map(known.__getitem__, numbers))

    def _aspect_of(self, aspect: Aspect, number: int) -> int:
        """The number of the aspect of the thing with this number."""
        found = aspect.what(self._thing(aspect.thing, number))
        try:
            return self._stage.values.number(found)
        except UnhashableState as error:
            raise TypeError(f"an aspect of {aspect.thing!r} can't be hashed: {found!r}") from error

    def places(self, name: str) -> list[int]:
        """The places of a thing in a state; an actor has several places if it can be spawned in several ways."""
        stage = self._stage
        if self._placed != len(stage.addresses):
            self._placed = len(stage.addresses)
            self._places = {part.name: [HEAD + number] for number, part in enumerate(stage.parts)}
            self._part_names = frozenset(self._places)
            self._places |= {"@timers": [TIMERS], "@faults": [BUDGETS], "@set_aside": [NOTES], "@early": [NOTES]}
            for address in sorted(stage.addresses, key=lambda address: address.ordinal):  # the latest comes last
                self._places.setdefault(address.path, []).append(stage.first_actor + address.number)
        return self._places.get(name, [])

    def _seen(self, number: int) -> Seen:
        seen = self._seen_cells.get(number)
        if seen is None:
            if len(self._seen_cells) >= KEPT:
                self._seen_cells.clear()
            seen = self._seen_cells[number] = self._view(number)
        return seen

    def _view(self, number: int) -> Seen:
        return self.view_of(self._stage.cells.values[number]) if number else Seen(UNBORN, None, 0)

    def view_of(self, cell: tuple[Any, ...]) -> Seen:
        """An actor as a property sees it."""
        actor = None if cell[STATUS] in {UNBORN, STOPPED} else self._stage.actor(cell[BODY])
        return Seen(cell[STATUS], actor, len(mail(cell)))


class StateBatch:
    """Some states, unpacked to one length, and the columns that were read from them."""

    def __init__(self, states: Sequence[bytes], length: int, numbers: list[list[int]]) -> None:
        self.states = states
        self.length = length
        self._columns: dict[str, list[int]] = {}
        self._numbers = numbers

    def column(self, name: str, places: list[int]) -> list[int]:
        """The number in these places for each state; at most one of the places is taken."""
        found = self._columns.get(name)
        if found is None:
            if len(places) == 1:
                found = list(map(itemgetter(places[0]), self._numbers))
            else:
                found = [last_of(numbers, places) for numbers in self._numbers]
            self._columns[name] = found
        return found


def last_of(numbers: list[int], places: list[int]) -> int:
    """The number at the last taken place of these, 0 if none is taken."""
    for at in reversed(places):
        if at < len(numbers) and numbers[at]:
            return numbers[at]
    return 0


def mail(cell: tuple[Any, ...]) -> list[int]:
    """The messages in a mailbox, in the order in which the actor will take them, deferred messages last."""
    lanes = [message for lane in cell[LANES] for message in lane]
    return [*([cell[SLOT]] if cell[SLOT] else []), *lanes, *cell[DEFERRED]]
