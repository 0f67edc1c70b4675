"""Recordings: exact to the bit, placed by media time, whole after a crash at any step."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.flac import stream_info
from agentos.core.communication.voice.open_files import next_descriptor
from agentos.core.communication.voice.recording import segments
from agentos.core.communication.voice.recording.left_segments import closed_steps
from agentos.core.communication.voice.recording.packing import finished_steps
from agentos.core.communication.voice.recording.recordings import RecordingError, RecordingWriter
from agentos.core.communication.voice.recording.segments import LiveSegment, OpenSegments, RecordingDamaged, sounding
from agentos.core.communication.voice.recording.steps import taken
from machines.audio import AudioEncoding, AudioFormat
from machines.recording import RecordingInfo, RecordingState

MONO = AudioFormat()
FRAME = 320
RATE = 8_200
Kind = Literal["flac", "wav"]


def noise(frames: int, audio_format: AudioFormat = MONO, seed: int = 0) -> bytes:
    count = frames * audio_format.frame_samples * audio_format.channels
    return np.random.default_rng(seed).integers(-9_000, 9_000, count).astype("<i2").tobytes()


def samples_of(path: str | Path) -> bytes:
    data, _ = soundfile.read(path, dtype="int16", always_2d=True)
    return bytes(data.astype("<i2").tobytes())


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def recover(folder: Path, kind: Kind = "flac") -> RecordingInfo | None:
    return taken(finished_steps(folder, kind), lambda: True)


def closed(writer: RecordingWriter, upto_frame: int = 0) -> RecordingInfo:
    """What is said of the recording when it is closed, held against what its one file holds."""
    info = writer.close(upto_frame)
    assert info is not None
    assert info.state is RecordingState.FINISHING
    folder = Path(info.path).parent
    assert recover(folder) == replace(info, state=RecordingState.READY)
    assert names(folder) == {Path(info.path).name, "recording.json"}
    sound = np.frombuffer(samples_of(info.path), "<i2").reshape(info.samples, info.channels)
    heard = np.ones(info.samples, bool)
    for first, count in info.gaps:
        heard[first : first + count] = False
    assert hashlib.sha256(sound[heard].tobytes()).hexdigest() == info.digest
    return info


@pytest.fixture(params=["flac", "wav"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [7, 50, 175])
def test_the_recording_holds_the_samples_bit_for_bit(tmp_path: Path, kind: Kind, channels: int, frames: int) -> None:
    audio_format = AudioFormat(channels=channels)
    writer = RecordingWriter(tmp_path / "s", audio_format, kind=kind, segment_seconds=1)
    data = noise(frames, audio_format)
    for first in range(0, frames, 7):
        writer.write(first, data[first * audio_format.frame_bytes : (first + 7) * audio_format.frame_bytes])
    info = closed(writer)
    assert samples_of(info.path) == data
    assert (info.samples, info.segments, info.gaps) == (frames * FRAME, -(-frames // 50), ())
    assert info.seconds == frames * 0.02
    assert (info.sample_rate, info.channels) == (16_000, channels)
    assert names(tmp_path / "s") == {f"recording.{kind}", "recording.json"}
    assert info.path == str(tmp_path / "s" / f"recording.{kind}")


def test_one_write_may_span_many_segments(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    data = noise(333)
    writer.write(0, data)
    assert {"000000." + kind, "000005." + kind, "000006.wav"} <= names(tmp_path)
    assert samples_of(closed(writer).path) == data


@pytest.mark.parametrize("channels", [1, 2])
def test_a_segment_whose_last_block_is_too_short_to_stand_inside_a_file(tmp_path: Path, channels: int) -> None:
    """A second has RATE % 4096 samples behind its whole blocks; FLAC wants sixteen of all blocks but the last."""
    audio_format = AudioFormat(sample_rate=RATE, channels=channels)
    writer = RecordingWriter(tmp_path, audio_format, kind="flac", segment_seconds=1)
    data = noise(120, audio_format)
    writer.write(0, data)
    assert samples_of(closed(writer).path) == data
    info, _ = stream_info((tmp_path / "recording.flac").read_bytes())
    assert info.smallest_block >= 16


@pytest.mark.parametrize(("frames", "smallest", "largest"), [(5, 1600, 1600), (20, 4096, 4096), (120, 3712, 4096)])
def test_a_packed_file_says_how_long_its_blocks_are_but_for_the_last_one(
    tmp_path: Path, frames: int, smallest: int, largest: int
) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(frames))
    writer.close()
    info = recover(tmp_path)
    assert info is not None
    said, _ = stream_info(Path(info.path).read_bytes())
    assert (said.smallest_block, said.largest_block) == (smallest, largest)


def test_mu_law_is_recorded_as_the_samples_it_stands_for(tmp_path: Path) -> None:
    audio_format = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)
    codes = bytes(range(256)) * 5
    writer = RecordingWriter(tmp_path, audio_format, kind="flac", segment_seconds=10)
    writer.write(0, codes)
    info = closed(writer)
    assert (info.sample_rate, info.samples) == (8_000, 1_280)
    assert samples_of(info.path) == mulaw.decode(codes).astype("<i2").tobytes()


def test_a_hole_becomes_silence_of_the_right_length_and_is_listed(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    data = noise(10)
    writer.write(3, data)
    writer.write(200, data)
    info = closed(writer)
    assert info.gaps == ((0, 3 * FRAME), (13 * FRAME, 187 * FRAME))
    assert samples_of(info.path) == bytes(3 * 640) + data + bytes(187 * 640) + data


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("frames", "pause"), [(50, 3), (7, 175), (120, 1), (13, 400)])
def test_a_pause_at_the_end_is_silence_of_the_right_length_and_a_gap(
    tmp_path: Path, kind: Kind, channels: int, frames: int, pause: int
) -> None:
    """Behind a full segment, a short one, and one whose last block is too short to stand inside a FLAC file."""
    audio_format = AudioFormat(sample_rate=RATE, channels=channels)
    writer = RecordingWriter(tmp_path, audio_format, kind=kind, segment_seconds=1)
    data = noise(frames, audio_format)
    writer.write(0, data)
    info = closed(writer, frames + pause)
    a_frame = audio_format.frame_samples
    assert info.gaps == ((frames * a_frame, pause * a_frame),)
    assert (info.samples, info.seconds) == ((frames + pause) * a_frame, (frames + pause) / 50)
    assert samples_of(info.path) == data + bytes(pause * audio_format.frame_bytes)
    if kind == "flac" and shutil.which("flac"):
        subprocess.run(["flac", "--silent", "--test", info.path], check=True)


def test_a_pause_at_the_end_begins_behind_a_short_frame_and_goes_on_with_a_gap(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path / "short", MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(2)[:1_000])
    assert closed(writer, 2).gaps == (), "the last frame of a call may be short"
    writer = RecordingWriter(tmp_path / "pause", MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(2)[:1_000])
    info = closed(writer, 5)
    assert (info.samples, info.gaps) == (5 * FRAME, ((500, 5 * FRAME - 500),))
    writer = RecordingWriter(tmp_path / "behind", MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(2))
    assert closed(writer, 1).samples == 2 * FRAME


def test_a_pause_of_hours_at_the_end_costs_a_closing_nothing(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="wav", segment_seconds=1, defer_sealing=True)
    writer.write(0, noise(10))
    assert len(list(writer.close_steps(50 * 7_200))) == 1
    assert names(tmp_path) == {"000000.wav", "recording.json"}
    assert (writer.info.seconds, writer.info.gaps) == (7_200, ((10 * FRAME, (50 * 7_200 - 10) * FRAME),))


def test_what_was_said_of_a_recording_that_could_not_be_closed_is_what_it_becomes(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    writer.write(3, noise(70))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(RecordingError):
        patched.setattr(os, "fsync", full)
        writer.close(200)
    said = writer.info
    assert said.samples == 200 * FRAME
    found = taken(finished_steps(tmp_path, kind, said), lambda: True)
    assert found is not None
    assert (found.samples, found.gaps, found.digest) == (said.samples, said.gaps, said.digest)
    assert samples_of(found.path) == bytes(3 * 640) + noise(70) + bytes(127 * 640)


@pytest.mark.parametrize("other", [{"samples": 9 * FRAME}, {"gaps": ((0, FRAME),)}, {"digest": "0"}])
def test_a_recording_that_is_not_what_was_said_of_it_is_damaged(tmp_path: Path, other: dict[str, Any]) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(5))
    said = writer.close(8)
    assert said is not None
    with pytest.raises(RecordingDamaged):
        taken(finished_steps(tmp_path, "flac", replace(said, **other)), lambda: True)
    assert names(tmp_path) == {"000000.wav", "recording.json"}


def test_a_very_long_hole_takes_little_memory(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="wav", segment_seconds=60)
    tracemalloc.start()
    writer.write(50 * 1_800, noise(1))
    writer.close()
    info = recover(tmp_path, "wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info is not None
    assert info.samples == 1_800 * 16_000 + FRAME
    assert peak < 4_000_000  # half an hour is 57 MB


def test_memory_doesnt_grow_with_the_call(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=30)
    data = noise(50)
    tracemalloc.start()
    for second in range(240):
        writer.write(second * 50, data)
    writer.close()
    recover(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # the call is 7.7 MB


def test_the_last_run_may_be_short_and_silence_fills_up_its_frame_when_another_follows(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=30)
    data = noise(2)
    writer.write(0, data[:1_000])
    assert writer.next_frame == 2
    writer.write(2, data)
    info = closed(writer)
    assert info.gaps == ((500, 140),)
    assert samples_of(info.path) == data[:1_000] + bytes(280) + data


def test_a_frame_that_is_written_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=30)
    writer.write(0, noise(5))
    for first in (0, 4):
        with pytest.raises(ValueError, match=f"frame {first} is already written; the next one is 5"):
            writer.write(first, noise(3))
    with pytest.raises(ValueError, match="whole number of samples"):
        writer.write(5, b"\0")
    info = closed(writer)
    assert samples_of(info.path) == noise(5)
    with pytest.raises(ValueError, match="closed"):
        writer.write(5, noise(1))


def test_no_file_is_open_between_two_writes(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    for first in (0, 10, 60, 75):
        writer.write(first, noise(10))
        open_files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]  # noqa: PTH115
        assert not [name for name in open_files if name.startswith(str(tmp_path))]
    assert closed(writer).samples == 85 * FRAME


def test_a_folder_that_is_gone_is_told_and_not_written_to_unseen(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "s", MONO, kind="flac", segment_seconds=60)
    writer.write(0, noise(10))
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    with pytest.raises(RecordingError) as caught:
        writer.write(10, noise(10))
    assert (caught.value.errno, writer.next_frame) == (errno.ENOENT, 10)


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "s", MONO, kind="flac", segment_seconds=30)
    writer.write(3, b"")
    assert writer.close() is None
    assert not (tmp_path / "s").exists()


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    for seconds in (0, 200_000):
        with pytest.raises(ValueError, match="segment_seconds"):
            RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=seconds)
    with pytest.raises(ValueError, match="kind"):
        RecordingWriter(tmp_path, MONO, kind="mp3", segment_seconds=1)  # type: ignore[arg-type]


def test_only_the_owner_can_read_it(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "s"
    writer = RecordingWriter(folder, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(120))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    closed(writer)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_folder_with_a_recording_is_not_overwritten(tmp_path: Path) -> None:
    first = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    first.write(0, noise(60))
    info = closed(first)
    with pytest.raises(RecordingError) as caught:
        RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1).write(0, noise(1))
    assert caught.value.errno == errno.EEXIST
    assert samples_of(info.path) == noise(60)


@settings(deadline=None, max_examples=30)
@given(
    runs=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 70)), min_size=1, max_size=8),
    kind=st.sampled_from(["flac", "wav"]),
    last_bytes=st.integers(1, 320).map(lambda n: 2 * n),
)
def test_any_runs_and_holes(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]], kind: Kind, last_bytes: int
) -> None:
    writer = RecordingWriter(tmp_path_factory.mktemp("r"), MONO, kind=kind, segment_seconds=1)
    expected, gaps, at = b"", [], 0
    for number, (hole, frames) in enumerate(runs):
        data = noise(frames, seed=number)
        if number == len(runs) - 1:
            data = data[: (frames - 1) * 640 + last_bytes]
        if hole:
            gaps.append((at * FRAME, hole * FRAME))
        expected += bytes(hole * 640) + data
        writer.write(at + hole, data)
        at += hole + frames
    info = closed(writer)
    assert samples_of(info.path) == expected
    assert info.gaps == tuple(gaps)
    assert info.samples == len(expected) // 2


def test_deferred_segments_are_sealed_in_steps_or_at_the_end(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    data = noise(230)
    writer.write(0, data[: 120 * 640])
    assert writer.has_unsealed
    assert names(tmp_path) == {"000000.wav", "000001.wav", "000002.wav"}
    for _ in writer.seal_steps():
        pass
    assert not writer.has_unsealed
    assert names(tmp_path) == {f"000000.{kind}", f"000001.{kind}", "000002.wav", "recording.json"}
    writer.write(120, data[120 * 640 : 160 * 640])
    steps = writer.seal_steps()
    next(steps)  # while one is being sealed, the next is written
    writer.write(160, data[160 * 640 :])
    for _ in steps:
        pass
    info = closed(writer)
    assert (info.segments, info.gaps) == (5, ())
    assert samples_of(info.path) == data


def test_closing_encodes_nothing_and_touches_no_sealed_segment(tmp_path: Path, kind: Kind) -> None:
    """What a call's end costs must not depend on its length."""
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    writer.write(0, noise(170))
    for _ in writer.seal_steps():
        pass
    writer.write(170, noise(100))
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(list(writer.close_steps())) == 3  # of six segments those that are not sealed
    after = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    sealed = {f"00000{number}.{kind}" for number in range(3)}
    assert before.keys() == after.keys() == sealed | {f"00000{number}.wav" for number in (3, 4, 5)} | {"recording.json"}
    assert {name: before[name] for name in sealed} == {name: after[name] for name in sealed}
    assert recover(tmp_path) == replace(writer.info, state=RecordingState.READY)


# --- crashes ---------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process was killed before it could write more."""


def test_a_gap_is_known_wherever_the_process_died(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [0]

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Died
            return work(*arguments)

        return step

    monkeypatch.setattr(segments, "write_all", dying(segments.write_all))
    monkeypatch.setattr(segments.LiveSegment, "extend", dying(segments.LiveSegment.extend))
    said = noise(20) + bytes(130 * 640) + noise(20, seed=1) + bytes(10 * 640) + noise(5, seed=2)
    silence = ((20 * FRAME, 130 * FRAME), (170 * FRAME, 10 * FRAME))
    lengths = set()
    for steps in range(200):
        folder, left[0] = tmp_path / str(steps), steps
        writer = RecordingWriter(folder, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
        with suppress(Died):
            for first, frames, seed in ((0, 20, 0), (150, 20, 1), (180, 5, 2)):
                writer.write(first, noise(frames, seed=seed))
        alive, left[0] = left[0] >= 0, 10**9
        again = RecordingWriter.reopen(folder, MONO, kind=kind, segment_seconds=1)
        for samples in sounding(again.segments, again.info.gaps) if again else ():
            again.digest.update(samples)
        assert (again.info.gaps if again else ()) == below(silence, again.info.samples if again else 0)
        info = closed(again) if again is not None and again.next_frame else None
        if info is not None:
            assert samples_of(info.path) == said[: info.samples * 2]
            assert info.gaps == below(silence, info.samples)
            assert names(folder) == {f"recording.{kind}", "recording.json"}
            lengths.add(info.samples // FRAME)
        if alive:
            break
    assert {20, 170, 185} <= lengths


def below(gaps: tuple[tuple[int, int], ...], end: int) -> tuple[tuple[int, int], ...]:
    return tuple((first, min(count, end - first)) for first, count in gaps if first < end)


def test_what_a_killed_process_leaves_plays_up_to_its_last_write(tmp_path: Path, kind: Kind) -> None:
    script = f"""
import sys
from pathlib import Path
import numpy as np
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from machines.audio import AudioFormat
writer = RecordingWriter(Path({str(tmp_path)!r}), AudioFormat(), kind={kind!r}, segment_seconds=1)
for frame in range(100000):
    writer.write(frame, np.full(320, frame % 30000, "<i2").tobytes())
    if frame == 170:
        print("ready", flush=True)
        sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdin.close()
    process.stdout.close()
    info = recover(tmp_path)
    assert info is not None
    expected = np.repeat(np.arange(171, dtype="<i2"), FRAME)
    assert samples_of(info.path) == expected.tobytes()
    assert (info.samples, info.segments) == (171 * FRAME, 4)
    assert names(tmp_path) == {f"recording.{kind}", "recording.json"}


CRASHES = """
import os, signal, sys
from pathlib import Path
from agentos.core.communication.voice.recording import packing
from agentos.core.communication.voice.recording import segments
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from machines.audio import AudioFormat

root, kind, end, data = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.stdin.buffer.read()

def die_before_change_of_the_disk(number):
    left = number
    def watch(owner, name):
        real = getattr(owner, name)
        def watched(*arguments, **options):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)
        setattr(owner, name, watched)
    for name in ("pwrite", "ftruncate", "fsync"):
        watch(os, name)
    for name in ("replace", "unlink"):
        watch(Path, name)

step, finished = 0, False
while not finished:
    child = os.fork()
    if not child:
        writer = RecordingWriter(root / str(step), AudioFormat(), kind=kind, segment_seconds=1, defer_sealing=True)
        writer.write(0, data)
        die_before_change_of_the_disk(step)
        writer.close(end)
        for _ in packing.finished_steps(root / str(step), kind):
            pass
        os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
    step += 1
"""


@pytest.mark.parametrize(("frames", "pause"), [(60, 0), (40, 80)])
def test_a_crash_at_any_step_of_closing_or_packing_loses_nothing(
    tmp_path: Path, kind: Kind, frames: int, pause: int
) -> None:
    """Two segments, or only one and a pause behind it; a process is killed before every single change of the disk that closing
    and packing make. Who goes on knows what was said of the recording."""
    data = noise(frames)
    arguments = [sys.executable, "-c", CRASHES, str(tmp_path), kind, str(frames + pause)]
    gaps = ((frames * FRAME, pause * FRAME),) if pause else ()
    digest = hashlib.sha256(data).hexdigest()
    said = RecordingInfo("", 16_000, 1, (frames + pause) * FRAME, 0, 1, gaps, RecordingState.FINISHING, digest)
    subprocess.run(arguments, input=data, check=True, timeout=60, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    steps = len(names(tmp_path))
    assert steps > 15
    for step in range(steps):
        folder = tmp_path / str(step)
        there = [file for file in folder.iterdir() if file.suffix in (".wav", ".flac")]
        packed = folder / f"recording.{kind}"
        assert packed in there or sum(samples_in(file) for file in there if file.suffix == ".wav" or kind == "flac")
        info = taken(finished_steps(folder, kind, said), lambda: True)
        assert info is not None
        assert (info.samples, info.gaps, info.digest) == (said.samples, gaps, digest)
        assert samples_of(info.path) == data + bytes(pause * 640)
        assert recover(folder, kind) == info
        assert names(folder) == {f"recording.{kind}", "recording.json"}


def samples_in(file: Path) -> int:
    """How many samples a segment holds, whatever its header says; none when it is no whole FLAC file."""
    if file.suffix == ".wav":
        return (file.stat().st_size - 44) // 2
    with suppress(RuntimeError):
        return int(soundfile.info(file).frames)
    return 0


def test_steps_given_up_half_way_lose_nothing(tmp_path: Path, kind: Kind) -> None:
    for count in range(30):
        folder = tmp_path / str(count)
        writer = RecordingWriter(folder, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
        writer.write(0, noise(140))
        left = count
        for begin in (writer.close_steps, lambda folder=folder: finished_steps(folder, kind)):
            steps: Any = begin()
            with suppress(StopIteration):
                while left:
                    next(steps)
                    left -= 1
            steps.close()
        info = recover(folder)
        assert info is not None
        assert samples_of(info.path) == noise(140)
        if left:
            break
    assert left


def test_recovering_a_finished_recording_or_an_empty_folder_changes_nothing(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path / "s", MONO, kind=kind, segment_seconds=1)
    writer.write(4, noise(70))
    info = closed(writer)
    assert recover(tmp_path / "s") == replace(info, state=RecordingState.READY)
    assert recover(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    assert recover(tmp_path / "empty") is None


def test_a_gap_that_was_noted_and_did_not_come_to_be_is_none(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(5))
    with (tmp_path / "gaps").open("a") as noted:
        noted.write(f"{5 * FRAME} {2 * FRAME}\n{5 * FRAME} 0\n")  # the frames came after all
    writer.write(5, noise(5))
    info = recover(tmp_path)
    assert info is not None
    assert (info.samples, info.gaps) == (10 * FRAME, ())


def test_a_file_that_an_older_version_packed_is_as_long_as_it_is(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(60))
    writer.close()
    packed = recover(tmp_path, kind)
    assert packed is not None
    manifest = json.loads((tmp_path / "recording.json").read_text())
    del manifest["digest"], manifest["recording_id"]
    (tmp_path / "recording.json").write_text(json.dumps(manifest))
    soundfile.write(tmp_path / "000002.wav", np.zeros(FRAME, np.int16), MONO.sample_rate)  # is in no file of the call
    found = taken(closed_steps(tmp_path, kind, 90 * FRAME), lambda: True)
    assert found is not None
    assert (found.length, found.gaps, found.digest) == (60 * FRAME, (), packed.digest)


def test_copies_that_were_being_made_when_a_process_died_do_not_stay(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(60))
    for name in ("000005.flac.tmp", "recording.other.tmp"):  # which nobody writes anew
        (tmp_path / name).touch()
    assert recover(tmp_path, kind) is not None
    assert names(tmp_path) == {f"recording.{kind}", "recording.json"}


def test_gaps_are_told_of_a_recording_that_was_not_closed(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(45))
    writer.write(60, noise(5))
    info = recover(tmp_path)
    assert info is not None
    assert info.gaps == ((45 * FRAME, 15 * FRAME),)
    assert samples_of(info.path) == noise(45) + bytes(15 * 640) + noise(5)


def test_what_a_power_cut_took_of_segments_becomes_silence_and_a_gap(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    writer.write(0, noise(220))
    with (tmp_path / "000001.wav").open("r+b") as file:
        file.truncate(44 + 10 * 640 + 1)  # its last bytes had not reached the disk: not even a whole sample
    (tmp_path / "000002.wav").write_bytes(b"")
    (tmp_path / "000005.wav").write_bytes(b"RIFF")  # a next one, of which only the name is there
    for attempt in range(3):
        steps = finished_steps(tmp_path, kind)
        for _ in range(attempt):
            next(steps)
        steps.close()  # given up half-way: the next one goes on
    info = recover(tmp_path, kind)
    assert info is not None
    assert info.gaps == ((60 * FRAME, 90 * FRAME),)
    data = noise(220)
    assert samples_of(info.path) == data[: 60 * 640] + bytes(90 * 640) + data[150 * 640 :]
    assert names(tmp_path) == {f"recording.{kind}", "recording.json"}


def test_a_segment_that_isnt_what_was_written_is_an_error_and_stays(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(130))
    writer.close()
    here = names(tmp_path)
    segment, manifest = tmp_path / f"000000.{kind}", (tmp_path / "recording.json").read_text()
    whole = segment.read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-2] + b"xx",
        whole[:9_000] + b"xx" + whole[9_002:],
    ):
        segment.write_bytes(damaged)
        with pytest.raises(RecordingDamaged):
            recover(tmp_path)
        assert here - {"000002.wav"} <= names(tmp_path) <= here | {"000002.flac"}
    segment.unlink()
    with pytest.raises(RecordingDamaged, match="it is gone"):
        recover(tmp_path)
    segment.write_bytes(whole)
    (tmp_path / "recording.json").write_text("{")
    with pytest.raises(RecordingDamaged, match="manifest is damaged"):
        recover(tmp_path)
    said = json.loads(manifest)
    if (tmp_path / "000002.flac").exists():
        said["segments"][2]["file"] = "000002.flac"
    (tmp_path / "recording.json").write_text(json.dumps(said))
    info = recover(tmp_path)
    assert info is not None
    assert samples_of(info.path) == noise(130)


# --- a disk that refuses ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(new_file_system: Callable[[int], Path]) -> Path:
    """A real file system of 200 kB."""
    return new_file_system(200 * 1024)


def test_a_full_disk_is_told_with_its_errno_and_what_was_written_stays(small_disk: Path, kind: Kind) -> None:
    writer = RecordingWriter(small_disk / "s", MONO, kind=kind, segment_seconds=60)
    data = noise(1_000)
    with pytest.raises(RecordingError) as caught:
        for frame in range(0, 1_000, 10):
            writer.write(frame, data[frame * 640 : (frame + 10) * 640])
    assert caught.value.errno == errno.ENOSPC
    at = writer.next_frame
    assert 200 <= at < 320
    info = writer.close()  # which needs no room but for the manifest
    assert info is not None
    assert info.samples == at * FRAME
    with pytest.raises(RecordingError) as caught:  # no room to encode it, or for a copy; the plain samples are kept
        recover(small_disk / "s")
    assert caught.value.errno == errno.ENOSPC
    assert not isinstance(caught.value, RecordingDamaged)
    assert samples_of(small_disk / "s" / "000000.wav") == data[: at * 640]
    assert names(small_disk / "s") == {"000000.wav", "recording.json"}


def test_recording_goes_on_when_there_is_room_again_and_the_hole_is_a_gap(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    writer = RecordingWriter(small_disk / "s", MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(20))
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4_096))
    with pytest.raises(RecordingError):
        writer.write(20, noise(60))
    kept = writer.next_frame
    assert kept < 80
    ballast.unlink()
    writer.write(80, noise(5, seed=1))
    info = closed(writer)
    assert info.gaps == ((kept * FRAME, (80 - kept) * FRAME),)
    assert samples_of(info.path) == noise(60)[:0] + noise(20) + noise(60)[: (kept - 20) * 640] + bytes(
        (80 - kept) * 640
    ) + noise(5, seed=1)


@pytest.mark.parametrize("before", [0, 50])
@pytest.mark.parametrize("manifest_fails", [False, True])
def test_a_segment_that_got_its_header_and_no_audio_is_none(
    tmp_path: Path, kind: Kind, before: int, manifest_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with room for one block more, and not for two: all that was kept before is in the recording."""
    folder = tmp_path / "s"
    writer = RecordingWriter(folder, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(before))
    real = os.pwrite

    def nearly_full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= segments.WAV_HEADER_BYTES or (manifest_fails and data[:1] == b"{"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", nearly_full)
        for frame in range(before, before + 50, 10):
            with pytest.raises(RecordingError):
                writer.write(frame, noise(10))
        assert f"{before // 50:06d}.wav" in names(folder)
        if manifest_fails and before:
            with pytest.raises(RecordingError):
                writer.close(before + 50)
        else:
            said = writer.close(before + 50)
            assert (said is not None) == bool(before)
    if not before:
        assert names(folder) == {"gaps"}
        assert recover(folder, kind) is None
        return
    info = writer.info
    assert info.gaps == ((50 * FRAME, 50 * FRAME),)
    assert taken(finished_steps(folder, kind, info), lambda: True) == replace(info, state=RecordingState.READY)
    assert samples_of(info.path) == noise(50) + bytes(50 * 640)


@pytest.mark.parametrize("closes", [False, True])
def test_a_disk_that_refuses_to_write_over_what_is_there_loses_nothing(
    tmp_path: Path, kind: Kind, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that copies what is written over can refuse a header's final sizes when it is full."""
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        size = os.fstat(descriptor).st_size
        if (size and offset < size) or (not closes and data[:1] == b"{"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        writer.write(0, noise(120))
        with suppress(RecordingError):
            writer.close()
    assert (tmp_path / "recording.json").exists() is closes
    said = writer.info
    info = taken(finished_steps(tmp_path, kind, said), lambda: True)
    assert info is not None
    assert (info.state, info.samples, info.digest) == (RecordingState.READY, said.samples, said.digest)
    assert samples_of(info.path) == noise(120)


def test_a_file_size_limit_is_a_recording_error() -> None:
    """Works without mounting anything: the system refuses with EFBIG."""
    script = f"""
import errno, resource, tempfile
from pathlib import Path
import numpy as np
from agentos.core.communication.voice.recording.recordings import RecordingError, RecordingWriter
from machines.audio import AudioFormat
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
with tempfile.TemporaryDirectory() as folder:
    writer = RecordingWriter(Path(folder), AudioFormat(), kind="flac", segment_seconds=60)
    written = 0
    try:
        for frame in range(1000):
            writer.write(frame, bytes(640))
            written += 1
    except RecordingError as error:
        assert error.errno == errno.EFBIG, error
    assert written == writer.next_frame == 156, written
    info = writer.close()
    assert info.samples == 156 * 320
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_encoding_that_fails_keeps_the_segment_as_wav_and_the_end_makes_it_flac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(".flac"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        writer.write(0, noise(50))
    assert writer.segment_failures == 1
    assert names(tmp_path) == {"000000.wav", "recording.json"}
    writer.write(50, noise(10, seed=2))
    info = closed(writer)
    assert info.path.endswith("recording.flac")
    assert samples_of(info.path) == noise(50) + noise(10, seed=2)


def test_a_wav_of_more_than_4_gb_has_an_rf64_header(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    length = 5 * 2**30
    with path.open("wb") as file:
        file.write(segments.wav_header(48_000, 2, length))
        file.truncate(file.tell() + length)
    with soundfile.SoundFile(path) as sound:
        assert (sound.format, sound.frames, sound.samplerate, sound.channels) == ("RF64", length // 4, 48_000, 2)


class TestOpenSegments:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        now = [0]
        monkeypatch.setattr(segments, "monotonic_ms", lambda: now[0])
        return now

    def opened(self) -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def test_what_is_written_again_and_again_stays_open_for_a_second(self, tmp_path: Path, clock: list[int]) -> None:
        files, before = OpenSegments(lambda: 1_000_000), self.opened()
        live = LiveSegment(tmp_path / "a.wav", 16_000, 1, files)
        for at in range(5):
            live.write(at * 640, bytes(640))
            clock[0] += 200
            assert (len(files), self.opened()) == (1, before + 1)
        files.close_old()
        assert (len(files), self.opened()) == (0, before)
        live.write(5 * 640, b"\1" * 640)
        live.close()
        assert (len(files), self.opened()) == (0, before)
        assert samples_of(tmp_path / "a.wav") == bytes(5 * 640) + b"\1" * 640

    def test_a_file_that_was_exchanged_is_written_to_no_more_after_a_second(
        self, tmp_path: Path, clock: list[int]
    ) -> None:
        live = LiveSegment(tmp_path / "a.wav", 16_000, 1, OpenSegments(lambda: 1_000_000))
        live.write(0, bytes(640))
        (tmp_path / "a.wav").unlink()
        clock[0] += 1_000
        with pytest.raises(RecordingError):
            live.write(640, bytes(640))

    def test_descriptors_that_others_need_are_given_back(self, tmp_path: Path) -> None:
        before, limit = self.opened(), next_descriptor()
        files = OpenSegments(lambda: limit)
        live = LiveSegment(tmp_path / "a.wav", 16_000, 1, files)
        live.write(0, bytes(640))
        assert (len(files), self.opened()) == (0, before)

    def test_where_no_more_may_be_opened_those_that_are_open_are_closed_first(self, tmp_path: Path) -> None:
        files = OpenSegments(lambda: 1_000_000)
        first, second = (LiveSegment(tmp_path / f"{name}.wav", 16_000, 1, files) for name in "ab")
        first.write(0, bytes(640))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor(), hard))
        try:
            second.write(0, bytes(640))
            assert len(files) == 1
            files.close_all()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        second.close()
        assert samples_of(tmp_path / "b.wav") == bytes(640)
