"""Days of the voice service in the simulator: full ones, every fault in them, and every promise kept."""

from collections import Counter

import pytest

from actors.simulation.plan import HOUR_MS, Chance, Fault, Plan, Visit
from actors.simulation.runner import Day, World
from actors.simulation.runs import run_seeds
from actors.simulation.world import KILL, POWER
from actors.voice_lab.callers import CANCEL
from actors.voice_lab.day import CALLS_IN_A_DAY, ENDINGS, CallPlan, drawn_calls
from actors.voice_lab.simulation import FAULTS, voice_simulation
from actors.voice_lab.store import RESUME_WINDOW_MS

SECOND = 1000
DAY_MS = 24 * HOUR_MS


def follow(*faults: Fault, calls: int = 1, ending: str = "stop", keep_lines: int = 5000) -> Day:
    """Calls of ten seconds that come every minute, with these faults."""
    call = CallPlan(5, 100, 2 * SECOND, ending, recording=True, engine=True)
    visits = tuple([Visit(number, number * 60 * SECOND, 12 * SECOND, call) for number in range(1, calls + 1)])
    return voice_simulation().follow(Plan(1, HOUR_MS, visits, faults), keep_lines=keep_lines)


# --- a day ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_day_has_its_calls_and_faults_and_keeps_every_promise(seed: int) -> None:
    day = voice_simulation().run(seed)
    assert day.failure is None
    assert day.visits == CALLS_IN_A_DAY >= 200
    assert sum(day.faults.values()) >= 20
    assert day.steps > 5000
    assert day.restarts >= 1


def test_the_calls_of_a_day_are_of_every_kind_and_a_tenth_speak_frame_by_frame() -> None:
    calls = [call for seed in range(40) for _, _, call in drawn_calls(Chance(seed, "test"), DAY_MS)]
    assert {call.ending for call in calls} == {*ENDINGS}
    assert Counter(call.refused for call in calls).keys() == {"", "policy", "malformed"}
    assert 0.3 < sum(call.resumable for call in calls) / len(calls) < 0.35
    assert {call.engine for call in calls} == {call.recording for call in calls} == {True, False}
    frame_by_frame = sum(call.frames == 1 for call in calls) / len(calls)
    assert 0.08 < frame_by_frame < 0.12


def test_rush_hours_have_calls_beside_each_other() -> None:
    times = sorted(at for at, _, _ in drawn_calls(Chance(3, "test"), DAY_MS))
    assert min(after - before for before, after in zip(times, times[20:], strict=False)) < 20 * 60 * SECOND
    assert all(0 <= at < DAY_MS for at in times)


def test_a_short_run_has_its_share_of_calls() -> None:
    assert len(drawn_calls(Chance(1, "test"), HOUR_MS)) == CALLS_IN_A_DAY // 24


# --- one fault -----------------------------------------------------------------------------------------------------------


def test_without_faults_a_call_is_drained_and_on_record() -> None:
    day = follow(calls=3)
    assert (day.failure, day.faults, day.crashes) == (None, {}, 0)
    assert sum(" Stop('stopped',500," in line and "supervisor/voice" in line for line in day.lines) == 3


@pytest.mark.parametrize("ending", sorted({*ENDINGS}))
def test_a_call_ends_however_it_ends(ending: str) -> None:
    assert follow(ending=ending).failure is None


@pytest.mark.parametrize("power", ["process", POWER])
@pytest.mark.parametrize("after_ms", [100, 4000, 11_700])
def test_a_kill_at_any_time_of_a_call_leaves_it_ended_in_the_journal(power: str, after_ms: int) -> None:
    day = follow(Fault(3, KILL, 60 * SECOND + after_ms, power, 2000), calls=2)
    assert day.failure is None
    assert (day.processes, day.faults) == (2, {KILL: 1})


def test_who_comes_back_in_time_goes_on_and_who_is_late_is_ended() -> None:
    call = CallPlan(5, 100, 2 * SECOND, "stop", recording=True, engine=True, resumable=True)
    kill = Fault(1, KILL, 66 * SECOND, "process", 2000)
    came = set()
    for seed in range(12):
        plan = Plan(seed, HOUR_MS, (Visit(1, 60 * SECOND, 12 * SECOND, call),), (kill,))
        day = voice_simulation().follow(plan, keep_lines=5000)
        assert day.failure is None
        came.add(
            (any(" ResumeSession(" in line for line in day.lines), any("voice-1 Stop(" in line for line in day.lines))
        )
    assert came == {(True, True), (False, False)}


def test_a_host_that_is_dead_cancels_nobody() -> None:
    call = CallPlan(5, 100, 30 * SECOND, "silence", recording=True, engine=True, resumable=True)
    kill = Fault(1, KILL, 66 * SECOND, "process", 10 * SECOND)
    for seed in range(6):
        plan = Plan(
            seed, HOUR_MS, (Visit(1, 60 * SECOND, 12 * SECOND, call),), (kill, Fault(2, CANCEL, 70 * SECOND, "", 0))
        )
        day = voice_simulation().follow(plan)
        assert (day.failure, day.faults) == (None, {KILL: 1})


def test_a_silence_that_nobody_notices_may_hold_up_the_end_beside_one_that_is_known() -> None:
    call = CallPlan(29, 1, 20, "stop", recording=True, engine=True)
    faults = (Fault(1, "media", 59 * SECOND, "", 3), Fault(2, "speech", 59 * SECOND, "", 7))
    plan = Plan(2, HOUR_MS, (Visit(1, 60 * SECOND, 12 * SECOND, call),), faults)
    day = voice_simulation().follow(plan, keep_lines=5000)
    assert any("media: falls silent" in line and "noticed" not in line for line in day.lines)
    assert any("speech: falls silent, and it is noticed" in line for line in day.lines)
    assert any("Timer('drain'" in line for line in day.lines)
    assert day.failure is None


def test_who_comes_back_when_the_window_is_over_is_too_late() -> None:
    call = CallPlan(5, 100, 2 * SECOND, "stop", recording=True, engine=True, resumable=True)
    kill = Fault(1, KILL, 66 * SECOND, "process", RESUME_WINDOW_MS)
    day = voice_simulation().follow(
        Plan(1, HOUR_MS, (Visit(1, 60 * SECOND, 12 * SECOND, call),), (kill,)), keep_lines=5000
    )
    assert (day.failure, day.processes) == (None, 2)
    assert not any(" ResumeSession(" in line for line in day.lines)


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_each_kind_of_fault_comes_to_a_busy_hour_and_breaks_no_promise(kind: str) -> None:
    of = FAULTS[kind]
    faults = tuple(
        [
            Fault(number, kind, number * 97 * SECOND, of.targets[number % len(of.targets)], size)
            for number in range(1, 30)
            for size in [of.smallest + (of.largest - of.smallest) * number // 60]
        ]
    )
    needed = (Fault(99, "disk full", 100 * SECOND, "", 600 * SECOND),) if kind == "spill fails" else ()
    day = follow(*faults, *needed, calls=55)
    assert day.failure is None
    assert day.faults[kind] >= 1
    assert {*day.faults} == {kind, *[one.kind for one in needed]}


# --- many seeds ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1000, 1100, 25))
def test_many_days_keep_every_promise_and_have_every_fault(first: int) -> None:
    report = run_seeds(voice_simulation, range(first, first + 25), processes=2)
    assert report.problem == ""
    assert min(sum(day.faults.values()) for day in report.days) >= 20
    assert {*report.faults} == {*FAULTS}
    assert all(share > 0.2 for share in report.shares.values())


def test_the_world_of_a_simulation_is_a_scene() -> None:
    world = World(Plan(1, 0, (), ()), lambda _: None, ())
    assert world.living("supervisor") is None
    world.start()
    assert world.living("supervisor") is None
