"""`agentos-voice check`: what it says of models that hold, that fail, that are not decided, and that are none."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actors.model.parts import CRASH, CUT, LATE, POISON, Choice, Faults, Part
from actors.voice_lab.model import voice_model
from agentos.core.communication.voice.cli import EXIT_CODES, main
from machines.checker import check

ROOT = Path(__file__).parents[3]
HOLDS, FAILED, USAGE, FAILS, NOT_DECIDED = 0, 1, 2, 6, 7
SMALL = ("--faults", "0")

COUNTER = '''
"""Models of a counter, good and bad."""

import time

from actors.model.actor_model import ActorModel
from actors.model.parts import Connection, Faults, Part
from machines.checker import Model, NotRepeatable, always, can_always_reach, sometimes


class Counter(Model):
    name = "counter"
    last, slow = 5, 0.0

    def __init__(self, frames=5):
        self.last = frames

    def initial(self):
        return [0]

    def successors(self, state):
        time.sleep(self.slow)
        return [(f"add to {state}", state + 1)] if state < self.last else []

    def properties(self):
        return [always("stays below three", lambda state: state < 3), sometimes("counts", lambda state: state > 0)]


class Small(Counter):
    def __init__(self):
        super().__init__(2)


class Endless(Counter):
    last, slow = 10**9, 0.001

    def __init__(self):
        pass

    def properties(self):
        return [can_always_reach("ten", lambda state: state >= 10), sometimes("two", lambda state: state == 2)]


class Raises(Small):
    def successors(self, state):
        raise KeyError("no such thing")


class Lists(Small):
    def successors(self, state):
        return [("make a list", [1])]


class Nowhere(Small):
    def initial(self):
        return []


class Accuses(Small):
    def properties(self):
        return [always("divides", lambda state: 1 / state)]


class Twice(Small):
    def properties(self):
        return super().properties() * 2


ready = Small()
number = 7


def wrong():
    return 7


def broken():
    raise RuntimeError("out of\\norder")


def wired(faults=None):
    return ActorModel("wired", lambda scene: None, parts=[Connection("wire"), Part("idle")], faults=faults)


def given(faults=None, **others):
    assert faults == Faults(3, {"crash": 1, "loss": 2}), faults
    assert {name: str(value) for name, value in others.items()} == {
        "sessions": "2", "schedule": "Schedule.ANY_ORDER", "timers": "Timers.ANY_TIME"
    }, others
    return Small()
'''


class Done(NamedTuple):
    """What the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's models, which is where the user is."""
    (tmp_path / "counting.py").write_text(COUNTER)
    (tmp_path / "unfinished.py").write_text("class Model(:\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in ("counting", "unfinished"):
        sys.modules.pop(name, None)


def run(*arguments: str | Path) -> Done:
    output, complaint = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(complaint):
        code = main(["check", *map(str, arguments)])
    assert "Traceback" not in output.getvalue() + complaint.getvalue()
    assert code in EXIT_CODES
    return Done(code, output.getvalue(), complaint.getvalue())


# ------------------------------------------------------------------------------------------------------------- outcomes


def test_the_voice_model_holds_and_the_report_has_a_line_for_each_property() -> None:
    done = run(*SMALL)
    assert (done.code, done.err) == (HOLDS, "")
    assert done.out.splitlines()[0] == "voice, 1 sessions, 1 frames: holds"
    assert "all reachable states" in done.out
    for promise in ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"):
        assert re.search(rf"^  ok   \S+ {promise} ", done.out, re.MULTILINE), promise
    assert re.search(r"^SessionActor +\d+ +\d+\.\d%", done.out, re.MULTILINE)


def test_options_make_the_voice_model() -> None:
    found = run(
        "--sessions=2", "--frames=0", "--stops=2", "--refused=1", "--faults=2", "--kind=crash=1", "--kind=late=1",
        "--any-time", "--max-states=300", "--json",
    ).told  # fmt: skip
    assert found["model"] == "voice, 2 sessions, 0 frames"
    assert found["configuration"]["faults in a run"] == 2
    assert "crash" in found["configuration"]["of a kind"]
    assert found["configuration"]["timers"] == "any time"
    assert (found["states"], found["stopped_by"]) == (300, "max_states")


def test_calls_of_the_voice_model_can_end_by_silence() -> None:
    claimed = {one["property"] for one in run(*SMALL, "--silence", "--max-states=50", "--json").told["verdicts"]}
    assert "a call in which nobody speaks ends by its silence" in claimed


def test_the_schedule_can_be_any_order() -> None:
    found = run(*SMALL, "--schedule=any-order", "--max-states=50", "--json").told
    assert found["configuration"]["schedule"] == "any order"


def test_the_kinds_of_faults_are_those_that_the_voice_model_has() -> None:
    model = voice_model(faults=Faults(total=1))
    parts: set[str] = set()

    def noting(part: Part) -> None:
        offered = part.choices

        def choices(state: Any) -> list[Choice]:
            found = list(offered(state))
            parts.update(choice.fault for choice in found if choice.fault)
            return found

        part.choices = choices  # type: ignore[method-assign]

    for part in model.parts:
        noting(part)
    check(model, max_states=20_000)
    assert model.fault_kinds == parts | {CRASH, POISON, CUT, LATE}


def test_a_failure_shows_its_steps_and_what_the_last_one_changed(folder: Path) -> None:
    done = run("counting:Counter")
    assert done.code == FAILS
    assert done.err == "agentos-voice: 1 of 2 properties fail: stays below three\n"
    assert "FAIL always stays below three [path of 3]" in done.out
    steps = done.out[done.out.index("\nstays below three:") :]
    assert [line.strip() for line in steps.splitlines() if "add to" in line] == [
        "1. add to 0",
        "2. add to 1",
        "3. add to 2",
    ]
    assert "state: 2 → 3" in steps


def test_a_bound_leaves_open_what_was_not_found(folder: Path) -> None:
    done = run("counting:Small", "--max-states=2")
    assert done.code == NOT_DECIDED
    assert done.err.startswith("agentos-voice: not decided: 2 states")
    assert "stopped by max_states" in done.err
    assert "?    always stays below three" in done.out
    assert "ok   sometimes counts" in done.out


@pytest.mark.parametrize("options", [("--max-depth=1",), ("--strategy=walk", "--walks=3"), ("--strategy=pct",)])
def test_bounds_and_walks_decide_no_promise(folder: Path, options: tuple[str, ...]) -> None:
    assert run("counting:ready", *options).code == NOT_DECIDED


def test_a_walk_finds_a_failure_by_its_seed(folder: Path) -> None:
    found = [run("counting:Counter", "--strategy=walk", "--seed=4", "--json").told for _ in range(2)]
    assert [one["outcome"] for one in found] == ["fails", "fails"]
    assert found[0]["verdicts"][0]["path"] == found[1]["verdicts"][0]["path"]


def test_fingerprints_say_that_they_are(folder: Path) -> None:
    found = run("counting:Small", "--fingerprints", "--json").told
    assert (found["outcome"], found["search"]["visited"]) == ("holds", "fingerprint")


def test_time_is_a_bound_too(folder: Path) -> None:
    done = run("counting:Endless", "--seconds=0.2")
    assert (done.code, "stopped by seconds" in done.err) == (NOT_DECIDED, True)


def test_an_interrupt_says_what_was_decided_so_far(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import counting
            from agentos.core.communication.voice.cli import main
            step = counting.Endless.successors
            def successors(self, state):
                if state == 40:
                    print("ready", flush=True)
                return step(self, state)
            counting.Endless.successors = successors
            raise SystemExit(main(["check", "counting:Endless"]))
        """)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == NOT_DECIDED
    assert err.startswith("agentos-voice: not decided: ")
    assert "stopped by interrupted" in err
    assert "ok   sometimes two" in out
    assert "?    can_always_reach ten" in out
    assert "Traceback" not in out + err


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_counterexample_is_written_in_every_form(folder: Path) -> None:
    done = run(
        "counting:Counter", "--frames=7", "--html=page.html", "--markdown=found.md", "--regression=test_found.py"
    )
    assert done.code == FAILS
    assert [line for line in done.out.splitlines() if line.startswith("written: ")] == [
        "written: page.html",
        "written: found.md",
        "written: test_found.py",
    ]
    assert "stays below three" in (folder / "page.html").read_text()
    assert "sequenceDiagram" in (folder / "found.md").read_text()
    test = (folder / "test_found.py").read_text()
    assert "Counter(frames=7)" in test
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_found.py"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=False).returncode == 1
    (folder / "counting.py").write_text(COUNTER.replace("state < 3)", "state < 30)"))
    assert subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=False).returncode == 0


def test_without_a_failure_there_is_no_test_to_write(folder: Path) -> None:
    found = run("counting:Small", "--markdown=found.md", "--regression=test_found.py", "--json").told
    assert found["files"] == {"markdown": "found.md"}
    assert "ok   always stays below three" in (folder / "found.md").read_text()
    assert not (folder / "test_found.py").exists()


@pytest.mark.parametrize("place", ["nowhere/page.html", "."])
def test_a_place_that_can_not_be_written_is_refused_before_the_search(folder: Path, place: str) -> None:
    done = run("counting:broken", f"--html={place}")
    assert (done.code, done.err.startswith("agentos-voice: can't write to ")) == (USAGE, True)


def test_json_is_one_object_with_the_choices_of_each_path(folder: Path) -> None:
    done = run("counting:Counter", "--json")
    assert (done.code, done.err) == (FAILS, "")
    failing = [verdict for verdict in done.told["verdicts"] if verdict["outcome"] == "fails"]
    assert [verdict["path"]["choices"] for verdict in failing] == [[0, 0, 0, 0]]
    assert done.told["coverage"] == {"percent": None, "uncovered": []}


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "'nothing' is no model: give `voice` or `stream`, or yours as module:attribute"),
        (["a b:c"], "is no model"),
        (["no_such_module:model"], "can't import no_such_module: ModuleNotFoundError"),
        (["unfinished:Model"], "can't import unfinished: SyntaxError"),
        (["counting:missing"], "the module counting has no 'missing'"),
        (["counting:number"], "is a value of the type int, neither a model nor a function that makes one"),
        (["counting:wrong"], "counting:wrong gave a value of the type int, not a model"),
        (["counting:broken"], "counting:broken makes no model: RuntimeError: out of order, counting.py:"),
        (["counting:ready", "--frames=1"], "counting:ready is made already"),
        (["counting:Counter", "--sessions=1", "--faults=1"], "does not take --sessions, --faults and --kind"),
        (["counting:Raises"], "the model counting:Raises can't be checked: KeyError: 'no such thing', counting.py:"),
        (["counting:Lists"], "can't be hashed"),
        (["counting:Nowhere"], "has no initial state"),
        (["counting:Accuses"], "the property 'divides' raised ZeroDivisionError"),
        (["counting:Twice"], "two properties have the same name"),
        (["--kind=crash"], "--kind is given as crash=1, a name and a number, not 'crash'"),
        (["--kind=carsh=1"], "--kind: there is no fault 'carsh'; there are cancel, clock, crash, cut"),
        (
            ["counting:wired", "--kind=cut-off=1"],
            "--kind: there is no fault 'cut-off'; there are crash, cut, cut off, late",
        ),
        (["--sessions=-1"], "--sessions is at least 0, not -1"),
        (["--faults=-1"], "--faults is at least 0, not -1"),
        (["--max-states=0"], "max_states is at least 1, not 0"),
        (["--strategy=walk", "--fingerprints"], "a walk visits single runs"),
        (["--schedule=some"], "--help"),
    ],
)
def test_what_is_no_model_is_one_line_and_a_code(folder: Path, arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (USAGE, "")
    assert done.err.startswith("agentos-voice: ")
    assert done.err.count("\n") == 1
    assert says in done.err


def test_an_error_is_one_object_with_json(folder: Path) -> None:
    found = run("counting:Nowhere", "--json").told["error"]
    assert (found["type"], found["exit_code"]) == ("NoInitialState", USAGE)


def test_what_makes_a_model_gets_what_was_given(folder: Path) -> None:
    done = run(
        "counting:given", "--sessions=2", "--schedule=any-order", "--any-time", "--kind=crash=1", "--kind=loss=2"
    )
    assert (done.code, done.err) == (HOLDS, "")


# ------------------------------------------------------------------------------------------------------------- terminal


def test_a_terminal_sees_how_far_it_is(folder: Path) -> None:
    main_end, child_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentos.core.communication.voice.cli", "check", "counting:Endless", "--seconds=1.5"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        cwd=folder,
        stdout=child_end,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_end)
    shown = b""
    try:
        while piece := os.read(main_end, 65_536):
            shown += piece
    except OSError:  # a terminal whose other end is closed
        pass
    finally:
        os.close(main_end)
    assert process.wait(timeout=60) == NOT_DECIDED
    assert re.search(rb"\d+ states, depth \d+, \d+ waiting, \d[\d,]* a second", shown)
    assert b"not decided" in shown
