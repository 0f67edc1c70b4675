"""States of a model of actors as properties see them: actors by path, parts by name, timers, the faults that are left."""

import sys
from array import array
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from actors.actor import Actor
from actors.mailbox import HELD, STOPPED, UNBORN
from actors.model_stage import BODY, BUDGETS, DEFERRED, HEAD, LANES, MISTAKES, SLOT, STATUS, TIMERS, Stage
from machines.checker.model import ModelError

KNOWN_ANSWERS: Final = 10_000  # of a property; to ask it again costs some microseconds, to keep it some hundred bytes
KEPT_LOOKS: Final = 16_384  # of states, some hundred bytes each


class Seen:
    """An actor as a property sees it: its fields by name, and whether it lives.

    `unborn`, `held` (it crashed and waits for its supervisor) and `stopped` are what it may be instead of plainly `alive`; an
    actor that is unborn or stopped has no fields. `unread` messages are in its mailbox; `journal` names what survives a crash.
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
        """All its fields by name, also those that are named like something of this class."""
        actor = self._actor
        return {} if actor is None else {name: getattr(actor, name) for name in actor.state}

    def __getattr__(self, name: str) -> Any:
        actor = object.__getattribute__(self, "_actor")
        if actor is None:
            raise AttributeError(
                f"an actor that is {'unborn' if self.unborn else 'stopped'} has no {name!r}; see `alive`"
            )
        return getattr(actor, name)


class Views:
    """Every look at a state: it is opened up once, and a property that reads the same things as before is not asked again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unpacked: tuple[bytes, list[int]] = (b"", [])
        self._names: dict[str, int] = {}  # of all things that properties read
        self._places: list[list[int]] = []
        self._single: list[int] = []
        self._placed = (0, 0)
        self._looked: dict[bytes, list[int]] = {}
        self._seen_cells: dict[int, Seen] = {}

    def unpack(self, state: bytes) -> list[int]:
        """The numbers that a state is made of; not to be changed."""
        if self._unpacked[0] is state:
            return self._unpacked[1]
        numbers = array("I")
        numbers.frombytes(state)
        unpacked = numbers.tolist()
        self._unpacked = (state, unpacked)
        return unpacked

    def no_mistake(self, kind: str) -> Callable[[bytes], bool]:
        """Whether a state has no mistake of this kind."""

        def holds(state: bytes) -> bool:
            number = self.unpack(state)[MISTAKES]
            return not number or all(mistake[0] != kind for mistake in self._stage.tuples.values[number])

        return holds

    def reader(self, holds: Callable[..., bool], of: Sequence[str]) -> Callable[[bytes], bool]:
        """`holds` on states, looked up once for each combination of what it reads."""
        known: dict[Any, bool] = {}
        look, read = self._look, self._reading(of)

        def on_state(state: bytes) -> bool:
            key = read(look(state))
            answer = known.get(key)
            if answer is None:
                if len(known) >= KNOWN_ANSWERS:
                    known.clear()
                answer = known[key] = bool(holds(*self._things(of, key)))
            return answer

        return on_state

    def step_reader(self, holds: Callable[..., bool], of: Sequence[str]) -> Callable[[bytes, Any, bytes], bool]:
        """`holds` on steps, looked up once for each combination of what it reads before and after."""
        known: dict[Any, bool] = {}
        look, read = self._look, self._reading(of)

        def on_step(before: bytes, _: Any, after: bytes) -> bool:
            first, then = read(look(before)), read(look(after))
            key = (first, then)
            answer = known.get(key)
            if answer is None:
                if len(known) >= KNOWN_ANSWERS:
                    known.clear()
                answer = known[key] = bool(holds(*self._things(of, first), *self._things(of, then)))
            return answer

        return on_step

    def _reading(self, of: Sequence[str]) -> Callable[[list[int]], Any]:
        """What picks the things named out of what `_look` gives."""
        if not of:
            raise ModelError("a property must say what it reads: of=[...]")
        for name in of:
            if name not in self._names:
                self._names[name] = len(self._names)
        return itemgetter(*[self._names[name] for name in of])

    def _look(self, state: bytes) -> list[int]:
        """What stands in a state for each thing that any property reads. A search asks property by property for a whole batch
        of states, so what was found is kept for a while."""
        found = self._looked.get(state)
        if found is not None:
            return found
        if self._placed != (len(self._stage.addresses), len(self._names)):
            self._place()
        numbers = self.unpack(state)
        try:
            found = [numbers[at] for at in self._single]
        except IndexError:  # some of the actors are not born and have no place, or more than one
            found = [_last(numbers, places) for places in self._places]
        if len(self._looked) >= KEPT_LOOKS:
            self._looked.clear()
        self._looked[state] = found
        return found

    def _place(self) -> None:
        """Where in a state each thing stands; an actor in several places if it can be spawned in several ways."""
        self._placed = (len(self._stage.addresses), len(self._names))
        fixed = {part.name: HEAD + number for number, part in enumerate(self._stage.parts)}
        fixed |= {"@timers": TIMERS, "@faults": BUDGETS}
        first = self._stage.first_actor
        by_path: dict[str, list[int]] = {}
        for address in self._stage.addresses:
            by_path.setdefault(address.path, []).append(first + address.number)
        self._places = [[fixed[name]] if name in fixed else by_path.get(name, []) for name in self._names]
        self._single = [one[0] if len(one) == 1 else sys.maxsize for one in self._places]
        self._looked.clear()

    def _things(self, of: Sequence[str], key: Any) -> list[Any]:
        stage = self._stage
        parts = {part.name for part in self._stage.parts}
        things: list[Any] = []
        for name, number in zip(of, key if len(of) > 1 else (key,), strict=True):
            if name == "@timers":
                things.append(
                    tuple([(stage.addresses[ref].path, what) for ref, what, _ in stage.tuples.values[number]])
                )
            elif name == "@faults":
                things.append(stage.tuples.values[number][0])
            elif name in parts:
                things.append(stage.values.values[number])
            else:
                things.append(self._seen(number))
        return things

    def _seen(self, number: int) -> Seen:
        seen = self._seen_cells.get(number)
        if seen is None:
            seen = self._seen_cells[number] = self._view(number)
        return seen

    def _view(self, number: int) -> Seen:
        return self.view_of(self._stage.cells.values[number]) if number else Seen(UNBORN, None, 0)

    def view_of(self, cell: tuple[Any, ...]) -> Seen:
        """An actor as a property sees it."""
        actor = None if cell[STATUS] in {UNBORN, STOPPED} else self._stage.actor(cell[BODY])
        return Seen(cell[STATUS], actor, len(mail(cell)))


def _last(numbers: list[int], places: list[int]) -> int:
    """What stands at the last of these places that is taken, 0 if none is."""
    for at in reversed(places):
        if at < len(numbers) and numbers[at]:
            return numbers[at]
    return 0


def mail(cell: tuple[Any, ...]) -> list[int]:
    """All that waits in a mailbox, in the order in which it will be taken, deferred messages last."""
    lanes = [message for lane in cell[LANES] for message in lane]
    return [*([cell[SLOT]] if cell[SLOT] else []), *lanes, *cell[DEFERRED]]
