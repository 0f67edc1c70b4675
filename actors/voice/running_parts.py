"""The parts of one session as they run: their addresses, crashes and answers, and the losses that are not on record yet."""

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.mailbox import Ref
from actors.voice.call_part import CallPart
from actors.voice.messages import AudioLost, Fields
from machines.restart import CrashLog, Intensity
from machines.session import AudioMismatch


class Loss(Struct, frozen=True):
    """A run of losses at one port for one reason: `frames` of those from frame `first` on and below `upto`; others between them
    may have got through. `grew` is set when the run became longer since the last account; a run that did not is over."""

    port: str
    reason: str
    first: int
    upto: int
    frames: int
    grew: bool = True

    def detail(self) -> Fields:
        """The run as an evidence record has it."""
        return (
            ("port", self.port),
            ("reason", self.reason),
            ("first_frame", self.first),
            ("upto_frame", self.upto),
            ("frames", self.frames),
        )


class RunningParts(Struct, frozen=True):
    """The children of a session, one for each of its `CallPart`s and in their order.

    `refs` are all addresses, `live` those of the parts that were not given up. `crashes` has the log of each part, `answered`
    the places of the parts that owe no answer, in order. `failed_ports` and `mismatches` are on record; `losses` are not yet.
    """

    refs: tuple[Ref, ...]
    live: tuple[Ref, ...]
    crashes: tuple[CrashLog, ...]
    answered: tuple[int, ...] = ()
    failed_ports: tuple[str, ...] = ()
    mismatches: tuple[AudioMismatch, ...] = ()
    losses: tuple[Loss, ...] = ()

    @staticmethod
    def spawned(refs: tuple[Ref, ...], mismatches: tuple[AudioMismatch, ...]) -> "RunningParts":
        """Parts that have just been spawned at these addresses."""
        return RunningParts(refs, refs, (CrashLog(),) * len(refs), mismatches=mismatches)

    @property
    def done(self) -> bool:
        """Whether every part has answered."""
        return len(self.answered) == len(self.refs)

    def due(self, call_parts: tuple[CallPart, ...]) -> tuple[Ref, ...]:
        """The parts that are to drain now: they have not answered, and every part that they come after has."""
        answered = {call_parts[place].name for place in self.answered}
        there = {part.name for part in call_parts}
        return tuple(
            [
                ref
                for place, (part, ref) in enumerate(zip(call_parts, self.refs, strict=True))
                if place not in self.answered and answered.issuperset(there.intersection(part.after))
            ]
        )

    def with_answer(self, place: int) -> "RunningParts":
        """These parts after the one at `place` has answered."""
        return replace(self, answered=tuple(sorted((*self.answered, place))))

    def without(self, place: int) -> "RunningParts":
        """These parts after the one at `place` was given up: that part gets no more frames and owes no answer."""
        live = tuple([ref for ref in self.live if ref is not self.refs[place]])
        return replace(self, live=live, answered=tuple(sorted({*self.answered, place})))

    def after_crash(self, place: int, at: float, restarts: Intensity) -> tuple["RunningParts", bool]:
        """These parts after the one at `place` crashed at `at`, and whether a restart is still allowed."""
        log, allowed = self.crashes[place].after_crash(at, restarts)
        return replace(self, crashes=(*self.crashes[:place], log, *self.crashes[place + 1 :])), allowed

    def with_loss(self, lost: AudioLost) -> "RunningParts":
        """These parts with one more loss: losses at one port for one reason become one run, and later one record."""
        first, upto, frames = lost.first, lost.first + lost.count, lost.count
        others = []
        for loss in self.losses:
            if (loss.port, loss.reason) == (lost.port, lost.reason):
                first, upto, frames = min(first, loss.first), max(upto, loss.upto), frames + loss.frames
            else:
                others.append(loss)
        return replace(self, losses=(*others, Loss(lost.port, lost.reason, first, upto, frames)))

    def losses_to_record(self, *, last: bool) -> tuple["RunningParts", tuple[Loss, ...]]:
        """These parts without the losses that are to go into evidence now, and those losses: the runs that have not grown since
        the last account; with `last`, all."""
        over = tuple([loss for loss in self.losses if last or not loss.grew])
        going_on = () if last else tuple([replace(loss, grew=False) for loss in self.losses if loss.grew])
        return replace(self, losses=going_on), over
