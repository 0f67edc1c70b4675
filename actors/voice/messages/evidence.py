"""Messages about records: committed, stored, spilled."""

from typing import Any, ClassVar

from msgspec import Struct

from actors.runtime.mailbox import CONTROL, Ref
from actors.voice.messages.events import Fields
from actors.voice.messages.sessions import Facts
from machines.communication import PolicyVerdict, RequestStatus
from machines.evidence import record_id
from machines.session import SessionResult, VoiceSessionState


class Draft(Struct, frozen=True):
    """An evidence record without its time, which the store port adds.

    `number` counts the records of one session from 1 and makes the record's id, so that sending it twice stores it once.
    The final record of a session has its own name instead, so that there can only be one. `state` is where the session
    stands with this record (None: no session was made), `detail` the outcome of the operation.

    A draft with a `refusal` stands in the place of a record that the store could not write, for that reason.
    The store leaves out the fields of this draft that can't be written either.
    """

    facts: Facts
    number: int
    operation: str
    status: RequestStatus
    verdict: PolicyVerdict | None = None
    state: VoiceSessionState | None = None
    detail: Fields = ()
    result: SessionResult | None = None
    refusal: str = ""

    @property
    def record_id(self) -> str:
        """`ev-…`, the same for the same record of the same session."""
        return record_id(self.facts.secret, None if self.result is not None else self.number)


class Commit(Struct, frozen=True):
    """To the evidence actor: store this record and tell `owner` `Durable` or `NotDurable`."""

    lane: ClassVar[int] = CONTROL
    owner: Ref
    draft: Draft


class Durable(Struct, frozen=True, gc=False):
    """The record with this number is in the store, or was already."""

    lane: ClassVar[int] = CONTROL
    number: int


class NotDurable(Struct, frozen=True, gc=False):
    """The record with this number is not in the store, because of `error`. `perhaps` is set when it may still get there,
    `refused` when it can never be stored as it is, though the store is well."""

    lane: ClassVar[int] = CONTROL
    number: int
    error: str
    perhaps: bool
    refused: bool = False


class Spill(Struct, frozen=True):
    """To the evidence actor: put these records into the spill file; tell `owner` `Spilled`."""

    lane: ClassVar[int] = CONTROL
    owner: Ref
    drafts: tuple[Draft, ...]


class Spilled(Struct, frozen=True, gc=False):
    """The records are in the spill file (`ok`), or could not be put there."""

    lane: ClassVar[int] = CONTROL
    ok: bool


class EvidenceBack(Struct, frozen=True, gc=False):
    """Evidence to supervisor: the store takes records again."""

    lane: ClassVar[int] = CONTROL


class Append(Struct, frozen=True):
    """Port work: append the record; tell `Stored` or `NotStored` with the ticket `(owner, number)`."""

    owner: Any
    draft: Draft
    reply_to: Any


class SpillWork(Struct, frozen=True):
    """Port work: put the records into the spill file; tell `SpillDone`."""

    owner: Any
    drafts: tuple[Draft, ...]
    reply_to: Any


class Probe(Struct, frozen=True):
    """Port work: try whether the store can be written; tell `Probed`."""

    reply_to: Ref


Ticket = tuple[Ref, int]


class Stored(Struct, frozen=True):
    """Port fact: these records are durable."""

    lane: ClassVar[int] = CONTROL
    tickets: tuple[Ticket, ...]


class NotStored(Struct, frozen=True):
    """Port fact: these records are not in the store. `store_down` is False when the records themselves were refused."""

    lane: ClassVar[int] = CONTROL
    tickets: tuple[Ticket, ...]
    error: str
    store_down: bool


class SpillDone(Struct, frozen=True):
    """Port fact: the records of `owner` are spilled, or not."""

    lane: ClassVar[int] = CONTROL
    owner: Ref
    ok: bool


class Probed(Struct, frozen=True, gc=False):
    """Port fact: the store can be written, or not."""

    lane: ClassVar[int] = CONTROL
    ok: bool
