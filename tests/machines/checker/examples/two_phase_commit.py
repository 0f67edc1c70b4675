"""Two-phase commit after TwoPhase.tla (Gray and Lamport, "Consensus on Transaction Commit"): messages are a growing set."""

from collections.abc import Mapping, Sequence
from typing import Any

from machines.checker.model import Model, Property, always, sometimes

WORKING, PREPARED, COMMITTED, ABORTED = range(4)
COMMIT, ABORT = -3, -2  # the transaction manager's messages; "prepared" of a resource manager is its number

State = tuple[tuple[int, ...], int, tuple[bool, ...], frozenset[int]]
"""The resource managers, the transaction manager (working, committed, aborted), what it has been told, and the messages."""

Action = tuple[str, int]


class TwoPhaseCommit(Model[State, Action]):
    """`managers` resource managers and one transaction manager."""

    def __init__(self, managers: int) -> None:
        self.name = f"two-phase commit of {managers}"
        self.managers = range(managers)

    def initial(self) -> Sequence[State]:
        return [((WORKING,) * len(self.managers), WORKING, (False,) * len(self.managers), frozenset())]

    def successors(self, state: State) -> Sequence[tuple[Action, State]]:
        managers, master, told, messages = state
        found: list[tuple[Action, State]] = []
        add = found.append
        undecided = master == WORKING
        if undecided:
            if all(told):
                add((("commit", -1), (managers, COMMITTED, told, messages | {COMMIT})))
            add((("abort", -1), (managers, ABORTED, told, messages | {ABORT})))
        committed, aborted = COMMIT in messages, ABORT in messages
        for at, manager in enumerate(managers):
            if undecided and at in messages:
                add((("told", at), (managers, master, (*told[:at], True, *told[at + 1 :]), messages)))
            if manager == WORKING:
                before, after = managers[:at], managers[at + 1 :]
                add((("prepare", at), ((*before, PREPARED, *after), master, told, messages | {at})))
                add((("give up", at), ((*before, ABORTED, *after), master, told, messages)))
            if committed:
                add((("hear commit", at), ((*managers[:at], COMMITTED, *managers[at + 1 :]), master, told, messages)))
            if aborted:
                add((("hear abort", at), ((*managers[:at], ABORTED, *managers[at + 1 :]), master, told, messages)))
        return found

    def properties(self) -> Sequence[Property]:
        return [
            always("consistent", lambda state: not (ABORTED in state[0] and COMMITTED in state[0])),
            sometimes("all commit", lambda state: set(state[0]) == {COMMITTED}),
            sometimes("all abort", lambda state: set(state[0]) == {ABORTED}),
        ]

    def canonical(self, state: State) -> State:
        """The resource managers sorted by all that is known of each, so that equal ones can't tell two orders apart."""
        managers, master, told, messages = state
        known = sorted(zip(managers, told, (at in messages for at in self.managers), strict=True))
        kept = frozenset(at for at, (_, _, sent) in enumerate(known) if sent) | (messages & {COMMIT, ABORT})
        return tuple(one[0] for one in known), master, tuple(one[1] for one in known), kept

    def fields(self, state: State) -> Mapping[str, Any]:
        return dict(zip(("managers", "master", "told", "messages"), state, strict=True))

    def label(self, action: Action) -> str:
        return action[0] if action[1] < 0 else f"{action[0]} {action[1]}"

    def owner(self, action: Action) -> str:
        return "master" if action[0] in ("commit", "abort", "told") else f"manager {action[1]}"
