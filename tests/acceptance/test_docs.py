"""The programs in the documents are complete, short, and do what the text says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice import samples

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))
SAMPLE = Path(str(samples.__file__)).with_name("go-forward.flac")


def test_the_page_has_one_program_for_each_loop() -> None:
    assert sorted(PROGRAMS) == ["transcribe.py", "transcribe_trio.py"]
    assert "asyncio.run(main" in PROGRAMS["transcribe.py"]
    assert "trio.run(main" in PROGRAMS["transcribe_trio.py"]


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_of_the_page_runs(name: str, home: Path, tmp_path: Path) -> None:
    assert len(PROGRAMS[name].strip().splitlines()) < 40
    script = tmp_path / name
    script.write_text(PROGRAMS[name])
    speech = tmp_path / "speech.wav"
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    assert (rate, sound.ndim) == (16_000, 1)
    soundfile.write(speech, sound, rate, subtype="PCM_16")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(speech)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "heard: go forward ten meters" in done.stdout
    assert "transcript: go forward ten meters" in done.stdout
    recorded = re.search(r"recording: (.+)", done.stdout)
    if name == "transcribe.py":
        assert recorded is not None
        kept, _ = soundfile.read(recorded.group(1), dtype="int16")
        assert kept.tobytes() == sound.tobytes()
    with EvidenceLogger(home / "voice.db") as log:
        assert log.verify().ok


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).is_file(), target
