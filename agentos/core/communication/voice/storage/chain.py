"""The evidence chain as it is stored: records read with their contents in their places, and walks along it.

What is chained of a record has no personal content (`machines.sealing`); that stands in a table of its own, and is joined again
here. A database of a version before that, which is only read, has its records whole.
"""

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from agentos.core.communication.voice.storage.database import Reading, Where
from agentos.core.communication.voice.storage.tables import EVIDENCE, EVIDENCE_BEFORE, EVIDENCE_CONTENT
from machines.evidence import ChainRow, EvidenceRecord, canonical_json
from machines.heads import GENESIS, Head, HeadCheck, HeadState
from machines.sealing import SALT_BYTES, Content, seal, split, unsealed
from machines.verification import Beside, Examination, examine


class StoredLink(NamedTuple):
    """A link of the evidence chain as it is stored.

    `seq` is its place, `previous` the hash of the one before it, `hash` its own, made of that and `text`. `record` has the
    `contents` in their places again that stand beside the chain.
    """

    seq: int
    previous: str
    hash: str
    record: EvidenceRecord
    text: str
    contents: tuple[Content, ...] = ()


class Chained(NamedTuple):
    """A record as it is to be chained, and what is to stand beside it."""

    text: str
    contents: Sequence[Content]


def chained(record: EvidenceRecord | dict[str, Any]) -> Chained:
    """The text of a record with its content sealed. Raises `TypeError` or `ValueError` for what JSON or UTF-8 can't say."""
    whole = record.model_dump(mode="json") if isinstance(record, EvidenceRecord) else record
    plain, apart = split(whole)
    values = {part: canonical_json(members) for part, members in apart.items()}
    contents = seal(plain, values, [secrets.token_bytes(SALT_BYTES) for _ in values])
    text = canonical_json(plain)
    text.encode()  # a lone surrogate is legal in str, but neither in UTF-8 nor in the chain
    return Chained(text, contents)


def head_of(reading: Reading) -> Head:
    """Where the chain ends."""
    return next((Head(row.seq, row.hash) for row in _last(reading)), Head())


def _last(reading: Reading) -> Iterator[ChainRow]:
    return reading.select(EVIDENCE, order=("seq",), descending=True, limit=1)


def states_of(reading: Reading, heads: Collection[Head]) -> list[HeadCheck]:
    """What became of noted heads, by the hashes that stand at their places; that the links hold takes a walk."""
    end = head_of(reading)
    places = {"seq": [head.seq for head in heads]}
    here = {row.seq: row.hash for row in reading.select(EVIDENCE, places)}
    before = {row.seq: row.hash for row in reading.select(EVIDENCE_BEFORE, places)}
    here[0] = GENESIS
    return [HeadCheck(head, _state(head, end, here.get(head.seq), before.get(head.seq))) for head in heads]


def _state(head: Head, end: Head, here: str | None, before: str | None) -> HeadState:
    if here == head.hash:
        return HeadState.HOLDS
    if before == head.hash:
        return HeadState.BEFORE_CARRY_OVER
    return HeadState.CUT if head.seq > end.seq else HeadState.DIFFERS


def links_of(reading: Reading, rows: Iterable[ChainRow]) -> list[StoredLink]:
    """The links of these rows. Raises `ValidationError` or `ValueError` for a damaged one."""
    chosen = list(rows)
    contents = contents_at(reading, [row.seq for row in chosen])
    return [_link(row, tuple(contents.get(row.seq, ()))) for row in chosen]


def _link(row: ChainRow, contents: tuple[Content, ...]) -> StoredLink:
    text = row.record
    whole = (
        json.dumps(unsealed(json.loads(text), contents)) if contents else text
    )  # from JSON, as pydantic reads it there
    record = EvidenceRecord.model_validate_json(whole)
    return StoredLink(row.seq, row.previous, row.hash, record, text, contents)


def contents_at(reading: Reading, places: Sequence[int]) -> dict[int, list[Content]]:
    """The contents beside the records at these places that are not erased, by place."""
    found: dict[int, list[Content]] = {}
    if places:
        for seq, content in _contents(reading, {"seq": places}):
            found.setdefault(seq, []).append(content)
    return found


def _contents(reading: Reading, where: Where | None = None) -> Iterator[tuple[int, Content]]:
    for row in reading.select(EVIDENCE_CONTENT, where, order=("seq", "part")):
        yield row.seq, Content(row.part, row.salt, str(row.value))


def walk(reading: Reading, heads: Collection[Head]) -> Examination:
    """Walk the whole chain, with bounded memory for rows, and say where it first breaks, if it does.

    `reading` is one of damaged text too, so that a text that was made undecodable is a broken link at its place, not a failure
    to read.
    """
    older = (Head(row.seq, row.hash) for row in reading.select(EVIDENCE_BEFORE, order=("seq",)))
    return examine(reading.select(EVIDENCE, order=("seq",)), Beside(_contents(reading), older), heads)


DAMAGED = (RecursionError, ValidationError, ValueError)
"""What reading a link of the chain raises that was altered."""
