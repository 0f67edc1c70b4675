"""The ledger: the rules by which every store of evidence decides which records become links of the chain.

- A record whose id is stored already is not stored again, so sending a record twice is harmless.
- The final record of a session is its last: later records of the session are not stored.
- Records become links in the order in which they came.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from machines.evidence import ChainRow, link, record_id, secret_of
from machines.heads import Head


class Written(NamedTuple):
    """A record ready to be stored: its id, its session, and its canonical JSON."""

    id: str
    request_id: str
    text: str


def deciding_ids(of: str) -> tuple[str, ...]:
    """The ids that keep the record with id `of` out once they are stored: its own, and that of its session's final record."""
    secret = secret_of(of)
    final = None if secret is None else record_id(secret, None)
    return (of,) if final in {None, of} else (of, final or "")


def links(records: Iterable[Written], known: Iterable[str], head: Head) -> Iterator[ChainRow | None]:
    """For each record in order, its link behind `head`, or None if the record is not to be stored.

    `known` are the stored ones among the records' deciding ids.
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
