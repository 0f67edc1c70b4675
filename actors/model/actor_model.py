"""A set of actors as a model: the classes that run in production, explored in every order, with every fault in a budget.

    model = ActorModel("door", setup, parts=[visitor, lock], faults=Faults(total=1))
    model.always("never open at night", lambda door: door.phase != "open" or door.day, of=["door"])
    report = check(model)

The model has no second definition of behaviour: its steps are the actors' own, including their state machines. Ports, clients
and channels are `Part`s, small and of the same protocol as the real ones.

There are two schedules. TURNS is the shipped dispatcher's: between two outside events it drains the ready queue in order, and
the fault `CUT` ends its budget in between. ANY_ORDER delivers one message at a time, in any order between actors; it has
hundreds of times more states, and is for slices of two to four actors.

Time has no numbers. A timer may come due if no other timer was armed before it for as long or shorter (`DEADLINE`), or as soon
as it is armed (`ANY_TIME`); two may come due at once. All crashes of a run count as within one restart window, and `Exited.at`
is always 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from actors.model.events import ModelEvent, Schedule, Timers
from actors.model.memory import TurnMemory
from actors.model.parts import CRASH, CUT, LATE, POISON, Faults, Part, UnknownFault, found_at
from actors.model.reports import Action, Crash, ReadableModel
from actors.model.stage import BUDGETS, QUEUE, STATUS, UNBORN_CELL, Stage
from actors.model.turns import CUT_HERE, NO_STEP, WHOLE, Faulty, Turn
from actors.model.turns import POISON as POISON_HERE
from actors.model.views import Aspect, Read, Seen
from actors.runtime.actor import Actor
from actors.runtime.mailbox import AUDIO_BOUND, CONTROL_BOUND, STOPPED, UNBORN, Message
from machines.checker import model as checker
from machines.checker.model import ModelError, NoInitialState, Property

__all__ = ["Action", "ActorModel", "Aspect", "Crash", "Scene", "Schedule", "Seen", "Timers"]


class Scene:
    """The tools with which a model's `setup` builds its initial state."""

    def __init__(self, turn: Turn, stage: Stage) -> None:
        self._turn = turn
        self._stage = stage
        self._spawned = 0

    def port(self, part: Part) -> Any:
        """The port of this part, to be put into the wiring of actors, which hand their work to it."""
        return part

    def spawn(self, actor: Actor, name: str) -> Any:
        """Start an actor at the top, run all steps that follow, and return its address."""
        self._spawned += 1
        address = self._stage.address(actor, name, None, self._spawned)
        self._turn.spawn(address.number)
        self._go_on()
        return address

    def tell(self, ref: Any, message: Message) -> None:
        """Tell an actor a message, and run all steps that follow."""
        self._turn.tell(ref.number, self._stage.message(message), "setup")
        self._go_on()

    def find(self, path: str) -> Any:
        """The address of a living actor by its path, "supervisor/door" say. Raises `ModelError` if there is none."""
        alive = [it for it in self._stage.addresses if self._turn.cell(it.number)[STATUS] not in {UNBORN, STOPPED}]
        return found_at(path, {address.path: address for address in alive})

    def _go_on(self) -> None:
        self._turn.drain()
        self._turn.steps.clear()


class ActorModel(ReadableModel):
    """A model of actors. `setup(scene)` spawns the top actors; `parts` are all its ports, clients and channels.

    `errors` are the exceptions that a step may raise on purpose; any other exception fails the property "no step raises".
    `audio_bound` and `control_bound` are the bounds of lanes, so that overflow can be explored with few messages. With
    `remember_turns` the model remembers whole turns, not only steps. That is worth its memory if most turns touch little of a
    state, as with several sessions.

    `fault_kinds` are the kinds of faults in this model, None if some part does not declare its own; if all do, a budget with
    any other kind raises `UnknownFault`.
    """

    def __init__(  # noqa: PLR0913 - each argument is a choice of its own
        self,
        name: str,
        setup: Callable[[Scene], object],
        *,
        parts: Sequence[Part] = (),
        schedule: Schedule = Schedule.TURNS,
        timers: Timers = Timers.DEADLINE,
        faults: Faults | None = None,
        errors: tuple[type[Exception], ...] = (),
        audio_bound: int = AUDIO_BOUND,
        control_bound: int = CONTROL_BOUND,
        remember_turns: bool = False,
    ) -> None:
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise ModelError(f"two parts have one name: {', '.join(sorted(names))}")
        wrong = [name for name in names if name.startswith("@")]
        if wrong:
            raise ModelError(
                f"the name of a part begins with no @, as {wrong[0]!r} does: that is for what every model has"
            )
        self.fault_kinds = _kinds_of(parts)
        wrong = sorted(set(faults.kinds) - self.fault_kinds) if faults and self.fault_kinds else []
        if wrong:
            raise UnknownFault(f"there is no fault {wrong[0]!r}; there are {', '.join(sorted(self.fault_kinds or ()))}")
        stage = Stage(list(parts), errors, audio_bound, control_bound)
        super().__init__(name, parts, schedule, timers, faults or Faults(), stage)
        self.setup = setup
        self.control_bound = control_bound
        self._memory = TurnMemory(stage) if remember_turns else None
        self._first: bytes | None = None
        self._of: dict[str, tuple[Read, ...]] = {}  # the things that each property reads
        self._may_be_unborn: set[str] = set()
        no_mistake, notes = self._views.no_mistake, self._views.reading(["@set_aside"])
        self._claims: list[Property] = [
            checker.always("every message is handled", no_mistake("unhandled"), reads=notes),
            checker.always("no step raises", no_mistake("raised"), reads=notes),
            checker.always("the system never fails", no_mistake("failed"), reads=notes),
        ]

    # --- what is claimed --------------------------------------------------------------------------------------------

    def always(self, name: str, holds: Callable[..., bool], *, of: Sequence[Read]) -> None:
        """Claim that `holds` is true in every state. Its arguments are the things named by `of`, in that order: an actor by its
        path ("supervisor/voice-1") as `Seen`, a part by its name as its state, "@timers" as (path, key) pairs, "@faults" as the
        number of faults that are left, "@set_aside" as (path, message) pairs of the messages that killed their actor twice,
        "@early" as (path, key) pairs of the timers that came as the fault `LATE`; or one `Aspect` of such a thing.

        If a name is no part, and no actor has it in any state, the property is not decided: the name may be mistyped. See
        `may_be_unborn`. Raises `ModelError` for an entry of `of` that can't be a name."""
        views, of = self._views, self._read_by(name, of)
        self._claims.append(checker.always(name, views.condition(holds, of), reads=views.reading(of)))

    def always_step(self, name: str, holds: Callable[..., bool], *, of: Sequence[Read]) -> None:
        """Claim that `holds(*before, *after)` for every step, with the things named by `of` before and after it."""
        views, of = self._views, self._read_by(name, of)
        self._claims.append(checker.always_step(name, views.step_condition(holds, of), reads=views.reading(of)))

    def sometimes(self, name: str, holds: Callable[..., bool], *, of: Sequence[Read]) -> None:
        """Claim that `holds` is true in some state."""
        views, of = self._views, self._read_by(name, of)
        self._claims.append(checker.sometimes(name, views.condition(holds, of), reads=views.reading(of)))

    def can_always_reach(self, name: str, goal: Callable[..., bool], *, of: Sequence[Read]) -> None:
        """Claim that from every state a state can be reached in which `goal` is true."""
        views, of = self._views, self._read_by(name, of)
        self._claims.append(checker.can_always_reach(name, views.condition(goal, of), reads=views.reading(of)))

    def leads_to(
        self, name: str, cause: Callable[..., bool], effect: Callable[..., bool], *, of: Sequence[Read]
    ) -> None:
        """Claim that after a state in which `cause` is true, `effect` becomes true sooner or later on every fair path."""
        views, of = self._views, self._read_by(name, of)
        reads = views.reading(of)
        self._claims.append(
            checker.leads_to(name, views.condition(cause, of), views.condition(effect, of), reads=reads)
        )

    def no_deadlock(self, name: str, may_end: Callable[..., bool], *, of: Sequence[Read]) -> None:
        """Claim that `may_end` is true in every state without actions."""
        views, of = self._views, self._read_by(name, of)
        self._claims.append(checker.no_deadlock(name, views.condition(may_end, of)))

    def may_be_unborn(self, *paths: str) -> None:
        """Declare paths that no actor need ever have: properties that read them are decided all the same."""
        self._may_be_unborn.update(paths)

    def _read_by(self, claim: str, of: Sequence[Read]) -> tuple[Read, ...]:
        try:
            self._of[claim] = self._views.readable(of)
        except ModelError as error:
            raise ModelError(f"the property {claim!r}: {error}") from None
        return self._of[claim]

    def doubts(self) -> Mapping[str, str]:
        """The properties that read an actor which no state had; its name may be mistyped.

        Raises `NotRepeatable` if a value that is part of states was changed in place."""
        self._stage.values.look_again()
        missing = {claim: self._views.missing(of, self._may_be_unborn) for claim, of in self._of.items()}
        return {claim: doubt for claim, doubt in missing.items() if doubt}

    def properties(self) -> Sequence[Property]:
        """The properties claimed of this model, and those of every model of actors."""
        return tuple(self._claims)

    # --- the graph --------------------------------------------------------------------------------------------------

    def initial(self) -> Iterable[bytes]:
        """The one state that `setup` leaves, after all its turns."""
        if self._first is None:
            stage = self._stage
            numbers = [self._events.budget, 0, 0, 0, 0]
            numbers += [stage.state_of(number, part.initial()) for number, part in enumerate(self.parts)]
            turn = Turn(stage, numbers)
            self.setup(Scene(turn, stage))
            if not stage.addresses:
                raise NoInitialState(f"the setup of {self.name!r} spawns no actor")
            self._first = self._events.close(turn)
        return (self._first,)

    def actions(self, state: bytes) -> Iterable[Action]:
        """The actions that are possible now."""
        return [action for action, _ in self.successors(state)]

    def step(self, state: bytes, action: Action) -> bytes | None:
        """The state to which `action` leads."""
        return dict(self.successors(state)).get(action)

    def successors(self, state: bytes) -> list[tuple[Action, bytes]]:
        """Every event that may come next, without a fault and with each fault that the budget still allows."""
        numbers = self._views.unpack(state)
        found: list[tuple[Action, bytes]] = []
        for event in self._events.enabled(numbers):
            budget = self._events.paid(numbers[BUDGETS], event.fault)
            if budget is not None:
                limit = self._events.limit(numbers, event)
                self._with_faults(numbers, budget, event, limit, (), found, set())
        return found

    def _with_faults(
        self,
        numbers: list[int],
        budget: int,
        event: ModelEvent,
        limit: int,
        crashes: Faulty,
        found: list[tuple[Action, bytes]],
        seen: set[tuple[bytes, Faulty]],
    ) -> None:
        """The turn with these crashes; and with every further fault behind the last of them, and so on.

        `seen` are the states in the middle of the turn, behind a crash, from which further faults were tried already: crashes
        that leave equal states go on alike, so only the first of them is followed.
        """
        left = self._stage.tuples.values[budget][0]
        if crashes and left and (left > 1 or len(crashes) > 3):  # with two faults, comparing costs more than it saves
            middle, _ = self._turn(numbers, budget, event, crashes[-3] + 1, crashes)
            poison = [at for at in range(0, len(crashes), 3) if crashes[at + 1] == POISON_HERE]
            place = (middle, (crashes[-3], *[crashes[at] for at in poison]))
            if place in seen:
                return
            seen.add(place)
        after, steps = self._turn(numbers, budget, event, limit, crashes)
        found.append(((event.number, *crashes), after))
        if not self._events.may_fail(budget) or len(crashes) // 3 == self.faults.in_a_turn:
            return
        paid = self._events.paid
        first = crashes[-3] + 1 if crashes else 0
        after_crash = paid(budget, CRASH)
        # A turn that is cut short ends before the message is tried again.
        after_poison = paid(budget, POISON) if limit == NO_STEP else None
        if after_crash is not None or after_poison is not None:
            for at in range(first, len(steps)):
                ref, effects = steps[at]
                if ref < 0 or not self._may_crash(ref):
                    continue
                if after_crash is not None:
                    for effect in (WHOLE, *range((effects if effects >= 0 else ~effects) + 1)):
                        self._with_faults(numbers, after_crash, event, limit, (*crashes, at, effect, ref), found, seen)
                if after_poison is not None and effects >= 0:
                    self._with_faults(
                        numbers, after_poison, event, limit, (*crashes, at, POISON_HERE, ref), found, seen
                    )
        after_cut = paid(budget, CUT) if limit == NO_STEP else None
        if after_cut is not None:
            for at in range(max(first, 1), len(steps)):
                after, _ = self._turn(numbers, after_cut, event, at, crashes)
                found.append(((event.number, *crashes, at, CUT_HERE, 0), after))

    def _may_crash(self, ref: int) -> bool:
        return self.faults.actors is None or self._stage.addresses[ref].name in self.faults.actors

    def _turn(
        self, numbers: list[int], budget: int, event: ModelEvent, limit: int, crashes: Faulty
    ) -> tuple[bytes, tuple[tuple[int, int], ...]]:
        """The state after the turn that begins with this event, and the turn's steps."""
        memory = self._memory
        if memory is not None:
            beginning = (event.uid, limit, crashes, numbers[QUEUE])
            known = memory.find(beginning, numbers)
            if known is not None:
                after = numbers.copy()
                after[BUDGETS] = budget
                return known.on(self._stage, after), known.steps
        turn = self._events.begin(numbers, budget, event)
        turn.drain(stop_after=limit, crashes=crashes)
        state = self._events.close(turn)
        if memory is None:
            return state, tuple(turn.steps)
        numbers += [UNBORN_CELL] * (len(turn.numbers) - len(numbers))  # the turn may have spawned new actors
        effect = turn.effect()
        memory.remember(beginning, turn.reads, effect)
        return state, effect.steps


def _kinds_of(parts: Sequence[Part]) -> frozenset[str] | None:
    """The kinds of faults of every model of actors and of these parts; None if a part does not declare its kinds."""
    kinds = {CRASH, POISON, CUT, LATE}
    for part in parts:
        own = part.kinds()
        if own is None:
            return None
        kinds.update(own)
    return frozenset(kinds)
