"""A courier who brings numbered parcels, and everything that can befall them: what reports have to be able to show."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from machines.checker.coverage import CoverageRow
from machines.checker.model import (
    Happening,
    Model,
    Property,
    always,
    always_step,
    can_always_reach,
    leads_to,
    sometimes,
)

PARCELS = 2


class State(NamedTuple):
    """`sent` parcels have left; `way` are under way, `got` have come; then the faults so far, and whether the courier naps."""

    sent: int = 0
    way: tuple[int, ...] = ()
    got: tuple[int, ...] = ()
    doubled: int = 0
    lost: int = 0
    crashed: int = 0
    naps: bool = False


class Courier(Model[State, str]):
    """`faults` are those that may happen once: "double", "lose", "crash"; with `lazy` the courier may nap for ever."""

    name = "courier"

    def __init__(self, faults: frozenset[str] = frozenset(), *, lazy: bool = False) -> None:
        self.faults = faults
        self.lazy = lazy

    def initial(self) -> Sequence[State]:
        return [State()]

    def actions(self, state: State) -> Sequence[str]:
        found = ["send"] if state.sent < PARCELS else []
        found += ["deliver"] if state.way else []
        found += ["double"] if state.way and not state.doubled and "double" in self.faults else []
        found += ["lose"] if state.way and not state.lost and "lose" in self.faults else []
        found += ["crash"] if not state.crashed and "crash" in self.faults else []
        return [*found, "wake" if state.naps else "nap"] if self.lazy else found

    def step(self, state: State, action: str) -> State:
        first = state.way[:1]
        return {
            "send": lambda: state._replace(sent=state.sent + 1, way=(*state.way, state.sent)),
            "deliver": lambda: state._replace(way=state.way[1:], got=(*state.got, *first)),
            "double": lambda: state._replace(way=(*first, *state.way), doubled=1),
            "lose": lambda: state._replace(way=state.way[1:], lost=1),
            "crash": lambda: state._replace(crashed=1),
            "nap": lambda: state._replace(naps=True),
            "wake": lambda: state._replace(naps=False),
        }[action]()

    def properties(self) -> Sequence[Property]:
        def once(state: State) -> bool:
            """No parcel comes twice."""
            return len(set(state.got)) == len(state.got)

        return [
            always("each comes once", once),
            always_step("a crash is no loss", lambda before, action, after: action != "crash" or not before.way),
            can_always_reach("all can come", lambda state: len(set(state.got)) == PARCELS),
            leads_to("what is sent comes", lambda state: state.sent == PARCELS, lambda state: 1 in state.got),
            sometimes("something comes", lambda state: bool(state.got)),
        ]

    def is_fair(self, action: str) -> bool:
        return not self.lazy or action in {"nap", "wake"}

    def configuration(self) -> Mapping[str, Any]:
        return {"parcels": PARCELS, "faults": self.faults}

    def fields(self, state: State) -> Mapping[str, Any]:
        return {"sender": {"sent": state.sent}, "way": state.way, "receiver": {"got": state.got}, "naps": state.naps}

    def happenings(self, before: State, action: str, after: State) -> Sequence[Happening]:
        receiver = f"receiver#{before.crashed + 1}"
        parcel = f"parcel {before.way[0] if before.way else before.sent}"
        return {
            "send": [Happening("note", "sender", f"parcel {before.sent} leaves")],
            "deliver": [Happening("message", "sender", parcel, receiver)],
            "double": [Happening("duplicate", "sender", parcel, receiver)],
            "lose": [Happening("drop", "sender", parcel, receiver)],
            "crash": [Happening("crash", receiver, ""), Happening("restart", f"receiver#{before.crashed + 2}", "")],
            "nap": [Happening("timer", "sender", "tired")],
            "wake": [],
        }[action]

    def pending(self, state: State) -> Mapping[str, Sequence[str]]:
        return {"receiver": [f"parcel {number}" for number in state.way], "sender": []}

    def coverage(self) -> Sequence[CoverageRow]:
        return [
            CoverageRow("receiver", "waiting", "Parcel", 3, True, False),
            CoverageRow("receiver", "waiting", "Knock", 0, False, True),
            CoverageRow("sender", "napping", "Parcel", 2, False, False),
            CoverageRow("sender", "awake", "Receipt", 0, False, False),
        ]
