"""What a session begins with that goes on in another process: nothing is heard twice, and nothing counted twice."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from agentos.core.communication.voice.recording.steps import taken
from agentos.core.communication.voice.recovery import resumption
from agentos.core.communication.voice.recovery.dead_session import DeadSession
from agentos.core.communication.voice.recovery.resumption import Restored, restored_steps
from machines.events import VoiceEventType
from machines.losses import Lost
from machines.session import AudioMismatch
from tests.voice.recovery.test_recovery import ACTIVE, BORN, Home, event, record, session, sound


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    with closing(home.store):
        yield home


def restored(
    home: Home, *, recorded: bool, utterances: tuple[tuple[int, int], ...], first_frame: int = 0, at_seconds: int = 0
) -> Restored:
    """A session of which 20 frames are accounted and, if it is recorded, on the disk; these utterances were finished, from one
    time to another, in milliseconds."""
    of = session("1", ACTIVE, recording_enabled=recorded)
    account = {"accounted": 20, "bytes": 20 * 640, "digest": "of 20", "dropped": {}}
    if recorded:
        writer = home.write(of, sound(20))
        account["digest"] = writer.digest.hexdigest()
    said = [
        event(of, number, VoiceEventType.STT_FINAL, text=f"words {number}", start_ms=start, end_ms=end)
        for number, (start, end) in enumerate(utterances, 1)
    ]
    mismatched = record(of, 4, "audio_mismatched", reason="too_much_audio", audio_ms=2_000, media_ms=1_000)
    records = [record(of, 3, "audio_accounted", upto_frame=20, **account), mismatched]
    records = [one.model_copy(update={"created_at": BORN + timedelta(seconds=at_seconds)}) for one in records]
    dead = DeadSession(of, "dead", records, said)
    steps = restored_steps(dead, home.recordings / of.session_id, "flac", 1, first_frame)
    return taken(steps, lambda: True)


@pytest.mark.parametrize("recorded", [False, True])
def test_what_stands_in_the_transcript_is_not_asked_for_again(left: Home, recorded: bool) -> None:
    found = restored(left, recorded=recorded, utterances=((0, 300), (500, 1_000)))
    account, heard = found.resumption.account, found.resumption.heard
    assert (account.upto, account.kept, account.lost) == (50, 20, (("process_died", 30),))
    assert (heard.text, heard.heard) == ("words 1 words 2", 40)
    assert heard.heard + sum(count for _, count in heard.unheard) == account.upto
    assert (found.carried.upto, found.carried.lost) == (50, (Lost(20, 30, "process_died"),))
    assert found.resumption.mismatches == (AudioMismatch("too_much_audio", 2_000, 1_000),)
    if recorded:
        assert found.carried.writer is not None
        info = found.carried.writer.close(account.upto)
        assert info is not None
        assert (info.samples, info.gaps) == (50 * 320, ((20 * 320, 30 * 320),))


@pytest.mark.parametrize("recorded", [False, True])
def test_where_the_account_has_all_that_was_heard_it_goes_on_from_there(left: Home, recorded: bool) -> None:
    found = restored(left, recorded=recorded, utterances=((0, 300),))
    assert (found.resumption.account.upto, found.resumption.account.lost) == (20, ())
    assert (found.resumption.heard.heard, found.resumption.heard.unheard) == (15, (("process_died", 5),))


def test_a_caller_that_can_send_less_again_has_the_greater_gap(left: Home) -> None:
    found = restored(left, recorded=False, utterances=((0, 1_000),), first_frame=70)
    assert (found.resumption.account.upto, found.resumption.account.lost) == (70, (("process_died", 50),))


@pytest.mark.parametrize(
    ("now", "age"), [(-3_600, 40.0), (100, 100.0)], ids=["the clock was set back", "a minute later"]
)
def test_its_age_is_that_of_its_call(left: Home, monkeypatch: pytest.MonkeyPatch, now: int, age: float) -> None:
    monkeypatch.setattr(resumption, "utc_now", lambda: BORN + timedelta(seconds=now))
    found = restored(left, recorded=False, utterances=(), at_seconds=40)
    assert found.resumption.age_seconds == age
