"""The programs in the documents are complete, short, and do what the text says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice import errors, samples
from agentos.core.communication.voice.cli import EXIT_CODES
from agentos.core.communication.voice.errors import VoiceError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAGE = DOCS / "embedding.md"
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))
SAMPLE = Path(str(samples.__file__)).with_name("go-forward.flac")


def test_the_page_has_one_program_for_each_loop() -> None:
    assert sorted(PROGRAMS) == ["transcribe.py", "transcribe_trio.py"]
    assert "asyncio.run(main" in PROGRAMS["transcribe.py"]
    assert "trio.run(main" in PROGRAMS["transcribe_trio.py"]


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("transcribe.py", 16_000, 1),
        pytest.param("transcribe.py", 48_000, 2, marks=pytest.mark.slow),
        ("transcribe_trio.py", 48_000, 2),
    ],
)
def test_a_program_of_the_page_runs(name: str, rate: int, channels: int, home: Path, tmp_path: Path) -> None:
    assert len(PROGRAMS[name].strip().splitlines()) < 40
    script = tmp_path / name
    script.write_text(PROGRAMS[name])
    speech = tmp_path / "speech.wav"
    sample, sample_rate = soundfile.read(SAMPLE, dtype="int16")
    assert (sample_rate, sample.ndim) == (16_000, 1)
    at = np.arange(len(sample) * rate // sample_rate) * sample_rate / rate
    one = np.interp(at, np.arange(len(sample)), sample).astype(np.int16)
    sound = one if channels == 1 else np.stack([one] * channels, axis=1)
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
        kept, kept_rate = soundfile.read(recorded.group(1), dtype="int16")
        assert kept_rate == rate
        assert kept.tobytes() == sound.tobytes()
    with EvidenceLogger(home / "voice.db") as log:
        assert log.verify().ok


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        to = page.parent / target if target else page
        assert to.is_file(), target
        assert not anchor or anchor in anchors(to), f"{target}#{anchor}"


def test_every_page_is_on_the_site_and_in_the_index() -> None:
    """The index may lead to a page by way of the page on its subject."""
    site, index = (ROOT / "zensical.toml").read_text(), (DOCS / "index.md").read_text()
    linked = set(re.findall(r"\]\(([\w-]+\.md)", index))
    for first in sorted(linked):
        linked |= set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / first).read_text()))
    for page in DOCS.glob("*.md"):
        assert f'"{page.name}"' in site, page.name
        assert page.name in linked | {"index.md"}, page.name


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", (DOCS / "errors.md").read_text(), re.MULTILINE))
    assert {int(code): meaning for code, meaning in rows.items()} == dict(EXIT_CODES)


def test_every_error_is_in_the_documents() -> None:
    text = (DOCS / "errors.md").read_text()
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VoiceError)]
    assert len(kinds) > 10
    assert [name for name in kinds if name != "VoiceError" and f"`{name}`" not in text] == []


def test_the_list_of_modules_is_as_it_would_be_made_now() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "modules.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_module_that_is_not_there(page: Path) -> None:
    """By the name of its file, alone or behind that of its folder; programs of a page are no modules."""
    text = page.read_text()
    named = set(re.findall(r"`([\w./-]+\.(?:py|js))`", text)) - set(re.findall(r"^# (\S+\.py)\b", text, re.MULTILINE))
    tops = ("machines", "actors", "agentos", "tests", "benchmarks", ".ci")
    files = [f"/{path.relative_to(ROOT).as_posix()}" for top in tops for path in (ROOT / top).rglob("*.*")]
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in files)] == []


def test_the_architecture_can_be_read_in_ten_minutes() -> None:
    assert len((DOCS / "architecture.md").read_text().split()) < 1_800


def names_in(path: Path) -> set[str]:
    """The functions and classes of a module, methods with the name of their class."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, kinds):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, kinds)}
    return found


def test_every_file_and_function_of_the_walks_is_there() -> None:
    text = (DOCS / "a-frame-and-a-stop.md").read_text()
    steps = re.findall(r"^\| [\da-f]+ \| (.*) \|$", text, re.MULTILINE)
    assert len(steps) > 30
    known: set[str] = set()
    for step in steps:
        for name in re.findall(r"`([\w./]+)`", step):
            if name.endswith(".py"):
                floor = name.startswith(("actors/", "machines/"))
                path = ROOT / name if floor else ROOT / "agentos/core/communication/voice" / name
                assert path.is_file(), name
                known |= names_in(path)
            elif "." in name or name.startswith("_"):
                assert name in known, name


VOICE = ROOT / "agentos" / "core" / "communication" / "voice"


def test_every_metric_is_on_the_page_on_health_and_no_other() -> None:
    source = (VOICE / "gateway" / "metrics.py").read_text()
    made = re.findall(r'(?:\b_(counter|by|gauge|histogram)\(\s*|PREFIX \+ )"(\w+)"', source)
    names = {f"{name}_total" if kind in {"counter", "by"} else name for kind, name in made}
    rows = re.findall(r"^\| ((?:`[\w{},]+`(?:, )?)+) \| .* \|$", (DOCS / "health.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(names) > 35
    assert names == told


def test_every_event_of_the_page_on_logs_is_logged_somewhere() -> None:
    source = "".join(path.read_text() for path in VOICE.rglob("*.py"))
    rows = re.findall(r"^\| (`.*?) \| (?:error|warning)", (DOCS / "logs.md").read_text(), re.MULTILINE)
    events = [event for row in rows for event in re.findall(r"`([^`]+)`", row)]
    assert len(events) > 15
    for event in events:
        assert re.search(rf'\.(?:warning|error|exception)\(\s*"{event}"', source), event
