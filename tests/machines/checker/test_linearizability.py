"""Histories of overlapping operations against one thread that does them in order."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.checker.linearizability import History, Register, is_linearizable, linearization

WRITE_A, WRITE_B, READ = ("write", "A"), ("write", "B"), ("read",)
SPEC = Register("")


def test_an_empty_history_is_linearizable() -> None:
    assert linearization(History(), SPEC) == []


def test_a_read_after_a_write_has_returned_sees_it() -> None:
    history = History().invoke(1, WRITE_A).answer(1, None).invoke(2, READ)
    assert is_linearizable(history.answer(2, "A"), SPEC)
    assert not is_linearizable(history.answer(2, ""), SPEC)


def test_a_read_during_a_write_may_see_it_or_not() -> None:
    history = History().invoke(1, WRITE_A).invoke(2, READ)
    assert linearization(history.answer(2, "A"), SPEC) == [(1, WRITE_A, None), (2, READ, "A")]
    assert linearization(history.answer(2, ""), SPEC) == [(2, READ, "")]
    assert not is_linearizable(history.answer(2, "B"), SPEC)


def test_what_one_read_has_seen_a_later_one_does_not_miss() -> None:
    history = History().invoke(1, WRITE_A).invoke(2, READ).answer(2, "A").invoke(3, READ)
    assert is_linearizable(history.answer(3, "A"), SPEC)
    assert not is_linearizable(history.answer(3, ""), SPEC)


def test_two_reads_can_not_see_two_writes_in_opposite_orders() -> None:
    history = History().invoke(1, WRITE_A).invoke(2, WRITE_B)
    for thread, first, second in ((3, "A", "B"), (4, "B", "A")):
        history = history.invoke(thread, READ).answer(thread, first).invoke(thread, READ).answer(thread, second)
    assert not is_linearizable(history, SPEC)


def test_histories_that_mean_the_same_are_equal() -> None:
    one = History().invoke(1, WRITE_A).invoke(2, READ)
    other = History().invoke(2, READ).invoke(1, WRITE_A)
    assert one == other
    assert hash(one) == hash(other)
    assert one.answer(1, None).invoke(1, READ) != one.answer(2, "").answer(1, None).invoke(1, READ)


def test_a_thread_does_one_thing_at_a_time() -> None:
    with pytest.raises(ValueError, match="thread 1 is at an operation already"):
        History().invoke(1, READ).invoke(1, READ)
    with pytest.raises(ValueError, match="thread 1 is at no operation"):
        History().answer(1, "A")


events = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["A", "B", None]), st.sampled_from(["", "A", "B"])), max_size=9
)


@given(events)
def test_the_search_agrees_with_trying_all_orders(drawn: list[tuple[int, str | None, str]]) -> None:
    """Operations are also kept with the times at which they began and ended; every order of every choice is tried."""
    history = History()
    open_at: dict[int, tuple[int, tuple[str, ...]]] = {}
    done = []
    for at, (thread, write, answer) in enumerate(drawn):
        if thread not in open_at:
            operation = READ if write is None else ("write", write)
            open_at[thread] = (at, operation)
            history = history.invoke(thread, operation)
        else:
            began, operation = open_at.pop(thread)
            said = answer if operation == READ else None
            history = history.answer(thread, said)
            done.append((began, at, operation, said))
    pending = [(began, 1_000, operation) for began, operation in open_at.values() if operation != READ]
    assert is_linearizable(history, SPEC) == _any_order(done, pending)


def _any_order(done: list, pending: list) -> bool:
    for took in range(1 << len(pending)):
        effects = [(*one, None) for at, one in enumerate(pending) if took >> at & 1]
        if any(map(_is_legal, permutations([*done, *effects]))):
            return True
    return False


def _is_legal(order: tuple) -> bool:
    value = ""
    for at, (began, _, operation, said) in enumerate(order):
        if any(ended < began for _, ended, *_ in order[at + 1 :]):
            return False
        if operation == READ and said != value:
            return False
        value = value if operation == READ else operation[1]
    return True
