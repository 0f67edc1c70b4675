"""Processes that change what is their own, or a shared number: what partial-order reduction is for."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from machines.checker.model import Model, Property

Program = tuple[tuple[str, int], ...]
"""Instructions: ("own", n) adds to the process's own number, ("add", n) to the shared one, ("wait", n) goes on when the shared
one is n, ("jump", n) goes on at instruction n."""

State = tuple[tuple[int, ...], tuple[int, ...], int]
"""For each process where it is and its own number, and the shared number."""

Action = tuple[int, int]
"""The process and its instruction."""


class Processes(Model[State, Action]):
    """Each process has one action at most, so what is its own commutes with all that others ever do."""

    name = "processes"

    def __init__(
        self, programs: Sequence[Program], properties: Sequence[Property] = (), *, honest: bool = True
    ) -> None:
        self.programs = programs
        self.claims = properties
        self.honest = honest

    def initial(self) -> Sequence[State]:
        return [((0,) * len(self.programs), (0,) * len(self.programs), 0)]

    def actions(self, state: State) -> Sequence[Action]:
        places, _, shared = state
        found = []
        for process, program in enumerate(self.programs):
            at = places[process]
            if at < len(program) and (program[at][0] != "wait" or program[at][1] == shared):
                found.append((process, at))
        return found

    def step(self, state: State, action: Action) -> State:
        places, own, shared = state
        process, at = action
        kind, amount = self.programs[process][at]
        goes = amount if kind == "jump" else at + 1
        places = (*places[:process], goes, *places[process + 1 :])
        if kind == "own":
            own = (*own[:process], (own[process] + amount) % 3, *own[process + 1 :])
        return places, own, (shared + amount) % 3 if kind == "add" else shared

    def independent(self, state: State, action: Action, other: Action) -> bool:
        kind = self.programs[action[0]][action[1]][0]
        return kind in ("own", "jump") if self.honest else True

    def properties(self) -> Sequence[Property]:
        return self.claims

    def __repr__(self) -> str:
        return f"Processes({self.programs})"


instructions = st.one_of(
    st.tuples(st.sampled_from(["own", "add", "wait"]), st.integers(0, 2)), st.tuples(st.just("jump"), st.integers(0, 3))
)
programs = st.lists(st.lists(instructions, max_size=4).map(tuple), min_size=1, max_size=3)


def shared_is(number: int) -> Callable[[State], bool]:
    return lambda state: state[2] == number
