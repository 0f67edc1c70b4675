"""Verification: a walk along the evidence chain, from its first record to its last, that checks every link.

Beside the chain stand the contents of its records (`sealing.py`) and, after a carry-over, the hashes of the older chain
(`carry_over.py`); the walk checks both along with the chain. It can't detect an attacker who can write both the database and
the place where heads are noted: such an attacker can rewrite both.
"""

import json
from collections.abc import Collection, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from machines.carry_over import CarriedOver, OldChain, carried_over
from machines.evidence import ChainRow, canonical_json, link
from machines.heads import GENESIS, Head, HeadCheck, HeadState
from machines.sealing import Content, fault_of, seals, unsealed


class Beside(NamedTuple):
    """The data beside the chain: the contents, each with the place of its record, in the chain's order; and the links of the
    older chain, in order, if there was a carry-over."""

    contents: Iterable[tuple[int, Content]] = ()
    older: Iterable[Head] = ()


class Verification(NamedTuple):
    """The result of a walk along the chain: how many links hold, the last good hash, and the first fault, if any."""

    records: int
    head: str
    fault: str | None
    at_seq: int | None

    @property
    def ok(self) -> bool:
        """True if every link holds, and every content that is there fits its seal."""
        return self.fault is None


class Examination(NamedTuple):
    """The result of a walk along the chain and the data beside it.

    Of the contents of sound records, `sealed` are there and `erased` are not any more. `heads` says how each given head stands
    to the chain.
    """

    chain: Verification
    sealed: int
    erased: int
    heads: tuple[HeadCheck, ...]


def verify(rows: Iterable[ChainRow], beside: Beside | None = None) -> Verification:
    """Walk the chain from its beginning, up to the first fault.

    `beside` is None for a chain of an older version, which stored nothing beside it.
    """
    return examine(rows, beside).chain


def examine(rows: Iterable[ChainRow], beside: Beside | None = None, heads: Collection[Head] = ()) -> Examination:
    """Walk the chain as `verify` does, and compare it with `heads` that were noted elsewhere."""
    walk = _ChainWalk(beside, heads)
    for row in rows:
        fault = walk.step(row)
        if fault is not None:
            return walk.found(fault, row.seq)
    return walk.end()


class _ChainWalk:
    def __init__(self, beside: Beside | None, heads: Collection[Head]) -> None:
        self._count = self._sealed = self._erased = 0
        self._previous = GENESIS
        self._ids: set[str] = set()
        self._contents = None if beside is None else _Contents(beside.contents)
        self._older = None if beside is None else OldChain(beside.older, heads)
        self._carried: CarriedOver | None = None
        self._heads = heads
        self._asked = {head.seq for head in heads}
        self._seen = {0: GENESIS}

    def step(self, row: ChainRow) -> str | None:
        """Check the next row and return its fault, or None if it holds."""
        fault = _fault(row, expected_seq=self._count + 1, previous=self._previous)
        if fault is None and row.id in self._ids:
            fault = f"the id {row.id} is there twice"
        if fault is None and self._contents is not None:
            fault = self._beside(row)
        if fault is not None:
            return fault
        self._ids.add(row.id)
        self._previous, self._count = row.hash, self._count + 1
        if row.seq in self._asked:
            self._seen[row.seq] = row.hash
        return None

    def _beside(self, row: ChainRow) -> str | None:
        assert self._contents is not None  # noqa: S101 - narrows the type
        assert self._older is not None  # noqa: S101 - as above
        record: dict[str, Any] = json.loads(row.record)
        contents = self._contents.of(row.seq)
        if contents is None:
            return f"a content stands beside the chain for a record {self._contents.left} that is not there"
        fault = fault_of(record, contents)
        if fault is not None:
            return fault
        erased = len(seals(record)) - len(contents)
        self._sealed += len(contents)
        self._erased += erased
        if row.seq == 1:
            try:
                self._carried = carried_over(record)
            except ValueError as error:
                return str(error)
            return None
        if self._carried is not None and row.seq <= self._carried.records + 1:
            was = None if erased else canonical_json(unsealed(record, contents))
            return self._older.step(was, self._carried)
        return None

    def end(self) -> Examination:
        """The result when there are no more rows."""
        if self._contents is not None and (left := self._contents.left) is not None:
            return self.found(
                f"a content stands beside the chain for a record {left} that is not there", self._count + 1
            )
        carried = self._carried
        if carried is not None and self._older is not None:
            if self._count <= carried.records:
                problem = f"it ends, and {carried.records} records were carried over from an older chain"
                return self.found(problem, self._count + 1)
            fault = self._older.fault(carried)
            if fault is not None:
                return self.found(fault, 1)
        return self.found(None, None)

    def found(self, fault: str | None, at_seq: int | None) -> Examination:
        """The result."""
        checks = tuple(HeadCheck(head, self._state(head, fault)) for head in self._heads)
        return Examination(Verification(self._count, self._previous, fault, at_seq), self._sealed, self._erased, checks)

    def _state(self, head: Head, fault: str | None) -> HeadState:
        if self._seen.get(head.seq) == head.hash:
            return HeadState.HOLDS
        if self._carried is not None and self._older is not None and self._older.has(head):
            return HeadState.BEFORE_CARRY_OVER
        if head.seq in self._seen:
            return HeadState.DIFFERS
        return HeadState.CUT if fault is None else HeadState.NOT_REACHED


class _Contents:
    """The contents, handed out record by record during the walk."""

    def __init__(self, contents: Iterable[tuple[int, Content]]) -> None:
        self._groups = groupby(contents, itemgetter(0))
        self._next: tuple[int, list[Content]] | None = None
        self._take()

    @property
    def left(self) -> int | None:
        """The place of the next record with contents; None if there is none."""
        return None if self._next is None else self._next[0]

    def of(self, seq: int) -> list[Content] | None:
        """The contents of record `seq`; None if contents of an earlier record are left over."""
        if self._next is None or self._next[0] > seq:
            return []
        if self._next[0] < seq:
            return None
        contents = self._next[1]
        self._take()
        return contents

    def _take(self) -> None:
        found = next(self._groups, None)
        self._next = None if found is None else (found[0], [content for _, content in found[1]])


def _fault(row: ChainRow, *, expected_seq: int, previous: str) -> str | None:
    if row.seq != expected_seq:
        return f"record {expected_seq} is missing"
    if row.previous != previous:
        return "its link to the record before it is wrong"
    try:
        if link(previous, row.record) != row.hash:
            return "its text does not give its hash"
        record = json.loads(row.record)
        canonical = canonical_json(record)
    except (RecursionError, TypeError, ValueError):
        return "its text is not JSON"
    if canonical != row.record:
        return "its text is not canonical"
    if not isinstance(record, dict):
        return "its text is no record"
    if record.get("id") != row.id or record.get("request_id") != row.request_id:
        return "its columns are not those of its text"
    return None
