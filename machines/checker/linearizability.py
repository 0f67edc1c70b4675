"""Linearizability: could a single thread have made a history of overlapping operations? (Herlihy and Wing, 1990)

A `History` is a value that can be part of a model's state. For each operation it has the operations that had returned when it
was invoked, but no times, so histories that mean the same are equal.
"""

from collections.abc import Hashable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S")


class SequentialSpec(Protocol, Generic[S]):
    """The behaviour of an object whose operations come one at a time."""

    @property
    def initial(self) -> S:
        """The object's state before any operation."""

    def apply(self, state: S, operation: Any) -> tuple[S, Any]:
        """The state after `operation`, and its return value."""


class Register(NamedTuple):
    """A register: the operations are `("write", value)`, which returns None, and `("read",)`, which returns the value."""

    initial: Any = None

    def apply(self, state: Any, operation: tuple[Any, ...]) -> tuple[Any, Any]:
        """The value after `operation`, and its return value."""
        return (operation[1], None) if operation[0] == "write" else (state, state)


class Invoked(NamedTuple):
    """An operation that has begun. `after` has the number of operations that each other thread had completed by then, if
    any."""

    operation: Any
    after: tuple[tuple[Any, int], ...]


class Returned(NamedTuple):
    """An operation that has returned."""

    invoked: Invoked
    answer: Any


class History(NamedTuple):
    """The operations of some threads so far. Threads are sortable values; a thread does one operation at a time.

    `completed` and `under_way` are sorted by thread.
    """

    completed: tuple[tuple[Any, tuple[Returned, ...]], ...] = ()
    under_way: tuple[tuple[Any, Invoked], ...] = ()

    def invoke(self, thread: Any, operation: Any) -> "History":
        """This history after `thread` began `operation`. Raises `ValueError` if the thread is still at another operation."""
        if any(one == thread for one, _ in self.under_way):
            raise ValueError(f"the thread {thread!r} is at an operation already")
        after = tuple((other, len(done)) for other, done in self.completed if other != thread)
        return self._replace(
            under_way=tuple(sorted([*self.under_way, (thread, Invoked(operation, after))], key=_thread))
        )

    def answer(self, thread: Any, answer: Any) -> "History":
        """This history after the operation of `thread` returned. Raises `ValueError` if the thread is at no operation."""
        invoked = next((invoked for one, invoked in self.under_way if one == thread), None)
        if invoked is None:
            raise ValueError(f"the thread {thread!r} is at no operation")
        completed = dict(self.completed)
        completed[thread] = (*completed.get(thread, ()), Returned(invoked, answer))
        return History(
            tuple(sorted(completed.items(), key=_thread)), tuple(one for one in self.under_way if one[0] != thread)
        )


def linearization(history: History, spec: SequentialSpec[Any]) -> list[tuple[Any, Any, Any]] | None:
    """An order in which a single thread could have made `history`, as `(thread, operation, answer)`; None if there is none.

    Operations under way may have had their effect already, or not yet. The search remembers pairs of completed operations and
    object state that it has seen (Lowe, 2017), so it is exponential in the number of threads, not of operations.
    """
    threads = sorted({thread for thread, _ in (*history.completed, *history.under_way)})
    completed, under_way = dict(history.completed), dict(history.under_way)
    order: list[tuple[Any, Any, Any]] = []
    tried: set[tuple[tuple[int, ...], Hashable]] = set()

    def extend(done: tuple[int, ...], state: Any) -> bool:
        if all(done[at] >= len(completed.get(thread, ())) for at, thread in enumerate(threads)):
            return True
        if (done, state) in tried:
            return False
        tried.add((done, state))
        for at, thread in enumerate(threads):
            returned = completed.get(thread, ())
            ends = done[at] < len(returned)
            if not ends and (done[at] > len(returned) or thread not in under_way):
                continue
            invoked = returned[done[at]].invoked if ends else under_way[thread]
            if any(done[threads.index(other)] < count for other, count in invoked.after):
                continue
            after, answer = spec.apply(state, invoked.operation)
            if ends and answer != returned[done[at]].answer:
                continue
            order.append((thread, invoked.operation, answer))
            if extend((*done[:at], done[at] + 1, *done[at + 1 :]), after):
                return True
            order.pop()
        return False

    return order if extend((0,) * len(threads), spec.initial) else None


def is_linearizable(history: History, spec: SequentialSpec[Any]) -> bool:
    """Whether a single thread could have made `history`."""
    return linearization(history, spec) is not None


def _thread(item: tuple[Any, Any]) -> Any:
    return item[0]
