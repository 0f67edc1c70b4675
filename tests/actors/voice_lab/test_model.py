"""The voice service keeps its promises, whatever order things come in and whatever fails.

The first test is the model of every run: one session, a request that is refused, and at most one fault of any kind.
The others are wider in one direction each.
"""

# ruff: noqa: RUF012 - a table on an actor class is never changed

from collections.abc import Iterable
from typing import Any

import pytest

from actors.model.actor_model import ActorModel, Scene, Schedule
from actors.model.parts import Choice, Faults, Part
from actors.runtime.actor import IGNORE, Actor, Exited, Out
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.quality import QualityActor
from actors.voice.recorder import RecorderActor
from actors.voice_lab.model import facts, voice_model
from actors.voice_lab.parts import Media
from machines.checker import Outcome, Report, check
from machines.checker.coverage import Coverage
from tests.actors.voice_lab.resumption_model import deaths, resumed_model

KINDS = ("crash", "poison", "cut", "late", "cancel", "store", "spill", "record", "media", "speech")
ONE_OF_ANY_KIND = Faults(1, dict.fromkeys(KINDS, 1))


def crashes(times: int, *names: str, cuts: int = 0) -> Faults:
    return Faults(times + cuts, {"crash": times, "cut": cuts}, frozenset(names), in_a_turn=1)


def unkept(report: Report) -> list[tuple[str, str]]:
    """What does not hold, except that something happens which can't happen in so small a model."""
    return [
        (verdict.name, verdict.why)
        for verdict in report.verdicts
        if verdict.outcome is not Outcome.HOLDS and verdict.kind != "sometimes"
    ]


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_the_model_of_every_run_keeps_every_promise_and_meets_every_message_in_every_state() -> None:
    """One session that hears two frames, a request that is refused before it or after, and one fault of any kind."""
    model = voice_model(sessions=2, refused=1, in_turn=True, frames=2, faults=ONE_OF_ANY_KIND)
    report = check(model)
    covered = Coverage()
    covered.add(model.coverage())
    resumed = resumed_model(deaths(voice_model(frames=1))[-1], faults=ONE_OF_ANY_KIND)
    assert check(resumed).complete
    covered.add(resumed.coverage())
    set_aside = voice_model(frames=0, stops=0, faults=Faults(2, {"poison": 1, "cancel": 1}))
    assert check(set_aside).complete
    covered.add(set_aside.coverage())
    clock = voice_model(frames=1, faults=Faults(1, {"clock": 1}))
    assert unkept(check(clock)) == []
    covered.add(clock.coverage())
    silent = voice_model(silence=True)
    assert unkept(check(silent)) == []
    covered.add(silent.coverage())

    assert unkept(report) == []
    assert report.outcome is Outcome.HOLDS
    assert covered.rows
    assert [tuple(row[:3]) for row in covered.uncovered] == []


@pytest.mark.parametrize("transcribed", [True, False])
@pytest.mark.parametrize("frames", [0, 1])
def test_a_call_in_which_nobody_speaks_ends_by_its_silence_and_one_in_which_somebody_does_outlasts_it(
    frames: int, *, transcribed: bool
) -> None:
    report = check(voice_model(silence=True, frames=frames, transcribed=transcribed))

    assert unkept(report) == []
    reached = {verdict.name for verdict in report.verdicts if verdict.outcome is Outcome.HOLDS}
    assert "P2 a call in which nobody speaks ends by its silence" in reached
    assert "a call in which nobody speaks ends by its silence" in reached
    assert ("a call outlasts its silence when somebody speaks" in reached) is (frames > 0)


@pytest.mark.slow
@pytest.mark.search
@pytest.mark.timeout(400)
@pytest.mark.parametrize("transcribed", [True, False])
def test_one_fault_of_any_kind_breaks_no_promise_of_a_call_that_silence_ends(*, transcribed: bool) -> None:
    assert unkept(check(voice_model(silence=True, transcribed=transcribed, faults=ONE_OF_ANY_KIND))) == []


@pytest.mark.parametrize("fault", ["poison", "crash", "cut", "store"])
def test_a_request_that_nobody_waits_for_keeps_no_room_whatever_becomes_of_it(fault: str) -> None:
    faults = Faults(2, {"cancel": 1, fault: 1})
    for refused in (0, 1):
        assert unkept(check(voice_model(frames=0, stops=0, refused=refused, faults=faults))) == []


@pytest.mark.search
def test_a_session_that_its_supervisor_ends_has_no_address_that_a_stop_could_be_lost_at() -> None:
    faults = Faults(3, {"poison": 3}, frozenset({"voice-1"}), in_a_turn=1)
    assert unkept(check(voice_model(frames=0, faults=faults))) == []


@pytest.mark.slow
@pytest.mark.search
def test_three_messages_that_kill_a_session_break_no_promise() -> None:
    faults = Faults(3, {"poison": 3}, frozenset({"voice-1"}), in_a_turn=1)
    assert unkept(check(voice_model(faults=faults))) == []


def test_a_refused_request_keeps_every_promise_with_one_fault_of_any_kind() -> None:
    report = check(voice_model(refused=1, faults=ONE_OF_ANY_KIND))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.search
@pytest.mark.parametrize("frames", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", ["recorder", "transcriber", "quality"])
def test_a_part_that_crashes_again_and_again_ends_the_call_and_breaks_no_promise(part: str, frames: int) -> None:
    report = check(voice_model(frames=frames, faults=crashes(4, part)))

    assert report.complete
    assert unkept(report) == []


def test_a_session_that_crashes_again_and_again_is_ended_for_it() -> None:
    report = check(voice_model(frames=0, stops=0, faults=crashes(6, "voice-1")))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.search
def test_a_spill_that_is_never_answered_is_asked_after_by_its_session_though_the_store_is_up_again() -> None:
    # a second request finds out that the store is back, so evidence no longer waits for it
    spilling = Faults(2, {"store": 1, "spill": 1})
    report = check(voice_model(sessions=2, refused=1, frames=0, stops=0, faults=spilling))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.search
@pytest.mark.parametrize(
    ("frames", "other"),
    [
        *[(0, other) for other in ("record", "store", "crash", "cut", "late")],
        *[pytest.param(1, other, marks=pytest.mark.slow) for other in ("record", "store", "cut", "late")],
    ],
)
def test_a_record_that_can_not_be_written_breaks_no_promise_whatever_else_fails(frames: int, other: str) -> None:
    faults = Faults(2, {"record": 2} if other == "record" else {"record": 1, other: 1}, in_a_turn=1)
    report = check(voice_model(frames=frames, faults=faults))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.search
def test_the_end_of_a_session_that_the_supervisor_ended_may_be_a_record_that_can_not_be_written() -> None:
    faults = Faults(7, {"crash": 6, "record": 1}, frozenset({"voice-1"}), in_a_turn=1)
    report = check(voice_model(frames=0, stops=0, faults=faults))

    assert report.complete
    assert unkept(report) == []


@pytest.mark.slow
@pytest.mark.search
def test_a_session_beside_a_refused_one_keeps_every_promise_with_one_fault() -> None:
    report = check(voice_model(sessions=2, refused=1, faults=ONE_OF_ANY_KIND))

    assert unkept(report) == []
    assert report.outcome is Outcome.HOLDS


@pytest.mark.slow
@pytest.mark.search
def test_a_message_that_two_crashes_set_aside_is_no_excuse_for_anything_else() -> None:
    report = check(voice_model(faults=Faults(2, {"crash": 2})))

    assert unkept(report) == []
    assert report.outcome is Outcome.HOLDS


@pytest.mark.slow
@pytest.mark.search
def test_two_sessions_never_mix() -> None:
    report = check(voice_model(sessions=2))

    assert unkept(report) == []
    assert report.outcome is Outcome.HOLDS


# --- both schedules -----------------------------------------------------------------------------------------------------


class Owner(Actor):
    """Stands for a session: it has a recorder and a quality, passes frames on, and wants to know the end."""

    __slots__ = ("asked", "assessed", "media", "quality", "recorded", "recorder")
    wiring = ("media",)
    state = ("recorder", "quality", "asked", "recorded", "assessed")
    journal = state
    handles = {
        m.Frames: "frames",
        m.Drain: "drain",
        m.PartReport: IGNORE,
        m.PartAnswer: "told",
        Exited: "part_exited",
    }

    def __init__(self, media: Any) -> None:
        self.media = media
        self.recorder: Ref | None = None
        self.quality: Ref | None = None
        self.asked = self.recorded = self.assessed = False

    def start(self, out: Out) -> None:
        self.quality = out.spawn(QualityActor(out.me, 0, "voice-1"), "quality")
        one = facts(1, recording=True, refused=False)
        self.recorder = out.spawn(RecorderActor(out.me, 1, self.quality, self.media, one, 1), "recorder")

    def frames(self, message: m.Frames, out: Out) -> None:
        assert self.recorder is not None
        assert self.quality is not None
        out.tell(self.recorder, message)
        out.tell(self.quality, message)

    def drain(self, message: m.Drain, out: Out) -> None:
        assert self.recorder is not None
        self.asked = True
        out.tell(self.recorder, message)

    def told(self, message: m.PartAnswer, out: Out) -> None:
        assert self.quality is not None
        if message.place == 0:
            self.assessed = True
        else:
            self.recorded = True
            out.tell(self.quality, m.Drain())

    def part_exited(self, message: Exited, out: Out) -> None:
        out.restart(message.ref)


class Speaker(Part):
    """Says two frames, and then that there are no more."""

    def __init__(self) -> None:
        super().__init__("speaker")
        self.owner: Any = None

    def initial(self) -> Any:
        return 0

    def choices(self, state: Any) -> Iterable[Choice]:
        if state < 2:
            yield Choice("speaks", state + 1, ((self.owner, m.Frames(state, 1, 640, 20 * state)),))
        elif state == 2:
            yield Choice("ends", 3, ((self.owner, m.Drain()),))


def recorder_and_quality(schedule: Schedule, faults: Faults) -> ActorModel:
    speaker, media = Speaker(), Media("media")

    def setup(scene: Scene) -> None:
        speaker.owner = scene.spawn(Owner(scene.port(media)), "owner")

    model = ActorModel("recorder and quality", setup, parts=[speaker, media], schedule=schedule, faults=faults)
    model.always("assessed only when recorded", lambda owner: owner.recorded or not owner.assessed, of=["owner"])
    model.always("never recorded", lambda owner: not owner.recorded, of=["owner"])
    model.always("never assessed before all was said", lambda owner: owner.asked or not owner.assessed, of=["owner"])
    model.can_always_reach("an assessment can be reached", lambda owner: owner.assessed, of=["owner"])
    model.leads_to("who asks is told", lambda owner: owner.asked, lambda owner: owner.assessed, of=["owner"])
    model.sometimes("both are told", lambda owner: owner.recorded and owner.assessed, of=["owner"])
    return model


@pytest.mark.search
@pytest.mark.parametrize(
    "faults", [Faults(), Faults(1, {"crash": 1}), Faults(1, {"media": 1})], ids=["sound", "a crash", "a fault of media"]
)
def test_both_schedules_say_the_same_of_a_recorder_with_its_quality(faults: Faults) -> None:
    turns = check(recorder_and_quality(Schedule.TURNS, faults))
    any_order = check(recorder_and_quality(Schedule.ANY_ORDER, faults))

    assert {one.name: one.outcome for one in turns.verdicts} == {one.name: one.outcome for one in any_order.verdicts}
    assert turns.verdict("never recorded").outcome is Outcome.FAILS
    assert turns.verdict("assessed only when recorded").outcome is Outcome.HOLDS
    assert any_order.states > turns.states
