"""What people and programs are shown of a check: summary, Markdown, JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from machines.checker import Model, NotRepeatable, Outcome, Path, Property, Report, Step, Verdict, always, check, replay
from machines.checker.choices import choices
from machines.checker.report import as_json, code, escaped, markdown, summary
from tests.machines.checker.examples.courier import Courier

FAULTY = Courier(frozenset({"double", "lose", "crash"}))


@pytest.fixture(scope="module")
def report() -> Report:
    return check(FAULTY)


def test_a_counterexample_tells_property_configuration_steps_changes_and_mailboxes(report: Report) -> None:
    text = markdown(FAULTY, report, report.verdict("all can come"))
    assert text.startswith("# courier: all can come\n")
    assert "- **Outcome:** fails: from the last state no goal can be reached any more" in text
    assert "- **It claims:** can still be reached from every reachable state." in text
    assert "- faults: `{'crash', 'double', 'lose'}`" in text
    assert (
        "1. send\n   - sender.sent: `0` → `1`\n   - way: `()` → `(0,)`\n2. lose **← here**\n   - way: `(0,)` → `()`"
        in text
    )
    assert "```mermaid\nsequenceDiagram\n" in text
    assert text.endswith("## Mailboxes at the end\n\n- receiver: empty\n- sender: empty\n")


def test_what_waits_at_the_end_is_listed(report: Report) -> None:
    text = markdown(FAULTY, report, report.verdict("a crash is no loss"))
    assert "- receiver: `parcel 0`\n" in text


def test_the_docstring_of_a_condition_is_part_of_the_claim(report: Report) -> None:
    text = markdown(FAULTY, report, report.verdict("each comes once"))
    assert "- **It claims:** holds in every reachable state. No parcel comes twice." in text


def test_a_lasso_says_which_steps_repeat() -> None:
    model = Courier(lazy=True)
    report = check(model)
    verdict = report.verdict("what is sent comes")
    assert verdict.path is not None
    assert verdict.path.loop is not None
    text = markdown(model, report, verdict)
    assert f"Steps {verdict.path.loop + 1} to {len(verdict.path.steps)} repeat for ever." in text
    assert f"{verdict.path.loop + 1}. *(the loop begins)* " in text
    assert "← here" not in text


def test_a_verdict_without_a_path_is_told_without_steps() -> None:
    verdict = Verdict("all", "sometimes", Outcome.FAILS, None, "no reachable state shows it")
    report = Report("courier", "breadth", (verdict,), 1, 0, 0, 0.0, complete=True)
    text = markdown(FAULTY, report, verdict)
    assert "no reachable state shows it" in text
    assert "## Steps" not in text


def test_an_initial_state_that_breaks_a_property_is_shown_without_steps() -> None:
    verdict = Verdict("each comes once", "always", Outcome.FAILS, Path(FAULTY.initial()[0]))
    text = markdown(FAULTY, Report("courier", "breadth", (verdict,), 1, 0, 0, 0.0, complete=True), verdict)
    assert "None: the initial state is the one." in text
    assert "Note over p0: the initial state" in text


def test_a_very_long_path_is_listed_from_both_its_ends() -> None:
    class Counter(Model[int, str]):
        name = "counter"

        def initial(self) -> Sequence[int]:
            return [0]

        def actions(self, state: int) -> Sequence[str]:
            return ["count"]

        def step(self, state: int, action: str) -> int:
            return state + 1

        def properties(self) -> Sequence[Property]:
            return [always("small", lambda state: state < 1000)]

    model = Counter()
    report = check(model, max_states=2000)
    text = markdown(model, report, report.verdict("small"))
    assert "200. count\n" in text
    assert "201. count\n" not in text
    assert "\nSteps 201 to 800 are left out.\n" in text
    assert "801. count\n     - state: `800` → `801`" in text
    assert "1000. count **← here**" in text
    assert "steps 1 to 920 are not drawn" in text
    assert len(as_json(model, report)["verdicts"][0]["path"]["steps"]) == 1000


def test_the_summary_has_a_line_for_each_property(report: Report) -> None:
    lines = summary(report)
    assert lines[0] == "courier: fails"
    assert f"{report.states:,} states" in lines[1]
    assert "all reachable states" in lines[1]
    assert "  FAIL always each comes once [path of 4]: the last state breaks it" in lines
    assert "  ok   sometimes something comes [path of 2]: the last state shows it" in lines
    assert len(lines) == 2 + len(report.verdicts)


def test_the_summary_of_a_bounded_search_says_what_is_not_decided() -> None:
    lines = summary(check(Courier(), max_states=2))
    assert lines[0] == "courier: not decided"
    assert "not all: stopped by max_states" in lines[1]
    assert any(line.startswith("  ?    always each comes once") for line in lines)


def test_the_json_twin_is_plain_and_its_paths_can_be_replayed(report: Report) -> None:
    twin = json.loads(json.dumps(as_json(FAULTY, report)))
    assert twin["outcome"] == "fails"
    assert twin["configuration"] == {"parcels": 2, "faults": "{'crash', 'double', 'lose'}"}
    shown = {it["property"]: it for it in twin["verdicts"]}
    assert shown.keys() == {claim.name for claim in FAULTY.properties()}
    for verdict in report.verdicts:
        path = shown[verdict.name]["path"]
        assert (path is None) == (verdict.path is None)
        if verdict.path is not None:
            again = replay(FAULTY, path["choices"])
            assert (again.initial, again.steps) == (verdict.path.initial, verdict.path.steps)
            assert [step["action"] for step in path["steps"]] == list(verdict.path.actions)
            assert path["choices"][1:] == [step["choice"] for step in path["steps"]]
    steps = shown["all can come"]["path"]["steps"]
    assert steps[1]["changed"] == {"way": ["(0,)", "()"]}
    assert steps[1]["happenings"] == [{"kind": "drop", "source": "sender", "text": "parcel 0", "target": "receiver#1"}]


def test_a_path_that_the_model_does_not_have_is_refused() -> None:
    begin = FAULTY.initial()[0]
    with pytest.raises(NotRepeatable, match="initial"):
        choices(FAULTY, Path(begin._replace(sent=1)))
    with pytest.raises(NotRepeatable, match="a step that the model does not have"):
        choices(FAULTY, Path(begin, (Step("deliver", begin),)))


class Hostile(Model[int, str]):
    """A model whose every text is an attempt to break out of where it stands."""

    name = "<b>`x`</b>\n# title"

    def initial(self) -> Sequence[int]:
        return [0]

    def actions(self, state: int) -> Sequence[str]:
        return ["```\n## not a title | *x* <script>"] if state == 0 else []

    def step(self, state: int, action: str) -> int:
        return state + 1

    def properties(self) -> Sequence[Property]:
        return [always("a\n- `b`", lambda state: state == 0)]

    def fields(self, state: int) -> Mapping[str, Any]:
        return {"``field`": f"``{state}\n```"}

    def pending(self, state: int) -> Mapping[str, Sequence[str]]:
        return {"<i>": ["`", ""]}


def test_no_text_of_a_model_means_anything_in_the_markdown() -> None:
    model = Hostile()
    report = check(model)
    text = markdown(model, report, report.verdicts[0])
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# \\<b\\>\\`x\\`\\</b\\> \\# title: a - \\`b\\`",
        "## Search options",
        "## From",
        "## Steps",
        "## Sequence",
        "## Mailboxes at the end",
    ]
    assert [line for line in lines if line.startswith("```")] == ["```mermaid", "```"]
    assert "<script>" not in text
    assert "1. \\`\\`\\` \\#\\# not a title \\| \\*x\\* \\<script\\> **← here**" in lines


@pytest.mark.parametrize(
    ("text", "span"), [("x", "`x`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("", "`  `"), ("a``b`c", "```a``b`c```")]
)
def test_a_code_span_holds_whatever_is_in_it(text: str, span: str) -> None:
    assert code(text) == span


def test_prose_is_one_line_and_escaped() -> None:
    assert escaped("a\tb\n*c*\x1b[0m") == "a b \\*c\\* \\[0m"
