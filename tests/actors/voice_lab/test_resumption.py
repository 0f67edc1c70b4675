"""A session whose process died goes on in another one and keeps every promise, wherever it died and whatever fails then."""

from functools import cache

import pytest

from actors.model.parts import Faults
from actors.voice_lab.model import voice_model
from machines.checker import Outcome, Report, check
from machines.session import VoiceSessionState
from tests.actors.voice_lab.resumption_model import OTHERWISE, Left, deaths, resumed_model

KINDS = ("crash", "poison", "cut", "late", "cancel", "store", "spill", "record", "media", "speech")
ONE_OF_ANY_KIND = Faults(1, dict.fromkeys(KINDS, 1))
NO_DISK = Faults(1, {"media": 1})  # one that refuses audio: some frames are lost before the process dies


def unkept(report: Report) -> list[tuple[str, str]]:
    return [
        (verdict.name, verdict.why)
        for verdict in report.verdicts
        if verdict.outcome is not Outcome.HOLDS and verdict.name not in OTHERWISE and verdict.kind != "sometimes"
    ]


@cache
def deaths_of(frames: int) -> list[Left]:
    return deaths(voice_model(frames=frames, faults=NO_DISK))


def test_a_process_can_die_in_either_state_with_audio_that_is_on_record_or_only_on_the_disk() -> None:
    found = deaths_of(2)

    assert {one.state for one in found} == {VoiceSessionState.CREATED, VoiceSessionState.ACTIVE}
    assert {(one.there, one.lost) for one in found} == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    assert {len(one.records) for one in found} == {1, 2, 3, 4, 5}


@pytest.mark.search
@pytest.mark.parametrize("frames", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("gap", [0, 1], ids=["sent again", "lost"])
def test_wherever_it_died_its_caller_goes_on(gap: int, frames: int) -> None:
    for left in deaths_of(frames):
        report = check(resumed_model(left, gap=gap, frames=frames))
        assert report.complete
        assert unkept(report) == []
        assert next(one for one in report.verdicts if one.name == "it goes on").outcome is Outcome.HOLDS


@pytest.mark.parametrize("at", [0, -1], ids=["before any audio", "with all of it on record"])
def test_one_fault_of_any_kind_breaks_no_promise(at: int) -> None:
    left = deaths(voice_model(frames=1))[at]
    report = check(resumed_model(left, gap=1, faults=ONE_OF_ANY_KIND))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(400)
def test_two_crashes_or_cuts_break_no_promise() -> None:
    left = deaths(voice_model(frames=1))[-1]
    report = check(resumed_model(left, faults=Faults(2, {"crash": 2, "cut": 1}, in_a_turn=1)))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.search
def test_who_dies_again_over_it_or_behind_it_may_come_back_again() -> None:
    first = deaths(voice_model(frames=1))[-1]
    for again in deaths(resumed_model(first, gap=1, frames=1)):
        assert again.records[: len(first.records)] == first.records
        report = check(resumed_model(again))
        assert report.complete
        assert unkept(report) == []
