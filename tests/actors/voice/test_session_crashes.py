"""Any voice actor may crash at any message, or halfway through its effects: the call ends, once, and its account holds."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import EMPTY
from actors.runtime.mailbox import STOPPED as GONE
from actors.voice import messages as m
from actors.voice.recorder import RecorderActor
from actors.voice.session import SessionActor
from actors.voice.supervisor import Supervisor
from actors.voice.transcriber import TranscriberActor
from machines.events import VoiceEventType
from machines.session import EndReason, VoiceSessionState

STOPPED = VoiceSessionState.STOPPED


def whole_life(world: Any, facts: Callable[..., m.Facts]) -> None:
    """Ask, five frames, stop, and all the time that a call may need to end by itself."""
    token = world.ask(facts(recording=True))
    if "voice-1" in world.routes:
        world.frames(1)
        world.frames(2)
        world.frames(1)
        world.advance(1)
        world.frames(1)
        world.stop()
    world.advance(700)
    if isinstance(token.value, m.Opened) or world.routes:
        world.check_ended()
        assert world.changes()[-1] is STOPPED
    assert len({draft.record_id for draft in world.finals()}) <= 1


def test_a_port_that_breaks_once_at_any_submission_ends_nothing_and_loses_no_record(
    new_world: Any, facts: Callable[..., m.Facts]
) -> None:
    sound = new_world()
    whole_life(sound, facts)
    assert sound.submitted > 30
    for k in range(1, sound.submitted + 1):
        world = new_world(break_at=frozenset({k}))
        whole_life(world, facts)
        assert world.system.statistics().crashes >= 1, k
        assert [len(world.finals()), world.result().reason] == [1, EndReason.STOPPED], k
        assert world.accounts["voice-1"]["kept"] == [0, 1, 2, 3, 4], k
        assert world.streams["voice-1"]["heard"] == [0, 1, 2, 3, 4], k
        assert world.result().frames.accounted == world.result().frames.transcribed == 5, k
        assert world.result().recording is not None, k
        assert world.changes()[-1] is VoiceSessionState.STOPPED, k


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_a_port_that_breaks_twice_cannot_keep_a_call_from_its_end(
    new_world: Any, facts: Callable[..., m.Facts], gap: int
) -> None:
    sound = new_world()
    whole_life(sound, facts)
    for k in range(1, sound.submitted + 1):
        world = new_world(break_at=frozenset({k, k + gap}))
        whole_life(world, facts)
        assert len(world.finals()) == 1, k


@pytest.mark.parametrize("store", ["down", "silent"])
def test_a_port_that_breaks_while_the_store_is_gone_cannot_keep_a_call_from_its_end(
    new_world: Any, facts: Callable[..., m.Facts], store: str
) -> None:
    def life(world: Any) -> None:
        world.open()
        world.frames(2)
        world.store = store
        world.frames(1)
        world.stop()
        world.advance(60)
        world.store = "up"
        world.advance(700)

    sound = new_world()
    life(sound)
    for k in range(6, sound.submitted + 1):
        world = new_world(break_at=frozenset({k}))
        life(world)
        world.check_ended()
        assert world.changes()[-1] is STOPPED, k


@pytest.mark.parametrize("store", ["down", "silent"])
def test_a_port_that_breaks_while_a_creation_is_refused_never_makes_a_session(
    new_world: Any, facts: Callable[..., m.Facts], store: str
) -> None:
    def life(world: Any) -> Any:
        world.store = store
        token = world.ask(facts())
        world.advance(10)
        world.store = "up"
        world.advance(60)
        return token

    sound = new_world()
    life(sound)
    for k in range(1, sound.submitted + 1):
        world = new_world(break_at=frozenset({k}))
        token = life(world)
        assert isinstance(token.value, m.Unevidenced), k
        assert world.changes() == [], k
        assert len(world.finals()) <= 1, k
        assert world.system.statistics().actors == 3, k


@pytest.mark.parametrize("after", [True, False], ids=["after_the_step", "before_the_step"])
def test_a_step_that_raises_did_nothing_and_is_done_again(
    new_world: Any, facts: Callable[..., m.Facts], voice_actor: type[Actor], after: bool
) -> None:
    with new_world().crashing(voice_actor, frozenset()) as steps:
        sound = new_world()
        whole_life(sound, facts)
    assert steps
    for k in range(1, len(steps) + 1):
        world = new_world()
        with world.crashing(voice_actor, frozenset({k}), after=after):
            world = new_world()
            whole_life(world, facts)
        assert world.system.statistics().crashes == 1, (k, steps[k - 1])
        result = world.result()
        assert result.frames.accounted == result.frames.transcribed == 5, (k, steps[k - 1])
        assert result.transcript == "hello", (k, steps[k - 1])
        assert world.changes() == sound.changes(), (k, steps[k - 1])
        assert list(world.records) == list(sound.records), (k, steps[k - 1])


@pytest.mark.parametrize("gap", [1, 2])
def test_a_message_that_kills_its_actor_twice_is_set_aside_and_the_call_still_ends(
    new_world: Any, facts: Callable[..., m.Facts], voice_actor: type[Actor], gap: int
) -> None:
    with new_world().crashing(voice_actor, frozenset()) as steps:
        whole_life(new_world(), facts)
    for k in range(1, len(steps) + 1):
        world = new_world()
        with world.crashing(voice_actor, frozenset({k, k + gap})):
            world = new_world()
            whole_life(world, facts)
        assert world.system.statistics().held == 0, (k, steps[k - 1])
        assert len(world.finals()) == bool(world.routes), (k, steps[k - 1])


def test_a_part_that_crashes_too_often_ends_the_call_as_failed(new_world: Any) -> None:
    for kind in (RecorderActor, TranscriberActor):
        with new_world().crashing(kind, frozenset(range(3, 100))):
            world = new_world()
            world.open()
            for _ in range(8):
                world.frames(1)
            world.advance(20)
        result = world.check_ended()
        assert result.reason is EndReason.FAILED
        assert world.changes()[-1] is STOPPED
        assert VoiceEventType.ERROR in world.events()


def test_a_session_that_crashes_too_often_ends_as_failed_by_itself(new_world: Any) -> None:
    # Frames kill it each time they come: crash, restart, crash, set aside.
    with new_world().crashing(SessionActor, frozenset({3, 5, 7, 9})) as steps:
        world = new_world()
        world.open()
        world.frames(1)
        world.frames(1)
        world.advance(20)
    assert "Fail" in steps
    result = world.check_ended()
    assert result.reason is EndReason.FAILED
    assert result.frames.accepted == 0


def test_the_supervisor_ends_a_session_that_cannot_end_itself(new_world: Any) -> None:
    with new_world().crashing(SessionActor, frozenset(range(3, 1000))):
        world = new_world()
        ref = world.open()
        world.frames(1)
        world.advance(60)
    assert ref.status == GONE
    result = world.check_ended()
    assert result.reason is EndReason.FAILED
    assert world.changes()[-1] is STOPPED
    assert world.records["ev-secret-voice-1-final"].state is STOPPED


def test_stops_that_such_a_session_had_accepted_or_not_read_are_answered(new_world: Any) -> None:
    crashes: set[int] = set()
    with new_world().crashing(SessionActor, crashes) as steps:
        world = new_world()
        world.open()
        world.frames(1)
        world.media_answers = False
        accepted = world.stop(settle=False)
        assert steps[-1] == "Stop"
        crashes.update(range(len(steps) + 1, 1000))
        unread = world.stop(settle=False)
        world.settle()
        world.advance(5)
    assert (accepted.value, unread.value) == (m.Ended("voice-1", durable=True, spilled=False),) * 2
    world.check_ended()


def test_a_session_that_the_supervisor_ends_while_the_store_is_down_is_on_record_later(new_world: Any) -> None:
    with new_world().crashing(SessionActor, frozenset(range(3, 1000))):
        world = new_world()
        world.open()
        world.store = "down"
        world.frames(1)
        world.advance(10)
        assert world.finals() == []
        assert m.Closed("voice-1", gone=True) in world.directory.log
        world.store = "up"
        world.advance(10)
    world.check_ended()


def test_the_other_calls_do_not_notice(new_world: Any) -> None:
    with new_world().crashing(SessionActor, frozenset({6, 8})):
        world = new_world()
        world.open("voice-1")
        world.open("voice-2")
        for _ in range(4):
            world.frames(1, "voice-1")
            world.frames(1, "voice-2")
        world.stop("voice-1")
        world.stop("voice-2")
    assert world.check_ended("voice-1").reason is EndReason.STOPPED
    assert world.check_ended("voice-2").reason is EndReason.STOPPED


def test_a_supervisor_that_crashes_keeps_its_table_and_its_requests(
    new_world: Any, facts: Callable[..., m.Facts]
) -> None:
    with new_world().crashing(Supervisor, frozenset({3, 4})):
        world = new_world()
        first = world.ask(facts("voice-1"))
        second = world.ask(facts("voice-2"))
    assert isinstance(first.value, m.Opened)
    assert isinstance(second.value, m.Opened)
    world.stop("voice-1")
    world.stop("voice-2")
    world.check_ended("voice-2")


@pytest.mark.parametrize("times", [2, 3, 4, 5, 8])
def test_a_session_that_crashes_on_being_stopped_still_stops_and_says_so(new_world: Any, times: int) -> None:
    """A stop is never set aside: who asked for it is answered, and within the drain deadline."""
    world = new_world()
    left = times

    def raising(step: Callable[..., None]) -> Callable[..., None]:
        def run(actor: Actor, message: Any, out: Any) -> None:
            nonlocal left
            step(actor, message, out)
            if left and isinstance(message, m.Stop | m.Fail):
                left -= 1
                raise RuntimeError("on the stop")

        return run

    compiled = SessionActor.compiled
    SessionActor.compiled = {
        phase: {kind: raising(step) for kind, step in table.items()} for phase, table in compiled.items()
    }
    try:
        world.open()
        world.frames(5)
        ended = world.stop()
        world.advance(11)
    finally:
        SessionActor.compiled = compiled
    assert ended.answered
    assert ended.value.durable
    assert [draft.result for draft in world.records.values() if draft.result is not None]
    assert "voice-1" not in dict(world.supervisor.actor.sessions.items())


# --- deadlines ----------------------------------------------------------------------------------------------------------


def session_of(world: Any) -> Any:
    """The session "voice-1", which the door may know nothing of yet."""
    return next(ref for ref, _ in world.system.refs() if ref.name == "voice-1")


def crash_at(world: Any, moments: tuple[float, ...], upto: float) -> None:
    """Let time pass until `upto`, from now on, and crash the session at these moments."""
    passed = 0.0
    for moment in moments:
        world.advance(moment - passed)
        passed = moment
        with world.system.held_back():
            world.system._crash(session_of(world), EMPTY, RuntimeError("crashed at rest"))
        world.settle()
    world.advance(upto - passed)


def test_a_creation_that_is_not_durable_is_refused_in_time_whatever_crashes(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    world.store = "silent"
    token = world.ask(facts())
    crash_at(world, (1.0, 1.9), 1.99)
    assert not token.answered
    world.advance(0.02)
    assert isinstance(token.value, m.Unevidenced)


def test_a_call_ends_at_its_longest_duration_whatever_crashes(world: Any) -> None:
    world.open()
    for _ in range(29):
        world.frames(1)
        crash_at(world, (19.0,), 20.0)
    world.frames(1)
    crash_at(world, (19.9,), 19.99)
    assert world.finals() == []
    world.advance(0.02)
    assert world.check_ended().reason is EndReason.OVERRUN


@pytest.mark.parametrize("audio", [0, 1])
def test_a_call_without_audio_ends_as_idle_in_time_whatever_crashes(world: Any, audio: int) -> None:
    world.open()
    world.advance(20)
    world.frames(audio)
    crash_at(world, (9.0,), 9.99 + 30 * audio)
    assert world.finals() == []
    world.advance(0.02)
    assert world.check_ended().reason is EndReason.IDLE


def test_frames_that_are_missing_are_waited_for_in_time_whatever_crashes(world: Any) -> None:
    world.open()
    world.frames(2)
    world.stop(upto=5)
    crash_at(world, (1.0, 4.9), 4.99)
    assert world.finals() == []
    world.advance(0.02)
    assert dict(world.check_ended().frames.dropped) == {"lost_on_the_way": 3}


def test_the_drain_ends_in_time_whatever_crashes(world: Any) -> None:
    world.open()
    world.media_answers = False
    world.frames(2)
    world.stop()
    crash_at(world, (1.0, 9.0, 9.9), 9.99)
    assert world.finals() == []
    world.advance(0.02)
    assert not world.check_ended().drained


def test_the_last_record_is_spilled_in_time_whatever_crashes(world: Any) -> None:
    world.open()
    world.store = "silent"
    token = world.stop()
    crash_at(world, (1.0, 1.9), 1.99)
    assert not token.answered
    world.advance(0.02)
    assert token.value == m.Ended("voice-1", durable=False, spilled=True)


def test_a_spill_that_is_not_answered_ends_in_time_whatever_crashes(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    world.store = "silent"
    answers = world.store_answers
    monkeypatch.setattr(world, "store_answers", lambda work: [] if isinstance(work, m.SpillWork) else answers(work))
    token = world.stop()
    world.advance(2.0)
    crash_at(world, (1.0, 1.9), 1.99)
    assert not token.answered
    world.advance(0.02)
    assert token.value == m.Ended("voice-1", durable=False, spilled=False)


@pytest.mark.parametrize(("times", "reason"), [(1, EndReason.OVERRUN), (3, EndReason.OVERRUN), (99, EndReason.FAILED)])
def test_a_session_that_crashes_when_its_longest_duration_is_over_ends_there_all_the_same(
    world: Any, monkeypatch: pytest.MonkeyPatch, times: int, reason: EndReason
) -> None:
    timeout, left = SessionActor.timeout, times

    def failing(session: SessionActor, timer: str, out: Out) -> None:
        nonlocal left
        timeout(session, timer, out)
        if timer == "overrun" and left:
            left -= 1
            raise RuntimeError("on the timer")

    monkeypatch.setattr(SessionActor, "timeout", failing)
    world.open()
    for _ in range(30):
        world.frames(1)
        world.advance(19.999)
    assert world.finals() == []
    world.advance(0.1)
    assert world.check_ended().reason is reason
