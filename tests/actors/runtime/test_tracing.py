"""A trace tells every step of an actor and its descendants, nothing private, and leaves no trace of itself."""

from typing import Any

import msgspec
import pytest

from actors.runtime.actor import Out, Timer
from actors.runtime.inspection import SystemInspector
from actors.runtime.tracing import TraceLine, Tracer, safe_fields
from actors.voice import messages as m
from machines.communication import RequestStatus
from machines.session import EndReason

SECRET = "s3cr3t-4711"


class Reader:
    """What one trace tells."""

    def __init__(self) -> None:
        self.lines: list[TraceLine] = []
        self.ends = 0

    def ended(self) -> None:
        self.ends += 1

    def steps(self) -> list[tuple[str, str]]:
        return [(line.actor, line.message) for line in self.lines]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def tracer(stage: Any) -> Tracer:
    return Tracer(stage.system)


def test_each_step_is_told_with_its_effects_in_order(stage: Any, tracer: Tracer, reader: Reader) -> None:
    first, second = stage.doer("first"), stage.doer("second")
    tracer.follow(first, reader.lines.append, reader.ended)

    def step(_: Any, out: Out) -> None:
        out.tell(second, stage.Do("b"))
        out.set_timer("soon", 2.5)
        out.cancel_timer("soon")
        out.port(stage.system, "work")
        out.watch(second)

    stage.clock.now += 4
    stage.system.submit = lambda _: None
    stage.do(first, "a", step)
    (line,) = reader.lines
    assert (line.number, line.seconds, line.actor, line.message) == (1, 4.0, "first", "Do")
    assert line.effects == (
        "tell second Do",
        "set_timer soon 2.5",
        "cancel_timer soon",
        "port ActorSystem str",
        "watch second",
    )
    assert (line.phase, line.next_phase, line.error, line.incarnation) == ("", "", "", 0)
    assert stage.log(first) == ("start", "a")
    assert stage.log(second) == ("start", "b")


def test_children_that_are_there_and_those_that_come_are_followed(stage: Any, tracer: Tracer, reader: Reader) -> None:
    keeper = stage.keeper()
    there = stage.child(keeper, "there")
    tracer.follow(keeper, reader.lines.append, reader.ended)
    coming = stage.child(keeper, "coming")
    stage.do(there, "a")
    stage.do(coming, "b")
    assert reader.steps() == [
        ("keeper", "Do"),
        ("keeper/coming", "Start"),
        ("keeper/there", "Do"),
        ("keeper/coming", "Do"),
    ]
    assert reader.lines[0].effects == ("spawn coming",)


def test_a_step_that_raises_is_told_with_the_type_of_its_error(stage: Any, tracer: Tracer, reader: Reader) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    tracer.follow(child, reader.lines.append, reader.ended)
    stage.crash(child, SECRET)
    assert [(line.error, line.effects) for line in reader.lines] == [("ValueError", ())]
    stage.do(keeper, "restart", lambda _, out: out.restart(child))
    assert [(line.message, line.incarnation) for line in reader.lines[1:]] == [("Start", 1), ("Do", 1)]
    assert SECRET not in repr(reader.lines)


def test_a_message_that_nobody_handles_is_told_and_is_a_dead_letter(stage: Any, tracer: Tracer, reader: Reader) -> None:
    ref = stage.doer()
    tracer.follow(ref, reader.lines.append, reader.ended)
    stage.system.tell(ref, SECRET)
    assert [(line.message, line.effects) for line in reader.lines] == [("str", ("refuse str",))]
    assert stage.letters() == [("doer", "str", "unhandled")]


def test_a_timer_is_told_by_its_key(stage: Any, tracer: Tracer, reader: Reader) -> None:
    ref = stage.doer()
    tracer.follow(ref, reader.lines.append, reader.ended)
    stage.do(ref, "arm", lambda _, out: out.set_timer("soon", 1))
    stage.clock.now += 2
    stage.system.turn()
    assert (reader.lines[1].message, reader.lines[1].fields) == ("Timer", {"key": "soon", "live": True})
    assert reader.lines[1].seconds == 2.0


def test_an_ended_trace_leaves_the_actors_as_they_were(stage: Any, tracer: Tracer, reader: Reader) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    own = keeper.table, child.table
    trace = tracer.follow(keeper, reader.lines.append, reader.ended)
    assert keeper.table is not own[0]
    trace.end()
    trace.end()
    assert (keeper.table, child.table) == own
    assert keeper.table is own[0]
    assert child.table is own[1]
    stage.do(keeper, "a")
    stage.system.stop(keeper)
    assert (reader.lines, reader.ends) == ([], 0)
    assert stage.letters() == []  # the watcher does not wait any more
    assert [actor.path for actor in SystemInspector(stage.system).picture().actors] == []


def test_a_trace_ends_with_its_actor_once(stage: Any, tracer: Tracer, reader: Reader) -> None:
    ref = stage.doer()
    trace = tracer.follow(ref, reader.lines.append, reader.ended)
    stage.do(ref, "stop", lambda _, out: out.stop())
    assert (reader.steps(), reader.ends) == ([("doer", "Do")], 1)
    trace.end()
    assert reader.ends == 1
    assert stage.system.statistics().actors == 0
    assert stage.letters() == []


def test_a_trace_of_one_who_has_stopped_ends_at_once(stage: Any, tracer: Tracer, reader: Reader) -> None:
    ref = stage.doer()
    stage.system.stop(ref)
    tracer.follow(ref, reader.lines.append, reader.ended)
    assert reader.ends == 1


def test_two_traces_of_one_actor_know_nothing_of_each_other(stage: Any, tracer: Tracer, reader: Reader) -> None:
    ref = stage.doer()
    other = Reader()
    first = tracer.follow(ref, reader.lines.append, reader.ended)
    stage.do(ref, "a")
    tracer.follow(ref, other.lines.append, other.ended)
    stage.do(ref, "b")
    first.end()
    stage.do(ref, "c")
    assert [line.number for line in reader.lines] == [1, 2]
    assert [line.number for line in other.lines] == [1, 2]
    stage.system.stop(ref)
    assert (reader.ends, other.ends) == (0, 1)


def test_a_whole_call_is_told_and_goes_as_it_goes_untraced(new_world: Any) -> None:
    def play(world: Any) -> None:
        world.frames(60)
        world.stop()
        world.advance(30)

    plain, traced = new_world(), new_world()
    facts = {"metadata": {"note": SECRET}, "secret": SECRET, "project_id": SECRET}
    plain.open("voice-1", **facts)
    ref = traced.open("voice-1", **facts)
    reader = Reader()
    Tracer(traced.system).follow(ref, reader.lines.append, reader.ended)
    play(plain)
    play(traced)
    assert reader.ends == 1
    assert traced.records == plain.records
    assert [repr(work) for work in traced.directory.log] == [repr(work) for work in plain.directory.log]
    moves = [(line.phase, line.next_phase) for line in reader.lines if line.phase != line.next_phase]
    assert ("created", "active") in moves
    assert ("active", "stopping") in moves
    assert ("stopping", "stopped") in moves
    assert {actor.rpartition("/")[2] for actor, _ in reader.steps()} == {
        "voice-1",
        "recorder",
        "transcriber",
        "quality",
    }
    assert [line.number for line in reader.lines] == list(range(1, len(reader.lines) + 1))
    assert SECRET not in repr(reader.lines)
    assert SECRET.encode() not in msgspec.json.encode(reader.lines)


# --- what is safe to tell ------------------------------------------------------------------------------------------


def test_numbers_states_and_addresses_are_told(stage: Any, facts: Any) -> None:
    ref = stage.doer("evidence")
    assert safe_fields(m.Frames(3, 2, 1280, 17)) == {"first": 3, "count": 2, "n_bytes": 1280, "at_ms": 17}
    assert safe_fields(m.Stop(EndReason.IDLE, 7, None)) == {"reason": "idle", "upto": 7, "token": None}
    assert safe_fields(m.Routes(2, ref, ref)) == {"epoch": 2, "policy": "evidence", "evidence": "evidence"}


def test_no_text_is_told_not_even_inside_another_message(facts: Any) -> None:
    private = facts(metadata={"from_number": 15551234567, "note": SECRET}, secret=SECRET, project_id=SECRET)
    draft = m.Draft(private, 3, SECRET, RequestStatus.SUCCESS, detail=(("said", SECRET), ("number", 15551234567)))
    for message in (
        m.OpenSession(None, private),
        m.Commit(None, draft),
        m.Utterance(SECRET, 0, 10, (m.Word(SECRET, 0, 10),)),
        m.Partial(SECRET),
        m.Account(1, 1, 640, SECRET, ((SECRET, 15551234567),)),
        SECRET,
        {"n": 15551234567},
        (15551234567,),
    ):
        told = repr(safe_fields(message))
        assert SECRET not in told
        assert "15551234567" not in told
    assert safe_fields(m.Commit(None, draft))["draft.number"] == 3
    assert safe_fields(m.Commit(None, draft))["draft.status"] == "success"


def test_a_timer_is_told_without_its_address() -> None:
    ref: Any = None
    assert safe_fields(Timer(1.0, 0, ref, "idle")) == {"key": "idle", "live": True}
