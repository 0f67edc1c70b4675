"""The diagrams: right for the code, the same each time, and those in the repository are fresh."""

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from actors.voice import messages
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.diagrams import compare, draw, machines_declared
from agentos.core.communication.voice.diagrams.flow_diagram import actors_mermaid
from agentos.core.communication.voice.diagrams.message_flow import ACTORS, Flow, FlowKind, flows, name_of, nodes, parents
from agentos.core.communication.voice.diagrams.state_diagram import machine_mermaid, machine_svg
from machines.lifecycle import Lifecycle, Move
from machines.session import SESSION

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
VALUES = {"Account", "Facts", "Draft", "Levels", "Resumption", "Word", "PartRecord", "Transcribed"}  # parts of messages

LOOP: Lifecycle[str] = Lifecycle(
    "loop",
    states=["idle", "busy", "gone"],
    initial="idle",
    final=["gone"],
    moves=[
        Move("work", "idle", "busy", "there is something to do"),
        Move("more", "busy", "busy", "and <more> & more"),
        Move("done", "busy", "idle", "nothing is left"),
        Move("leave", "idle", "gone", "it was enough"),
        Move("drop", "busy", "gone", "it was too much"),
    ],
)


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_diagrams_of_the_repository_are_fresh() -> None:
    assert compare(draw(), ROOT / "diagrams") == {}


def test_drawing_twice_gives_the_same() -> None:
    assert draw() == draw()


def test_every_machine_that_is_declared_is_drawn() -> None:
    assert SESSION in machines_declared()
    for machine in machines_declared():
        assert {f"{machine.name}.mmd", f"{machine.name}.svg"} <= set(draw())


@pytest.mark.parametrize("machine", [*machines_declared(), LOOP], ids=lambda machine: machine.name)
def test_a_machine_is_drawn_with_every_state_move_and_reason(machine: Lifecycle[str]) -> None:
    mermaid, svg = machine_mermaid(machine), machine_svg(machine)
    shown = words(svg)
    for move in machine.moves:
        source, dest = (str(getattr(state, "value", state)) for state in (move.source, move.dest))
        assert f"    {source} --> {dest} : {move.trigger} ({move.why})" in mermaid.splitlines()
        assert shown.count(f"{move.trigger}: {move.why}") == sum(
            (move.trigger, move.why) == (other.trigger, other.why) for other in machine.moves
        )
    for state in machine.states:
        text = str(getattr(state, "value", state))
        assert shown.count(text.upper()) == 1
        assert (f"    {text} --> [*]" in mermaid.splitlines()) is (state in machine.final)
    for trigger in machine.deadlines.values():
        assert f"deadline: {trigger}" in shown
        assert f"its deadline fires {trigger}" in mermaid


def test_nothing_is_drawn_outside_of_the_picture_and_no_two_states_overlap() -> None:
    for svg in (machine_svg(SESSION), machine_svg(LOOP)):
        root = ET.fromstring(svg)
        width, height = int(root.attrib["width"]), int(root.attrib["height"])
        boxes = [
            {key: int(box.attrib[key]) for key in ("x", "y", "width", "height")}
            for box in root.iter(f"{SVG}rect")
            if "rx" in box.attrib
        ]
        for box in boxes:
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width
            assert 0 <= box["y"] <= box["y"] + box["height"] <= height
        tops = sorted((box["y"], box["y"] + box["height"]) for box in boxes)
        assert all(bottom < top for (_, bottom), (top, _) in pairwise(tops))


def test_every_message_of_the_voice_actors_is_sent_by_somebody_to_somebody() -> None:
    declared = {name for name, value in vars(messages).items() if getattr(value, "__module__", "").startswith(messages.__name__)}
    silent = {"Heard"}  # what the port tells and nobody needs
    drawn = {flow.message for flow in flows()}
    assert {name for name in declared - drawn - VALUES if isinstance(getattr(messages, name), type)} <= silent
    assert all(flow.receivers for flow in flows())


def test_every_message_that_an_actor_handles_reaches_it() -> None:
    reached = {(flow.message, receiver) for flow in flows() for receiver in flow.receivers}
    assert ("Frames", "session") in reached
    for actor in ACTORS:
        tables = actor.handles if not all(isinstance(key, type) for key in actor.handles) else {"": actor.handles}
        taken = {kind.__name__ for table in tables.values() for kind, rule in table.items() if isinstance(rule, str)}
        assert {(message, name_of(actor)) for message in taken} <= reached


def test_the_flow_is_the_one_that_the_actors_have() -> None:
    found = set(flows())
    for flow in (
        Flow("Frames", "service", ("session",), FlowKind.TELL),
        Flow("Frames", "session", ("recorder", "transcriber", "quality"), FlowKind.TELL),
        Flow("Keep", "recorder", ("media",), FlowKind.WORK),
        Flow("Kept", "media", ("recorder",), FlowKind.FACT),
        Flow("Kept", "recorder", ("quality",), FlowKind.TELL),
        Flow("Commit", "session", ("evidence",), FlowKind.TELL),
        Flow("Stored", "store", ("evidence",), FlowKind.FACT),
        Flow("Durable", "evidence", ("supervisor", "session"), FlowKind.TELL),
        Flow("Routes", "supervisor", ("session",), FlowKind.TELL),
        Flow("Opened", "session", ("service",), FlowKind.REPLY),
        Flow("Changed", "session", ("directory",), FlowKind.WORK),
    ):
        assert flow in found
    assert parents() == {
        "policy": "supervisor",
        "evidence": "supervisor",
        "session": "supervisor",
        "recorder": "session",
        "transcriber": "session",
        "quality": "session",
    }


def test_the_chart_names_every_message_and_every_node() -> None:
    drawn = draw()
    shown = words(drawn["actors.svg"])
    assert set(nodes()) <= set(shown)
    for flow in flows():
        assert flow.message in shown
        assert flow.message in drawn["actors.mmd"]
    assert actors_mermaid(flows(), parents()) == drawn["actors.mmd"]


def test_stale_missing_and_extra_files_are_told_and_drawing_again_mends_all_but_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "drawn"
    assert main(["diagrams", "--output", str(folder)]) == 0
    assert main(["diagrams", "--output", str(folder), "--check"]) == 0
    (folder / "session.mmd").write_text("stateDiagram-v2\n")
    (folder / "session.svg").unlink()
    (folder / "old.svg").touch()
    capsys.readouterr()
    assert main(["diagrams", "--output", str(folder), "--check", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["wrong"] == {"old.svg": "extra", "session.mmd": "stale", "session.svg": "missing"}
    assert main(["diagrams", "--output", str(folder), "--check"]) == 1
    assert "old.svg is extra, session.mmd is stale, session.svg is missing" in capsys.readouterr().err
    assert main(["diagrams", "--output", str(folder)]) == 0
    assert compare(draw(), folder) == {"old.svg": "extra"}


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["diagrams", "--output", str(tmp_path / "file")]) == 2
    assert "--output" in capsys.readouterr().err
