"""The sounds and callers that the project ships for tests of its users."""

import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from agentos.core.communication.voice import AsyncVoiceService, AudioEncoding, AudioFormat, STTProvider
from agentos.core.communication.voice.errors import InvalidState
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.testing.callers import REAL_TIME, Caller, calling
from agentos.core.communication.voice.testing.network import VoiceServer, calling_over
from agentos.core.communication.voice.testing.sounds import SAMPLE_TEXT, Sound, sentence, silence, tone
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

MakeSettings = Callable[..., VoiceSettings]
MULAW = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)
STEREO = AudioFormat(sample_rate=48_000, channels=2)


class Silent(Caller):
    """Notes when it would have sent how much."""

    def __init__(self) -> None:
        super().__init__("voice-1", AudioFormat())
        self.sent: list[tuple[float, int]] = []

    async def hang_up(self) -> str:
        return "stopped"

    async def _send(self, data: bytes) -> None:
        self.sent.append((anyio.current_time(), len(data)))


@pytest.mark.parametrize("audio_format", [AudioFormat(), MULAW, STEREO], ids=str)
def test_a_sound_has_whole_frames_in_any_format(audio_format: AudioFormat) -> None:
    assert tone(0.1, audio_format).frames == silence(0.09, audio_format).frames == 5
    assert len(set(silence(0.09, audio_format).data)) == 1
    assert len(set(tone(0.1, audio_format).data)) > 10
    both = tone(0.1, audio_format) + silence(0.1, audio_format)
    assert (both.frames, both.format) == (10, audio_format)
    assert len(both.data) == 10 * audio_format.frame_bytes


def test_a_sound_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(tone(0.1).data)
    assert Sound.read(path) == tone(0.1)
    assert Sound.read(path, MULAW).frames == 5
    assert sentence().frames == 94


def test_sounds_of_different_formats_are_not_put_together() -> None:
    with pytest.raises(ValueError, match="can't be followed"):
        tone(0.1) + tone(0.1, MULAW)


@pytest.mark.anyio
async def test_a_caller_says_only_what_its_session_understands() -> None:
    caller = Silent()
    with pytest.raises(ValueError, match="the session has audio"):
        await caller.say(tone(0.1, MULAW))
    with pytest.raises(ValueError, match="pace"):
        await caller.say(tone(0.1), pace=0)
    assert caller.sent == []


@pytest.mark.parametrize("pace", [REAL_TIME, 2.0])
def test_in_real_time_each_frame_comes_when_it_would_have_been_spoken(pace: float) -> None:
    caller = Silent()

    async def main() -> None:
        assert await caller.say(tone(2), pace=pace) == range(100)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(caller.sent)]
    assert gaps == pytest.approx([0.02 / pace] * 99)
    assert {size for _, size in caller.sent} == {640}


@pytest.mark.anyio
async def test_a_caller_in_the_process_is_heard(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(stop_timeout_seconds=60)) as service:  # also on a busy machine
        async with calling(service, metadata={"recording_enabled": True}) as caller:
            assert await caller.say(sentence()) == range(94)
            assert await caller.say(silence(0.5)) == range(94, 119)
        session = await service.get_session(caller.session_id)
        assert session is not None
        assert session.result is not None
        assert session.result.transcript == SAMPLE_TEXT
        assert session.result.frames.recorded == caller.frames == 119
        with pytest.raises(InvalidState):
            await caller.say(silence(0.1))
        assert await caller.hang_up() == "stopped"


@pytest.mark.anyio
async def test_a_call_whose_block_fails_is_left_to_the_service(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(KeyError):
            async with calling(service, stt_provider=STTProvider.GOOGLE) as caller:
                raise KeyError
        found = await service.list_active_sessions()
        assert [session.session_id for session in found] == [caller.session_id]


@pytest.mark.anyio
async def test_a_caller_reaches_a_server_over_the_network(anyio_backend: Any, make_settings: MakeSettings) -> None:
    async with (
        AsyncVoiceService(make_settings()) as service,
        VoiceServer(service) as server,
        server.client() as client,
    ):
        calls = service.calls()
        with anyio.fail_after(60):
            async with calling_over(client, stt_provider="google", audio_format=MULAW) as caller:
                assert await caller.say(tone(1, MULAW)) == range(50)
                call = await anext(calls)
                assert call.session_id == caller.session_id
        ended = await call.wait_ended()
        assert ended.result is not None
        assert (ended.audio_format, ended.result.frames.accepted) == (MULAW, 50)
