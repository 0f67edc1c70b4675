"""Paths as sequence diagrams: what is drawn, and Mermaid text that no label can break."""

import re
from collections.abc import Sequence as Several

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.checker import Happening, Model, Outcome, Path, Step, Verdict, check
from machines.checker.sequence import escaped, mermaid, sequence
from tests.machines.checker.examples.courier import Courier

_TEXT = r"(?:[\w .,()\[\]/=+*!?'|~:→-]|#\d+;)+"
_LINES = {
    "participant": re.compile(rf"participant (p\d+) as {_TEXT}"),
    "arrow": re.compile(rf"(p\d+)(?:->>|-x|-->>)(p\d+): {_TEXT}"),
    "note": re.compile(rf"Note over (p\d+)(?:,(p\d+))?: {_TEXT}"),
    "rect": re.compile(r"rect rgba\(220, 38, 38, 0\.15\)"),
    "loop": re.compile(r"loop for ever"),
    "end": re.compile(r"end"),
}


def kinds(text: str) -> list[str]:
    """The kind of each line of a Mermaid sequence diagram, after a look at its structure: only lines that are known, every
    participant declared once and before it is used, every block closed and none empty.
    """
    lines = text.splitlines()
    assert lines[0] == "sequenceDiagram"
    declared: list[str] = []
    found: list[str] = []
    open_blocks = 0
    for line in lines[1:]:
        kind, match = next(
            ((kind, it) for kind, form in _LINES.items() if (it := form.fullmatch(line.strip()))), ("", None)
        )
        assert match is not None, line
        if kind == "participant":
            assert match[1] not in declared
            assert set(found) <= {"participant"}
            declared.append(match[1])
        else:
            assert {name for name in match.groups() if name} <= set(declared)
        if kind == "end":
            assert found[-1] not in {"rect", "loop"}
        open_blocks += (kind in {"rect", "loop"}) - (kind == "end")
        assert open_blocks >= 0
        found.append(kind)
    assert open_blocks == 0
    return found


def shown(model: Courier, name: str) -> str:
    return mermaid(sequence(model, check(model).verdict(name)))


def test_a_lost_message_is_drawn_with_its_bad_step_boxed() -> None:
    text = shown(Courier(frozenset({"lose"})), "all can come")
    assert text == (
        "sequenceDiagram\n"
        "    participant p0 as sender\n"
        "    participant p1 as receiver#35;1\n"
        "    Note over p0: 1. parcel 0 leaves\n"
        "    rect rgba(220, 38, 38, 0.15)\n"
        "        p0-xp1: 2. parcel 0 (lost)\n"
        "    end\n"
    )


def test_a_duplicate_has_an_arrow_of_its_own() -> None:
    text = shown(Courier(frozenset({"double"})), "each comes once")
    assert "    p0-->>p1: 2. parcel 0 (again)\n" in text
    assert "        p0->>p1: 4. parcel 0\n" in text


def test_each_incarnation_is_a_participant_beside_the_one_before() -> None:
    model = Courier(frozenset({"crash"}))
    begin = model.initial()[0]
    steps = [Step("crash", model.step(begin, "crash"))]
    for action in ("send", "deliver"):
        steps.append(Step(action, model.step(steps[-1].state, action)))
    diagram = sequence(model, Verdict("each comes once", "always", Outcome.FAILS, Path(begin, tuple(steps))))
    assert diagram.participants == ("receiver#1", "receiver#2", "sender")
    assert "Note over p0: 1. crash\n    Note over p1: restart\n" in mermaid(diagram)


def test_a_lasso_is_a_loop_and_has_no_bad_step() -> None:
    text = shown(Courier(lazy=True), "what is sent comes")
    assert kinds(text).count("loop") == 1
    assert "rect" not in kinds(text)
    assert "timer: tired" in text
    assert text.endswith("    end\n")


def test_a_step_that_shows_nothing_is_a_note_of_its_label() -> None:
    model = Courier(lazy=True)
    begin = model.initial()[0]._replace(naps=True)
    path = Path(begin, (Step("wake", begin._replace(naps=False)),))
    assert "1. wake" in mermaid(sequence(model, Verdict("x", "always", Outcome.FAILS, path)))


def test_a_run_that_stays_where_it_is_says_so() -> None:
    model = Courier(lazy=True)
    begin = model.initial()[0]
    after = model.step(begin, "send")
    verdict = Verdict("x", "leads_to", Outcome.FAILS, Path(begin, (Step("send", after),), loop=1))
    assert mermaid(sequence(model, verdict)).endswith("    Note over p0: and stays here for ever\n")


def test_a_witness_has_no_bad_step() -> None:
    assert "rect" not in kinds(shown(Courier(), "something comes"))


def test_a_verdict_without_a_path_has_no_diagram() -> None:
    with pytest.raises(ValueError, match="no path to show for 'each comes once': it holds"):
        sequence(Courier(), check(Courier()).verdict("each comes once"))


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Stop(3): now", "Stop(3): now"),
        ("a;b#c", "a#59;b#35;c"),
        ("<b>&\"'", "#60;b#62;#38;#34;'"),
        ("%%{init: {}}%%", "#37;#37;#123;init: #123;#125;#125;#37;#37;"),
        ("the end", "the #101;nd"),
        ("end END sender", "#101;nd #69;ND sender"),
        ("NoWrap: x", "NoWrap#58; x"),
        ("two\nlines", "two lines"),
        ("", "-"),
        ("é → 日本", "é → 日本"),
    ],
)
def test_text_is_escaped(text: str, safe: str) -> None:
    assert escaped(text) == safe


class Talk(Model[int, Several[Happening]]):
    """A model that is nothing but what it shows."""

    name = "talk; %%"

    def happenings(self, before: int, action: Several[Happening], after: int) -> Several[Happening]:
        return action

    def label(self, action: Several[Happening]) -> str:
        return "; end"


_WORDS = st.text(max_size=12) | st.sampled_from(["end", "wrap: x", "%%{init}", "A->>B: x", "loop", "rect", "a\nend\n"])
_HAPPENINGS = st.builds(
    Happening,
    st.sampled_from(["message", "drop", "duplicate", "timer", "crash", "restart", "spawn", "stop", "note", "other"]),
    _WORDS,
    _WORDS,
    _WORDS,
)


@given(st.lists(st.lists(_HAPPENINGS, max_size=3), max_size=5), st.none() | st.integers(0, 5))
def test_whatever_is_said_the_text_stays_a_diagram(talk: list[list[Happening]], loop: int | None) -> None:
    steps = tuple(Step(said, at) for at, said in enumerate(talk))
    path = Path(0, steps, None if loop is None else min(loop, len(steps)))
    found = kinds(mermaid(sequence(Talk(), Verdict("x", "always", Outcome.FAILS, path))))
    assert found.count("loop") == (loop is not None and loop < len(steps))
    assert found.count("rect") == (loop is None or not steps)
