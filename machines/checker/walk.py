"""Random walks, for models that are too large to be searched: most mistakes show in few steps of the right order.

All random numbers come from the seed. A uniform walk takes any enabled action. A priority-based walk (PCT: Burckhardt, Kothari,
Musuvathi and Nagarakatte, 2010) takes an action of the owner with the highest priority; at a few steps that owner gets the
lowest. PCT finds a mistake of depth d with a probability that falls with the run's length to the power of d - 1; for a uniform
walk it falls exponentially.
"""

from collections.abc import Callable
from random import Random
from time import perf_counter
from typing import Any, Final, NamedTuple

from machines.checker.asking import ask
from machines.checker.model import Model, NoInitialState, Property, UnhashableState
from machines.checker.on_path import holds_on
from machines.checker.options import Options, Progress
from machines.checker.replaying import minimise
from machines.checker.result import Outcome, Path, Report, Step, Verdict
from machines.checker.selfcheck import SelfCheck

_DEPTH: Final = 1_000
_FIRST_LENGTH: Final = 100  # assumed length of the first run
_PROGRESS_SECONDS: Final = 0.25


class _Found(NamedTuple):
    outcome: Outcome
    path: Path
    why: str


class _Uniform:
    """Chooses any enabled action."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def begin(self, length: int) -> None:
        """Begin a run."""

    def choose(self, found: list[tuple[Any, Any]], _step: int) -> int:
        """The place of the action to take."""
        return int(self._chance.random() * len(found))


class _Priorities:
    """Chooses an action of the owner with the highest priority."""

    def __init__(self, model: Model[Any, Any], chance: Random, points: int) -> None:
        self._model = model
        self._chance = chance
        self._points = points
        self._priority: dict[str, float] = {}
        self._changes: set[int] = set()
        self._lowest = 0.0

    def begin(self, length: int) -> None:
        """Begin a run of the expected `length`: draw new priorities, and new steps at which they change."""
        self._priority = {}
        self._changes = {int(self._chance.random() * length) for _ in range(self._points)}
        self._lowest = 0.0

    def choose(self, found: list[tuple[Any, Any]], step: int) -> int:
        """The place of the action to take."""
        owners = [self._model.owner(action) for action, _ in found]
        for owner in owners:
            if owner not in self._priority:
                self._priority[owner] = self._chance.random()
        first = max(owners, key=self._priority.__getitem__)
        if step in self._changes:
            self._lowest -= 1.0
            self._priority[first] = self._lowest
            first = max(owners, key=self._priority.__getitem__)
        places = [place for place, owner in enumerate(owners) if owner == first]
        return places[int(self._chance.random() * len(places))]


def walk(model: Model[Any, Any], options: Options) -> Report:
    """Draw runs and report what they show. A property that no run decides is not decided.

    A run that ends where nothing is enabled can break "no_deadlock", "can_always_reach" and "leads_to" too; other runs can't.
    """
    return _Walks(model, options).report()


class _Walks:
    def __init__(self, model: Model[Any, Any], options: Options) -> None:
        self.model = model
        self.options = options
        self.properties = tuple(model.properties())
        chance = Random(options.seed)  # noqa: S311  it draws runs, not secrets
        self.order = (
            _Uniform(chance) if options.strategy == "walk" else _Priorities(model, chance, options.change_points)
        )
        self.chance = chance
        self.found: dict[int, _Found] = {}
        self.seen: set[Any] = set()
        self.transitions = 0
        self.depth = 0
        self.began = perf_counter()
        self.told = (self.began, 0)
        self.self_check = SelfCheck(model) if options.self_check else None

    def report(self) -> Report:
        begins = list(self.model.initial())
        if not begins:
            raise NoInitialState(f"{self.model.name} has no initial state")
        stopped_by = "walks"
        made = 0
        try:
            for _ in range(self.options.walks):
                made += 1
                self.order.begin(self.depth or _FIRST_LENGTH)
                self.run(begins[int(self.chance.random() * len(begins))])
                ended = self.ended()
                if ended:
                    stopped_by = ended
                    break
            self.model.doubts()  # walks do not need the doubts, but the model may find here that its states can't be trusted
            verdicts = self.verdicts(stopped_by, shorten=True)
        except KeyboardInterrupt:
            stopped_by = "interrupted"
            verdicts = self.verdicts(stopped_by, shorten=False)
        given: dict[str, Any] = {
            "seed": self.options.seed,
            "walks": made,
            "max_depth": self.options.max_depth or _DEPTH,
        }
        if self.options.strategy == "pct":
            given["change_points"] = self.options.change_points
        return Report(
            model=self.model.name,
            strategy=self.options.strategy,
            verdicts=verdicts,
            states=len(self.seen),
            transitions=self.transitions,
            depth=self.depth,
            seconds=perf_counter() - self.began,
            complete=False,
            stopped_by=stopped_by,
            configuration=given,
        )

    def run(self, state: Any) -> None:
        path = Path(state)
        steps: list[Step] = []
        due = {place for place, claim in enumerate(self.properties) if claim.kind == "leads_to"}
        waiting: set[int] = set()
        self.visit(path, steps, state, due, waiting)
        bound = _DEPTH if self.options.max_depth is None else self.options.max_depth
        while len(steps) < bound and not self.ended():
            successors = list(self.model.successors(state))
            if not successors:
                self.end(path, steps, state, waiting)
                return
            action, after = successors[self.order.choose(successors, len(steps))]
            steps.append(Step(action, after))
            self.transitions += 1
            for place, claim in enumerate(self.properties):
                asked = claim.kind == "always_step" and place not in self.found
                if asked and not ask(claim, claim.holds, state, action, after):
                    self.note(place, Outcome.FAILS, path, steps, "the last step breaks it")
            state = after
            self.visit(path, steps, state, due, waiting)

    def visit(self, path: Path, steps: list[Step], state: Any, due: set[int], waiting: set[int]) -> None:
        """Ask the properties about the current state of a run."""
        self.depth = max(self.depth, len(steps))
        action = steps[-1].action if steps else None
        for place in due:
            claim = self.properties[place]
            if ask(claim, claim.holds, state, action=action):
                waiting.add(place)
            if place in waiting and claim.until is not None and ask(claim, claim.until, state, action=action):
                waiting.discard(place)
        try:
            known = state in self.seen
        except TypeError as error:
            raise UnhashableState("a state can't be hashed", state=state, action=action) from error
        if known:
            return
        if self.self_check is not None:
            self.self_check.look([state], len(self.seen))
        self.seen.add(state)
        for place, claim in enumerate(self.properties):
            if place in self.found or claim.kind not in ("always", "sometimes"):
                continue
            holds = ask(claim, claim.holds, state, action=action)
            if claim.kind == "always" and not holds:
                self.note(place, Outcome.FAILS, path, steps, "the last state breaks it")
            elif claim.kind == "sometimes" and holds:
                self.note(place, Outcome.HOLDS, path, steps, "the last state shows it")

    def end(self, path: Path, steps: list[Step], state: Any, waiting: set[int]) -> None:
        """Ask the properties about a run that ended in a state where nothing is enabled."""
        action = steps[-1].action if steps else None
        for place, claim in enumerate(self.properties):
            if place in self.found:
                continue
            if claim.kind == "no_deadlock" and not ask(claim, claim.holds, state, action=action):
                self.note(place, Outcome.FAILS, path, steps, "a run ends here")
            elif claim.kind == "can_always_reach" and not ask(claim, claim.holds, state, action=action):
                self.note(place, Outcome.FAILS, path, steps, "a run ends here, and no goal is reached")
            elif place in waiting:
                self.note(place, Outcome.FAILS, path, steps, "the run ends and the effect never comes")

    def note(self, place: int, outcome: Outcome, path: Path, steps: list[Step], why: str) -> None:
        self.found[place] = _Found(outcome, Path(path.initial, tuple(steps)), why)

    def ended(self) -> str:
        """The bound that ends the walks now; empty if none does."""
        now = perf_counter()
        then, before = self.told
        if self.options.progress is not None and now - then >= _PROGRESS_SECONDS:
            rate = (len(self.seen) - before) / (now - then)
            self.told = (now, len(self.seen))
            self.options.progress(Progress(len(self.seen), self.transitions, self.depth, 0, now - self.began, rate))
        failed = any(found.outcome is Outcome.FAILS for found in self.found.values())
        if failed and (self.options.stop_at_first or len(self.found) == len(self.properties)):
            return "failure"
        if self.options.max_states is not None and len(self.seen) >= self.options.max_states:
            return "max_states"
        if self.options.seconds is not None and now - self.began >= self.options.seconds:
            return "seconds"
        return ""

    def verdicts(self, stopped_by: str, *, shorten: bool) -> tuple[Verdict, ...]:
        said = []
        for place, claim in enumerate(self.properties):
            found = self.found.get(place)
            if found is None:
                why = f"no run decided it: stopped by {stopped_by}"
                said.append(Verdict(claim.name, claim.kind, Outcome.NOT_DECIDED, None, why))
                continue
            path = minimise(self.model, found.path, self.shows(claim, found.outcome)) if shorten else found.path
            said.append(Verdict(claim.name, claim.kind, found.outcome, path, found.why))
        return tuple(said)

    def shows(self, claim: Property, outcome: Outcome) -> Callable[[Path], bool]:
        """A test whether a run shows the same outcome of a property."""
        return lambda run: holds_on(self.model, claim.name, run) == (outcome is Outcome.HOLDS)
