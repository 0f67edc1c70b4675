"""`agentos-voice simulate`: what it says of seeds that hold and that fail, and how one is run again."""

import io
import json
import shlex
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actors.voice_lab.simulation import FAULTS, voice_simulation
from agentos.core.communication.voice.cli import main

USAGE, FAILS, NOT_DECIDED = 2, 6, 7

LAMP = '''
"""A lamp that is to go out after a minute, and one that a jump of the clock confuses."""

from actors.runtime.actor import Actor
from actors.simulation.runner import FaultKind, Simulation

JUMPS = {"clock jump": FaultKind(("",), 1000, 600_000)}


class Lamp(Actor):
    __slots__ = ("ticks",)
    state = ("ticks",)
    handles = {}

    def __init__(self):
        self.ticks = 0

    def start(self, out):
        out.set_timer("tick", 1.0)

    def timeout(self, timer, out):
        self.ticks += 1
        if self.ticks < 60:
            out.set_timer("tick", 1.0)


def lamp(faults=JUMPS):
    simulation = Simulation("lamp", lambda world: world.spawn(Lamp(), "lamp"), faults=faults, faults_in_a_day=400.0)
    simulation.at_end("it is out", lambda lamp: lamp.ticks == 60, of=["lamp"])
    return simulation


def timid():
    simulation = lamp()
    simulation.always("no jump", lambda lamp, fired: lamp.ticks < 3 or not fired, of=["lamp", "@fired"])
    return simulation


def idle():
    return lamp({**JUMPS, "crash": FaultKind(("Nobody",))})


def no_simulation():
    return 1


def raises():
    raise RuntimeError("on purpose")


number = 7
'''


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["simulate", *arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def data(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.fixture(autouse=True)
def lamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lamps.py").write_text(textwrap.dedent(LAMP))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "lamps", raising=False)


def test_the_voice_service_holds_and_the_report_has_every_kind_of_fault() -> None:
    ran = run("--seeds", "2", "--hours", "2", "--processes", "1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 seeds of 2 hours, in ")
    assert "every promise holds" in ran.out
    assert all(kind in ran.out for kind in FAULTS)


def test_json_has_the_trace_hash_of_each_seed() -> None:
    ran = run("--seeds", "2", "--first", "5", "--hours", "1", "--processes", "1", "--json")
    found = data(ran)
    simulation = voice_simulation()
    assert [(day["seed"], day["trace_hash"]) for day in found["days"]] == [
        (seed, simulation.run(seed, 1).trace_hash) for seed in (5, 6)
    ]
    assert (found["seeds"], found["hours"], found["visits"]) == (2, 1.0, 18)
    assert found["messages"] == sum(day["messages"] for day in found["days"])


def test_one_seed_is_shown_with_its_plan_and_the_end_of_its_trace() -> None:
    ran = run("--seed", "5", "--hours", "0.2", "--trace", "7")
    assert ran.code == 0
    assert "visit 1" in ran.out
    assert "Plan(" in ran.out
    assert len(data(run("--seed", "5", "--hours", "0.2", "--trace", "7", "--json"))["trace"]) == 7


def test_a_part_of_a_plan_runs_alone() -> None:
    whole = data(run("--seed", "5", "--hours", "4", "--json"))
    part = data(run("--seed", "5", "--hours", "4", "--visits", "1,2", "--faults", "none", "--json"))
    assert (part["visits"], part["days"][0]["faults"]) == (2, {})
    assert whole["visits"] > 2
    assert data(run("--seed", "5", "--hours", "4", "--until-ms", "0", "--json"))["visits"] == 0


def test_a_seed_that_fails_is_made_smaller_and_the_command_shows_it_again() -> None:
    ran = run("lamps:timid", "--seeds", "5", "--hours", "0.5", "--processes", "1")
    assert ran.code == FAILS
    assert ran.err.startswith("agentos-voice: 5 of 5 seeds break a promise: 0, 1, 2, 3, 4")
    again = next(line for line in ran.out.splitlines() if line.startswith("again: "))
    words = shlex.split(again.removeprefix("again: "))
    assert words[:3] == ["agentos-voice", "simulate", "lamps:timid"]
    assert words[words.index("--faults") + 1].isdecimal()  # one is enough
    repeated = run(*words[2:])
    assert repeated.code == FAILS
    assert "no jump" in repeated.out
    assert "fault " in repeated.out


def test_several_processes_and_one_say_the_same() -> None:
    one = data(run("lamps:timid", "--seeds", "4", "--hours", "0.5", "--processes", "1", "--no-shrink", "--json"))
    two = data(run("lamps:timid", "--seeds", "4", "--hours", "0.5", "--processes", "2", "--no-shrink", "--json"))
    assert one["days"] == two["days"]
    assert "--faults" not in two["again"]


def test_a_fault_that_never_comes_decides_nothing() -> None:
    ran = run("lamps:idle", "--seeds", "20", "--hours", "0.5", "--processes", "1")
    assert ran.code == NOT_DECIDED
    assert ran.err == "agentos-voice: fired in fewer than 1% of the seeds: crash\n"


def test_no_further_seed_is_begun_when_the_time_is_over() -> None:
    assert data(run("--seeds", "50", "--hours", "1", "--processes", "1", "--seconds", "0", "--json"))["seeds"] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nothing",), "'nothing' is no simulation"),
        (("lamps:number",), "lamps:number is a value of the type int, not a function that makes a simulation"),
        (("lamps:no_simulation",), "lamps:no_simulation gave a value of the type int, not a simulation"),
        (("lamps:missing",), "the module lamps has no 'missing'"),
        (("lamps:raises",), "lamps:raises makes no simulation: RuntimeError: on purpose, lamps.py:"),
        (("--hours", "0"), "--hours is more than 0"),
        (("--seeds", "0"), "--seeds and --processes are at least 1"),
        (("--visits", "1"), "give it with --seed"),
        (("--seed", "1", "--hours", "1", "--visits", "a"), "--visits is given as 3,17"),
        (("--seed", "1", "--hours", "1", "--faults", "99"), "--faults: the plan has no number 99"),
    ],
)
def test_what_can_not_be_used_is_refused(arguments: tuple[str, ...], problem: str) -> None:
    ran = run(*arguments)
    assert ran.code == USAGE
    assert problem in ran.err
