"""The window in which a session can be resumed, on a clock that is turned by hand; and what others find meanwhile."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import NotResumable, SessionNotFound, StoreError
from agentos.core.communication.voice.recovery import orphans, recovery
from agentos.core.communication.voice.recovery.recovery import Recovery
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import Entry
from machines.session import VoiceSession
from machines.session import VoiceSessionState as State
from tests.voice.recovery.test_recovery import Home, record, session, sound

WINDOW_MS = 30_000


class Clock:
    """Both clocks of the modules that look at the window."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms = 1_000_000
        for module in (orphans, recovery):
            monkeypatch.setattr(module, "monotonic_ms", lambda: self.ms)
        monkeypatch.setattr(recovery, "utc_now_ms", lambda: self.ms)

    def died(self, home: Path, ago_ms: int) -> None:
        """The owner `dead` left its last sign of life so long ago."""
        path = home / "dead.owner"
        path.touch()
        os.utime(path, ns=((self.ms - ago_ms) * 1_000_000,) * 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    with home.store:
        yield home
        assert home.store.verify().ok


def recovering(left: Home) -> Recovery:
    return Recovery(left.store, left.recordings, "flac", resume_window_seconds=WINDOW_MS / 1000)


def resumable(name: str = "1", state: State = State.ACTIVE) -> VoiceSession:
    return session(name, state, resumable=True)


def test_it_waits_until_the_window_closes_and_is_ended_then(left: Home, clock: Clock) -> None:
    of, other = left.leave(resumable()), left.leave(session("2", State.ACTIVE))
    clock.died(left.folder, 10_000)
    one = recovering(left)
    report = one.run()
    assert [found.session_id for found in report.recovered] == [other.session_id]  # nobody comes back to it
    assert [found.session_id for found in report.resumable] == [of.session_id]
    assert (report.owned, FileLocks(left.folder).is_dead("dead")) == (0, False)
    assert one.orphans.next_due_ms() == clock.ms + 20_000

    clock.ms += 19_999
    assert one.run().recovered == ()
    clock.ms += 1
    with pytest.raises(NotResumable, match="being resumed or ended"):
        one.restored(of.session_id, 0, 60)
    assert [found.session_id for found in one.run().recovered] == [of.session_id]
    assert left.operations(of)[-2:] == ["session_stopping", "session_stopped"]
    assert list(left.folder.glob("*.owner")) == []


def test_who_dies_while_it_waits_leaves_it_with_what_is_left_of_its_time(left: Home, clock: Clock) -> None:
    of = left.leave(resumable())
    clock.died(left.folder, 0)
    one = recovering(left)
    one.run()
    clock.ms += 12_000
    assert recovering(left).run().resumable == ()  # another process has it
    one.close()  # as a death does: the lock goes, and its file stays
    other = recovering(left)
    assert len(other.run().resumable) == 1
    assert other.orphans.next_due_ms() == clock.ms + 18_000
    other.close(lambda: True)
    assert left.operations(of)[-1] == "session_stopped"


def test_one_that_is_claimed_is_not_ended_when_its_time_is_over(left: Home, clock: Clock) -> None:
    of = left.leave(resumable().model_copy(update={"silence_timeout_seconds": 7.5}))
    left.write(of.model_copy(update={"recording_enabled": True}), sound(10))
    clock.died(left.folder, 0)
    one = recovering(left)
    restored = one.restored(of.session_id, 0, 60)  # no recovery came to it before
    assert (restored.facts.secret, restored.resumption.number) == (f"secret{of.session_id}", 3)
    assert restored.facts.silence_seconds == 7.5
    clock.ms += WINDOW_MS
    assert one.run().recovered == ()
    assert one.end_orphan(of.session_id) is False
    one.orphans.give_back(of.session_id)
    assert len(one.run().recovered) == 1
    assert one.end_orphan(of.session_id) is False
    one.orphans.done(of.session_id)


def test_one_that_was_resumed_belongs_to_who_resumed_it(left: Home, clock: Clock) -> None:
    of = left.leave(resumable())
    clock.died(left.folder, 0)
    one = recovering(left)
    one.restored(of.session_id, 0, 60)
    mine = FileLocks(left.folder).take("mine")
    left.store.append([Entry(record(of, 3, "session_resumed", upto_frame=7), of, takes_over=True)], "mine")
    one.orphans.done(of.session_id)
    assert FileLocks(left.folder).is_dead("dead")
    assert list(left.store.unfinished()) == ["mine"]
    assert recovering(left).run().recovered == ()
    mine.forget()
    clock.ms += WINDOW_MS
    os.utime(left.folder / "mine.owner", ns=((clock.ms - WINDOW_MS) * 1_000_000,) * 2)
    last = recovering(left).run().recovered[0]
    assert last.result is not None
    assert last.result.frames.accepted == 7


def test_a_store_that_fails_leaves_it_waiting(left: Home, clock: Clock) -> None:
    of = left.leave(resumable())
    clock.died(left.folder, 0)
    with open_store(Path(left.store.place), busy_timeout_seconds=0.05) as store:
        one = Recovery(store, left.recordings, "flac", resume_window_seconds=WINDOW_MS / 1000)
        one.run()
        with closing(sqlite3.connect(left.store.place, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError):
                one.end_orphan(of.session_id)
            other.execute("ROLLBACK")
        assert [found.session_id for found in one.run().recovered] == [of.session_id]


def test_what_is_unknown_or_over_is_refused(left: Home, clock: Clock) -> None:
    of, late = left.leave(resumable()), left.leave(resumable("2", State.STOPPING))
    clock.died(left.folder, WINDOW_MS)
    one = recovering(left)
    with pytest.raises(SessionNotFound):
        one.restored("voice-nobody", 0, 60)
    for known in (of, late):
        with pytest.raises(NotResumable, match="may not be resumed any more") as caught:
            one.restored(known.session_id, 0, 60)
        assert caught.value.state is known.state
    assert len(one.run().recovered) == 2
    with pytest.raises(NotResumable, match="it has ended"):
        one.restored(of.session_id, 0, 60)
