"""A recording that a crash left is gone on with: one file in the end, every sample at its place, every gap declared."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.core.communication.voice.recording.packing import finished_steps
from agentos.core.communication.voice.recording.recordings import RecordingError, RecordingWriter
from agentos.core.communication.voice.recording.segments import WAV_HEADER_BYTES, sounding
from agentos.core.communication.voice.recording.steps import taken
from machines.audio import AudioFormat
from machines.recording import RecordingInfo

MONO = AudioFormat(sample_rate=8000)
FRAME = MONO.frame_samples
SPEECH = np.random.default_rng(7).integers(1, 9_000, 1000 * FRAME).astype("<i2")  # never silent


def write(writer: RecordingWriter, first: int, upto: int) -> None:
    writer.write(first, SPEECH[first * FRAME : upto * FRAME].tobytes())


def reopened(folder: Path, *, segment_seconds: int = 1, first_frame: int = 0) -> RecordingWriter:
    writer = RecordingWriter.reopen(folder, MONO, kind="flac", segment_seconds=segment_seconds, first_frame=first_frame)
    assert writer is not None
    for samples in sounding(writer.segments, writer.info.gaps):
        writer.digest.update(samples)
    return writer


def recover(folder: Path) -> RecordingInfo | None:
    return taken(finished_steps(folder, "flac"), lambda: True)


def check(folder: Path, gaps: tuple[tuple[int, int], ...], frames: int) -> None:
    """What is recovered is all that was said, but for these gaps."""
    info = recover(folder)
    assert info is not None
    assert info.gaps == tuple([(first * FRAME, count * FRAME) for first, count in gaps])
    expected = SPEECH[: frames * FRAME].copy()
    for first, count in gaps:
        expected[first * FRAME : (first + count) * FRAME] = 0
    heard, rate = soundfile.read(info.path, dtype="int16")
    assert (rate, len(heard), info.samples) == (8000, len(expected), len(expected))
    assert np.array_equal(heard, expected)


def test_it_goes_on_behind_the_last_whole_frame(tmp_path: Path) -> None:
    dead = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    write(dead, 0, 70)
    with (tmp_path / "000001.wav").open("r+b") as file:
        file.truncate(WAV_HEADER_BYTES + 19 * FRAME * 2 + 51)  # the last write was cut short

    writer = reopened(tmp_path)
    assert (writer.next_frame, writer.info.samples) == (69, 69 * FRAME)
    write(writer, 69, 200)
    writer.close()
    check(tmp_path, (), 200)


def test_it_goes_on_where_a_pause_at_the_end_had_been_closed(tmp_path: Path) -> None:
    """The process died between that and the record of it."""
    dead = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    write(dead, 0, 70)
    dead.close(90)
    writer = reopened(tmp_path, first_frame=80)
    assert writer.info.samples == 70 * FRAME
    write(writer, 95, 100)
    writer.close(130)
    check(tmp_path, ((70, 25), (100, 30)), 130)


def test_a_gap_that_a_resumption_declared_last_is_at_the_end(tmp_path: Path) -> None:
    write(RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1), 0, 70)
    writer = reopened(tmp_path, first_frame=80)
    writer.close(80)
    check(tmp_path, ((70, 10),), 80)


def test_a_part_of_the_first_frame_is_nothing(tmp_path: Path) -> None:
    dead = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    write(dead, 0, 1)
    with (tmp_path / "000000.wav").open("r+b") as file:
        file.truncate(WAV_HEADER_BYTES + 10)

    for _ in range(2):
        if (writer := RecordingWriter.reopen(tmp_path, MONO, kind="flac", segment_seconds=1)) is not None:
            assert writer.next_frame == 0
    writer = writer or _new(tmp_path, 1)
    write(writer, 0, 10)
    writer.close()
    check(tmp_path, (), 10)


def test_a_gap_of_one_who_did_not_come_to_go_on_is_forgotten(tmp_path: Path) -> None:
    first = _new(tmp_path, 1)
    write(first, 0, 30)
    assert reopened(tmp_path, first_frame=90).next_frame == 30
    second = reopened(tmp_path, first_frame=40)
    write(second, 40, 100)
    check(tmp_path, ((30, 10),), 100)


def test_a_gap_before_anything_was_written_is_forgotten_too(tmp_path: Path) -> None:
    assert reopened(tmp_path, first_frame=90).info.gaps == ()
    assert recover(tmp_path) is None
    writer = reopened(tmp_path)
    write(writer, 0, 10)
    check(tmp_path, (), 10)


def test_nothing_is_reopened_where_nothing_was_written_or_all_is_finished(tmp_path: Path) -> None:
    assert RecordingWriter.reopen(tmp_path / "none", MONO, kind="flac", segment_seconds=1) is None
    whole = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=1)
    write(whole, 0, 10)
    whole.close()
    check(tmp_path, (), 10)
    with pytest.raises(RecordingError, match="finished"):
        reopened(tmp_path)


def test_a_recording_that_was_closed_goes_on_and_is_closed_again(tmp_path: Path) -> None:
    """Its process died before the session's end was on record."""
    first = _new(tmp_path, 1)
    write(first, 0, 70)
    before = first.close()
    second = reopened(tmp_path)
    write(second, 70, 120)
    after = second.close()
    assert before is not None
    assert after is not None
    assert (after.samples, after.recording_id) == (120 * FRAME, before.recording_id)
    check(tmp_path, (), 120)


def test_a_gap_that_was_declared_is_there_after_the_next_crash(tmp_path: Path) -> None:
    dead = RecordingWriter(tmp_path, MONO, kind="flac", segment_seconds=60)
    write(dead, 0, 30)

    second = reopened(tmp_path, segment_seconds=60, first_frame=50)
    assert second.info.gaps == ()  # nothing is behind it yet
    write(second, 50, 80)

    third = reopened(tmp_path, segment_seconds=60)
    assert (third.next_frame, third.info.gaps) == (80, ((30 * FRAME, 20 * FRAME),))
    check(tmp_path, ((30, 20),), 80)


def test_segments_may_have_another_length_in_each_process(tmp_path: Path) -> None:
    at = 0
    for seconds in (3, 1, 2, 1):
        writer = reopened(tmp_path, segment_seconds=seconds) if at else _new(tmp_path, seconds)
        write(writer, at, at + 170)
        at += 170
    check(tmp_path, (), at)


def test_a_power_cut_takes_the_end_of_a_segment_at_its_place(tmp_path: Path) -> None:
    first = _new(tmp_path, 3)
    write(first, 0, 70)
    second = reopened(tmp_path)
    write(second, 70, 190)  # two segments of a second, unsealed, and a part of a third
    with (tmp_path / "000001.wav").open("r+b") as file:
        file.truncate(WAV_HEADER_BYTES + 40 * FRAME * 2)
    check(tmp_path, ((110, 10),), 190)


def _new(folder: Path, seconds: int) -> RecordingWriter:
    return RecordingWriter(folder, MONO, kind="flac", segment_seconds=seconds, defer_sealing=True)


LIVES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 130), st.integers(1, 3), st.integers(0, FRAME * 2 - 1), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(LIVES)
@settings(max_examples=60)
def test_whatever_its_processes_do_it_is_what_was_said(lives: list[tuple[int, int, int, int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, at = Path(name) / "call", 0
        gaps: list[tuple[int, int]] = []
        for gap, frames, seconds, torn_bytes, seals in lives:
            writer = RecordingWriter.reopen(
                folder, MONO, kind="flac", segment_seconds=seconds, first_frame=at + gap
            ) or _new(folder, seconds)
            assert writer.next_frame == at
            if gap:
                gaps.append((at, gap))
            at += gap + frames
            write(writer, at - frames, at)
            if seals:
                for _ in writer.seal_steps():
                    pass
            if writer._live is not None:
                live = writer._live
                live.write(live._length, bytes(torn_bytes))  # a frame of which a part reached the disk
        reopened(folder)  # the last torn frame goes when somebody goes on
        check(folder, tuple(gaps), at)
