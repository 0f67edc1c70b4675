"""Refusals are in evidence, a flood of them in few records, and no secret is in any."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.gateway.access.refusals import ONE_BY_ONE, Refusal, Refusals, redacted
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from machines.evidence import EvidenceRecord, canonical_json

SECRET = "avt_" + "x" * 43


class Notes:
    """Takes records, or does not."""

    def __init__(self) -> None:
        self.taken: list[EvidenceRecord] = []
        self.down = False

    def __call__(self, record: EvidenceRecord) -> None:
        if self.down:
            raise StoreError("down", kind="locked")
        self.taken.append(record)

    @property
    def sums(self) -> list[dict[str, Any]]:
        return [record.request_summary for record in self.taken if record.operation == "access_refusals"]

    @property
    def refusals(self) -> int:
        return len(self.taken) - len(self.sums) + sum(int(one["refusals"]) for one in self.sums)


@pytest.fixture
def now() -> list[int]:
    return [0]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def refusals(notes: Notes, now: list[int]) -> Refusals:
    return Refusals(notes, clock=lambda: now[0])


def refusal(number: int = 0, **changes: str) -> Refusal:
    fields = {"reason": "unknown_token", "client": f"192.0.2.{number % 250}", "method": "GET", "route": "/v1/sessions"}
    return Refusal(**{**fields, **changes})


def test_a_refusal_has_a_record_that_says_what_was_refused_to_whom(refusals: Refusals, notes: Notes) -> None:
    refusals.add(refusal(7, who="tok-1", session_id="voice-1", detail="https://evil.example"))
    [record] = notes.taken
    assert (record.request_id, record.operation, record.status.value) == ("gateway", "access_refused", "denied")
    assert record.request_summary == {
        "reason": "unknown_token",
        "client": "192.0.2.7",
        "method": "GET",
        "route": "/v1/sessions",
        "who": "tok-1",
        "session_id": "voice-1",
        "detail": "https://evil.example",
    }
    assert {"audit_trace_id", "risk_tier"} <= record.metadata.keys()


def test_a_flood_makes_few_records_and_every_refusal_is_counted(
    refusals: Refusals, notes: Notes, now: list[int]
) -> None:
    for number in range(100_000):
        now[0] = number // 10  # ten seconds of it
        refusals.add(refusal(number, who=f"sha256:{number:08x}", reason=("no_token", "origin")[number % 2]))
    assert len(notes.taken) == ONE_BY_ONE
    refusals.write_sum()
    [summed] = notes.sums
    assert summed["refusals"] == 100_000 - ONE_BY_ONE
    assert sum(summed["reasons"].values()) == summed["refusals"]
    assert len(summed["clients"]) <= 21
    assert len(summed["tokens"]) <= 21
    assert len(canonical_json(notes.taken[-1])) < 3_000
    assert refusals.counts == {"no_token": 50_000, "origin": 50_000}


def test_a_sum_says_who_was_refused_how_often(refusals: Refusals, notes: Notes) -> None:
    for _ in range(ONE_BY_ONE):
        refusals.add(refusal())
    for client, who in ((1, "tok-1"), (2, "tok-1"), (2, "")):
        refusals.add(refusal(client, who=who))
    refusals.write_sum()
    [summed] = notes.sums
    assert summed["clients"] == {"192.0.2.1": 1, "192.0.2.2": 2}
    assert summed["tokens"] == {"tok-1": 2}


def test_each_minute_has_its_own_records_and_the_sum_of_the_one_before(
    refusals: Refusals, notes: Notes, now: list[int]
) -> None:
    for minute in range(3):
        now[0] = minute * 60_000
        for number in range(50):
            refusals.add(refusal(number))
    refusals.write_sum()
    assert len(notes.taken) == 3 * (ONE_BY_ONE + 1)
    assert notes.refusals == 150


def test_what_is_not_taken_is_summed_up_and_tried_again(refusals: Refusals, notes: Notes, now: list[int]) -> None:
    notes.down = True
    for number in range(30):
        refusals.add(refusal(number))
    refusals.write_sum()
    assert notes.taken == []
    notes.down = False
    refusals.write_sum()
    refusals.write_sum()
    assert [one["refusals"] for one in notes.sums] == [30]


def test_whatever_keeps_a_refusal_from_being_recorded_is_logged_and_the_refusal_counted(now: list[int]) -> None:
    notes, broken = Notes(), [True]

    def note(record: EvidenceRecord) -> None:
        if broken[0]:
            raise RuntimeError("a planted fault")
        notes(record)

    refusals = Refusals(note, clock=lambda: now[0])
    refusals.add(refusal())
    refusals.write_sum()
    broken[0] = False
    refusals.write_sum()
    assert [one["refusals"] for one in notes.sums] == [1]


@pytest.mark.trio
async def test_a_sum_is_written_at_the_end_of_its_minute_though_nothing_more_comes(
    notes: Notes, autojump_clock: trio.testing.MockClock
) -> None:
    refusals = Refusals(notes, clock=lambda: int(trio.current_time() * 1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refusals.run)
        for number in range(ONE_BY_ONE + 5):
            refusals.add(refusal(number))
        await trio.sleep(59)
        assert notes.sums == []
        await trio.sleep(2)
        assert [one["refusals"] for one in notes.sums] == [5]
        notes.down = True
        refusals.add(refusal())
        await trio.sleep(200)
        notes.down = False
        await trio.sleep(61)
        assert [one["refusals"] for one in notes.sums] == [5, 1]
        for number in range(ONE_BY_ONE + 3):
            refusals.add(refusal(number))
        nursery.cancel_scope.cancel()
    assert [one["refusals"] for one in notes.sums] == [5, 1, 3]


@pytest.mark.anyio
async def test_refusals_are_in_the_chain_of_the_service_durably(home: Path, anyio_backend: object) -> None:
    async with AsyncVoiceService(load_settings(home=home, control_socket="off")) as service:
        refusals = Refusals(service.note_evidence)
        async with anyio.create_task_group() as group:
            group.start_soon(refusals.run)
            for number in range(ONE_BY_ONE + 90):
                refusals.add(refusal(number))
            await checkpoint()
            group.cancel_scope.cancel()
    with open_to_read(home / "voice.db") as store:
        assert store.verify().ok
        found = store.evidence("gateway")
    assert [record.operation for record in found] == ["access_refused"] * ONE_BY_ONE + ["access_refusals"]
    assert found[-1].request_summary["refusals"] == 90


@pytest.mark.anyio
async def test_a_service_that_has_ended_takes_none_and_nobody_is_disturbed(home: Path, anyio_backend: object) -> None:
    async with AsyncVoiceService(load_settings(home=home, control_socket="off")) as service:
        refusals = Refusals(service.note_evidence)
    refusals.add(refusal())
    assert refusals.counts == {"unknown_token": 1}


def test_records_wait_while_the_store_is_down(home: Path) -> None:
    """The store's own port keeps what its writer could not store, until it is back."""

    def locked() -> Generator[None]:
        with open_store(home / "voice.db", busy_timeout_seconds=5.0) as other, other.transaction():
            yield

    async def refuse() -> None:
        settings = load_settings(home=home, control_socket="off", store_busy_timeout_seconds=0.01)
        async with AsyncVoiceService(settings) as service:
            holder = locked()
            next(holder)
            Refusals(service.note_evidence).add(refusal())
            while not service.statistics().store.failed:
                await trio.sleep(0.01)
            holder.close()
            Refusals(service.note_evidence).add(refusal(1))
            while service.statistics().store.stored < 2:
                await trio.sleep(0.01)

    trio.run(refuse)
    with open_to_read(home / "voice.db") as store:
        assert {record.request_summary["client"] for record in store.evidence("gateway")} == {"192.0.2.0", "192.0.2.1"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("/v1/sessions", "/v1/sessions"),
        (f"/v1/sessions/{SECRET}/events", "/v1/sessions/avt_…/events"),
        (f"https://{SECRET}.example", "https://avt_….example"),
        ("avs_" + "a" * 43, "avs_…"),
        ("a\x00b\nc\x1b[31m", "a?b?c?[31m"),
        ("\ud800é", "\\ud800\\xe9"),
        ("x" * 10_000, "x" * 200),
    ],
)
def test_what_a_client_sent_is_short_printable_and_without_a_secret(sent: str, kept: str) -> None:
    assert redacted(sent) == kept


def test_no_secret_is_in_a_record_wherever_it_was_sent(refusals: Refusals, notes: Notes) -> None:
    for _ in range(ONE_BY_ONE + 1):
        refusals.add(refusal(client=SECRET, method=SECRET, route=SECRET, who=SECRET, session_id=SECRET, detail=SECRET))
    refusals.write_sum()
    text = "".join(canonical_json(record) for record in notes.taken)
    assert "x" * 8 not in text
