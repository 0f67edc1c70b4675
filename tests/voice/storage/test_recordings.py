"""Recordings: exact to the bit, placed by media time, whole after a crash at any step."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.storage import segments
from agentos.core.communication.voice.storage.recordings import RecordingError, RecordingWriter, recover, recover_steps
from machines.audio import AudioEncoding, AudioFormat
from machines.session import RecordingInfo

MONO = AudioFormat()
FRAME = 320
Kind = Literal["flac", "wav"]


def noise(frames: int, audio_format: AudioFormat = MONO, seed: int = 0) -> bytes:
    count = frames * audio_format.frame_samples * audio_format.channels
    return np.random.default_rng(seed).integers(-9_000, 9_000, count).astype("<i2").tobytes()


def samples_of(path: str | Path) -> bytes:
    data, _ = soundfile.read(path, dtype="int16", always_2d=True)
    return bytes(data.astype("<i2").tobytes())


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def closed(writer: RecordingWriter) -> RecordingInfo:
    info = writer.close()
    assert info is not None
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


def test_a_very_long_hole_takes_little_memory(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="wav", segment_seconds=60)
    tracemalloc.start()
    writer.write(50 * 3_600, noise(1))
    info = closed(writer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info.samples == 3_600 * 16_000 + FRAME
    assert peak < 8_000_000  # the hour is 115 MB


def test_memory_doesnt_grow_with_the_call(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=30)
    data = noise(50)
    tracemalloc.start()
    for second in range(240):
        writer.write(second * 50, data)
    closed(writer)
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


@settings(deadline=None, max_examples=60)
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


def test_abort_loses_no_deferred_segment(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    writer.write(0, noise(130))
    writer.abort()
    info = recover(tmp_path)
    assert info is not None
    assert info.path.endswith(f"recording.{kind}")
    assert samples_of(info.path) == noise(130)


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

    monkeypatch.setattr(segments, "_write_all", dying(segments._write_all))
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
        for file in [*Path("/proc/self/fd").iterdir()]:  # what is open dies with the process
            with suppress(FileNotFoundError):
                if str(file.readlink()).startswith(f"{folder}/"):
                    os.close(int(file.name))
        again = RecordingWriter.reopen(folder, MONO, kind=kind, segment_seconds=1)
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
from agentos.core.communication.voice.storage.recordings import RecordingWriter
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
from agentos.core.communication.voice.storage import segments
from agentos.core.communication.voice.storage.recordings import RecordingWriter
from machines.audio import AudioFormat

root, kind, data = Path(sys.argv[1]), sys.argv[2], sys.stdin.buffer.read()

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
        writer = RecordingWriter(root / str(step), AudioFormat(), kind=kind, segment_seconds=1)
        writer.write(0, data)
        die_before_change_of_the_disk(step)
        writer.close()
        os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
    step += 1
"""


@pytest.mark.parametrize("frames", [60, 40])
def test_a_crash_at_any_step_of_closing_loses_nothing(tmp_path: Path, kind: Kind, frames: int) -> None:
    """Two segments, or only one; a process is killed before every single change of the disk that closing makes."""
    data = noise(frames)
    arguments = [sys.executable, "-c", CRASHES, str(tmp_path), kind]
    subprocess.run(arguments, input=data, check=True, timeout=60, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    steps = len(names(tmp_path))
    assert steps > 5
    for step in range(steps):
        folder = tmp_path / str(step)
        info = recover(folder, kind)
        assert info is not None
        assert samples_of(info.path) == data
        assert recover(folder, kind) == info
        assert names(folder) == {f"recording.{kind}", "recording.json"}


def test_steps_given_up_half_way_lose_nothing(tmp_path: Path, kind: Kind) -> None:
    for taken in range(4):
        folder = tmp_path / str(taken)
        writer = RecordingWriter(folder, MONO, kind=kind, segment_seconds=1)
        writer.write(0, noise(140))
        steps: Iterator[None] = writer.close_steps()
        for _ in range(taken):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
        writer.abort()
        info = recover(folder)
        assert info is not None
        assert samples_of(info.path) == noise(140)


def test_abort_keeps_what_was_written_as_segments(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1)
    writer.write(0, noise(70))
    writer.abort()
    assert names(tmp_path) == {f"000000.{kind}", "recording.json", "000001.wav"}
    assert samples_of(tmp_path / "000001.wav") == noise(70)[50 * 640 :]
    info = recover(tmp_path)
    assert info is not None
    assert samples_of(info.path) == noise(70)


def test_recovering_a_finished_recording_or_an_empty_folder_changes_nothing(tmp_path: Path, kind: Kind) -> None:
    writer = RecordingWriter(tmp_path / "s", MONO, kind=kind, segment_seconds=1)
    writer.write(4, noise(70))
    info = closed(writer)
    assert recover(tmp_path / "s") == info
    assert recover(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    assert recover(tmp_path / "empty") is None


def test_gaps_are_told_of_after_an_abort(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(45))
    writer.write(60, noise(5))
    writer.abort()
    info = recover(tmp_path)
    assert info is not None
    assert info.gaps == ((45 * FRAME, 15 * FRAME),)
    assert samples_of(info.path) == noise(45) + bytes(15 * 640) + noise(5)


def test_what_a_power_cut_took_of_segments_becomes_silence_and_a_gap(
    tmp_path: Path, kind: Kind, close_as_a_dead_process: Callable[[RecordingWriter], None]
) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind=kind, segment_seconds=1, defer_sealing=True)
    writer.write(0, noise(220))
    with (tmp_path / "000001.wav").open("r+b") as file:
        file.truncate(44 + 10 * 640 + 1)  # its last bytes had not reached the disk: not even a whole sample
    (tmp_path / "000002.wav").write_bytes(b"")
    (tmp_path / "000005.wav").write_bytes(b"RIFF")  # a next one, of which only the name is there
    for attempt in range(3):
        steps = recover_steps(tmp_path, kind)
        for _ in range(attempt):
            next(steps)
        steps.close()  # given up half-way: the next one goes on
    info = recover(tmp_path, kind)
    assert info is not None
    assert info.gaps == ((60 * FRAME, 90 * FRAME),)
    data = noise(220)
    assert samples_of(info.path) == data[: 60 * 640] + bytes(90 * 640) + data[150 * 640 :]
    assert names(tmp_path) == {f"recording.{kind}", "recording.json"}
    close_as_a_dead_process(writer)


def test_a_segment_that_isnt_what_the_manifest_says_is_an_error_and_stays(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    writer.write(0, noise(130))
    writer.abort()
    manifest = json.loads((tmp_path / "recording.json").read_text())
    manifest["segments"][0]["samples"] += 1
    (tmp_path / "recording.json").write_text(json.dumps(manifest))
    with pytest.raises(RecordingError, match="holds 16000 samples, not the 16001"):
        recover(tmp_path)
    assert {"000000.flac", "000001.flac"} <= names(tmp_path)
    (tmp_path / "recording.json").write_text("{")
    with pytest.raises(RecordingError, match="manifest is damaged"):
        recover(tmp_path)


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
    if kind == "flac":  # no room to encode it; the plain samples are kept
        with pytest.raises(RecordingError) as caught:
            writer.close()
        assert caught.value.errno == errno.ENOSPC
        assert writer.segment_failures > 0
        assert samples_of(small_disk / "s" / "000000.wav") == data[: at * 640]
        assert writer.info.samples == at * FRAME
        assert writer.info.path == str(small_disk / "s")
    else:  # closing needs no room but for the manifest
        assert samples_of(closed(writer).path) == data[: at * 640]


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


def test_a_file_size_limit_is_a_recording_error() -> None:
    """Works without mounting anything: the system refuses with EFBIG."""
    script = f"""
import errno, resource, tempfile
from pathlib import Path
import numpy as np
from agentos.core.communication.voice.storage.recordings import RecordingError, RecordingWriter
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
