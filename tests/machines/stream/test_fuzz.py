"""A coverage-guided fuzzer on what a browser stream reads and the rules behind it, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from machines.session import VoiceSessionState
from machines.stream.messages import (
    Ack,
    Audio,
    Bye,
    End,
    Event,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamFormat,
    Welcome,
    encode,
    write_audio,
)

ROOT = Path(__file__).parents[3]
PCM, STATE = StreamFormat("pcm_s16le", 16_000), VoiceSessionState.ACTIVE
SEEDS = [
    *map(
        encode,
        (
            Hello((PCM, StreamFormat("opus", 48_000, 2)), 1, ticket="avs_x"),
            Hello((PCM,), 3, resume="avr_x", first=2, next=9, events=4),
            Gap(5, 3, "ring"),
            End(8),
            Pong(1),
            Welcome("voice-1", "avr_x", PCM, 5, 4, 9, STATE, {"status": "approved"}, 10_000, 65_536),
            Ack(5, 4, 9),
            Event(1, "stt_final", 1, {"text": "go"}),
            Ping(1),
            Bye(VoiceSessionState.STOPPED, "stopped"),
        ),
    ),
    write_audio(Audio(0, 2, 0, False, bytes(8))),
    write_audio(Audio(7, 1, 140, True, b"\1")),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or sys.version_info >= (3, 14), reason="there is no atheris for it")
def test_no_input_breaks_what_is_read_or_the_rules(tmp_path: Path) -> None:
    corpus, found = tmp_path / "corpus", tmp_path / "found-"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    done = subprocess.run(
        [
            sys.executable,
            "tests/machines/stream/fuzz.py",
            "-runs=400000",
            "-max_len=400",
            f"-artifact_prefix={found}",
            corpus,
        ],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done 400000 runs" in done.stderr
    assert len(list(corpus.iterdir())) > 2 * len(SEEDS), "the fuzzer found its way"
