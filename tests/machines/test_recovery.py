from machines.recovery import end_of_dead_session
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
