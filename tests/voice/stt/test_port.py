"""Real workers, the real decoder, real speech."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actors.runtime.health import Beat, Heartbeat
from actors.voice.messages import Abandon, Finish, Finished, Hear, Heard, Listen, Partial, Unheard, Utterance
from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.resample import Resampler
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.stt.port import SpeechPort
from agentos.core.communication.voice.stt.registry import Engines
from machines.audio import AudioEncoding, AudioFormat
from machines.session import STTProvider
from tests.loops import ASYNCIO, TRIO, UVLOOP

SENTENCE = "go forward ten meters"
Speak = Callable[[str], bytes]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, TRIO])
async def test_a_call_is_transcribed_and_every_frame_is_accounted_for(desk: Any, speak: Speak) -> None:
    async with desk() as at:
        call = at.call()
        call.listen()
        call.say(speak(SENTENCE), frames_at_once=1)
        at.port.submit(Finish("voice-1"))
        await call.finished()

        assert call.text == SENTENCE
        (utterance,) = call.of(Utterance)
        assert [word.text for word in utterance.words] == SENTENCE.split()
        times = [time for word in utterance.words for time in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert 100 <= times[0] <= 400  # where flite begins to speak
        assert times[-1] <= call.handed_over * 20
        assert all(0 <= word.confidence <= 1 for word in utterance.words)
        assert call.of(Partial)
        assert isinstance(call.facts[-1], Finished)
        assert call.facts[-2].upto == sum(heard.frames for heard in call.of(Heard)) == call.handed_over
        assert len(call.of(Finished)) == 1
        assert call.unheard == {}
        assert call.room == call.handed_over
        statistics = at.port.statistics()
        assert (statistics.heard_frames, statistics.streams, statistics.workers) == (call.handed_over, 0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, TRIO])
async def test_a_heartbeat_is_answered_in_a_turn_of_the_port_and_not_before(desk: Any) -> None:
    async with desk() as at:
        call = at.call()
        at.port.submit(Heartbeat(3, "speech", call))
        assert call.facts == []
        await call.until(lambda: bool(call.facts))
        assert call.facts == [Beat(3, "speech")]


@pytest.mark.anyio
async def test_a_second_call_hears_the_same_in_the_engine_that_the_first_one_used(desk: Any, speak: Speak) -> None:
    async with desk() as at:
        heard = []
        for session in ("voice-1", "voice-2"):
            call = at.call(session)
            call.listen()
            call.say(speak(SENTENCE))
            at.port.submit(Finish(session))
            await call.finished()
            heard.append(call.of(Utterance))
        assert heard[0] == heard[1]
        assert at.port.statistics().workers_started == 1


@pytest.mark.anyio
async def test_two_calls_at_once_run_in_two_workers_and_do_not_mix(desk: Any, speak: Speak) -> None:
    sentences = {"voice-1": SENTENCE, "voice-2": "one two three four five six seven eight nine"}
    async with desk(workers=2) as at:
        for session in sentences:
            at.call(session).listen()
        spoken = {session: speak(text) for session, text in sentences.items()}
        for start in range(0, max(map(len, spoken.values())), 3200):
            for session, audio in spoken.items():
                if start < len(audio):
                    at.calls[session].say(audio[start : start + 3200])
        for session in sentences:
            at.port.submit(Finish(session))
        for session, text in sentences.items():
            await at.calls[session].finished()
            assert at.calls[session].text == text
        assert len(set(at.port.statistics().worker_pids)) == 2


@pytest.mark.anyio
async def test_telephone_audio_is_understood(desk: Any, speak: Speak) -> None:
    samples = np.frombuffer(speak(SENTENCE), "<i2").reshape(-1, 1)
    down = Resampler(16_000, 8_000)
    telephone = mulaw.encode(np.concatenate([down.process(samples), down.finish()])[:, 0])
    async with desk() as at:
        call = at.call()
        call.listen(audio_format=AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000))
        call.say(bytes(telephone))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.text == SENTENCE
        assert call.unheard == {}


@pytest.mark.anyio
async def test_a_hole_in_the_frame_numbers_does_not_shift_the_words(desk: Any, speak: Speak) -> None:
    silence = bytes(640 * 50)
    async with desk() as at:
        call = at.call()
        call.listen()
        call.say(silence)
        call.next += 100  # two seconds that never came
        call.say(speak(SENTENCE))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        (utterance,) = call.of(Utterance)
        assert utterance.text == SENTENCE
        assert 3_100 <= utterance.words[0].start_ms <= 3_500
        assert call.handed_over == at.port.statistics().heard_frames


@pytest.mark.anyio
async def test_a_long_call_is_cut_into_utterances_and_heard_as_it_goes(desk: Any, speak: Speak) -> None:
    async with desk() as at:
        call = at.call()
        call.listen()
        for _ in range(2):
            call.say(speak(SENTENCE) + bytes(32_000))
        await call.until(lambda: len(call.of(Utterance)) == 2 and call.of(Heard) != [])
        assert not call.of(Finished)
        assert [utterance.text for utterance in call.of(Utterance)] == [SENTENCE, SENTENCE]
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.of(Heard)[-1].upto == call.handed_over


@pytest.mark.anyio
async def test_an_abandoned_call_is_told_nothing_more(desk: Any, speak: Speak) -> None:
    async with desk() as at:
        gone, other = at.call(), at.call("voice-2")
        gone.listen()
        gone.say(speak(SENTENCE))
        await gone.until(lambda: gone.room > 0)
        at.port.submit(Abandon("voice-1"))
        at.port.submit(Finish("voice-1"))
        other.listen()
        other.say(speak(SENTENCE))
        at.port.submit(Finish("voice-2"))
        await other.finished()  # in the same worker, behind whatever was left of the first
        assert other.text == SENTENCE
        assert not gone.of(Utterance)
        assert not gone.of(Finished)
        assert gone.room == gone.handed_over
        assert at.port.statistics().streams == 0


@pytest.mark.anyio
async def test_a_call_without_audio_finishes_without_a_worker(desk: Any) -> None:
    async with desk() as at:
        call = at.call()
        call.listen()
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.facts == [Finished()]
        assert at.port.statistics().workers_started == 0


@pytest.mark.anyio
async def test_what_comes_late_twice_or_without_bytes_is_declared_or_ignored(desk: Any, scripted: object) -> None:
    async with desk() as at:
        call = at.call()
        call.listen(STTProvider.GOOGLE)
        call.say(bytes(640 * 10))
        at.port.submit(Hear("voice-1", 0, 5))  # again: its bytes were fetched before, so it is known
        at.port.submit(Hear("voice-1", 10, 4))  # no such bytes
        at.port.submit(Finish("voice-1"))
        call.next = 14
        call.say(bytes(640 * 3))
        await call.finished()
        assert call.unheard == {"missing": 4, "late": 3}
        assert call.room == call.handed_over
        at.port.submit(Finish("voice-1"))
        call.say(bytes(640))
        await call.until(lambda: at.port.statistics().stray_frames == 6)
        assert len(call.of(Finished)) == 1
        assert call.room == call.handed_over


@pytest.mark.anyio
async def test_a_second_listen_changes_where_the_facts_go_and_nothing_else(desk: Any, scripted: object) -> None:
    async with desk() as at:
        first, second = at.call(), at.call("restarted")
        first.listen(STTProvider.GOOGLE)
        first.say(bytes(640 * 10))
        await first.until(lambda: bool(first.of(Utterance)))
        at.port.submit(Listen("voice-1", STTProvider.GOOGLE, AudioFormat(), second))
        at.port.submit(Finish("voice-1"))
        await second.finished()
        assert not first.of(Finished)
        assert not second.of(Utterance)
        assert not second.of(Unheard)


def test_work_of_another_kind_is_refused() -> None:
    port = SpeechPort(
        take=lambda *_: b"",
        tell=lambda *_: None,
        post=lambda *_: None,
        room=lambda *_: None,
        engines=Engines(load_settings()),
        workers=1,
        start_timeout_seconds=1,
        hang_timeout_seconds=1,
        backlog_frames=1,
    )
    with pytest.raises(TypeError, match="Listen, Hear, Finish, Abandon and Heartbeat, not str"):
        port.submit("listen")  # type: ignore[arg-type]
