"""Evidence first: records wait here until they are durable, and the effects that depend on them wait with them.

An outbox is an immutable value in an actor's journal. Records go out one at a time, each when the one before is durable, so
that the store has them in order. The effects that depend on a record (replies, news) are kept beside it and released with its
acknowledgement. After a crash, or when the store is back, the first unacknowledged record is sent again; the
store knows it by its id.

A record whose content can never be written must not hold up the records behind it. A record of the refusal goes in its place.
The refused record's number is left out, so that a late answer about it is known to be old.
"""

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import Effect, Out
from actors.runtime.mailbox import Ref
from actors.voice.messages import Commit, Draft
from machines.communication import RequestStatus
from machines.operations import RECORD_REFUSED


class Waiting(Struct, frozen=True):
    """A record that is not durable yet, and the effects that wait for it."""

    draft: Draft
    then: tuple[Effect, ...]


class Outbox(Struct, frozen=True):
    """The records of one actor that are not known to be durable, oldest first; only the first one is under way."""

    waiting: tuple[Waiting, ...] = ()
    next_number: int = 1

    def commit(self, out: Out, evidence: Ref, draft: Draft, then: tuple[Effect, ...] = ()) -> "Outbox":
        """This outbox with `draft` added, whose number must be `next_number`; sent now if nothing is before it."""
        if self.waiting:
            return Outbox((*self.waiting, Waiting(draft, then)), self.next_number + 1)
        out.tell(evidence, Commit(out.me, draft))
        return Outbox((Waiting(draft, then),), self.next_number + 1)

    def acknowledged(self, number: int, out: Out, evidence: Ref) -> "Outbox":
        """This outbox after the record with `number` became durable: its effects released, the next record sent.

        An acknowledgement of anything but the record under way is old, and changes nothing.
        """
        waiting = self.waiting
        if not waiting or waiting[0].draft.number != number:
            return self
        out.release(waiting[0].then)
        rest = waiting[1:]
        if rest:
            out.tell(evidence, Commit(out.me, rest[0].draft))
        return Outbox(rest, self.next_number)

    def dropped(self, out: Out, evidence: Ref) -> "Outbox":
        """This outbox without the record under way, whose effects will never be released; the next record is sent."""
        rest = self.waiting[1:]
        if rest:
            out.tell(evidence, Commit(out.me, rest[0].draft))
        return Outbox(rest, self.next_number)

    def refused(self, problem: str, out: Out, evidence: Ref) -> "Outbox":
        """This outbox after the store could not write the record under way. A record of the refusal is sent in its place, with
        the same effects behind it. A refusal that can't be written either is dropped with its effects.

        The records behind were never sent, and move on by one number.
        """
        draft = self.waiting[0].draft
        if draft.refusal:
            return self.dropped(out, evidence)
        detail = (("refused_number", draft.number), ("refused_operation", draft.operation))
        final = draft.result is not None  # readers know the last record by its operation
        trace = replace(
            draft,
            operation=draft.operation if final else RECORD_REFUSED,
            status=RequestStatus.FAILED,
            detail=detail,
            refusal=problem,
        )
        moved = (Waiting(trace, self.waiting[0].then), *self.waiting[1:])
        moved = tuple([Waiting(replace(one.draft, number=one.draft.number + 1), one.then) for one in moved])
        out.tell(evidence, Commit(out.me, moved[0].draft))
        return Outbox(moved, self.next_number + 1)

    def silenced(self, *, but_last: bool = False) -> "Outbox":
        """This outbox with the same records and without their effects; `but_last` keeps the effects of the last one."""
        kept = self.waiting[-1:] if but_last else ()
        silent = self.waiting[:-1] if but_last else self.waiting
        return Outbox((*(Waiting(one.draft, ()) for one in silent), *kept), self.next_number)

    def send_again(self, out: Out, evidence: Ref) -> None:
        """Send the record under way once more."""
        if self.waiting:
            out.tell(evidence, Commit(out.me, self.waiting[0].draft))

    def is_under_way(self, number: int) -> bool:
        """Whether the record with `number` is the one that was sent."""
        return bool(self.waiting) and self.waiting[0].draft.number == number

    def drafts(self) -> tuple[Draft, ...]:
        """All records that wait, oldest first."""
        return tuple(waiting.draft for waiting in self.waiting)


NO_RECORDS = Outbox()
