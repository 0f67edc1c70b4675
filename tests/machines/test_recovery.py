"""What a dead process leaves is resumed by one, or ended by one, and never both; and the end always comes."""

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from machines.checker import Outcome, check
from machines.checker.model import Model, Property, always, always_step, leads_to, sometimes
from machines.lifecycle import IllegalMove
from machines.recovery import RESUME, AwaitingResume, end_of_dead_session, ms_to_resume
from machines.session import SESSION
from machines.session import VoiceSessionState as State


def test_a_session_that_ran_goes_through_stopping() -> None:
    for state in (State.CREATED, State.ACTIVE):
        assert end_of_dead_session(state) == (
            ("session_stopping", State.STOPPING, False),
            ("session_stopped", State.STOPPED, True),
        )


def test_one_that_was_stopping_is_stopped_and_one_that_was_stopped_is_left_alone() -> None:
    assert end_of_dead_session(State.STOPPING) == (("session_stopped", State.STOPPED, True),)
    assert end_of_dead_session(State.STOPPED) == ()


@pytest.mark.parametrize(
    ("state", "wished", "silent_ms", "left_ms"),
    [
        (State.CREATED, True, 0, 1000),
        (State.ACTIVE, True, 400, 600),
        (State.ACTIVE, True, 1000, 0),
        (State.ACTIVE, True, 10**12, 0),
        (State.ACTIVE, True, -(10**12), 1000),  # the clock was set back
        (State.ACTIVE, False, 0, 0),
        (State.STOPPING, True, 0, 0),
        (State.STOPPED, True, 0, 0),
    ],
)
def test_who_wished_it_may_come_back_within_the_window_unless_the_end_had_begun(
    state: State, wished: bool, silent_ms: int, left_ms: int
) -> None:
    assert ms_to_resume(state, wished=wished, window_ms=1000, silent_ms=silent_ms) == left_ms


def test_a_session_waits_until_its_time_is_over_and_can_be_claimed_once() -> None:
    one = AwaitingResume().with_session("s", "dead", 10).with_session("t", "dead", 20)

    assert (sorted(one.open_at(9)), sorted(one.due_at(9)), one.next_due_ms(9)) == (["s", "t"], [], 10)
    assert (sorted(one.open_at(10)), sorted(one.due_at(10)), one.next_due_ms(10)) == (["t"], ["s"], 20)
    claimed = one.claimed("s")
    assert claimed is not None
    assert claimed.claimed("s") is None
    assert claimed.open_at(0) == claimed.due_at(99) == {"t"}
    assert claimed.given_back("s") == one
    assert claimed.given_back("s", hopeless=True).due_at(0) == {"s"}
    assert claimed.without("s").owners() == {"dead"}
    assert claimed.without("s").without("t").owners() == set()


def test_what_is_not_there_can_not_be_claimed_and_giving_it_back_changes_nothing() -> None:
    assert AwaitingResume().claimed("s") is None
    assert AwaitingResume().given_back("s") == AwaitingResume().without("s") == AwaitingResume()
    assert AwaitingResume().next_due_ms(0) is None


# The protocol of processes that find what a dead one left


class Process(NamedTuple):
    """One that has started and not died: what it has in its hands, and what its claim is for."""

    awaiting: AwaitingResume = AwaitingResume()
    claim: str = ""


class Home(NamedTuple):
    """The store and its processes: the records of one session, whose it is, and whether its window is over. Who died does not
    start again: the next one has another name."""

    records: tuple[State, ...] = (State.CREATED, State.ACTIVE)
    owner: str = "first"
    over: int = 0
    processes: tuple[Process | None, ...] = (None, None, None)
    started: int = 0
    deaths: int = 2
    visits: int = 2

    def holder(self) -> int | None:
        """Who holds the lock of the session's owner, and is not the owner itself."""
        return next((at for at, one in enumerate(self.processes) if one and one.awaiting.owners()), None)

    def owner_lives(self) -> bool:
        return self.owner.isdecimal() and self.processes[int(self.owner)] is not None

    def with_process(self, at: int, process: Process | None) -> "Home":
        return self._replace(processes=(*self.processes[:at], process, *self.processes[at + 1 :]))


class Recovering(Model[Home, tuple[str, int]]):
    """Processes start and die, take in hand what nobody owns, resume it for a caller, or end it."""

    def initial(self) -> Iterable[Home]:
        return [Home()]

    def actions(self, state: Home) -> Iterable[tuple[str, int]]:
        stopped = state.records[-1] is State.STOPPED
        if not state.over:
            yield "the window closes", -1
        if state.started < len(state.processes):
            yield "starts", state.started
        for at, process in enumerate(state.processes):
            if process is None:
                continue
            if state.deaths:
                yield "dies", at
            mine = process.awaiting.sessions.get("s")
            if not stopped and mine is None and not state.owner_lives() and state.holder() is None:
                yield "finds it", at
            if state.visits and "s" in process.awaiting.open_at(state.over):
                yield "claims it to resume", at
            if "s" in process.awaiting.due_at(state.over):
                yield "claims it to end", at
            if process.claim == "resume":
                yield "resumes it", at
                yield "is refused by the store", at
            if process.claim == "end":
                yield "ends it", at
            if state.owner == str(at) and not stopped:
                yield "stops its own", at

    def step(self, state: Home, action: tuple[str, int]) -> Home | None:  # noqa: PLR0911 - one for each action
        name, at = action
        if name == "the window closes":
            return state._replace(over=1)
        process = state.processes[at] or Process()
        if name == "starts":
            return state.with_process(at, process)._replace(started=at + 1)
        if name == "dies":
            return state.with_process(at, None)._replace(deaths=state.deaths - 1)
        if name == "finds it":
            wait = ms_to_resume(state.records[-1], wished=True, window_ms=1, silent_ms=state.over)
            held = process.awaiting.with_session("s", state.owner, wait)
            return state.with_process(at, Process(held))
        if name.startswith("claims"):
            claimed = process.awaiting.claimed("s")
            visits = state.visits - (name == "claims it to resume")
            claim = name.removeprefix("claims it to ")
            return None if claimed is None else state.with_process(at, Process(claimed, claim))._replace(visits=visits)
        if name == "is refused by the store":
            return state.with_process(at, Process(process.awaiting.given_back("s")))
        if name == "resumes it":
            records = (*state.records, SESSION.fire(state.records[-1], RESUME))
            return state.with_process(at, Process())._replace(records=records, owner=str(at), over=0)
        ended = (*state.records, *[move.state for move in end_of_dead_session(state.records[-1])])
        if name == "stops its own":
            return state._replace(records=ended)
        return state.with_process(at, Process(process.awaiting.without("s")))._replace(records=ended)

    def is_fair(self, action: tuple[str, int]) -> bool:
        """Processes need not die, and callers need not come back or stay away."""
        return action[0] not in {"dies", "claims it to resume"}

    def properties(self) -> list[Property]:
        moves = {(move.source, move.dest) for move in SESSION.moves}
        return [
            always(
                "P1 only legal moves are on record, and STOPPED is the last",
                lambda state: all(pair in moves for pair in zip(state.records, state.records[1:], strict=False)),
            ),
            always_step("P4 nothing on record is taken back", lambda a, _, b: b.records[: len(a.records)] == a.records),
            leads_to("P2 the end always comes", lambda _: True, lambda state: state.records[-1] is State.STOPPED),
            always(
                "P7 one process has it at a time",
                lambda state: (
                    sum([bool(one and one.awaiting.owners()) for one in state.processes]) + state.owner_lives() <= 1
                ),
            ),
            sometimes("it is resumed twice", lambda state: state.records.count(State.ACTIVE) == 3),
            sometimes("it is resumed, and ended as recovered", lambda state: state.visits < 2 and state.deaths < 2),
        ]


def test_whoever_dies_and_whoever_comes_back_one_process_has_it_and_the_end_comes() -> None:
    report = check(Recovering())

    assert report.complete
    assert [(one.name, one.why) for one in report.verdicts if one.outcome is not Outcome.HOLDS] == []


def test_without_the_claim_it_would_be_resumed_when_it_has_ended() -> None:
    class Careless(Recovering):
        """Whoever resumes does not keep others in the same process from ending it."""

        def actions(self, state: Home) -> Iterable[tuple[str, int]]:
            yield from super().actions(state)
            for at, process in enumerate(state.processes):
                if process and process.claim == "resume" and state.over and state.records[-1] is not State.STOPPED:
                    yield "ends it meanwhile", at

        def step(self, state: Home, action: tuple[str, int]) -> Home | None:
            if action[0] != "ends it meanwhile":
                return super().step(state, action)
            moves = [move.state for move in end_of_dead_session(state.records[-1])]
            return state._replace(records=(*state.records, *moves))

    with pytest.raises(IllegalMove, match="no move 'resume' from 'stopped'"):
        check(Careless())
