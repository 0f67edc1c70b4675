"""The real actor system with a drawn order: the seed draws which actor runs next, and lets actors sleep for a while.

Everything else is the shipped code: the dispatcher, mailboxes, timers, supervision, restarts. The simulation also wraps each
step.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import Ref, Table
from actors.runtime.system import FREE, ActorSystem
from actors.runtime.tracing import WatchedTable
from actors.simulation.plan import Chance

NAP_SHARE: Final = 1 / 64  # of an actor's turns begin with a nap
LONGEST_NAP_MS: Final = 40  # a loop that is late, a thread that has the interpreter


class SeededQueue(deque[Ref]):
    """The awake actors with mail, from which the next is drawn. The dispatcher does not see sleeping actors.

    The owner of the clock sets `now_ms`.
    """

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self.now_ms = 0
        self._chance = chance
        self._asleep: list[tuple[int, int, Ref]] = []
        self._lags: dict[Ref, tuple[int, int]] = {}  # until when an actor lags, and by how much; 0: it hangs until then
        self._serial = 0

    def append(self, ref: Ref) -> None:
        """Queue an actor that has mail; it may sleep first."""
        wake = 0
        if self._lags and ref in self._lags:
            until, each = self._lags[ref]
            if until <= self.now_ms:
                del self._lags[ref]
            else:
                wake = self.now_ms + each if each else until
        if not wake and self._chance.random() < NAP_SHARE:
            wake = self.now_ms + self._chance.between(1, LONGEST_NAP_MS)
        if wake:
            self._serial += 1
            heappush(self._asleep, (wake, self._serial, ref))
        else:
            super().append(ref)

    def popleft(self) -> Ref:
        """Draw one of the awake actors."""
        n = len(self)
        at = self._chance.below(n) if n > 1 else 0
        if not at:
            return super().popleft()
        self.rotate(-at)
        ref = super().popleft()
        self.rotate(at)
        return ref

    def lag(self, ref: Ref, until_ms: int, each_ms: int) -> None:
        """Until `until_ms`, delay each turn of this actor by `each_ms`, or, if that is 0, until `until_ms`."""
        self._lags[ref] = (until_ms, each_ms)

    def next_wake(self) -> int | None:
        """When the next actor wakes, in milliseconds; None if none sleeps."""
        return self._asleep[0][0] if self._asleep else None

    def wake(self) -> None:
        """Queue the actors whose sleep is over."""
        while self._asleep and self._asleep[0][0] <= self.now_ms:
            super().append(heappop(self._asleep)[2])

    def wake_all(self) -> None:
        """Queue all sleeping actors."""
        while self._asleep:
            super().append(heappop(self._asleep)[2])


class SimulatedSystem(ActorSystem):
    """An `ActorSystem` for one seeded run. `run_step(step, actor, message, out)` runs each step, or raises instead."""

    def __init__(self, clock: Callable[[], float], queue: SeededQueue, run_step: Callable[..., None]) -> None:
        super().__init__(clock=clock)
        self._ready = self._queue = queue
        self._out = Out(self._made)
        self._wake = _NoDriver()  # type: ignore[assignment] # no driver sleeps: the world drains after each event
        self._run_step = run_step
        self._watched: dict[type[Actor], dict[object, Table]] = {}

    def spawn(self, actor: Actor, name: str) -> Ref:
        """Start an actor at the top of the system, and return its address. Its first step waits for its turn."""
        ref = self._made(actor, name, None)
        self._spawn(ref)
        return ref

    def settle(self) -> None:
        """Run all waiting turns to their end, waking sleeping actors, also while the dispatcher is held back."""
        was = self._busy
        try:
            while self._ready or self._queue.next_wake() is not None:
                self._queue.wake_all()
                self._busy = FREE
                self._drain()
        finally:
            self._busy = was

    @property
    def failure(self) -> Exception | None:
        """The error for which the system can't go on; None while it can."""
        return self._failure

    @property
    def crashes(self) -> int:
        """How many steps and effects have failed."""
        return self._crashes

    @property
    def restarts(self) -> int:
        """How many times actors were restarted."""
        return self._restarts

    def next_timer(self) -> float | None:
        """When the next timer is due, in seconds; None if none is armed."""
        return self._timers.next_at()

    def armed(self) -> list[tuple[Ref, str]]:
        """The armed timers: the actor's address, and the key."""
        found = []
        for ref, _ in self.refs():
            timer = ref.timers
            while timer is not None:
                found.append((ref, timer.key))
                timer = timer.earlier
        return found

    def _made(self, actor: Actor, name: str, parent: Ref | None) -> Ref:
        ref = Ref(actor, name, parent)
        kind = actor.__class__
        if kind not in self._watched:
            self._watched[kind] = {phase: WatchedTable(table, self._run_step) for phase, table in kind.compiled.items()}
        ref.table = self._watched[kind]
        return ref


class _NoDriver:
    """The event of a driver that need not be woken."""

    def set(self) -> None:
        """Do nothing."""
