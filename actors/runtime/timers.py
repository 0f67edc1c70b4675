"""The armed timers of all actors: one heap by time, and for each actor a chain of its own.

An actor has a few timers at most, so its chain is searched from end to end. A timer that is set again or cancelled stays in
the heap as a void entry until its time comes, or until half of the heap are void entries.
"""

import itertools
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from actors.runtime.actor import Timer
from actors.runtime.mailbox import HELD, Ref

SWEPT: Final = 64  # a heap with fewer void entries is never swept


class TimerQueue:
    """The timers of one system.

    `clock` gives seconds; until there is one it is time 0. `on_earlier` is called when a timer is armed that comes before
    all others: whoever sleeps until the next one must look again.
    """

    __slots__ = ("_heap", "_on_earlier", "_serial", "_void", "clock")

    def __init__(self, clock: Callable[[], float] | None, on_earlier: Callable[[], None]) -> None:
        self.clock = clock
        self._on_earlier = on_earlier
        self._heap: list[Timer] = []
        self._serial = itertools.count()
        self._void = 0  # entries of the heap that mean nothing any more

    def __len__(self) -> int:
        """The entries of the heap, void ones included."""
        return len(self._heap)

    @property
    def armed(self) -> int:
        """How many timers have not come due."""
        return len(self._heap) - self._void

    def now(self) -> float:
        """The time."""
        return self.clock() if self.clock is not None else 0.0

    def set(self, ref: Ref, key: str, seconds: float) -> None:
        """Arm a timer of `ref`, due after `seconds`; one of the same key is void from now on. One that has ended arms none."""
        if ref.status >= HELD:
            return
        if ref.timers is not None:
            self.cancel(ref, key)
        clock = self.clock
        at = seconds if clock is None else clock() + seconds
        ref.timers = timer = Timer(at, next(self._serial), ref, key, ref.timers)
        heap = self._heap
        heappush(heap, timer)
        if heap[0] is timer:
            self._on_earlier()
        elif self._void > SWEPT and 2 * self._void > len(heap):
            self._heap = [entry for entry in heap if entry.live]
            heapify(self._heap)
            self._void = 0

    def keep(self, ref: Ref, key: str, seconds: float) -> None:
        """Arm a timer of `ref` as `set` does, unless one of the same key is armed, or has come due and waits in the mailbox."""
        timer = ref.timers
        while timer is not None:
            if timer.key == key:
                return
            timer = timer.earlier
        self.set(ref, key, seconds)

    def cancel(self, ref: Ref, key: str, _: object = None) -> None:
        """The timer with this key will never fire; if it has and waits in the mailbox, it means nothing any more."""
        later, timer = None, ref.timers
        while timer is not None:
            if timer.key == key:
                if later is None:
                    ref.timers = timer.earlier
                else:
                    later.earlier = timer.earlier
                timer.live = False
                if not timer.due:
                    self._void += 1
                return
            later, timer = timer, timer.earlier

    def cancel_all(self, ref: Ref, but: tuple[str, ...] = ()) -> None:
        """Cancel every timer of `ref` but those of these keys, which stay as they are, armed or due."""
        timer = ref.timers
        ref.timers = later = None
        while timer is not None:
            earlier = timer.earlier
            if timer.key in but:
                timer.earlier = None
                if later is None:
                    ref.timers = timer
                else:
                    later.earlier = timer
                later = timer
            else:
                timer.live = False
                if not timer.due:
                    self._void += 1
            timer = earlier

    def next_at(self) -> float | None:
        """When the next timer is due; None when none is armed."""
        heap = self._heap
        while heap and not heap[0].live:
            heappop(heap)
            self._void -= 1
        return heap[0].at if heap else None

    def pop_due(self, now: float) -> Timer | None:
        """The first of the timers that are due, marked so; None when there is none."""
        heap = self._heap
        while heap and heap[0].at <= now:
            timer = heappop(heap)
            if timer.live:
                timer.due = True
                return timer
            self._void -= 1
        return None

    def run_by(self, clock: Callable[[], float]) -> None:
        """Here is the clock: what was armed before counts from now."""
        self.clock = clock
        now = clock()
        for timer in self._heap:
            timer.at += now
