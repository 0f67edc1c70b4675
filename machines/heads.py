"""Heads: the last link of a chain at one moment. A noted head shows later whether the chain still goes on from there.

A head is written as `PLACE:HASH`, the number of the last record and its hash; `0:` and sixty-four zeros are the head of a
chain without records. A head covers every record up to its place, so keep the newest head.
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
    """The end of a chain: how many links it has, and the hash of the last one."""

    seq: int = 0
    hash: str = GENESIS

    @property
    def text(self) -> str:
        """The head as `PLACE:HASH`."""
        return f"{self.seq}:{self.hash}"


class HeadState(str, Enum):
    """How a noted head stands to the chain now."""

    HOLDS = "holds"
    CUT = "cut"
    DIFFERS = "differs"
    BEFORE_CARRY_OVER = "head-before-carry-over"
    NOT_REACHED = "not-reached"

    @property
    def meaning(self) -> str:
        """The state in words."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    HeadState.HOLDS: "the chain goes on from it",
    HeadState.CUT: "the chain ends before it: records were cut off",
    HeadState.DIFFERS: "another record stands in its place: the chain was made anew, or is another one",
    HeadState.BEFORE_CARRY_OVER: "it is a head of the older chain that this one was made from; note a head of this one",
    HeadState.NOT_REACHED: "the chain is broken before it",
}


class HeadCheck(NamedTuple):
    """A noted head, and how it stands to the chain now."""

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
    """Whether a line may be the beginning of a head whose rest a crash or a full disk cut off; readers skip such a line."""
    return _TORN.fullmatch(line) is not None


def read_heads(lines: Iterable[str]) -> Iterator[Head | str]:
    """The head in each line, or the line itself if it holds no head. Skips empty lines and lines that begin with `#`."""
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                yield read_head(text)
            except ValueError:
                yield text
