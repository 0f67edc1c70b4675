"""What decides touches nothing: `machines/` imports no clock, chance or I/O, and runs where these are forbidden."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINES = sorted(path for path in (ROOT / "machines").rglob("*.py") if "checker" not in path.parts)
ACTORS = sorted((ROOT / "actors").rglob("*.py"))

BANNED_IN_MACHINES = {
    "actors",
    "agentos",
    "anyio",
    "asyncio",
    "concurrent",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "trio",
    "uuid",
}
BANNED_IN_ACTORS = {
    "agentos",
    "alembic",
    "numpy",
    "pocketsphinx",
    "random",
    "secrets",
    "socket",
    "soundfile",
    "sqlalchemy",
    "sqlite3",
    "time",
    "uuid",
}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
CALLS = {"open", "input", "print", "eval", "exec", "__import__"}


def imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add((node.module or "").partition(".")[0])
    return found


def impure_uses(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.add(f"line {node.lineno}: awaits")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.add(f"line {node.lineno}: {node.func.id}()")
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) in CLOCKS
        ):
            found.add(f"line {node.lineno}: {node.value.id}.{node.attr}")
    return found


def test_there_is_something_to_look_at() -> None:
    assert {"session", "evidence", "policy", "lifecycle"} <= {path.stem for path in MACHINES}
    assert {"actor", "system", "loop"} <= {path.stem for path in ACTORS}


@pytest.mark.parametrize(
    ("source", "imports", "uses"),
    [
        ("import time", {"time"}, set()),
        ("from os.path import join", {"os"}, set()),
        ("def f():\n  import random as r", {"random"}, set()),
        ("async def f(): ...", set(), {"line 1: awaits"}),
        ("x = open('f')", set(), {"line 1: open()"}),
        ("x = datetime.now()", set(), {"line 1: datetime.now"}),
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str, imports: set[str], uses: set[str]) -> None:
    assert (imported(ast.parse(source)), impure_uses(ast.parse(source))) == (imports, uses)


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_machine_imports_and_uses_nothing_that_touches_the_world(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not imported(tree) & BANNED_IN_MACHINES
    assert not impure_uses(tree)


@pytest.mark.parametrize("path", ACTORS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_actor_imports_no_io_and_only_the_loop_module_knows_the_loop(path: Path) -> None:
    names = imported(ast.parse(path.read_text()))
    drawing = (
        {"random"} if path == ROOT / "actors" / "simulation" / "plan.py" else set()
    )  # the simulator's seeded draws
    assert not names & BANNED_IN_ACTORS - drawing
    assert path == ROOT / "actors" / "runtime" / "loop.py" or not names & {"asyncio", "trio"}


NOT_IN_A_STEP = """
import sys
from datetime import UTC, datetime

from machines import audio, communication, events, evidence, frozen, heads, lifecycle, policy, restart, session, verification

WORLD = {
    "open", "os.listdir", "os.remove", "os.rename", "os.mkdir", "os.scandir", "os.system", "os.fork", "os.posix_spawn",
    "socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "sqlite3.connect", "import",
}
armed = False

def watch(event, arguments):
    if armed and event in WORLD:
        raise AssertionError(f"a machine did {event} {arguments!r}")

def forbidden(*arguments, **options):
    raise AssertionError("a machine read a clock or drew a number")

def forbid_clock_and_chance():
    import os, random, secrets, time, uuid
    for module, names in {
        time: ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
        random: ("random", "randint", "choice", "getrandbits", "shuffle", "uniform"),
        secrets: ("token_bytes", "token_hex", "token_urlsafe", "randbelow"),
        uuid: ("uuid1", "uuid4"),
        os: ("urandom",),
    }.items():
        for name in names:
            setattr(module, name, forbidden)

def steps():
    verdict = policy.VoicePolicy().evaluate_session_request(
        "p", session.VoiceProvider.TWILIO, session.STTProvider.AWS, {"sensitive_data": True}
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    snapshot = session.VoiceSession(
        session_id="voice-1", project_id="p", provider="local", stt_provider="aws", state="created", created_at=at,
        last_activity_at=at, risk_tier=communication.RiskLevel.LOW, policy_verdict=verdict, audit_trace_id="audit-1",
        metadata={"a": [1, {"b": 2}]},
    )
    state = snapshot.state
    for trigger in ("audio", "stop", "drain_expired"):
        state = session.SESSION.fire(state, trigger)
    try:
        session.SESSION.fire(state, "audio")
    except lifecycle.IllegalMove:
        pass
    told = events.VoiceEvent(event_id="evt-1", session_id="voice-1", event_type="error", timestamp_ms=1, payload={"x": [1]})
    record = evidence.EvidenceRecord(
        id="ev-1", request_id="voice-1", connector_type="custom", operation="stop", created_at=at, metadata=told.payload
    )
    text = evidence.canonical_json(record)
    row = evidence.ChainRow(1, "ev-1", "voice-1", text, heads.GENESIS, evidence.link(heads.GENESIS, text))
    allowed = restart.CrashLog().after_crash(1.0, restart.Intensity(1, 60.0))[1]
    content = frozen.FrozenMap().with_item("a", 1).without("b")
    size = audio.AudioFormat(encoding="mulaw", sample_rate=8000).frame_bytes
    again = session.VoiceSession.model_validate_json(snapshot.model_dump_json())
    holds = verification.verify([row], verification.Beside()).ok
    return state.value, verdict.status.value, holds, allowed, len(content), size, again == snapshot

warm = steps()  # what a library imports at its first use
forbid_clock_and_chance()
sys.addaudithook(watch)
armed = True
cold = steps()
armed = False
assert warm == cold
print(*cold)
"""


def test_the_machines_run_where_clock_chance_files_and_sockets_are_forbidden() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_IN_A_STEP], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["stopped", "require_admin", "True", "True", "1", "160", "True"]
