"""What can be seen of a running system: every actor with its mail and its age, and nothing of what the mail says."""

from typing import Any

import msgspec
import pytest

from actors.runtime.actor import START_AGAIN, Out
from actors.runtime.inspection import ActorPicture, MailPicture, SystemInspector, SystemPicture, TimerPicture
from actors.runtime.mailbox import AUDIO, CONTROL, SYSTEM
from machines.session import VoiceSessionState

SECRET = "s3cr3t-4711"


def of(picture: SystemPicture, path: str) -> ActorPicture:
    (found,) = [actor for actor in picture.actors if actor.path == path]
    return found


def ages(inspector: SystemInspector) -> dict[str, float | None]:
    return {actor.path: actor.waiting_seconds for actor in inspector.picture().actors}


@pytest.fixture
def inspector(stage: Any) -> SystemInspector:
    return SystemInspector(stage.system)


# --- the picture ---------------------------------------------------------------------------------------------------


def test_an_empty_system_has_an_empty_picture(inspector: SystemInspector) -> None:
    picture = inspector.picture()
    assert (picture.actors, picture.dead_letters, picture.left_out) == ((), (), 0)
    assert inspector.longest_wait() == 0


def test_every_actor_is_named_by_its_place(stage: Any, inspector: SystemInspector) -> None:
    keeper = stage.keeper()
    stage.child(keeper, "one", stage.Keeper)
    stage.doer("alone")
    assert sorted(ages(inspector)) == ["alone", "keeper", "keeper/one"]
    assert of(inspector.picture(), "keeper/one").kind == "Keeper"


def test_mail_is_counted_by_lane_before_and_after_the_first_step(stage: Any, inspector: SystemInspector) -> None:
    with stage.system.held_back():
        ref = stage.doer()
        assert of(inspector.picture(), "doer").status == "starting"
        assert of(inspector.picture(), "doer").mail == MailPicture(1, 0, 0, deferred=0)
        for lane, count in ((SYSTEM, 1), (CONTROL, 2), (AUDIO, 3)):
            for _ in range(count):
                stage.do(ref, "later", lane=lane)
        assert of(inspector.picture(), "doer").mail == MailPicture(2, 2, 3, deferred=0)
        assert of(inspector.picture(), "doer").mail.depth == 7
    picture = of(inspector.picture(), "doer")
    assert (picture.status, picture.mail.depth, picture.waiting_seconds) == ("idle", 0, None)


def test_a_single_message_counts_in_its_lane(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "later", lane=AUDIO)
        picture = of(inspector.picture(), "doer")
        assert (picture.status, picture.mail) == ("ready", MailPicture(0, 0, 1, deferred=0))


def test_a_held_actor_is_shown_with_its_mail_and_then_its_restarts(stage: Any, inspector: SystemInspector) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.crash(child)
    stage.do(child, "waits")
    held = of(inspector.picture(), "keeper/child")
    assert (held.status, held.mail.control, held.incarnation) == ("held", 2, 0)
    stage.do(keeper, "restart", lambda _, out: out.restart(child))
    again = of(inspector.picture(), "keeper/child")
    assert (again.status, again.incarnation) == ("held", 1)  # the message has killed it a second time


def test_timers_are_shown_with_the_time_that_is_left(stage: Any, inspector: SystemInspector) -> None:
    def arm(_: Any, out: Out) -> None:
        out.set_timer("soon", 5)
        out.set_timer("late", 60)

    ref = stage.doer()
    stage.do(ref, "arm", arm)
    stage.clock.now += 2
    assert set(of(inspector.picture(), "doer").timers) == {TimerPicture("soon", 3.0), TimerPicture("late", 58.0)}
    with stage.system.held_back():
        stage.clock.now += 10
        stage.system.turn()
        assert set(of(inspector.picture(), "doer").timers) == {TimerPicture("soon", 0.0), TimerPicture("late", 48.0)}
    stage.system.turn()
    assert of(inspector.picture(), "doer").timers == (TimerPicture("late", 48.0),)


def test_the_phase_is_the_value_of_its_enum(world: Any) -> None:
    world.open("voice-1")
    inspector = SystemInspector(world.system)
    assert of(inspector.picture(), "supervisor/voice-1").phase == VoiceSessionState.CREATED.value
    assert of(inspector.picture(), "supervisor").phase == ""
    world.frames(3)
    assert of(inspector.picture(), "supervisor/voice-1").phase == "active"
    assert of(inspector.picture(), "supervisor/voice-1/recorder").kind == "RecorderActor"


def test_dead_letters_are_told_by_type_and_never_by_content(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    stage.crash(ref, SECRET)
    stage.system.stop(ref)
    stage.system.tell(ref, SECRET)
    picture = inspector.picture()
    told = [(letter.to, letter.kind, letter.reason, letter.error) for letter in picture.dead_letters]
    assert told == [("doer", "Do", "killed its actor twice", "ValueError"), ("doer", "str", "stopped", "")]
    assert SECRET in repr(stage.system.dead_letters)  # it is the picture that leaves it out
    assert SECRET not in repr(picture)
    assert SECRET.encode() not in msgspec.json.encode(picture)


def test_the_actors_in_trouble_come_first_and_the_rest_can_be_left_out(stage: Any, inspector: SystemInspector) -> None:
    keeper = stage.keeper()
    for name in ("one", "two", "three"):
        stage.child(keeper, name)
    stage.crash(stage.child(keeper, "bad"))
    busy = stage.doer("busy")
    with stage.system.held_back():
        stage.do(busy, "wait")
        picture = inspector.picture(2)
    assert [actor.path for actor in picture.actors] == ["keeper/bad", "busy"]
    assert picture.left_out == 4
    assert picture.statistics.actors == 6


def test_a_picture_changes_nothing(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "a", lane=AUDIO)
        stage.do(ref, "b")
        before = inspector.picture()
        assert inspector.picture() == before
    assert stage.log(ref) == ("start", "b", "a")


# --- how long mail waits -------------------------------------------------------------------------------------------


def test_mail_is_as_old_as_the_first_look_that_saw_it(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "waits")
        stage.clock.now += 3  # nobody looked: it waits since then at least
        assert ages(inspector) == {"doer": 0.0}
        stage.clock.now += 4
        assert ages(inspector) == {"doer": 4.0}
        assert inspector.longest_wait() == 4.0
    assert ages(inspector) == {"doer": None}
    inspector.look()
    assert inspector.longest_wait() == 0


def test_a_look_is_enough_for_mail_in_the_ready_queue(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "waits")
        inspector.look()
        stage.clock.now += 2
        assert ages(inspector) == {"doer": 2.0}


def test_the_age_is_that_of_the_oldest_lane(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "old", lane=AUDIO)
        inspector.look()
        stage.clock.now += 5
        stage.do(ref, "young", lane=SYSTEM)  # it goes first, and the audio goes on waiting
        inspector.look()
        stage.clock.now += 1
        assert ages(inspector) == {"doer": 6.0}


def test_what_was_taken_counts_no_longer(new_stage: Any) -> None:
    stage = new_stage(budget=1)
    inspector = SystemInspector(stage.system)
    ref = stage.doer()
    with stage.system.held_back():
        for name in ("first", "second", "third"):
            stage.do(ref, name)
        inspector.look()
        stage.clock.now += 10
    assert stage.log(ref) == ("start", "first")
    assert ages(inspector) == {"doer": 0.0}  # the second was behind the first until now: it waits since now at least
    stage.clock.now += 2
    assert ages(inspector) == {"doer": 2.0}
    stage.drain()
    assert ages(inspector) == {"doer": None}


def test_mail_of_a_held_actor_grows_old_while_it_is_held(stage: Any, inspector: SystemInspector) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    stage.crash(child)
    inspector.picture()  # a picture finds it, and every look after that goes on with it
    stage.clock.now += 7
    inspector.look()
    assert inspector.longest_wait() == 7.0


def test_a_message_that_is_put_back_after_a_crash_keeps_its_age(stage: Any, inspector: SystemInspector) -> None:
    keeper = stage.keeper()
    child = stage.child(keeper, "child")
    with stage.system.held_back():
        stage.crash(child)
        inspector.look()
        stage.clock.now += 7
    assert of(inspector.picture(), "keeper/child").status == "held"
    assert ages(inspector)["keeper/child"] == 7.0


def test_each_restart_s_first_step_is_a_message_of_its_own(new_stage: Any) -> None:
    stage = new_stage(budget=1)
    inspector = SystemInspector(stage.system)
    keeper = stage.keeper()
    stage.drain()
    child = stage.child(keeper, "child")
    for _ in range(2):
        stage.drain()
        stage.crash(child)
        stage.drain()
        stage.do(keeper, "restart", lambda _, out: out.restart(child))
        assert START_AGAIN in child.lanes[SYSTEM]  # the drain was cut before it
        assert ages(inspector)["keeper/child"] == 0.0
        stage.clock.now += 5
    assert child.incarnation == 2


def test_a_stopped_actor_is_forgotten(stage: Any, inspector: SystemInspector) -> None:
    ref = stage.doer()
    with stage.system.held_back():
        stage.do(ref, "waits")
        inspector.look()
        stage.system.stop(ref)
        inspector.look()
        assert inspector.longest_wait() == 0
        assert inspector.picture().actors == ()
