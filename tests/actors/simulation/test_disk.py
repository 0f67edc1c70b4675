"""The simulated disk keeps what was synced, and the journal on it is read back up to what a crash tore."""

import pytest
from msgspec.structs import replace

from actors.simulation.disk import FSYNC_LOST, TORN_WRITE, DiskFailed, SimulatedDisk
from actors.simulation.plan import Chance
from actors.voice import messages as m
from actors.voice_lab.journal import JOURNAL, Journal, Left, written
from actors.voice_lab.model import facts
from machines.communication import RequestStatus
from machines.ledger import Written
from machines.session import EndReason, FrameAccount, SessionResult, VoiceSessionState

RESULT = SessionResult(reason=EndReason.STOPPED, frames=FrameAccount())


class Clock:
    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def came() -> list[str]:
    return []


@pytest.fixture
def disk(clock: Clock, came: list[str]) -> SimulatedDisk:
    return SimulatedDisk(Chance(1, "disk"), clock, came.append)


def draft(number: int, operation: str, state: VoiceSessionState | None, session: int = 1) -> m.Draft:
    one = facts(session, recording=False, refused=False)
    result = RESULT if operation == "session_stopped" else None
    return m.Draft(one, number, operation, RequestStatus.SUCCESS, None, state, (), result)


def record(number: int, operation: str, session: int = 1) -> Written:
    states = {
        "session_created": VoiceSessionState.CREATED,
        "session_active": VoiceSessionState.ACTIVE,
        "session_stopping": VoiceSessionState.STOPPING,
        "session_stopped": VoiceSessionState.STOPPED,
    }
    return written(draft(number, operation, states.get(operation), session))


# --- the disk ------------------------------------------------------------------------------------------------------------


def test_what_was_synced_survives_a_crash_and_what_was_not_is_there_up_to_some_byte(disk: SimulatedDisk) -> None:
    kept = set()
    for name in map(str, range(60)):
        disk.write(name, b"synced", 0)
        disk.sync(name)
        disk.write(name, b" and not", 6)
        disk.crash()
        text = disk.read(name, 100, 0).decode()
        assert "synced and not".startswith(text)
        assert text.startswith("synced")
        kept.add(len(text))
    assert {6, 14} <= kept
    assert len(kept) > 4


def test_a_sync_that_lies_keeps_nothing_until_one_that_does_not(disk: SimulatedDisk, came: list[str]) -> None:
    disk.lies = 1
    disk.write("a", b"x" * 1000, 0)
    disk.sync("a")
    assert (disk.lied, came) == (True, [FSYNC_LOST])
    disk.sync("a")
    assert not disk.lied
    disk.crash()
    assert disk.size("a") == 1000


def test_a_full_disk_takes_only_what_has_its_room(disk: SimulatedDisk, clock: Clock) -> None:
    disk.full_until = 10
    with pytest.raises(DiskFailed, match="no space left"):
        disk.write("a", b"x", 0)
    disk.write("a", b"y", 0, allocated=True)
    clock.now_ms = 10
    disk.write("a", b"z", 1)
    assert disk.read("a", 5, 0) == b"yz"


def test_a_torn_write_writes_a_part_and_says_so(disk: SimulatedDisk, came: list[str]) -> None:
    disk.tears = True
    with pytest.raises(DiskFailed, match="reports an error"):
        disk.write("a", b"x" * 100, 0)
    assert disk.size("a") < 100
    assert came == [TORN_WRITE]
    disk.write("a", b"x" * 100, 0)
    assert disk.size("a") == 100


def test_a_disk_that_hangs_or_is_slow_takes_longer(disk: SimulatedDisk) -> None:
    assert disk.latency_ms() < 20
    disk.slow_until = 10
    assert disk.latency_ms() >= 200
    disk.hangs_until = 5000
    assert disk.latency_ms() >= 5000


# --- the journal ---------------------------------------------------------------------------------------------------------


def test_another_process_reads_what_one_wrote(disk: SimulatedDisk) -> None:
    journal = Journal(disk)
    journal.append([record(1, "session_created"), record(2, "session_active")])
    journal.append([record(2, "session_active"), record(3, "session_stopping")])
    again = Journal(disk)
    assert [row.id[-1] for row in again.rows] == ["1", "2", "3"]
    assert again.head == journal.head
    assert again.verify().ok
    assert [again.shown(row).operation for row in again.rows] == [
        "session_created",
        "session_active",
        "session_stopping",
    ]


def test_what_a_failed_write_left_is_no_record_and_is_written_over(disk: SimulatedDisk) -> None:
    journal = Journal(disk)
    journal.append([record(1, "session_created")])
    for number in range(2, 40):
        disk.tears = True
        with pytest.raises(DiskFailed):
            journal.append([record(number, "audio_accounted"), record(90, "audio_accounted")])
        assert len(Journal(disk).rows) in (number - 1, number)  # a whole frame may be there; nobody was told of it
        journal.append([record(number, "audio_accounted")])
        assert [row.id for row in Journal(disk).rows] == [row.id for row in journal.rows]
    assert journal.verify() == Journal(disk).verify()


def test_a_frame_that_is_whole_and_of_another_chain_ends_the_journal(disk: SimulatedDisk) -> None:
    Journal(disk).append([record(1, "session_created")])
    end = disk.size(JOURNAL)
    Journal(disk).append([record(2, "session_active")])
    stale = disk.read(JOURNAL, 10_000, end)
    journal = Journal(disk)
    journal.append([record(3, "session_stopping")])
    disk.write(JOURNAL, stale, disk.size(JOURNAL))
    assert len(Journal(disk).rows) == 3


def test_what_is_spilled_goes_in_before_anything_newer_and_once(disk: SimulatedDisk) -> None:
    disk.full_until = 10**9
    journal = Journal(disk)
    journal.spill([record(1, "session_created"), record(2, "session_stopping")])
    journal.spill([record(3, "session_stopped")])
    disk.full_until = 0
    again = Journal(disk)
    assert [one.id for one in again.spilled] == [one.id for one in journal.spilled]
    again.append([record(2, "session_stopping"), record(1, "session_created", session=2)])
    assert [row.request_id for row in again.rows] == ["voice-1"] * 3 + ["voice-2"]
    assert again.spilled == Journal(disk).spilled == []


def test_sessions_of_a_dead_process_are_ended_from_where_they_stood(disk: SimulatedDisk) -> None:
    journal = Journal(disk)
    journal.append(
        [
            record(1, "session_created", 1),
            record(1, "session_created", 2),
            record(2, "session_active", 2),
            record(1, "session_created", 3),
            record(2, "session_stopping", 3),
            record(1, "session_created", 4),
            record(2, "session_stopped", 4),
            record(1, "session_denied", 5),
            record(1, "session_created", 6),
        ]
    )
    again = Journal(disk)
    ends = again.ends_of_the_dead(living=["voice-6"])
    again.append(ends)
    told = [(row.request_id, again.shown(row).operation, again.shown(row).final) for row in again.rows[9:]]
    assert told == [
        ("voice-1", "session_stopping", False),
        ("voice-1", "session_stopped", True),
        ("voice-2", "session_stopping", False),
        ("voice-2", "session_stopped", True),
        ("voice-3", "session_stopped", True),
    ]
    assert all("recovered" in row.record for row in again.rows[9:])
    assert again.ends_of_the_dead(living=["voice-6"]) == []
    assert again.verify().ok


def test_what_is_left_of_a_session_is_what_its_records_say(disk: SimulatedDisk) -> None:
    journal = Journal(disk)
    account = (("upto_frame", 50), ("accounted", 40), ("bytes", 25_600), ("digest", "sha"), ("dropped", {"late": 10}))
    drafts = [
        draft(1, "session_created", VoiceSessionState.CREATED),
        replace(draft(2, "audio_accounted", VoiceSessionState.ACTIVE), detail=account),
    ]
    journal.append([written(one) for one in drafts])
    left = Journal(disk).left()
    assert [*left] == [drafts[0].facts.session_id]
    assert left[drafts[0].facts.session_id] == Left(
        drafts[0].facts.secret,
        VoiceSessionState.ACTIVE,
        3,
        False,
        m.Account(50, 40, 25_600, "sha", (("late", 10),)),
        drafts[0].record_id,
    )
    journal.append([written(replace(draft(3, "session_resumed", VoiceSessionState.ACTIVE), detail=account))])
    assert [one.owned_by for one in journal.left().values()] == [journal.rows[-1].id]
    journal.append([written(replace(draft(4, "session_stopped", VoiceSessionState.STOPPED), result=RESULT))])
    assert journal.left() == {}


def test_a_draft_is_the_record_that_its_id_names() -> None:
    one = draft(3, "audio_accounted", VoiceSessionState.ACTIVE)
    assert written(one).id == one.record_id
    final = replace(one, result=RESULT, operation="session_stopped")
    assert written(final).id == final.record_id
