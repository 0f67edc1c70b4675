"""The readable side of a model of actors: its states, actions and paths, for reports and for coverage."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from actors.model.events import Events, ModelEvent, Schedule, Timers
from actors.model.open_state import Log
from actors.model.parts import Faults, Part
from actors.model.stage import (
    ANSWERED,
    BODY,
    BUDGETS,
    HEAD,
    NOTES,
    STATUS,
    TIMERS,
    Address,
    CoverageKey,
    Stage,
    disarms,
    early_in,
    message_text,
    mistake_text,
    mistakes_in,
    phase_text,
    set_aside_in,
    value_text,
)
from actors.model.turns import CUT_HERE, POISON, Faulty, Turn
from actors.model.views import Seen, Views, mail
from actors.runtime.actor import Actor, Start, Timer, ignored
from actors.runtime.mailbox import HELD, STOPPED, UNBORN, Step
from machines.checker.coverage import CoverageRow
from machines.checker.model import Happening, Model

GONE: Final = frozenset({UNBORN, STOPPED})  # states without a visible actor

Action = tuple[int, ...]
"""An event's number, and the faults in its turn, in the form of `Faulty`."""


class Crash(NamedTuple):
    """A crash in an action: the step of the turn, counted from 0, the actor, and after how many effects of the step. With
    `poison` the step's message crashes the actor again when it is tried again."""

    step: int
    path: str
    effects: int
    before_step: bool
    poison: bool = False


class ReadableModel(Model[bytes, Action]):
    """The part of `ActorModel` that only reads.

    `schedule`, `timers`, `faults` and `parts` are its arguments.
    """

    def __init__(
        self, name: str, parts: Sequence[Part], schedule: Schedule, timers: Timers, faults: Faults, stage: Stage
    ) -> None:
        self.name = name
        self.one_process = True  # its states are numbers into this object's tables
        self.schedule = schedule
        self.timers = timers
        self.faults = faults
        self.parts = tuple(parts)
        self._stage = stage
        self._events = Events(stage, schedule, timers, faults)
        self._views = Views(stage)

    # --- reading paths ------------------------------------------------------------------------------------------------

    def event(self, action: Action) -> tuple[str, str]:
        """The acting part or actor, and its act: a part's choice, an actor's timer or mail, or the dispatcher going on."""
        return self._events.names[action[0]]

    def faults_in(self, action: Action) -> tuple[tuple[Crash, ...], int]:
        """The crashes in an action's turn, in order; and after how many steps the turn is cut, 0 if it is not cut."""
        crashes, cut = _parted(action)
        addresses = self._stage.addresses
        return tuple(
            [
                Crash(step, addresses[ref].path, max(effect, 0), effect < 0, effect == POISON)
                for step, effect, ref in zip(crashes[::3], crashes[1::3], crashes[2::3], strict=True)
            ]
        ), cut

    def timers_in(self, action: Action) -> list[tuple[str, str]]:
        """The timers that come due in an action: the actor's path, and the key."""
        return self._events.due.get(action[0], [])

    def states_of_parts(self, state: bytes) -> dict[str, object]:
        """The state of each part, by name."""
        numbers = self._views.unpack(state)
        return {part.name: self._stage.values.values[numbers[HEAD + at]] for at, part in enumerate(self._stage.parts)}

    def actors(self, state: bytes) -> list[tuple[str, Seen]]:
        """The living actors: the path of each, and its fields."""
        cells = self._cells(self._views.unpack(state))
        return [(address.path, self._views.view_of(cell)) for address, cell in cells if cell[STATUS] not in GONE]

    def armed(self, state: bytes) -> tuple[tuple[str, str], ...]:
        """The armed timers in the order of their arming: the actor's path, and the key."""
        timers = self._stage.tuples.values[self._views.unpack(state)[TIMERS]]
        return tuple([(self._stage.addresses[ref].path, key) for ref, key, _ in timers])

    def coverage(self) -> list[CoverageRow]:
        """Each pair of phase and message that the actors seen so far declare, and its coverage by all steps taken so far."""
        kinds = dict.fromkeys(self._stage.values.values[address.body].kind for address in self._stage.addresses)
        return [
            self._row(kind, phase, message, step)
            for kind in kinds
            for phase, table in kind.compiled.items()
            for message, step in table.items()
            if message not in {Start, Timer}  # every actor takes these, and need not declare them
        ]

    def _row(self, kind: type[Actor], phase: object, message: type, step: Step) -> CoverageRow:
        key = CoverageKey(kind.__name__, phase_text(phase), message.__name__)
        times = self._stage.times.get(key, 0)
        return CoverageRow(*key, times, self._stage.coverage.get(key, False), step is ignored)

    # --- what reports show ------------------------------------------------------------------------------------------

    def configuration(self) -> Mapping[str, object]:
        """Schedule, timers, faults, parts."""
        return {
            "schedule": self.schedule.value,
            "timers": self.timers.value,
            "faults in a run": self.faults.total,
            "of a kind": dict(self.faults.kinds) or "any",
            "parts": ", ".join(part.name for part in self._stage.parts),
        }

    def label(self, action: Action) -> str:
        """The acting part or actor, its act, and the faults in the turn."""
        who, what = self.event(action)
        crashes, cut = self.faults_in(action)
        text = f"{who}: {what}"
        for crash in crashes:
            when = "before its step" if crash.before_step else f"after {crash.effects} effects of its step"
            when += ", and when its message is tried again" if crash.poison else ""
            text += f"; {crash.path} crashes {when} (the turn's step {crash.step + 1})"
        return f"{text}; the turn is cut after {cut} steps" if cut else text

    def is_fair(self, action: Action) -> bool:
        """Every action is fair but faults, unfair choices, and two timers at once."""
        return len(action) == 1 and action[0] not in self._events.unfair

    def is_strongly_fair(self, action: Action) -> bool:
        """Timers are strongly fair: a prompt answer of a port disables them for a while, and an armed timer still comes due in
        the end."""
        return self.is_fair(action) and bool(self.timers_in(action))

    def renews(self, state: bytes, action: Action) -> Sequence[Action]:
        """The timers that a turn arms again or cancels, so that they need not come due, and the timers that come due in it, two
        at once say."""
        numbers = self._views.unpack(state)
        turn = self._turn_of(numbers, action, None)
        armed = self._stage.tuples.values[numbers[TIMERS]]
        return [
            (number,)
            for ref, key, _ in armed
            if any(disarms(arming, ref, key) for arming in turn.arming)
            for number in self._events.coming_due(ref, key)
        ]

    def owner(self, action: Action) -> str:
        """The part or the actor that acts."""
        return self._events.names[action[0]][0]

    def fields(self, state: bytes) -> Mapping[str, object]:
        """Parts by name, actors' fields by path and name, timers, and the faults that are left."""
        stage = self._stage
        numbers = self._views.unpack(state)
        found: dict[str, object] = {"faults left": stage.tuples.values[numbers[BUDGETS]][0]}
        found["timers"] = tuple(
            [(stage.addresses[ref].path, key) for ref, key, _ in stage.tuples.values[numbers[TIMERS]]]
        )
        notes = stage.tuples.values[numbers[NOTES]]
        found["mistakes"] = tuple(map(mistake_text, mistakes_in(notes)))
        found["set aside"] = tuple([f"{value_text(message)} by {path}" for path, message in set_aside_in(stage, notes)])
        found["timers early"] = early_in(notes)
        found["asks answered"] = tuple([stage.values.values[token] for token in stage.tuples.values[numbers[ANSWERED]]])
        found |= self.states_of_parts(state)
        for address, cell in self._cells(numbers):
            found[f"{address.path} is"] = {UNBORN: "unborn", STOPPED: "stopped", HELD: "held"}.get(
                cell[STATUS], "alive"
            )
            if cell[STATUS] not in GONE:
                actor = stage.actor(cell[BODY])
                found |= {f"{address.path}.{name}": getattr(actor, name) for name in actor.state}
        return found

    def pending(self, state: bytes) -> Mapping[str, Sequence[str]]:
        """The messages that wait in each mailbox."""
        return {
            address.path: [message_text(self._stage, message) for message in mail(cell)]
            for address, cell in self._cells(self._views.unpack(state))
            if mail(cell)
        }

    def happenings(self, before: bytes, action: Action, after: bytes) -> Sequence[Happening]:
        """All happenings of a step: messages, work, timers, faults, phases."""
        found: list[Happening] = []

        def log(kind: str, source: str, text: str, target: str) -> None:
            if kind != "takes":
                found.append(Happening(kind, source, text, target))

        numbers = self._views.unpack(before)
        who, what = self.event(action)
        event = self._event_of(numbers, action)
        if event.part >= 0 and (event.fault or not (event.tells or event.works)):
            found.append(Happening("note", who, what))
        self._turn_of(numbers, action, log)
        if _parted(action)[1]:
            found.append(Happening("note", who, "the turn is cut here"))
        return found + self._moves(before, after)

    def _event_of(self, numbers: list[int], action: Action) -> ModelEvent:
        return next(event for event in self._events.enabled(numbers) if event.number == action[0])

    def _turn_of(self, numbers: list[int], action: Action, log: Log | None) -> Turn:
        """The turn of an action, run to its end."""
        crashes, cut = _parted(action)
        event = self._event_of(numbers, action)
        turn = self._events.begin(numbers, numbers[BUDGETS], event, log)
        turn.drain(stop_after=cut or self._events.limit(numbers, event), crashes=crashes)
        return turn

    def _moves(self, before: bytes, after: bytes) -> list[Happening]:
        phases = {address: self._phase(cell) for address, cell in self._cells(self._views.unpack(before))}
        return [
            Happening("note", address.path, phase_text(self._phase(cell)))
            for address, cell in self._cells(self._views.unpack(after))
            if cell[STATUS] not in GONE and phases.get(address, self._phase(cell)) != self._phase(cell)
        ]

    def _phase(self, cell: tuple[Any, ...]) -> object:
        return "stopped" if cell[STATUS] == STOPPED else self._stage.phase(cell[BODY])

    def _cells(self, numbers: list[int]) -> list[tuple[Address, tuple[Any, ...]]]:
        first, stage = self._stage.first_actor, self._stage
        return [
            (address, stage.cells.values[numbers[first + address.number]])
            for address in stage.addresses
            if first + address.number < len(numbers) and numbers[first + address.number]
        ]


def _parted(action: Action) -> tuple[Faulty, int]:
    """The crashes in an action, and after how many steps its turn is cut, 0 if it is not cut."""
    faults = action[1:]
    if faults[-2:-1] == (CUT_HERE,):
        return faults[:-3], faults[-3]
    return faults, 0
