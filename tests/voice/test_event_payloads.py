"""A call that tells an event of every type, each with the fields of its definition, and so has its result."""

import anyio
import anyio.abc
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceEvent,
    VoiceEventType,
    VoiceProvider,
)
from agentos.core.communication.voice.samples import SAMPLE
from machines.payloads import FRAMES, QUALITY, RECORDING, RESULT
from tests.voice.conftest import MakeSettings, Records
from tests.voice.extensions.test_parts import ShoutingPart
from tests.voice.payloads import fits, is_defined

PATIENCE = 60
LOUD = b"\xff\x7f" * 320


@pytest.mark.trio
async def test_a_call_tells_each_type_of_event_as_it_is_defined(make_settings: MakeSettings, records: Records) -> None:
    told: list[VoiceEvent] = []
    sound, _ = soundfile.read(SAMPLE, dtype="int16")
    async with AsyncVoiceService(make_settings(on_stt_unavailable="fallback"), parts=[ShoutingPart()]) as service:
        session = await service.create_session(
            "project", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True}
        )

        async def listen(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            events = service.events(session.session_id)
            told.append(await anext(events))
            task_status.started()  # what is told in passing is not missed from here on
            told.extend([event async for event in events])

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                await group.start(listen)
                await service.dispatch_audio_chunk(session.session_id, sound.tobytes() + LOUD)
                listing = service._runtime.resources().directory.listing(session.session_id)
                assert listing is not None
                listing.door.mismatched("too_much_audio", 2_000, 1_000)
                await service.stop_session(session.session_id)
    assert {event.event_type for event in told} == set(VoiceEventType)
    assert [event for event in told if not is_defined(event)] == []

    final = records(session.session_id)[-1]
    result = final["response_summary"]["result"]
    assert final["operation"] == "session_stopped"
    assert fits(result, RESULT)
    assert fits(result["frames"], FRAMES)
    assert fits(result["recording"], RECORDING)
    assert fits(result["quality"], QUALITY)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (VoiceEventType.SESSION_STOPPED, {}),
        (VoiceEventType.SESSION_STOPPED, {"reason": 1}),
        (VoiceEventType.SESSION_STOPPED, {"reason": "stopped", "more": 1}),
        (VoiceEventType.ERROR, {"part": "speech", "reason": "no_workers", "first_frame": 0}),
        (VoiceEventType.ERROR, {"part": "recorder", "error": "OSError"}),
    ],
)
def test_an_event_with_other_fields_is_noticed(kind: VoiceEventType, payload: dict[str, object]) -> None:
    event = VoiceEvent(event_id="evt-1", session_id="voice-1", event_type=kind, payload=payload, timestamp_ms=0)
    assert not is_defined(event)
