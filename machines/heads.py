"""Heads: where a chain ended when somebody looked. Who noted one can tell later whether the chain still goes on from there.

A head is written as `PLACE:HASH`, the number of the record and its hash in the chain; `0:` and sixty-four zeros are the head of
a chain without records. A head covers every record up to its place, so that the newest one is the one to keep.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

GENESIS: Final = "0" * 64
LARGEST_PLACE: Final = 2**63 - 1

HEAD_PATTERN: Final = "^([0-9]{1,19}):([0-9a-f]{64})$"
_HEAD: Final = re.compile(HEAD_PATTERN[1:-1])
_TORN: Final = re.compile("[0-9]{1,19}(:[0-9a-f]{0,63})?")


class Head(NamedTuple):
    """Where a chain ends: how many links it has, and the hash of the last one."""

    seq: int = 0
    hash: str = GENESIS

    @property
    def text(self) -> str:
        """The head as it is noted."""
        return f"{self.seq}:{self.hash}"


class HeadState(str, Enum):
    """What became of a noted head."""

    HOLDS = "holds"
    CUT = "cut"
    DIFFERS = "differs"
    BEFORE_CARRY_OVER = "head-before-carry-over"
    NOT_REACHED = "not-reached"

    @property
    def meaning(self) -> str:
        """What it means, in words."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    HeadState.HOLDS: "the chain goes on from it",
    HeadState.CUT: "the chain ends before it: records were cut off",
    HeadState.DIFFERS: "another record stands in its place: the chain was made anew, or is another one",
    HeadState.BEFORE_CARRY_OVER: "it is a head of the older chain that this one was made from; note a head of this one",
    HeadState.NOT_REACHED: "the chain is broken before it",
}


class HeadCheck(NamedTuple):
    """A noted head, and what became of it."""

    head: Head
    state: HeadState


def read_head(text: str) -> Head:
    """The head that is written as `PLACE:HASH`. Raises `ValueError` for anything else."""
    match = _HEAD.fullmatch(text)
    head = Head() if match is None else Head(int(match[1]), match[2])
    if match is None or head.seq > LARGEST_PLACE or (head.seq == 0) != (head.hash == GENESIS):
        raise ValueError(f"a head is PLACE:HASH, a number and 64 hexadecimal digits, got {text[:100]!r}")
    return head


def is_torn(line: str) -> bool:
    """Whether a line may be the beginning of a head, of which a crash or a full disk took the rest. It says nothing."""
    return _TORN.fullmatch(line) is not None


def read_heads(lines: Iterable[str]) -> Iterator[Head | str]:
    """For each line its head, or the line itself when it is none. Empty lines, and those that begin with `#`, say nothing."""
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                yield read_head(text)
            except ValueError:
                yield text
