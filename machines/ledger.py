"""The ledger: which records become links of the evidence chain, and what each link is. Every store of evidence decides by it.

- A record's id says which it is: one that is stored already is not stored again, so that sending it twice is harmless.
- The final record of a session is the last: what comes for it later is not stored.
- The order of the links is the order in which the records came.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from machines.evidence import ChainRow, link, record_id, secret_of
from machines.heads import Head


class Written(NamedTuple):
    """A record as it is to be stored: its id, its session, and its canonical JSON."""

    id: str
    request_id: str
    text: str


def deciding_ids(of: str) -> tuple[str, ...]:
    """The ids that, once they are stored, keep the record with the id `of` out: its own, and its session's final one."""
    secret = secret_of(of)
    final = None if secret is None else record_id(secret, None)
    return (of,) if final in {None, of} else (of, final or "")


def links(records: Iterable[Written], known: Iterable[str], head: Head) -> Iterator[ChainRow | None]:
    """For each record in order its link behind `head`, or None for one that is not to be stored.

    `known` are those of the records' deciding ids that are stored.
    """
    stored = set(known)
    seq, previous = head
    for record in records:
        if not stored.isdisjoint(deciding_ids(record.id)):
            yield None
            continue
        stored.add(record.id)
        seq += 1
        digest = link(previous, record.text)
        yield ChainRow(seq, record.id, record.request_id, record.text, previous, digest)
        previous = digest
