"""The events that are possible in a state of a model of actors, and how each begins its turn.

An event is a part's choice, timers that come due, the driver going on after a cut turn, or, with ANY_ORDER, one actor's step.
Faults within a turn (a crash, a cut) are not events of their own: `actors.model.actor_model` adds them to each event.
"""

import itertools
from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from typing import NamedTuple

from actors.model.open_state import Log
from actors.model.parts import LATE, Choice, Faults
from actors.model.stage import BUDGETS, EARLY, HEAD, NOTES, QUEUE, STATUS, TIMERS, Address, Stage
from actors.model.turns import NO_STEP, Turn
from actors.runtime.mailbox import READY
from machines.checker.model import ModelError, NotRepeatable

Armed = tuple[tuple[int, str, float], ...]
"""The armed timers in the order of their arming: the actor, the timer's key, and its seconds."""


class Schedule(Enum):
    """In which order mail is delivered; see `actors.model.actor_model`."""

    TURNS = "turns"
    ANY_ORDER = "any order"


class Timers(Enum):
    """When an armed timer may fire; see `actors.model.actor_model`."""

    DEADLINE = "deadline order"
    ANY_TIME = "any time"


class ModelEvent(NamedTuple):
    """An event that is possible next. Actions name it by its `number`; `uid` identifies the event and its effect in all
    states."""

    number: int
    uid: Hashable = None
    fault: str = ""
    prompt: bool = False
    fair: bool = True
    part: int = -1
    state: int = 0
    tells: tuple[tuple[int, int], ...] = ()
    works: tuple[tuple[int, int], ...] = ()
    timers: tuple[tuple[int, str], ...] = ()
    actor: int = -1


class _Choices(NamedTuple):
    """The choices of a part in one of its states; its events without faults; and whether one of these is prompt."""

    events: list[ModelEvent]
    faultless: list[ModelEvent]
    prompt: bool


class Events:
    """The events of one model.

    `names` has the actor or part, and a text, for the number of each event; `due` has the timers of each timer event; `unfair`
    has the numbers of events that need never happen.
    """

    def __init__(self, stage: Stage, schedule: Schedule, timers: Timers, faults: Faults) -> None:
        self.names: list[tuple[str, str]] = []
        self.due: dict[int, list[tuple[str, str]]] = {}
        self.unfair: set[int] = set()
        self._stage = stage
        self._schedule = schedule
        self._timers = timers
        self._kinds = tuple(sorted(faults.kinds))
        self._numbers: dict[Hashable, int] = {}
        self._uids = itertools.count()
        self._choices: dict[tuple[int, int], _Choices] = {}
        self._of_timers: dict[tuple[int, str], list[ModelEvent]] = {}
        self._timer_events: dict[Hashable, ModelEvent] = {}
        self._payments: dict[tuple[int, str], int | None] = {}
        self.budget = stage.tuples.number((faults.total, *[faults.kinds[kind] for kind in self._kinds]))

    # --- the events -------------------------------------------------------------------------------------------------

    def enabled(self, numbers: list[int]) -> list[ModelEvent]:
        """Every event that is possible next, including events that are faults while the budget allows any fault."""
        tuples = self._stage.tuples.values
        if numbers[NOTES] and any(note[0] == "failed" for note in tuples[numbers[NOTES]]):
            return []
        events: list[ModelEvent] = []
        prompt = False
        faulty = self.may_fail(numbers[BUDGETS])
        waiting = tuples[numbers[QUEUE]]
        if waiting and self._schedule is Schedule.TURNS:
            events.append(ModelEvent(self._number("dispatcher", "goes on"), "dispatcher"))
        elif waiting:
            addresses = self._stage.addresses
            for ref in waiting:
                number = self._number(addresses[ref].path, "takes its mail", ref)
                events.append(ModelEvent(number, ("mail", ref), actor=ref))
        for part in range(len(self._stage.parts)):
            choices = self._choices_of(part, numbers[HEAD + part])
            events += choices.events if faulty else choices.faultless
            prompt = prompt or choices.prompt
        if faulty or not prompt:
            events += self._timers_of(numbers[TIMERS], LATE if prompt else "")
        return events

    def may_fail(self, budget: int) -> bool:
        """Whether the budget allows any fault."""
        return bool(self._stage.tuples.values[budget][0])

    def paid(self, budget: int, fault: str) -> int | None:
        """The budget after a fault of this kind; None if it does not allow the fault."""
        if not fault:
            return budget
        key = (budget, fault)
        if key not in self._payments:
            total, *limits = self._stage.tuples.values[budget]
            at = self._kinds.index(fault) if fault in self._kinds else -1
            allowed = total > 0 and (limits[at] > 0 if at >= 0 else not self._kinds)
            if at >= 0:
                limits[at] -= 1
            self._payments[key] = self._stage.tuples.number((total - 1, *limits)) if allowed else None
        return self._payments[key]

    def _choices_of(self, part: int, state: int) -> "_Choices":
        key = (part, state)
        found = self._choices.get(key)
        if found is None:
            prepared, again = self._prepared(part, state), self._prepared(part, state)
            if prepared != again:
                raise NotRepeatable(
                    f"{self._stage.parts[part]!r} gave two different lists of choices; look for a clock, chance, `id()`, the "
                    "order of a set, or something that is kept in the part instead of its state",
                    state=self._stage.values.values[state],
                )
            self.unfair.update(event.number for event in prepared if not event.fair)
            events = [event._replace(uid=next(self._uids)) for event in prepared]
            faultless = [event for event in events if not event.fault]
            found = self._choices[key] = _Choices(events, faultless, any(event.prompt for event in events))
        return found

    def _prepared(self, part: int, state: int) -> list[ModelEvent]:
        what, before = self._stage.parts[part], self._stage.values.values[state]
        try:
            choices = list(what.choices(before))
        except Exception as error:
            raise ModelError(f"{what!r} raised {error!r} when asked for its choices", state=before) from error
        labels = [choice.label for choice in choices]
        if len(set(labels)) < len(labels):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            raise ModelError(f"{what!r} has several choices with one label: {', '.join(twice)}", state=before)
        return [self._event(part, choice) for choice in choices if self.paid(self.budget, choice.fault) is not None]

    def _event(self, part: int, choice: Choice) -> ModelEvent:
        stage = self._stage
        name, kinds = stage.parts[part].name, stage.parts[part].kinds()
        if choice.fault and kinds is not None and choice.fault not in kinds:
            raise ModelError(
                f"{name} would {choice.label!r} as the fault {choice.fault!r}, which its `faults` don't name"
            )
        for ref, message in choice.tells:
            if not isinstance(ref, Address):
                raise ModelError(f"{name} would {choice.label!r} and tell {message!r} to {ref!r}, which is no address")
        return ModelEvent(
            self._number(name, choice.label),
            None,
            choice.fault,
            choice.prompt and not choice.fault,
            choice.fair and not choice.fault,
            part,
            stage.state_of(part, choice.state),
            tuple([(ref.number, stage.message(message)) for ref, message in choice.tells]),
            tuple([(stage.part(other), stage.values.number(work)) for other, work in choice.works]),
        )

    def _timers_of(self, timers: int, fault: str) -> list[ModelEvent]:
        """Each timer that may come due now, alone or together with a timer that may come due next."""
        known = self._of_timers.get((timers, fault))
        if known is not None:
            return known
        armed: Armed = self._stage.tuples.values[timers]
        events = self._of_timers[timers, fault] = []
        for at in self._first_of(armed):
            events.append(self._timer(fault, armed[at]))
            rest = armed[:at] + armed[at + 1 :]
            events += [self._timer(fault, armed[at], rest[behind]) for behind in self._first_of(rest)]
        return events

    def _first_of(self, armed: Armed) -> Iterable[int]:
        """The places of the timers that may be the first to come due."""
        if self._timers is Timers.ANY_TIME:
            return range(len(armed))
        found, shortest = [], float("inf")
        for at, (_, _, seconds) in enumerate(armed):
            if seconds < shortest:  # no timer was armed before it for as long or shorter
                found.append(at)
                shortest = seconds
        return found

    def _timer(self, fault: str, *due: tuple[int, str, float]) -> ModelEvent:
        timers = tuple([(ref, key) for ref, key, _ in due])
        known = (timers, fault)
        event = self._timer_events.get(known)
        if event is None:
            addresses = self._stage.addresses
            (first, name), *others = timers
            text = "".join(f", with {other!r} of {addresses[ref].path}" for ref, other in others)
            text += ", before an answer that was due" if fault else ""
            number = self._number(addresses[first].path, f"timer {name!r} comes due{text}", *timers)
            event = self._timer_events[known] = ModelEvent(number, ("timers", timers, fault), fault, timers=timers)
            self.due[number] = [(addresses[ref].path, key) for ref, key in timers]
            if fault or others:
                self.unfair.add(number)
        return event

    def coming_due(self, ref: int, key: str) -> list[int]:
        """The number of the event in which this timer comes due alone and in time; empty if no state had that event."""
        event = self._timer_events.get((((ref, key),), ""))
        return [] if event is None else [event.number]

    def _number(self, who: str, what: str, *of: Hashable) -> int:
        """The number of an event, always the same for the same text; `of` tells events with the same text apart."""
        key = (who, what, *of)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.names)
            self.names.append((who, what))
        return number

    # --- their turns ------------------------------------------------------------------------------------------------

    def limit(self, numbers: list[int], event: ModelEvent) -> int:
        """How many steps the turn of an event takes: all, one, or none while mail waits for the driver."""
        if self._schedule is Schedule.ANY_ORDER:
            return 1 if event.actor >= 0 else 0
        return 0 if numbers[QUEUE] and event.part >= 0 else NO_STEP

    def begin(self, numbers: list[int], budget: int, event: ModelEvent, log: Log | None = None) -> Turn:
        """Open the state, and put the event into it."""
        turn = Turn(self._stage, numbers, log)
        turn.numbers[BUDGETS] = budget
        if event.part >= 0:
            turn.numbers[HEAD + event.part] = event.state
            turn.touched.add(HEAD + event.part)
            parts = self._stage.parts
            source = parts[event.part].name
            for ref, message in event.tells:
                turn.tell(ref, message, source)
            for part, work in event.works:
                error = turn.submit(part, work, source)
                if error:
                    raise ModelError(f"{parts[part]!r} can't take work of {parts[event.part]!r}: {error}")
        elif event.timers:
            for ref, key in event.timers:
                turn.fire(ref, key)
                if event.fault:
                    turn.note((EARLY, self._stage.addresses[ref].path, key))
        elif event.actor >= 0:
            turn.queue = deque([event.actor, *(ref for ref in turn.queue if ref != event.actor)])
        return turn

    def close(self, turn: Turn) -> bytes:
        """Close the state that a turn has left."""
        if self._schedule is Schedule.ANY_ORDER:
            turn.queue = deque(sorted({ref for ref in turn.queue if turn.cell(ref)[STATUS] == READY}))
        return turn.close()
