"""A model of rules on bits: the search of its own finds what the general one does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.checker import (
    Layout,
    Outcome,
    PackedModel,
    PropertyRaised,
    Rule,
    always,
    always_step,
    can_always_reach,
    check,
    no_deadlock,
    replay_actions,
    sometimes,
)
from tests.machines.checker.examples.packed_two_phase_commit import packed_two_phase_commit
from tests.machines.checker.examples.two_phase_commit import TwoPhaseCommit

BITS = Layout(lamp=1, level=2, spare=3)


def test_a_layout_puts_fields_side_by_side() -> None:
    state = BITS.pack({"lamp": 1, "level": 2})
    assert state == 0b000_10_1
    assert BITS.unpack(state) == {"lamp": 1, "level": 2, "spare": 0}
    assert BITS.value(state, "level") == 2
    assert BITS.mask(["level", "spare"]) == 0b111_11_0


@pytest.mark.parametrize("value", [-1, 4])
def test_a_value_that_does_not_fit_its_field_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"'level' has values from 0 to 3, not {value}"):
        BITS.pack({"level": value})


def test_a_field_without_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="'nothing' has 0 bits"):
        Layout(nothing=0)


@pytest.mark.parametrize(("managers", "states", "transitions"), [(3, 288, 1_145), (5, 8_832, 58_145)])
@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"visited": "fingerprint"}, {"workers": 2}], ids=str)
def test_two_phase_commit_has_the_same_graph_packed(
    managers: int, states: int, transitions: int, options: dict[str, Any]
) -> None:
    report = check(packed_two_phase_commit(managers), **options)
    assert (report.states, report.transitions) == (states, transitions)
    assert report.outcome is Outcome.HOLDS


def test_its_witnesses_are_as_long_and_are_runs_of_the_model() -> None:
    model = packed_two_phase_commit(3)
    for name in ("all commit", "all abort"):
        packed, plain = check(model).verdict(name).path, check(TwoPhaseCommit(3)).verdict(name).path
        assert packed is not None
        assert plain is not None
        assert len(packed.steps) == len(plain.steps)
        assert replay_actions(model, packed.actions) == packed


def test_a_packed_state_shows_its_fields() -> None:
    model = packed_two_phase_commit(2)
    path = check(model).verdict("all commit").path
    assert path is not None
    assert model.fields(path.last) | {"manager 0": 2, "manager 1": 2, "master": 2} == model.fields(path.last)


rules = st.lists(
    st.builds(
        lambda mask, value, changed, put: (mask, value & mask, changed, put & changed),
        *[st.integers(0, 63)] * 4,
    ),
    max_size=6,
)


@given(rules, st.lists(st.integers(0, 63), min_size=1, max_size=2), st.integers(0, 63), st.integers(1, 64))
def test_both_searches_agree_on_drawn_rules(
    drawn: list[tuple[int, int, int, int]], initial: list[int], bad: int, most: int
) -> None:
    properties = [
        always("not that", lambda state: state != bad),
        sometimes("two bits", lambda state: state.bit_count() == 2),
        no_deadlock("goes on", lambda state: bool(state & 1)),
    ]
    named = [Rule(f"rule {at}", *rule) for at, rule in enumerate(drawn)]
    model = PackedModel("drawn", Layout(bits=6), named, initial=initial, properties=properties)
    quick = check(model)
    general = check(model, visited="fingerprint")
    assert (quick.states, quick.transitions, quick.depth) == (general.states, general.transitions, general.depth)
    assert quick.verdicts == general.verdicts
    bounded = check(model, max_states=most)
    assert bounded.states == min(most, len(set(initial)), quick.states) or bounded.states == min(most, bounded.states)
    assert bounded.verdicts == check(model, max_states=most, visited="fingerprint").verdicts


def test_rules_that_touch_many_bits_are_looked_up_in_several_tables() -> None:
    bits = Layout(**{f"b{at}": 1 for at in range(40)})
    model = PackedModel(
        "wide",
        bits,
        [bits.rule(f"set {at}", when={f"b{at}": 0}, then={f"b{at}": 1}) for at in range(40)],
        initial=[bits.pack({f"b{at}": 1 for at in range(30)})],
        properties=[always("never all", lambda state: state != 2**40 - 1)],
    )
    assert len(model.tables) > 1
    report = check(model)
    assert (report.states, report.transitions) == (2**10, 10 * 2**9)
    path = report.verdict("never all").path
    assert path is not None
    assert len(path.steps) == 10


def test_properties_of_steps_and_of_the_graph_are_decided_by_the_general_search() -> None:
    bits = Layout(lamp=1)
    on, off = (bits.rule(name, when={"lamp": 1 - to}, then={"lamp": to}) for name, to in (("on", 1), ("off", 0)))
    claims = [
        always_step("never off", lambda _, action, __: action != "off"),
        can_always_reach("dark", lambda s: s == 0),
    ]
    report = check(PackedModel("lamp", bits, [on, off], initial=[0], properties=claims))
    assert [verdict.outcome for verdict in report.verdicts] == [Outcome.FAILS, Outcome.HOLDS]


def test_a_property_that_raises_is_named_with_the_state_and_the_rule() -> None:
    bits = Layout(lamp=1)
    rule = bits.rule("on", when={"lamp": 0}, then={"lamp": 1})
    model = PackedModel(
        "lamp", bits, [rule], initial=[0], properties=[always("asked", lambda state: 1 // (1 - state) > 0)]
    )
    with pytest.raises(PropertyRaised) as caught:
        check(model)
    assert (caught.value.state, caught.value.action) == (1, "on")
