"""A recording after its call: it is finishing, and becomes ready or fails, and nothing else."""

import pytest

from machines.lifecycle import IllegalMove
from machines.recording import RECORDING, RecordingState

FINISHING, READY, FAILED = RecordingState


@pytest.mark.parametrize(("trigger", "state"), [("packed", READY), ("damaged", FAILED)])
def test_it_ends_in_one_of_two_ways(trigger: str, state: RecordingState) -> None:
    assert RECORDING.fire(FINISHING, trigger) is state


@pytest.mark.parametrize("state", [READY, FAILED])
@pytest.mark.parametrize("trigger", ["packed", "damaged"])
def test_an_end_is_final(state: RecordingState, trigger: str) -> None:
    with pytest.raises(IllegalMove):
        RECORDING.fire(state, trigger)
