"""Speech to text that can't keep up: seen by its backlog, before calls are taken that it would not hear in time.

A real worker with a slow engine has to fall behind for a second, so these take some.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSession
from agentos.core.communication.voice.errors import Overloaded
from agentos.core.communication.voice.models import VoiceEventType
from agentos.core.communication.voice.settings import load_settings

PATIENCE = 60
SLOW_FEED_SECONDS = 0.2  # of the scripted engine, for a feed of at most 25 frames


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_the_port_says_how_long_its_backlog_will_take(desk: Callable[..., Any], scripted: Path) -> None:
    (scripted / "slow").touch()
    async with desk() as a_desk:
        call, port = a_desk.call(), a_desk.port
        call.listen(STTProvider.GOOGLE)
        call.say(bytes(640 * 500))
        assert port.statistics().wait_seconds == 0
        await call.until(lambda: port.statistics().undecoded_frames > 0)
        await anyio.sleep(0.3)
        assert port.wait_seconds >= 0.3, "a worker that starts shows no pace, and what waits has waited so long"
        await call.until(lambda: call.room >= 100)
        seen = port.statistics()
        assert 0 < seen.undecoded_frames <= 400
        assert seen.wait_seconds >= seen.undecoded_frames / 25 * SLOW_FEED_SECONDS * 0.9
        assert port.wait_seconds > 0
        (scripted / "slow").unlink()
        await call.until(lambda: call.room == 500)
        assert (port.statistics().undecoded_frames, port.wait_seconds) == (0, 0)


async def create(service: AsyncVoiceService, engine: STTProvider = STTProvider.GOOGLE) -> VoiceSession:
    return await service.create_session("shop", VoiceProvider.LOCAL, engine)


async def fall_behind(service: AsyncVoiceService) -> VoiceSession:
    """A call with more audio than can be heard in the second that a stop has."""
    session = await create(service)
    await service.dispatch_audio_chunk(session.session_id, bytes(640 * 1000))
    await until(service, lambda wait: wait > 1)
    return session


async def until(service: AsyncVoiceService, enough: Callable[[float], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not enough(service.statistics().load.speech_wait_seconds):
            await anyio.sleep(0.05)


@pytest.mark.anyio
@pytest.mark.parametrize(("anyio_backend", "rule"), [("asyncio", "refuse"), ("trio", "fallback")])
async def test_a_call_that_would_not_be_heard_in_time_is_refused_as_overload(
    home: Path, scripted: Path, rule: str
) -> None:
    (scripted / "slow").touch()
    settings = load_settings(home=home, stop_timeout_seconds=1, stt_workers=1, on_stt_unavailable=rule)
    async with AsyncVoiceService(settings) as service:
        running = await fall_behind(service)
        with pytest.raises(Overloaded, match=r"speech to text has \d+\.\d s of work waiting") as caught:
            await create(service)
        assert caught.value.retry_after_seconds == 5
        with pytest.raises(Overloaded, match="speech to text"):
            service.check_room()
        if rule == "fallback":  # the embedded engine runs in the same workers
            with pytest.raises(Overloaded, match="speech to text"):
                await create(service, STTProvider.WHISPER)
        (scripted / "slow").unlink()
        await until(service, lambda wait: wait == 0)
        service.check_room()
        assert (await create(service)).stt_engine == "google"
        await service.stop_session(running.session_id)
        ended = await service.get_session(running.session_id)
        assert ended is not None
        assert ended.result is not None
        assert ended.result.frames.transcribed == 1000


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_call_that_may_do_without_transcript_is_taken_without_one(home: Path, scripted: Path) -> None:
    (scripted / "slow").touch()
    settings = load_settings(home=home, stop_timeout_seconds=1, stt_workers=1, on_stt_unavailable="record_only")
    async with AsyncVoiceService(settings) as service:
        await fall_behind(service)
        service.check_room()
        assert (await create(service, STTProvider.WHISPER)).stt_engine == "none"
        session = await create(service)
        assert (session.stt_provider, session.stt_engine) == (STTProvider.GOOGLE, "none")
        await service.stop_session(session.session_id)
        told = [event async for event in service.events(session.session_id)]
        (fallback,) = [event.payload for event in told if event.event_type is VoiceEventType.STT_FALLBACK]
        assert "speech to text has" in fallback["reason"]
