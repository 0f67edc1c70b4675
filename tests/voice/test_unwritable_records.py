"""A record that can't be written is declared, and holds up nothing: neither later records, nor the stop, nor the spill file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceEventType,
    VoiceProvider,
    VoiceSessionState,
)
from agentos.core.communication.voice.models import EndReason
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
PATIENCE = 30
NEVER = 600.0  # seconds that the store is given, of which nobody waits one
MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


def refusing(monkeypatch: pytest.MonkeyPatch, refused: Callable[[Entry], bool]) -> None:
    """A store that can't write some entries."""
    sound = VoiceStore.append

    def append(store: VoiceStore, entries: Sequence[Entry], owner: str | None = None) -> None:
        for entry in entries:
            if refused(entry):
                raise BadEntry(entry.record.id, "not for this store")
        sound(store, entries, owner)

    monkeypatch.setattr(VoiceStore, "append", append)


def of_operation(operation: str) -> Callable[[Entry], bool]:
    """The records of this operation, unless they stand for one that was refused."""
    return lambda entry: (
        entry.record.operation == operation and "unwritable" not in (entry.record.response_summary or {})
    )


async def a_call(service: AsyncVoiceService, second: bytes, records: Records) -> tuple[str, list[Any]]:
    """A call of some seconds, to its end: its id, and what its listeners heard."""
    session = await service.create_session(
        "project", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True}
    )
    for seconds in range(1, 4):
        await service.dispatch_audio_chunk(session.session_id, second)
        with anyio.fail_after(PATIENCE):
            while not _accounts(records(session.session_id), seconds):
                await anyio.sleep(0.01)
    with anyio.fail_after(PATIENCE):
        assert await service.stop_session(session.session_id)
        heard = [event async for event in service.events(session.session_id)]
    return session.session_id, heard


def _accounts(records: list[dict[str, Any]], seconds: int) -> bool:
    """Whether so many accounts of audio are on record, or were refused."""
    operations = [record["response_summary"].get("refused_operation", record["operation"]) for record in records]
    return operations.count("audio_accounted") >= seconds


@pytest.mark.parametrize("operation", ["session_active", "audio_accounted", "session_stopping", "session_stopped"])
async def test_a_record_that_can_not_be_written_is_declared_and_holds_nothing_up(
    operation: str,
    make_settings: MakeSettings,
    records: Records,
    verified: Callable[[], int],
    home: Path,
    audio: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing(monkeypatch, of_operation(operation))
    settings = make_settings(account_seconds=1, evidence_timeout_seconds=NEVER)
    async with AsyncVoiceService(settings) as service:
        session_id, heard = await a_call(service, audio(16_000), records)
        ended = await service.get_session(session_id)
    assert ended is not None
    assert ended.state is VoiceSessionState.STOPPED
    assert ended.result is not None
    assert (ended.result.reason, ended.result.drained) == (EndReason.STOPPED, True)
    assert ended.result.frames.accepted == ended.result.frames.recorded == 150
    found = records(session_id)
    traces = [record["response_summary"] for record in found if "unwritable" in record["response_summary"]]
    assert traces
    for trace in traces:
        assert (trace["unwritable"], trace["refused_operation"]) == ("not for this store", operation)
    told = [event.payload for event in heard if event.event_type is VoiceEventType.ERROR]
    assert [(one["part"], one["operation"]) for one in told] == [("evidence", operation)] * len(traces)
    assert found[-1]["operation"] == "session_stopped"
    numbers = [record["metadata"]["number"] for record in found]
    assert numbers == sorted(set(numbers))
    assert verified() == len(records())
    assert list(home.glob("*.spill")) == []


async def test_a_record_that_nothing_can_stand_for_holds_nothing_up_either(
    make_settings: MakeSettings,
    records: Records,
    audio: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing(monkeypatch, lambda entry: entry.record.operation in {"session_stopping", "record_refused"})
    settings = make_settings(evidence_timeout_seconds=NEVER)
    async with AsyncVoiceService(settings) as service:
        session_id, heard = await a_call_without_accounts(service, audio(16_000))
    assert [record["operation"] for record in records(session_id)] == [
        "session_created",
        "session_active",
        "session_stopped",
    ]
    told = [event.payload for event in heard if event.event_type is VoiceEventType.ERROR]
    assert [one["operation"] for one in told] == ["session_stopping", "record_refused"]


async def a_call_without_accounts(service: AsyncVoiceService, audio: bytes) -> tuple[str, list[Any]]:
    """A call that is stopped right behind its audio."""
    session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
    await service.dispatch_audio_chunk(session.session_id, audio[:6400])
    with anyio.fail_after(PATIENCE):
        assert await service.stop_session(session.session_id)
        heard = [event async for event in service.events(session.session_id)]
    return session.session_id, heard


async def test_a_call_that_can_not_be_put_on_record_at_all_is_refused_at_once(
    make_settings: MakeSettings, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, of_operation("session_created"))
    async with AsyncVoiceService(make_settings(evidence_timeout_seconds=NEVER)) as service:
        with anyio.fail_after(PATIENCE), pytest.raises(ValueError, match="record"):
            await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
    assert records() == []
