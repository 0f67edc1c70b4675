"""The media port: a thread that digests, measures and records; every frame is told of exactly once."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.runtime.health import Beat, Heartbeat, PortBack, PortSilent
from actors.voice.messages import CloseMedia, Hear, Keep, Kept, MediaClosed, MediaLost, MediaSilent, OpenMedia
from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.meter import measure
from agentos.core.communication.voice.recording import recordings, segments
from agentos.core.communication.voice.recording.batch import Batch
from agentos.core.communication.voice.recording.packing import finished_steps
from agentos.core.communication.voice.recording.port import MediaPort
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.recording.steps import taken
from machines.audio import AudioEncoding, AudioFormat
from machines.recording import RecordingInfo, RecordingState

MONO = AudioFormat()
WAIT_SECONDS = 20.0


def noise(frames: int, seed: int = 0, audio_format: AudioFormat = MONO) -> bytes:
    count = frames * audio_format.frame_samples * audio_format.channels
    return np.random.default_rng(seed).integers(-9_000, 9_000, count).astype("<i2").tobytes()


class Desk:
    """The port with the two sides it talks to: bytes by session and frame, facts by session in the order told."""

    def __init__(self, recordings: Path, **options: Any) -> None:
        self.audio: dict[str, tuple[AudioFormat, bytes]] = {}
        self.facts: dict[str, list[Any]] = {}
        self.told: Queue[tuple[str, object]] = Queue()
        self.room: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.port = MediaPort(
            **{
                "take": self.take,
                "post": lambda to, fact: self.told.put((to, fact)),
                "room": self.give_room,
                "end": lambda session_id: self.ends.get(session_id, 0),
                "recordings": recordings,
                "kind": "flac",
                "segment_seconds": 1,
                "backlog_frames": 1500,
                "pace_ms": 5,
                **options,
            }
        )

    def take(self, session_id: str, first: int, count: int) -> bytes:
        audio_format, data = self.audio[session_id]
        return data[first * audio_format.frame_bytes : (first + count) * audio_format.frame_bytes]

    def give_room(self, session_id: str, frames: int) -> None:
        self.room[session_id] = self.room.get(session_id, 0) + frames

    def open(self, session: str, data: bytes, *, recording: bool = True, audio_format: AudioFormat = MONO) -> None:
        self.audio[session] = (audio_format, data)
        self.port.submit(OpenMedia(session, audio_format, recording, session))

    def keep(self, session: str, first: int, count: int) -> None:
        self.port.submit(Keep(session, first, count))

    def close(self, session: str) -> None:
        self.port.submit(CloseMedia(session))

    def until(self, session: str, kind: type) -> Any:
        """The first fact of `kind` told to `session`, waited for."""
        while True:
            for fact in self.facts.get(session, []):
                if isinstance(fact, kind):
                    return fact
            to, fact = self.told.get(timeout=WAIT_SECONDS)
            self.facts.setdefault(to, []).append(fact)

    def told_to(self, session: str) -> list[Any]:
        while True:
            try:
                to, fact = self.told.get_nowait()
            except Empty:
                return self.facts.get(session, [])
            self.facts.setdefault(to, []).append(fact)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.port.start()
    yield desk
    assert desk.port.close(WAIT_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(WAIT_SECONDS * 200)):
        if condition():
            return
        time.sleep(0.005)  # the port has no event for this; it is polled with a bound
    pytest.fail("the condition did not come true")


def recover(folder: Path) -> RecordingInfo | None:
    return taken(finished_steps(folder, "flac"), lambda: True)


def recorded(closed: MediaClosed) -> bytes:
    """What the recording is once it is packed, which is what was said of it when it was closed."""
    assert closed.recording is not None
    assert recover(Path(closed.recording.path).parent) == replace(closed.recording, state=RecordingState.READY)
    data, _ = soundfile.read(closed.recording.path, dtype="int16", always_2d=True)
    return bytes(data.astype("<i2").tobytes())


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "left to the port's end"])
def test_what_never_came_at_the_end_of_a_call_is_a_gap_in_its_recording(tmp_path: Path, closes: bool) -> None:
    """A pause that was declared last, and last frames whose bytes were gone."""
    desk, said = Desk(tmp_path), noise(20)
    desk.port.start()
    desk.open("paused", said)
    desk.open("lost", said[: 15 * 640])
    desk.open("silent", b"")
    desk.ends = {"paused": 90, "silent": 90}
    for session in ("paused", "lost", "silent"):
        desk.keep(session, 0, 15)
        desk.keep(session, 15, 5)
        if closes:
            desk.close(session)
    if not closes:
        assert desk.port.close(WAIT_SECONDS)
    paused, lost = desk.until("paused", MediaClosed), desk.until("lost", MediaClosed)
    assert recorded(paused) == said + bytes(70 * 640)
    assert paused.recording.gaps == ((20 * 320, 70 * 320),)
    assert recorded(lost) == said[: 15 * 640] + bytes(5 * 640)
    assert lost.recording.gaps == ((15 * 320, 5 * 320),)
    assert desk.until("silent", MediaClosed).recording is None, "nothing came at all"
    assert desk.port.close(WAIT_SECONDS)


def test_what_is_kept_is_digested_measured_and_recorded(desk: Desk) -> None:
    data = noise(125)[:-100]
    desk.open("s", data)
    for first in range(0, 125, 5):
        desk.keep("s", first, 5)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    kept = [fact for fact in desk.facts["s"] if isinstance(fact, Kept)]
    assert recorded(closed) == data
    assert closed.recording.samples == len(data) // 2
    assert closed.digest == kept[-1].digest == hashlib.sha256(data).hexdigest()
    assert sum(fact.frames for fact in kept) == 125
    assert (kept[-1].kept, kept[-1].n_bytes) == (125, len(data))
    assert [fact.upto for fact in kept] == sorted(fact.upto for fact in kept)
    assert kept[-1].upto == 125
    assert isinstance(desk.facts["s"][-1], MediaClosed)
    until(lambda: desk.room.get("s") == 125)


def test_without_recording_nothing_is_written(desk: Desk, tmp_path: Path) -> None:
    data = noise(12)
    desk.open("s", data, recording=False)
    desk.keep("s", 0, 12)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    assert closed == MediaClosed(None, hashlib.sha256(data).hexdigest())
    assert desk.facts["s"][0].frames == 12
    assert list(tmp_path.iterdir()) == []


def test_a_session_without_a_frame_just_closes(desk: Desk, tmp_path: Path) -> None:
    desk.open("s", b"")
    desk.close("s")
    assert desk.until("s", MediaClosed) == MediaClosed(None, hashlib.sha256(b"").hexdigest())
    assert len(desk.facts["s"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_levels_are_those_of_the_meter(desk: Desk) -> None:
    stereo = AudioFormat(channels=2, sample_rate=8_000)
    telephone = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)
    loud = np.full(3_200, 32_767, "<i2").tobytes()
    codes = b"\x80" * 480 + b"\xff" * 320
    sessions = {
        "loud": (MONO, loud + bytes(640 * 3) + noise(4, 1)[:-2]),
        "stereo": (stereo, noise(9, 2, stereo)),
        "telephone": (telephone, codes),
    }
    for session, (audio_format, data) in sessions.items():
        desk.open(session, data, recording=False, audio_format=audio_format)
        desk.keep(session, 0, -(-len(data) // audio_format.frame_bytes))
        desk.close(session)
    for session, (audio_format, data) in sessions.items():
        desk.until(session, MediaClosed)
        (kept,) = [fact for fact in desk.facts[session] if isinstance(fact, Kept)]
        plain = audio_format.encoding is AudioEncoding.PCM_S16LE
        samples = (np.frombuffer(data, "<i2") if plain else mulaw.decode(data)).reshape(-1, audio_format.channels)
        level = measure(samples, audio_format.frame_samples, full_scale=32_767 if plain else mulaw.FULL_SCALE)
        assert kept.mean_square == pytest.approx(level.mean_square, rel=1e-6)
        assert (kept.peak, kept.clipped, kept.silent) == (level.peak, level.clipped_frames, level.silent_frames)
        assert kept.frames == level.frames
    assert desk.facts["loud"][0].clipped == 10
    assert desk.facts["loud"][0].silent == 3
    assert (desk.facts["telephone"][0].clipped, desk.facts["telephone"][0].silent) == (3, 2)


def test_frames_with_voice_are_looked_for_where_that_is_asked_for(desk: Desk) -> None:
    rng = np.random.default_rng(1)
    quiet, loud = (rng.normal(0, level, 25 * 320).astype("<i2").tobytes() for level in (10, 3000))
    for session, voices in ("asked", True), ("not asked", False):
        desk.audio[session] = (MONO, quiet + loud)
        desk.port.submit(OpenMedia(session, MONO, False, session, voices=voices))
        desk.keep(session, 0, 25)
        assert desk.until(session, Kept).voiced == 0
        desk.keep(session, 25, 25)
        desk.close(session)
        desk.until(session, MediaClosed)
        told = [fact.voiced for fact in desk.told_to(session) if isinstance(fact, Kept)]
        assert sum(told) == (25 if voices else 0)


def test_a_voice_that_the_disk_refuses_is_found_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, piece: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    rng = np.random.default_rng(1)
    quiet, loud = (rng.normal(0, level, 25 * 320).astype("<i2").tobytes() for level in (10, 3000))
    desk = Desk(tmp_path)
    desk.port.start()
    desk.audio["s"] = (MONO, quiet + loud)
    desk.port.submit(OpenMedia("s", MONO, True, "s", voices=True))
    desk.keep("s", 0, 50)
    kept = desk.until("s", Kept)
    assert (kept.frames, kept.voiced) == (0, 25)
    desk.close("s")
    desk.until("s", MediaClosed)
    assert desk.port.close(WAIT_SECONDS)


def test_reports_come_at_most_once_in_so_many_frames(tmp_path: Path) -> None:
    desk = Desk(tmp_path, report_every_frames=10)
    desk.port.start()
    desk.open("s", noise(100), recording=False)
    for frame in range(95):
        desk.keep("s", frame, 1)
    desk.close("s")
    desk.until("s", MediaClosed)
    kept = desk.facts["s"][:-1]
    assert all(fact.frames >= 10 for fact in kept[:-1])
    assert sum(fact.frames for fact in kept) == 95
    assert desk.port.close(WAIT_SECONDS)


def test_frames_that_nothing_comes_behind_are_told_all_the_same(desk: Desk) -> None:
    desk.open("s", noise(10))
    desk.keep("s", 0, 3)
    assert desk.until("s", Kept).upto == 3  # fewer than make a report, and neither more nor the end has come


class Held:
    """Keeps the port's thread from its next batch until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._free = Event()
        self._free.set()
        deal = MediaPort._deal_with_queue

        def dealt(port: MediaPort) -> int:
            assert self._free.wait(WAIT_SECONDS)
            return deal(port)

        monkeypatch.setattr(MediaPort, "_deal_with_queue", dealt)

    def hold(self) -> None:
        self._free.clear()

    def go_on(self) -> None:
        self._free.set()


def open_live(desk: Desk, data: bytes) -> None:
    """A recorded session `s` that can't be slowed."""
    desk.audio["s"] = (MONO, data)
    desk.port.submit(OpenMedia("s", MONO, True, "s", can_be_slowed=False))


def lost(desk: Desk) -> list[tuple[int, int, str]]:
    return [(fact.first, fact.count, fact.reason) for fact in desk.facts["s"] if isinstance(fact, MediaLost)]


def test_while_the_thread_is_held_up_the_oldest_of_a_session_that_cannot_be_slowed_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    desk = Desk(tmp_path, backlog_frames=20)
    data = noise(100)
    desk.port.start()
    open_live(desk, data)
    desk.keep("s", 0, 10)
    until(lambda: desk.room.get("s") == 10)
    held.hold()
    for first in range(10, 70, 5):
        desk.keep("s", first, 5)
    assert desk.port.statistics().given_up_frames == 60 - 20
    assert desk.port.statistics().queued_frames == 60
    held.go_on()
    desk.keep("s", 70, 30)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    told = lost(desk)
    assert {reason for _, _, reason in told} == {"backlog"}
    assert told[0][0] == 10
    gone = {number for first, count, _ in told for number in range(first, first + count)}
    heard = b"".join(bytes(640) if at in gone else data[at * 640 : (at + 1) * 640] for at in range(100))
    assert recorded(closed) == heard, "silence stands where the oldest was, and what follows is in its place"
    assert closed.recording.gaps == tuple((first * 320, count * 320) for first, count, _ in told)
    assert sum(fact.frames for fact in desk.facts["s"] if isinstance(fact, Kept)) == 100 - len(gone)
    until(lambda: desk.room.get("s") == 100)
    assert desk.port.statistics().queued_frames == 0
    assert desk.port.close(WAIT_SECONDS)


def test_a_run_of_drops_is_one_declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    held.hold()
    desk = Desk(tmp_path, backlog_frames=10)
    desk.port.start()
    open_live(desk, noise(500))
    for first in range(500):
        desk.keep("s", first, 1)
    held.go_on()
    desk.close("s")
    desk.until("s", MediaClosed)
    assert len(lost(desk)) <= 2  # the thread may have taken one batch before it was held
    assert lost(desk)[-1][0] + lost(desk)[-1][1] == 490
    assert desk.port.close(WAIT_SECONDS)


def test_a_session_that_can_be_slowed_is_never_dropped_by_the_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    held.hold()
    desk = Desk(tmp_path, backlog_frames=10)
    desk.port.start()
    data = noise(100)
    desk.open("s", data)
    desk.keep("s", 0, 100)
    held.go_on()
    desk.close("s")
    assert recorded(desk.until("s", MediaClosed)) == data
    assert desk.port.close(WAIT_SECONDS)


@given(
    keep=st.integers(1, 30),
    runs=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from(["bytes", "bytes", "bytes", "gone", "hole"])), max_size=25
    ),
)
def test_of_what_waits_every_frame_has_its_bytes_or_a_reason_and_no_more_than_the_bound_have_bytes(
    keep: int, runs: list[tuple[int, str]]
) -> None:
    batch = Batch([])
    data = bytes(at % 251 for at in range(400) for _ in range(640))
    first = given_up = 0
    reasons: dict[int, str] = {}
    for count, kind in runs:
        if kind != "hole":
            there = data[first * 640 : (first + count) * 640] if kind == "bytes" else None
            batch.keep(Keep("s", first, count), there, "" if kind == "bytes" else "missing")
            reasons |= dict.fromkeys(range(first, first + count), "" if kind == "bytes" else "missing")
            given_up += batch.give_up_oldest("s", keep)
        first += count
    head = batch.runs.get("s")
    waiting = [] if head is None else [head, *(head.more or ())]
    found: dict[int, str] = {}
    with_bytes = 0
    for run in waiting:
        found |= dict.fromkeys(range(run.first, run.first + run.frames), run.reason)
        if run.parts is not None:
            assert b"".join(run.parts) == data[run.first * 640 : (run.first + run.frames) * 640]
            with_bytes += run.frames
    assert list(found) == list(reasons), "in order, and none twice"
    assert with_bytes == min(keep, sum(reason == "" for reason in reasons.values()))
    dropped = [number for number, reason in found.items() if reason == "backlog"]
    assert len(dropped) == given_up
    assert dropped == [number for number, reason in reasons.items() if reason == ""][:given_up], "the oldest"
    assert len(waiting) <= 2 * sum(kind != "bytes" for _, kind in runs) + 2


def test_a_hole_in_the_numbers_is_a_gap_in_the_recording(desk: Desk) -> None:
    data = noise(30)
    desk.open("s", data)
    desk.keep("s", 0, 5)
    desk.keep("s", 12, 18)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    assert closed.recording.gaps == ((5 * 320, 7 * 320),)
    assert recorded(closed) == data[: 5 * 640] + bytes(7 * 640) + data[12 * 640 :]
    assert closed.digest == hashlib.sha256(data[: 5 * 640] + data[12 * 640 :]).hexdigest()
    assert desk.facts["s"][0].frames == 23


def test_frames_that_come_twice_count_once(desk: Desk) -> None:
    data = noise(10)
    desk.open("s", data)
    desk.keep("s", 0, 5)
    desk.keep("s", 0, 5)
    desk.keep("s", 3, 7)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    assert recorded(closed) == data
    assert sum(fact.frames for fact in desk.facts["s"][:-1]) == 10
    assert desk.port.statistics().stray_frames == 7


def test_frames_of_a_session_that_isnt_open_are_counted_and_ignored(desk: Desk, tmp_path: Path) -> None:
    desk.audio["ghost"] = (MONO, noise(3))
    desk.keep("ghost", 0, 3)
    desk.close("ghost")
    desk.open("s", noise(1))
    desk.close("s")
    desk.until("s", MediaClosed)
    desk.keep("s", 0, 1)
    until(lambda: desk.port.statistics().stray_frames == 4)
    assert desk.told_to("ghost") == []
    assert len(desk.told_to("s")) == 1
    assert list(tmp_path.iterdir()) == []


def test_frames_whose_bytes_are_gone_are_told_as_lost(tmp_path: Path) -> None:
    data = noise(10)

    def take(session_id: str, first: int, count: int) -> bytes:
        if first == 4:
            raise KeyError(first)
        return data[first * 640 : (first + count) * 640]

    desk = Desk(tmp_path, take=take)
    desk.port.start()
    desk.open("s", data)
    for first, count in [(0, 4), (4, 2), (6, 4)]:
        desk.keep("s", first, count)
    desk.close("s")
    closed = desk.until("s", MediaClosed)
    assert [fact for fact in desk.facts["s"] if isinstance(fact, MediaLost)] == [MediaLost(4, 2, "missing")]
    assert sum(fact.frames for fact in desk.facts["s"] if isinstance(fact, Kept)) == 8
    assert closed.recording.gaps == ((4 * 320, 2 * 320),)
    assert desk.port.close(WAIT_SECONDS)


def test_opening_again_only_changes_where_facts_go(desk: Desk) -> None:
    desk.open("s", noise(20))
    desk.keep("s", 0, 3)
    desk.port.submit(OpenMedia("s", MONO, True, "heir"))
    desk.keep("s", 3, 17)
    desk.close("s")
    closed = desk.until("heir", MediaClosed)
    assert recorded(closed) == noise(20)
    assert closed.digest == hashlib.sha256(noise(20)).hexdigest()


def test_the_end_of_a_session_doesnt_wait_for_the_pace(tmp_path: Path) -> None:
    desk = Desk(tmp_path, pace_ms=3_600_000)
    desk.port.start()
    desk.open("a", noise(1))
    desk.keep("a", 0, 1)
    until(lambda: desk.room.get("a") == 1)  # from now on it would wait an hour for more
    desk.close("a")
    assert recorded(desk.until("a", MediaClosed)) == noise(1)
    desk.open("b", noise(1))
    desk.keep("b", 0, 1)
    assert desk.port.close(WAIT_SECONDS)
    assert recorded(desk.until("b", MediaClosed)) == noise(1)


def test_many_sessions_at_once_dont_mix(desk: Desk) -> None:
    data = {f"s{i}": noise(60 + i, seed=i) for i in range(40)}
    for session, audio in data.items():
        desk.open(session, audio)
    for first in range(0, 100, 7):
        for session, audio in data.items():
            count = min(7, len(audio) // 640 - first)
            if count > 0:
                desk.keep(session, first, count)
    for session in data:
        desk.close(session)
    for session, audio in data.items():
        closed = desk.until(session, MediaClosed)
        assert recorded(closed) == audio
        assert closed.digest == hashlib.sha256(audio).hexdigest()
        assert sum(fact.frames for fact in desk.facts[session][:-1]) == len(audio) // 640
    statistics = desk.port.statistics()
    assert (statistics.sessions, statistics.queued_frames, statistics.errors) == (0, 0, 0)
    assert statistics.frames == sum(len(audio) // 640 for audio in data.values())
    assert statistics.batches >= 1


def test_many_recorded_calls_need_few_open_files_also_when_all_fill_a_segment_at_once(tmp_path: Path) -> None:
    script = f"""
import resource, threading
from pathlib import Path
from actors.voice.messages import CloseMedia, Keep, MediaClosed, OpenMedia
from agentos.core.communication.voice.recording.port import MediaPort
from machines.audio import AudioFormat

ended, lost, over = [], [], threading.Event()
def post(to, fact):
    if isinstance(fact, MediaClosed):
        ended.append(fact.recording.samples)
        if len(ended) == 200:
            over.set()
    elif type(fact).__name__ == "MediaLost":
        lost.append(fact)
port = MediaPort(
    take=lambda session_id, first, count: bytes(640 * count), post=post, room=lambda *_: None,
    end=lambda _: 0,
    recordings=Path({str(tmp_path)!r}), kind="flac", segment_seconds=1, backlog_frames=1500, pace_ms=5,
)
port.start()
import soundfile  # what is imported later opens files of its own
resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for number in range(200):
    port.submit(OpenMedia(str(number), AudioFormat(), True, number))
for first in range(0, 70, 10):
    for number in range(200):
        port.submit(Keep(str(number), first, 10))
for number in range(200):
    port.submit(CloseMedia(str(number)))
assert over.wait(60)
assert port.close(60)
assert (lost, set(ended)) == ([], {{70 * 320}}), (len(lost), set(ended))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_closing_the_port_ends_what_is_open_and_the_thread(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.open("s", noise(130))
    desk.keep("s", 0, 130)
    desk.port.start()
    assert desk.port.close(WAIT_SECONDS)
    assert recorded(desk.until("s", MediaClosed)) == noise(130)
    assert desk.port.close(0.0)


def test_a_close_without_time_leaves_segments_that_can_be_recovered(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.open("s", noise(5 * 60 * 50))
    desk.keep("s", 0, 5 * 60 * 50)
    desk.port.start()
    until(lambda: desk.room.get("s") == 5 * 60 * 50)
    assert not desk.port.close(0.0)
    desk.port._thread.join(WAIT_SECONDS)
    assert not desk.port._thread.is_alive()
    info = recover(tmp_path / "s")
    assert info is not None
    assert info.samples == 5 * 60 * 16_000


def test_a_port_that_never_started_closes_at_once(tmp_path: Path) -> None:
    assert Desk(tmp_path).port.close(0.0)


def test_a_callback_that_raises_is_counted_and_harms_no_other_session(tmp_path: Path) -> None:
    told: Queue[object] = Queue()

    def post(to: str, fact: object) -> None:
        if to == "bad":
            raise RuntimeError("the loop is gone")
        told.put(fact)

    desk = Desk(tmp_path, post=post)
    desk.port.start()
    for session in ("bad", "good"):
        desk.open(session, noise(10), recording=False)
        desk.keep(session, 0, 10)
        desk.close(session)
    assert desk.port.close(WAIT_SECONDS)
    assert isinstance(told.get(timeout=WAIT_SECONDS), Kept)
    assert isinstance(told.get(timeout=WAIT_SECONDS), MediaClosed)
    assert desk.port.statistics().errors == 2


def test_bad_settings_and_foreign_work_are_refused(tmp_path: Path, desk: Desk) -> None:
    with pytest.raises(ValueError, match="segment_seconds"):
        Desk(tmp_path, segment_seconds=0)
    with pytest.raises(ValueError, match="kind"):
        Desk(tmp_path, kind="mp3")
    with pytest.raises(TypeError, match="not Hear"):
        desk.port.submit(Hear("s", 0, 1))  # type: ignore[arg-type]


# --- a disk that hangs -------------------------------------------------------------------------------------------------


def silences(desk: Desk, session: str) -> int:
    return sum(isinstance(fact, MediaSilent) for fact in desk.told_to(session))


def test_a_heartbeat_is_answered_behind_the_work_and_not_while_the_disk_hangs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, sound = Event(), Event()
    write = RecordingWriter.write

    def hang(writer: RecordingWriter, *arguments: Any) -> None:
        hanging.set()
        assert sound.wait(WAIT_SECONDS)
        write(writer, *arguments)

    desk.port.submit(Heartbeat(1, "media", "watch"))
    assert desk.until("watch", Beat) == Beat(1, "media")
    monkeypatch.setattr(RecordingWriter, "write", hang)
    desk.open("s", noise(25))
    desk.keep("s", 0, 25)
    assert hanging.wait(WAIT_SECONDS)
    desk.port.submit(Heartbeat(2, "media", "watch"))
    assert not sound.wait(0.1)  # time in which a thread that is free would have answered
    assert desk.told_to("watch") == [Beat(1, "media")]
    sound.set()
    until(lambda: len(desk.told_to("watch")) == 2)
    assert desk.told_to("watch")[-1] == Beat(2, "media")
    assert desk.until("s", Kept).frames == 25


def test_recorders_are_told_of_the_silence_then_and_when_they_close_but_not_behind_their_end(desk: Desk) -> None:
    desk.open("ended", b"")
    desk.close("ended")
    desk.until("ended", MediaClosed)
    desk.open("s", noise(1))
    desk.port.take_news(PortSilent("media"))
    assert (silences(desk, "s"), silences(desk, "ended")) == (1, 0)
    desk.close("s")
    assert silences(desk, "s") == 2
    desk.open("t", noise(1))
    desk.port.take_news(PortBack("media"))
    desk.close("t")
    desk.until("t", MediaClosed)
    assert silences(desk, "t") == 0


# --- a disk that refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EIO, "write_failed")])
def test_what_the_disk_refuses_is_lost_never_also_kept_and_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    desk = Desk(tmp_path)
    desk.port.start()
    data = noise(90)
    desk.open("s", data)
    desk.open("other", data, recording=False)
    desk.keep("s", 0, 30)
    until(lambda: desk.room.get("s") == 30)

    def refuse(descriptor: int, piece: bytes, offset: int) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        desk.keep("s", 30, 20)
        desk.keep("other", 0, 90)
        until(lambda: desk.room.get("s") == 50 and desk.room.get("other") == 90)
    desk.keep("s", 50, 40)
    desk.close("s")
    desk.close("other")
    closed = desk.until("s", MediaClosed)
    assert [fact for fact in desk.facts["s"] if isinstance(fact, MediaLost)] == [MediaLost(30, 20, reason)]
    kept = [fact for fact in desk.facts["s"] if isinstance(fact, Kept)]
    assert sum(fact.frames for fact in kept) == 70
    assert kept[-1].upto == 90
    assert closed.digest == hashlib.sha256(data[: 30 * 640] + data[50 * 640 :]).hexdigest()
    assert recorded(closed) == data[: 30 * 640] + bytes(20 * 640) + data[50 * 640 :]
    assert closed.recording.gaps == ((30 * 320, 20 * 320),)
    assert desk.until("other", MediaClosed).digest == hashlib.sha256(data).hexdigest()
    assert desk.port.statistics().errors == 1
    assert desk.port.close(WAIT_SECONDS)


def test_a_recording_that_cant_be_closed_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    desk.port.start()
    desk.open("s", noise(120))
    desk.keep("s", 0, 120)
    until(lambda: desk.room.get("s") == 120)
    until(lambda: (tmp_path / "s" / "000001.flac").exists() and not (tmp_path / "s" / "000001.wav").exists())

    def full(descriptor: int, piece: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        desk.close("s")
        closed = desk.until("s", MediaClosed)
    assert closed.recording is not None
    assert (closed.recording.samples, closed.recording.segments) == (120 * 320, 3)
    assert closed.recording.digest == closed.digest
    assert recorded(closed) == noise(120)
    assert desk.port.close(WAIT_SECONDS)


def test_a_call_that_ends_while_its_segments_wait_to_be_sealed_waits_for_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that came faster than they could be encoded end at once, and at the same time."""
    encoded: list[Path] = []

    def encode_steps(source: Path, plain: segments.Plain) -> Iterator[None]:
        encoded.append(source)
        while True:  # it never comes to an end
            yield

    monkeypatch.setattr(recordings, "encode_steps", encode_steps)
    desk = Desk(tmp_path)
    desk.port.start()
    for session in ("s", "t"):
        desk.open(session, noise(600))
        desk.keep(session, 0, 600)
    for session in ("s", "t"):
        desk.close(session)
    ends = [desk.until(session, MediaClosed) for session in ("s", "t")]
    assert len(encoded) <= 2  # the one that was under way, of each at the most
    monkeypatch.undo()
    assert [recorded(end) for end in ends] == [noise(600)] * 2
    assert desk.port.close(WAIT_SECONDS)


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 4), st.integers(1, 6), st.booleans()), max_size=30
    ),
    recording=st.booleans(),
)
def test_every_frame_is_told_of_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, bool]], recording: bool
) -> None:
    """Runs with holes between them, some with their bytes gone: kept + lost = handed over."""
    gone: set[tuple[str, int]] = set()
    desk = Desk(tmp_path_factory.mktemp("m"), pace_ms=0)
    real_take = desk.take

    def take(session_id: str, first: int, count: int) -> bytes:
        if (session_id, first) in gone:
            raise KeyError(first)
        return real_take(session_id, first, count)

    desk.port._take = take
    data = noise(400)
    for session in ("a", "b"):
        desk.open(session, data, recording=recording)
    desk.port.start()
    at = {"a": 0, "b": 0}
    expected = {"a": b"", "b": b""}
    lost = {"a": 0, "b": 0}
    for session, hole, count, missing in steps:
        first = at[session] + hole
        at[session] = first + count
        if missing:
            gone.add((session, first))
            lost[session] += count
        else:
            expected[session] += data[first * 640 : (first + count) * 640]
        desk.keep(session, first, count)
    for session in ("a", "b"):
        desk.close(session)
    for session in ("a", "b"):
        closed = desk.until(session, MediaClosed)
        facts = desk.facts[session]
        assert sum(fact.frames for fact in facts if isinstance(fact, Kept)) == len(expected[session]) // 640
        assert sum(fact.count for fact in facts if isinstance(fact, MediaLost)) == lost[session]
        assert closed.digest == hashlib.sha256(expected[session]).hexdigest()
        if at[session]:
            assert [fact for fact in facts if isinstance(fact, Kept)][-1].upto == at[session]
    assert desk.port.close(WAIT_SECONDS)
