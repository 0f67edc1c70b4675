"""Workers that die, hang, fail or are too slow: the loss is declared to the frame, and the call goes on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.runtime.health import Heartbeat, PortBack, PortSilent
from actors.voice.messages import Abandon, Finish, Finished, SpeechSilent, Unheard, Utterance
from agentos.core.communication.voice.stt import port as port_module
from agentos.core.communication.voice.stt.port import SpeechPort
from agentos.core.time import monotonic_ms
from machines.restart import Intensity
from machines.session import STTProvider

SENTENCE = "go forward ten meters"
SILENCE = bytes(640 * 40)


def frames(seconds: float) -> bytes:
    return bytes(int(seconds * 50) * 640)


class Beats:
    """Where the signs of life go."""

    def __init__(self) -> None:
        self.facts: list[object] = []

    def told(self, fact: object) -> None:
        self.facts.append(fact)


def accounted(at: Any) -> int:
    statistics = at.port.statistics()
    return int(statistics.heard_frames + sum(count for _, count in statistics.unheard_frames))


@pytest.mark.anyio
async def test_a_killed_worker_is_replaced_and_only_what_it_had_is_lost(
    desk: Any, speak: Callable[[str], bytes]
) -> None:
    async with desk() as at:
        call = at.call()
        call.listen()
        call.say(speak(SENTENCE)[: 640 * 60])  # in the middle of the sentence
        await call.until(lambda: call.room == 60)
        (pid,) = at.port.statistics().worker_pids
        os.kill(pid, signal.SIGKILL)
        call.say(SILENCE)
        call.say(speak(SENTENCE))
        at.port.submit(Finish("voice-1"))
        await call.finished()

        assert "forward ten meters" in call.text
        (lost,) = call.unheard.items()
        assert lost[0] == "worker_died"
        # All of the broken sentence; what came afterwards may have been on its way to the dead worker.
        assert 45 <= lost[1] <= 60 + 50
        assert accounted(at) == call.handed_over == call.room
        assert len(call.of(Finished)) == 1
        statistics = at.port.statistics()
        assert (statistics.workers_started, statistics.workers_died, statistics.workers_hung) == (2, 1, 0)


@pytest.mark.anyio
async def test_a_pause_that_ends_between_a_turn_and_its_wait_is_noticed(
    desk: Any, scripted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    take_turn = SpeechPort._turn

    def turn_then_sleep(port: SpeechPort, now: float) -> None:
        nonlocal slept
        take_turn(port, now)
        if port.statistics().workers_died and port.statistics().workers == 0:
            slept += 60  # as a process does that is not given the processor

    monkeypatch.setattr(port_module, "_now", lambda: monotonic_ms() / 1000 + slept)
    monkeypatch.setattr(SpeechPort, "_turn", turn_then_sleep)
    async with desk() as at:
        call = at.call()
        call.listen(STTProvider.GOOGLE)
        call.say(frames(0.5))
        await call.until(lambda: call.room == 25)
        (pid,) = at.port.statistics().worker_pids
        os.kill(pid, signal.SIGKILL)
        call.say(frames(2))  # more than is sent ahead: some of it still waits when the worker's end is seen
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert slept


@pytest.mark.anyio
async def test_a_worker_that_hangs_with_nothing_to_do_is_replaced_before_there_is_work(
    desk: Any, scripted: Path
) -> None:
    async with desk(hang_timeout_seconds=60, silent_after_seconds=2) as at:
        call = at.call()
        call.listen(STTProvider.GOOGLE)
        call.say(frames(0.5))
        await call.until(lambda: call.room == 25)
        (pid,) = at.port.statistics().worker_pids
        beats = Beats()
        at.port.submit(Heartbeat(1, "speech", beats))
        await call.until(lambda: bool(beats.facts))
        assert at.port.statistics().worker_pids == (pid,), "one that lives says so"
        os.kill(pid, signal.SIGSTOP)
        at.port.submit(Heartbeat(2, "speech", beats))
        await call.until(lambda: at.port.statistics().workers_hung == 1)
        call.say(frames(0.5))
        at.port.submit(Finish("voice-1"))
        await call.finished()

        assert set(call.unheard) <= {"worker_hung"}, "what it had taken and not told"
        assert accounted(at) == call.handed_over == call.room
        assert not _exists(pid)


@pytest.mark.anyio
async def test_a_worker_that_hangs_is_killed_and_replaced(desk: Any, scripted: Path) -> None:
    async with desk(hang_timeout_seconds=4) as at:
        call = at.call()
        call.listen(STTProvider.GOOGLE)
        call.say(frames(0.5))
        await call.until(lambda: call.room == 25)
        (pid,) = at.port.statistics().worker_pids
        os.kill(pid, signal.SIGSTOP)
        call.say(frames(0.5))
        await call.until(lambda: bool(call.of(Unheard)))
        call.say(frames(1))
        at.port.submit(Finish("voice-1"))
        await call.finished()

        assert call.unheard == {"worker_hung": 5 + 25}  # 5 frames had been taken, but not told
        assert accounted(at) == call.handed_over == call.room
        statistics = at.port.statistics()
        assert (statistics.workers_died, statistics.workers_hung) == (0, 1)
        assert not _exists(pid)


@pytest.mark.anyio
async def test_a_session_that_ends_need_not_wait_for_a_worker_that_is_silent(desk: Any, scripted: Path) -> None:
    async with desk(silent_after_seconds=0.5) as at:
        call, other = at.call("voice-1"), at.call("voice-2")
        for one in (call, other):
            one.listen(STTProvider.GOOGLE)
            one.say(frames(0.5))
            await one.until(lambda one=one: one.room == 25)
        (pid,) = at.port.statistics().worker_pids
        os.kill(pid, signal.SIGSTOP)
        try:
            call.say(frames(0.5))
            other.say(frames(0.5))
            at.port.submit(Finish("voice-1"))
            await call.until(lambda: bool(call.of(SpeechSilent)))
            at.port.submit(Abandon("voice-1"))  # as its transcriber does
        finally:
            os.kill(pid, signal.SIGCONT)
        await other.until(lambda: other.room == 50)  # the worker had its own time, which was not over
        at.port.submit(Finish("voice-2"))
        await other.finished()
        assert call.of(SpeechSilent) == [SpeechSilent("worker_silent")]
        assert not other.of(SpeechSilent)
        assert other.unheard == {}
        assert at.port.statistics().workers_hung == 0


@pytest.mark.anyio
async def test_a_worker_without_work_may_be_silent(desk: Any, scripted: Path) -> None:
    async with desk(hang_timeout_seconds=0.2) as at:
        call, other = at.call(), at.call("voice-2-wait")
        call.listen(STTProvider.GOOGLE)
        call.say(frames(0.5))
        await call.until(lambda: call.room == 25)
        pids = at.port.statistics().worker_pids
        with pytest.raises(TimeoutError):
            await _within(1.5, other)
        assert at.port.statistics().worker_pids == pids
        assert at.port.statistics().workers_hung == 0


async def _within(seconds: float, call: Any) -> None:
    with anyio.fail_after(seconds):
        await call.until(lambda: False)


@pytest.mark.anyio
async def test_the_oldest_is_given_up_when_the_engine_cannot_keep_up(desk: Any, scripted: Path) -> None:
    async with desk(backlog_frames=100) as at:
        call = at.call("voice-wait")
        call.listen(STTProvider.GOOGLE)
        call.say(frames(1))
        await call.until(lambda: at.port.statistics().frames_under_way == 50)
        call.say(frames(10))
        await call.until(lambda: at.port.statistics().queued_frames <= 100 and call.of(Unheard) != [])
        assert call.of(Unheard)[0].first == 50  # the oldest that no worker has
        (scripted / "go").touch()
        call.say(frames(0.2))
        at.port.submit(Finish("voice-wait"))
        await call.finished()
        assert set(call.unheard) == {"backlog"}
        assert call.unheard["backlog"] >= 400
        assert accounted(at) == call.handed_over == call.room
        # The times of what was heard are those of the call, not of what the engine got.
        assert call.of(Utterance)[-1].end_ms == call.handed_over * 20


@pytest.mark.anyio
async def test_while_no_turn_is_taken_the_oldest_bytes_of_a_call_go_and_are_declared_later(
    desk: Any, scripted: Path
) -> None:
    async with desk(backlog_frames=100) as at:
        call = at.call()
        call.listen(STTProvider.GOOGLE)
        at.port.take_news(PortSilent("speech"))
        call.say(frames(10))  # nobody else gets a turn meanwhile
        call.say(frames(0.1))
        at.port.take_news(PortBack("speech"))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.unheard == {"backlog": 505 - 100}
        assert call.of(Unheard)[0].first == 0
        assert accounted(at) == call.handed_over == call.room


@pytest.mark.anyio
async def test_an_engine_that_raises_breaks_its_own_call_only(desk: Any, scripted: Path) -> None:
    async with desk(intensity=Intensity(1, 60)) as at:
        bad, good = at.call("voice-raise"), at.call("voice-good")
        bad.listen(STTProvider.GOOGLE)
        good.listen(STTProvider.GOOGLE)
        good.say(frames(0.4))
        bad.say(frames(1))
        await bad.until(lambda: bool(bad.of(Unheard)))
        bad.say(frames(2))
        at.port.submit(Finish("voice-raise"))
        await bad.finished()
        good.say(frames(0.4))
        at.port.submit(Finish("voice-good"))
        await good.finished()

        assert bad.unheard == {"engine_failed": bad.handed_over}
        assert bad.room == bad.handed_over
        assert good.unheard == {}
        assert good.text == "200 200 200 200"
        assert at.port.statistics().workers_started == 1


@pytest.mark.anyio
async def test_an_engine_that_keeps_crashing_its_worker_is_left_alone_for_a_while(desk: Any, scripted: Path) -> None:
    async with desk(intensity=Intensity(1, 60)) as at:
        call = at.call("voice-abort")
        call.listen(STTProvider.GOOGLE)
        for _ in range(2):
            told = len(call.of(Unheard))
            call.say(frames(0.2))
            await call.until(lambda told=told: len(call.of(Unheard)) > told)
        assert call.unheard == {"worker_died": 20}
        call.say(frames(2))
        await call.until(lambda: call.unheard.get("engine_failed", 0) >= 50)
        at.port.submit(Finish("voice-abort"))
        await call.finished()
        assert call.unheard == {"worker_died": 20, "engine_failed": 100}
        assert accounted(at) == call.handed_over == call.room
        assert at.port.statistics().workers_started == 2


@pytest.mark.anyio
async def test_an_engine_that_failed_is_tried_again_after_its_window(desk: Any, scripted: Path) -> None:
    async with desk(intensity=Intensity(0, 0.5)) as at:
        bad, good = at.call("voice-abort"), at.call("voice-good")
        bad.listen(STTProvider.GOOGLE)
        bad.say(frames(0.2))
        await bad.until(lambda: bool(bad.of(Unheard)))
        at.port.submit(Finish("voice-abort"))
        await bad.finished()
        good.listen(STTProvider.GOOGLE)
        good.say(frames(0.2))
        await good.until(lambda: bool(good.of(Utterance)))
        assert good.unheard == {}
        assert at.port.statistics().workers_started == 2


@pytest.mark.anyio
@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python"])
async def test_a_call_ends_when_no_worker_can_be_started(desk: Any, executable: str) -> None:
    async with desk(executable=executable, intensity=Intensity(1, 60)) as at:
        call = at.call()
        call.listen()
        call.say(frames(1))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.facts == [Unheard(0, 50, "engine_failed"), Finished()]
        assert call.room == call.handed_over


@pytest.mark.anyio
async def test_without_workers_all_is_declared(desk: Any) -> None:
    async with desk(workers=0) as at:
        call = at.call()
        call.listen()
        call.say(frames(1))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.facts == [Unheard(0, 50, "no_workers"), Finished()]


@pytest.mark.anyio
async def test_an_engine_that_is_not_installed_is_declared(desk: Any) -> None:
    async with desk(intensity=Intensity(0, 60)) as at:
        call = at.call()
        call.listen(STTProvider.AZURE)
        call.say(frames(1))
        at.port.submit(Finish("voice-1"))
        await call.finished()
        assert call.unheard == {"engine_failed": 50}


@pytest.mark.anyio
async def test_an_engine_may_write_to_standard_output(desk: Any, scripted: Path) -> None:
    async with desk() as at:
        call = at.call("voice-print")
        call.listen(STTProvider.GOOGLE)
        call.say(frames(1))
        at.port.submit(Finish("voice-print"))
        await call.finished()
        assert call.text == "200 200 200 200 200"
        assert call.unheard == {}


@pytest.mark.anyio
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_cancelled_it_leaves_no_process(desk: Any, scripted: Path, stopped: bool) -> None:
    async with desk(workers=2) as at:
        for session in ("voice-1", "voice-2-wait"):
            call = at.call(session)
            call.listen(STTProvider.GOOGLE)
            call.say(frames(1))
        await at.calls["voice-1"].until(lambda: at.calls["voice-1"].room == 50)
        await call.until(lambda: len(at.port.statistics().worker_pids) == 2)
        pids = at.port.statistics().worker_pids
        if stopped:
            os.kill(pids[0], signal.SIGSTOP)
    for pid in pids:
        assert not _exists(pid)  # nor as a zombie
    with pytest.raises(RuntimeError, match="has run already"):
        await at.port.run()


@pytest.mark.anyio
async def test_cancelled_while_a_worker_starts_it_leaves_no_process(desk: Any) -> None:
    before = _children()
    async with desk(workers=1) as at:
        call = at.call()
        call.listen()
        await call.until(lambda: at.port.statistics().workers == 1)
    assert _children() == before


@pytest.mark.anyio
async def test_more_calls_than_places_wait_their_turn(desk: Any, scripted: Path) -> None:
    async with desk(streams_per_worker=1) as at:
        first, second = at.call(), at.call("voice-2")
        for call in (first, second):
            call.listen(STTProvider.GOOGLE)
            call.say(frames(0.2))
        await first.until(lambda: bool(first.of(Utterance)))
        assert second.facts == []
        at.port.submit(Finish("voice-1"))
        await second.until(lambda: bool(second.of(Utterance)))
        assert at.port.statistics().workers_started == 1


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")  # a child belongs to the thread that made it
    return {child for task in tasks for child in task.read_text().split()}
