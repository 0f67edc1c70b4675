"""An opened state of a model of actors: mailboxes that can be changed, and a log of reads and writes, so that the state can be
closed again and its turn remembered."""

from collections import deque
from collections.abc import Callable
from typing import Final

from actors.model.memory import Effect
from actors.model.stage import (
    ANSWERED,
    BODY,
    DEFERRED,
    LANES,
    QUEUE,
    SLOT,
    STATUS,
    TIMERS,
    UNBORN_CELL,
    WATCHERS,
    Arming,
    Cell,
    Stage,
)
from actors.model.tables import packed
from actors.runtime.mailbox import IDLE, SYSTEM, UNBORN

NOTHING_ELSE: Final = [(), (), 0]  # nothing deferred, no watchers, no crash

Log = Callable[[str, str, str, str], None]
"""Called for each happening in a turn: its kind, its source, a text, its target."""


class OpenState:
    """One state, opened to be changed, and closed again."""

    __slots__ = (
        "arming",
        "before",
        "log",
        "numbers",
        "opened",
        "queue",
        "reads",
        "replied",
        "stage",
        "steps",
        "touched",
    )

    def __init__(self, stage: Stage, numbers: list[int], log: Log | None = None) -> None:
        self.stage = stage
        self.before = numbers  # never changed
        self.numbers = numbers.copy()
        self.opened: dict[int, Cell] = {}
        self.touched: set[int] = set()  # places, other than actors', that were read or written
        self.queue: deque[int] = deque(stage.tuples.values[numbers[QUEUE]])
        self.arming: list[Arming] = []
        self.replied: dict[int, None] = {}  # tokens that were answered in this turn, in order
        self.reads: list[tuple[int, int]] = []  # of the original state, in order: the place and its number
        self.steps: list[tuple[int, int]] = []  # for each step, the data that faults need, as in `Taken`
        self.log = log

    def close(self) -> bytes:
        """Close the state, and return it as packed numbers."""
        stage, numbers = self.stage, self.numbers
        first, idle = stage.first_actor, stage.idle
        numbers += [UNBORN_CELL] * (stage.length - len(numbers))
        for ref, cell in self.opened.items():
            if cell[STATUS] == UNBORN and not cell[WATCHERS]:
                numbers[first + ref] = UNBORN_CELL
                continue
            number = idle.get(cell[BODY]) if cell[STATUS] == IDLE and cell[DEFERRED:] == NOTHING_ELSE else None
            if number is None:
                if cell[LANES]:
                    cell[LANES] = tuple(map(tuple, cell[LANES]))
                    if sum(map(len, cell[LANES])) == 1:  # a single message goes into the slot
                        cell[SLOT], cell[LANES] = next(message for lane in cell[LANES] for message in lane), ()
                number = stage.cells.number(tuple(cell))
                if cell[STATUS] == IDLE and cell[DEFERRED:] == NOTHING_ELSE:
                    idle[cell[BODY]] = number
            numbers[first + ref] = number
        if self.arming:
            numbers[TIMERS] = stage.armed(numbers[TIMERS], tuple(self.arming))
        if self.replied:
            numbers[ANSWERED] = stage.answered(numbers[ANSWERED], tuple(self.replied))
        numbers[QUEUE] = stage.tuples.number(tuple(self.queue)) if self.queue else 0
        return packed(numbers)

    def effect(self) -> Effect:
        """The turn's effect, once the state is closed, which can be applied to any state where the turn reads the same."""
        numbers, stage, before = self.numbers, self.stage, self.before
        places: list[int] = []
        for at in (*[stage.first_actor + ref for ref in self.opened], *sorted(self.touched), QUEUE):
            if numbers[at] != before[at]:
                places += at, numbers[at]
        same = stage.same
        return Effect(tuple(places), same(tuple(self.arming)), same(tuple(self.replied)), same(tuple(self.steps)))

    def cell(self, ref: int) -> Cell:
        """The mailbox and actor at `ref`, to be changed."""
        cell = self.opened.get(ref)
        if cell is None:
            at = self.stage.first_actor + ref
            number = self.numbers[at] if at < len(self.numbers) else UNBORN_CELL
            self.reads.append((at, number))
            if number == UNBORN_CELL:
                cell = [self.stage.addresses[ref].body, UNBORN, 0, (), (), (), 0]
            else:
                cell = list(self.stage.cells.values[number])
                if cell[LANES]:
                    cell[LANES] = [list(lane) for lane in cell[LANES]]
            self.opened[ref] = cell
        return cell

    # --- mailboxes ----------------------------------------------------------------------------------------------------

    def _lanes(self, cell: Cell) -> list[list[int]]:
        """The lanes of a mailbox, made if it has none yet."""
        if not cell[LANES]:
            cell[LANES] = [[], [], []]
            if cell[SLOT]:
                cell[LANES][self.stage.lanes[cell[SLOT]]].append(cell[SLOT])
                cell[SLOT] = 0
        lanes: list[list[int]] = cell[LANES]
        return lanes

    def _put_first(self, cell: Cell, message: int) -> None:
        """Put a message before all others of its lane."""
        self._lanes(cell)[self.stage.lanes[message]].insert(0, message)

    def _void(self, cell: Cell, unwanted: Callable[[int], bool]) -> None:
        """Make unwanted timers in a mailbox void: the actor still takes them, and does nothing."""
        void = self.stage.void
        if cell[SLOT] and unwanted(cell[SLOT]):
            cell[SLOT] = void
        if cell[LANES]:
            system = cell[LANES][SYSTEM]
            system[:] = [void if unwanted(message) else message for message in system]
