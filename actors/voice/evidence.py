"""The evidence actor: one for the service, between the owners of records and the store that makes the records durable.

    UP     records go to the store at once; the store groups them into commits
    DOWN   the store failed or does not answer: records are refused at once, only final ones are spilled

While UP, a record that is not answered within the timeout means that the store hangs. While DOWN the store is probed; when
it answers, the supervisor is told, whose sessions then send what they still have.
"""

from actors.runtime.actor import IGNORE, Actor, Out
from actors.runtime.mailbox import Ref
from actors.runtime.system import Port
from actors.voice.messages import (
    Append,
    Commit,
    Durable,
    EvidenceBack,
    NotDurable,
    NotStored,
    Probe,
    Probed,
    Spill,
    SpillDone,
    Spilled,
    SpillWork,
    Stored,
)
from machines.frozen import FrozenMap

UP = "up"
DOWN = "down"


class EvidenceActor(Actor):
    """Takes records in, tells their owners what became of them.

    `waiting` maps an owner to the number of its record under way: each owner has one at a time.
    """

    __slots__ = ("phase", "probe_seconds", "store", "supervisor", "timeout_seconds", "waiting")
    wiring = ("supervisor", "store", "timeout_seconds", "probe_seconds")
    state = ("phase", "waiting")
    handles = {
        UP: {
            Commit: "append",
            Stored: "stored",
            NotStored: "not_stored",
            Spill: "spill",
            SpillDone: "spill_done",
            Probed: IGNORE,  # the store has shown already that it is up
        },
        DOWN: {
            Commit: "refuse",
            Stored: "stored",
            NotStored: "not_stored",
            Spill: "spill",
            SpillDone: "spill_done",
            Probed: "probed",
        },
    }

    def __init__(self, supervisor: Ref, store: Port, timeout_seconds: float, probe_seconds: float) -> None:
        self.supervisor = supervisor
        self.store = store
        self.timeout_seconds = timeout_seconds
        self.probe_seconds = probe_seconds
        self.phase = UP
        self.waiting: FrozenMap[Ref, int] = FrozenMap()

    def append(self, message: Commit, out: Out) -> None:
        """Hand the record to the store."""
        if not len(self.waiting):
            out.set_timer("hang", self.timeout_seconds)
        self.waiting = self.waiting.with_item(message.owner, message.draft.number)
        out.port(self.store, Append(message.owner, message.draft, out.me))

    def refuse(self, message: Commit, out: Out) -> None:
        """The store is down: say so at once. It was never asked, so the record can't turn up later."""
        out.tell(message.owner, NotDurable(message.draft.number, "the evidence store is down", perhaps=False))

    def stored(self, message: Stored, out: Out) -> None:
        """Tell the owners; a store that answers is up."""
        for owner, number in message.tickets:
            if self.waiting.get(owner) == number:
                self.waiting = self.waiting.without(owner)
            out.tell(owner, Durable(number))
        self._progress(out)
        self._up(out)

    def not_stored(self, message: NotStored, out: Out) -> None:
        """Tell the owners of these records. If the store failed, take no more records until it answers a probe; these may still
        turn up in it, unlike a record that can't be written."""
        down = message.store_down
        for owner, number in message.tickets:
            if self.waiting.get(owner) == number:
                self.waiting = self.waiting.without(owner)
            out.tell(owner, NotDurable(number, message.error, perhaps=down, refused=not down))
        self._progress(out)
        if down:
            self._down(out)

    def spill(self, message: Spill, out: Out) -> None:
        """Final records of a session that must not wait for the store."""
        self.waiting = self.waiting.without(message.owner)
        out.port(self.store, SpillWork(message.owner, message.drafts, out.me))

    def spill_done(self, message: SpillDone, out: Out) -> None:
        """Tell the owner whether they are safe."""
        out.tell(message.owner, Spilled(message.ok))

    def probed(self, message: Probed, out: Out) -> None:
        """The store answers again, or is asked again later."""
        if message.ok:
            self._up(out)
        else:
            out.set_timer("probe", self.probe_seconds)

    def timeout(self, timer: str, out: Out) -> None:
        """The store did not answer in time, or it is time to ask it again."""
        if timer == "probe":
            out.port(self.store, Probe(out.me))  # a store that hangs has it until it comes back; one is enough
            return
        for owner, number in sorted(self.waiting.items(), key=lambda item: item[0].name):
            out.tell(owner, NotDurable(number, "the evidence store does not answer", perhaps=True))
        self.waiting = FrozenMap()
        self._down(out)

    def _progress(self, out: Out) -> None:
        if len(self.waiting):
            out.set_timer("hang", self.timeout_seconds)
        else:
            out.cancel_timer("hang")

    def _down(self, out: Out) -> None:
        if self.phase == UP:
            self.phase = DOWN
            out.set_timer("probe", self.probe_seconds)

    def _up(self, out: Out) -> None:
        if self.phase == DOWN:
            self.phase = UP
            out.cancel_timer("probe")
            out.tell(self.supervisor, EvidenceBack())
