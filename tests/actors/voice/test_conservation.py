"""Whatever happens in whatever order: the session is STOPPED once, with one final record, and every frame is accounted for."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.voice import messages as m
from actors.voice.quality import QualityActor
from actors.voice.recorder import RecorderActor
from actors.voice.session import SessionActor
from actors.voice.transcriber import TranscriberActor
from machines.session import VoiceSessionState

STEPS = st.one_of(
    st.tuples(st.just("frames"), st.integers(1, 60)),
    st.tuples(st.just("queued frames"), st.integers(1, 5)),
    st.tuples(st.just("hole"), st.integers(1, 3)),
    st.tuples(st.just("again"), st.integers(1, 3)),
    st.tuples(st.just("stop"), st.integers(0, 4)),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 2.1, 5.1, 11.0])),
    st.tuples(st.just("store"), st.sampled_from(["up", "down", "silent"])),
    st.tuples(st.just("media"), st.booleans()),
    st.tuples(st.just("speech"), st.booleans()),
    st.tuples(st.just("spill"), st.booleans()),
)


@settings(max_examples=150)
@given(
    script=st.lists(STEPS, max_size=14),
    broken=st.frozensets(st.integers(6, 60), max_size=2),
    crashes=st.frozensets(st.integers(3, 30), max_size=2),
    kind=st.sampled_from([SessionActor, RecorderActor, TranscriberActor, QualityActor]),
)
def test_every_frame_is_accounted_for_and_the_end_comes_once(
    new_world: Any, script: list[tuple[str, Any]], broken: frozenset[int], crashes: frozenset[int], kind: type
) -> None:
    with new_world().crashing(kind, crashes):
        world = new_world(break_at=broken)
        world.open()
        for what, value in script:
            if what == "frames":
                world.frames(value)
            elif what == "queued frames":
                world.frames(value, settle=False)
            elif what == "hole":
                world.sent["voice-1"] = world.sent.get("voice-1", 0) + value
            elif what == "again":
                seen = world.sent.get("voice-1", 0)
                world.tell(world.routes["voice-1"], m.Frames(max(0, seen - value), min(seen, value), 640, 1))
            elif what == "stop":
                world.stop(upto=world.sent.get("voice-1", 0) + value)
            elif what == "pass":
                world.advance(value)
            elif what == "store":
                world.store = value
            elif what == "spill":
                world.spill_ok = value
            else:
                setattr(world, f"{what}_answers", value)
        world.store = "up"
        world.advance(5)
        world.stop()
        world.advance(700)
    assert world.changes()[-1] is VoiceSessionState.STOPPED
    if ("spill", False) in script and not world.finals():
        return  # neither the store nor the spill file took it, and whoever asked was told so
    result = world.check_ended()
    assert len(world.finals()) == 1
    assert result.frames.accounted <= len(world.accounts.get("voice-1", {"kept": ()})["kept"])
    assert result.frames.transcribed <= len(world.streams.get("voice-1", {"heard": ()})["heard"])
