"""The store's one writer: many small appends become few transactions, and nothing waits for the disk but its threads.

Everything that was put while a transaction ran goes into the next one, so a batch grows with the load by itself. Two
threads do the work: one owns the database, the other the spill file, so that a hung database does not stop the spill.

Order: what was spilled goes into the store before anything newer, and a session's spilled record takes those of its
earlier records along that are not stored yet. The store skips ids that it has, so a record that goes both ways is
stored once.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.durations import Durations, DurationStatistics
from agentos.core.communication.voice.storage.spill import SpillFile, SpillFull
from agentos.core.communication.voice.storage.spill_files import SpillFiles
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from agentos.core.time import monotonic_ms
from machines.events import VoiceEvent

log = logger(__name__)

BATCH = 512  # bounds the time of one transaction, and so the wait of whoever comes next
LATE_EVENTS = 10_000  # some megabytes: what a hundred calls tell in a store's bad quarter of an hour
MAX_BACKLOG = 65_536  # things waiting: minutes of a full load; beyond it the store is not coming back in time
GATHER_MS = 20  # between two transactions that only have events: other processes of the home want the lock, too
RETRY_SECONDS = 1.0  # how often an idle writer tries to bring in what was spilled

Tickets = Sequence[object]


class _Put(NamedTuple):
    entry: Entry
    ticket: object
    at_ms: int


class _Probe(NamedTuple):
    ticket: object


class _Events(NamedTuple):
    events: tuple[VoiceEvent, ...]


class _FlushMark(NamedTuple):
    reached: threading.Event


class _Spill(NamedTuple):
    earlier: tuple[Entry, ...]  # of the same session, put before and not stored yet
    entry: Entry
    ticket: object


_Work = _Put | _Probe | _Events | _FlushMark


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """How the writer is.

    `backlog` things wait, and `finished` did; `stored`, `failed`, `spilled` entries so far; `recovered` ones came in from spill
    files; `waiting_in_spill` are still there; `events_lost` events that could not be stored on their own;
    `transactions` and `largest_batch` say how well commits are grouped; `lags` how long stored entries took to be durable.
    """

    backlog: int
    finished: int
    stored: int
    failed: int
    spilled: int
    recovered: int
    waiting_in_spill: int
    events_lost: int
    transactions: int
    largest_batch: int
    lags: DurationStatistics


class GroupCommitWriter:
    """Writes entries to `store` from a daemon thread, and to `spill` from a second one.

    `on_stored(tickets)` says that the entries put with these tickets are durable, `on_failed(tickets, error)` that they
    are not stored, `on_spilled(tickets)` that they are durable in the spill file;
    `on_recovered(request_ids)` that spilled entries of these requests came into the store. Each ticket is answered once.
    `on_events(events, stored=…)` says of events whether they are durable; those that are not yet may be said of again. The
    callbacks run in the writer's threads and must return quickly; what they raise is logged. Entries of the writer's
    own spill file and of orphans beside it go in at the start and whenever the store is back.

    It takes over `spill` and closes it. The store stays the caller's.
    """

    def __init__(  # noqa: PLR0913 - what it tells to whom, all named
        self,
        store: VoiceStore,
        spill: SpillFile,
        *,
        on_stored: Callable[[Tickets], None],
        on_failed: Callable[[Tickets, Exception], None],
        on_spilled: Callable[[Tickets], None],
        on_recovered: Callable[[Tickets], None] = lambda _: None,
        on_events: Callable[..., None] = lambda *_, **__: None,
        max_backlog: int = MAX_BACKLOG,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._store = store
        self._on_stored = on_stored
        self._on_failed = on_failed
        self._on_spilled = on_spilled
        self._on_recovered = on_recovered
        self._on_events = on_events
        self._max_backlog = max_backlog
        self._retry_seconds = retry_seconds

        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._spill_wake = threading.Condition(self._lock)
        self._work: deque[_Work] = deque()
        self._in_flight: list[_Work] = []
        self._unstored: dict[str, list[Entry]] = {}  # what was put and is not answered yet, by request
        self._to_spill: deque[_Spill] = deque()
        self._closing = False
        self._threads_left = 2
        self._at_late_end: Callable[[], None] | None = None  # what to do when a hung database lets go after the close

        self._spills = SpillFiles(spill, store, self._taken_in)
        self._take_in_now = True
        self._late_events: list[VoiceEvent] = []
        self._events_due_ms = 0

        self._finished = self._stored = self._failed = self._spilled = self._recovered = 0
        self._events_lost = self._transactions = self._largest_batch = 0
        self._lags = Durations()

        self._writing = threading.Thread(target=self._until_the_end, args=[self._run], daemon=True)
        self._writing.name = "voice-store-writer"
        self._spilling = threading.Thread(target=self._until_the_end, args=[self._run_spill], daemon=True)
        self._spilling.name = "voice-store-spill"
        self._writing.start()
        self._spilling.start()

    def put(self, entry: Entry, ticket: object) -> None:
        """Hand an entry over; returns at once. Raises `StoreError` when closed or when the backlog is at its bound."""
        with self._lock:
            self._check_open(len(self._work))
            self._work.append(_Put(entry, ticket, monotonic_ms()))
            self._unstored.setdefault(entry.record.request_id, []).append(entry)
            self._wake.notify()

    def probe(self, ticket: object) -> None:
        """Ask whether the store can be written; answered by `on_stored` or `on_failed`. Raises as `put` does."""
        self._enqueue(_Probe(ticket))

    def add_events(self, events: Sequence[VoiceEvent]) -> None:
        """Store events behind what was put before, as well as it goes: while the store is down the last ones are kept and
        tried again; the others are logged and counted as lost."""
        try:
            self._enqueue(_Events(tuple(events)))
        except StoreError:
            with self._lock:
                self._events_lost += len(events)
            self._on_events(events, stored=False)

    def spill(self, entry: Entry, ticket: object) -> None:
        """Write an entry to the spill file instead; returns at once.

        Answered by `on_spilled`, or `on_failed` when the file is full or fails. Raises as `put` does.
        """
        with self._lock:
            self._check_open(len(self._to_spill))
            earlier = tuple(self._unstored.get(entry.record.request_id, ()))
            self._to_spill.append(_Spill(earlier, entry, ticket))
            self._spill_wake.notify()

    def unstored(self, request_id: str) -> tuple[Entry, ...]:
        """The entries of a request that were put and are not answered yet, in order."""
        with self._lock:
            return tuple(self._unstored.get(request_id, ()))

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything that was put before is answered; False when the time ran out first."""
        mark = _FlushMark(threading.Event())
        with self._lock:
            if not self._writing.is_alive():
                return not self._work
            self._work.append(mark)
            self._wake.notify()
        return mark.reached.wait(timeout_seconds)

    def close(self, timeout_seconds: float, then: Callable[[], None] = lambda: None) -> bool:
        """Store what is left and end both threads; True when that was done in time.

        When the database hangs for longer, what is still queued is answered by `on_failed`, from this thread; only the
        batch that hangs stays without an answer, since nobody can know how it ends. A second close waits again.

        `then` is called once the store and the spill file are no longer in use: before this returns True; otherwise
        from the thread that hung, if it ever goes on. That is the place to close the store.
        """
        deadline = monotonic_ms() + int(timeout_seconds * 1000)
        with self._lock:
            self._closing = True
            self._wake.notify_all()
            self._spill_wake.notify_all()
        for thread in (self._spilling, self._writing):
            thread.join(max(0, deadline - monotonic_ms()) / 1000)
        with self._lock:
            late = self._threads_left > 0
            self._at_late_end = then if late else None
        if late:
            self._give_up()
            return False
        self._spills.close()
        then()
        return True

    def _until_the_end(self, run: Callable[[], None]) -> None:
        """What each thread does; the last one tidies up when nobody waits for it any more."""
        try:
            run()
        finally:
            with self._lock:
                self._threads_left -= 1
                self._wake.notify_all()
                then = self._at_late_end if not self._threads_left else None
            if then is not None:
                self._spills.close()
                try:
                    then()
                except StoreError:
                    log.exception("the store could not be closed")

    def statistics(self) -> WriterStatistics:
        """How the writer is, at this moment."""
        with self._lock:
            return WriterStatistics(
                backlog=len(self._work) + len(self._in_flight) + len(self._to_spill),
                finished=self._finished,
                stored=self._stored,
                failed=self._failed,
                spilled=self._spilled,
                recovered=self._recovered,
                waiting_in_spill=self._spills.count,
                events_lost=self._events_lost,
                transactions=self._transactions,
                largest_batch=self._largest_batch,
                lags=self._lags.statistics(),
            )

    def _enqueue(self, work: _Work) -> None:
        with self._lock:
            self._check_open(len(self._work))
            self._work.append(work)
            self._wake.notify()

    def _check_open(self, waiting: int) -> None:
        if self._closing:
            raise StoreError("the store's writer is closed", kind="io")
        if waiting >= self._max_backlog:
            raise StoreError(f"the store is behind: {waiting:,} entries wait for it; try again later", kind="locked")

    def _give_up(self) -> None:
        with self._lock:
            left = [work for work in self._work if isinstance(work, _Put | _Probe)]
            unspilled = list(self._to_spill)
            for work in left:
                if isinstance(work, _Put):
                    self._unstored[work.entry.record.request_id].pop()
            self._work.clear()
            self._to_spill.clear()
        error = StoreError("closed before it could be stored: the store did not answer in time", kind="locked")
        self._answer_failed([work.ticket for work in (*left, *unspilled)], error)

    # The thread that owns the database.

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._pass(batch)
            except Exception:  # a bug must not end the only thread that stores
                log.exception("the store's writer failed on a batch of %d", len(batch))
            with self._lock:
                self._in_flight = []
                self._finished += len(batch)
                for work in batch:
                    if isinstance(work, _Put):
                        self._answered(work.entry.record.request_id)
            for work in batch:
                if isinstance(work, _FlushMark):
                    work.reached.set()

    def _answered(self, request_id: str) -> None:
        entries = self._unstored[request_id]
        del entries[0]  # a request's entries are answered in the order they were put
        if not entries:
            del self._unstored[request_id]

    def _next_batch(self) -> list[_Work] | None:
        with self._wake:
            while not self._work and not self._take_in_now:
                if self._closing and self._threads_left == 1:
                    return None  # the other thread has ended, so nothing more comes into the spill file
                again = self._spills.behind or self._late_events
                if not self._wake.wait(self._retry_seconds if again and not self._closing else None):
                    break
            while (left_ms := self._gathering_ms()) > 0:
                self._wake.wait(left_ms / 1000)
            self._in_flight = [self._work.popleft() for _ in range(min(BATCH, len(self._work)))]
            return self._in_flight

    def _gathering_ms(self) -> int:
        """How long events may wait for more of them; not at all where something else is waiting, or enough of them."""
        if self._closing or self._take_in_now or not 0 < len(self._work) < BATCH:
            return 0
        if any(not isinstance(work, _Events) for work in self._work):
            return 0
        return self._events_due_ms - monotonic_ms()

    def _pass(self, batch: list[_Work]) -> None:
        puts = [work for work in batch if isinstance(work, _Put)]
        probes = [work.ticket for work in batch if isinstance(work, _Probe)]
        error = self._take_in()
        if error is not None:
            self._answer_failed([put.ticket for put in puts], error)
        elif puts:
            error = self._append(puts)
        elif probes:
            error = self._attempt(self._store.probe)
        if probes and error is None:
            self._call(self._on_stored, probes)
        elif probes and error is not None:
            self._answer_failed(probes, error, entries=0)
        events = self._late_events + [event for work in batch if isinstance(work, _Events) for event in work.events]
        self._late_events = []
        if events:
            self._add_events(events, error)
            self._events_due_ms = monotonic_ms() + GATHER_MS

    def _append(self, puts: list[_Put]) -> Exception | None:
        """Store what can be stored; the error if it was the store that failed, None if at most entries were bad."""
        while puts:
            error = self._attempt(partial(self._store.append, [put.entry for put in puts]))
            if error is None:
                with self._lock:
                    self._stored += len(puts)
                    self._transactions += 1
                    self._largest_batch = max(self._largest_batch, len(puts))
                    now = monotonic_ms()
                    for put in puts:
                        self._lags.add_ms(now - put.at_ms)
                self._call(self._on_stored, [put.ticket for put in puts])
                return None
            if isinstance(error, StoreError):
                self._spills.look_for_orphans = True  # once the store is back, other processes may have died without it
                self._answer_failed([put.ticket for put in puts], error)
                return error
            named = error.record_id if isinstance(error, BadEntry) else None
            bad = [put for put in puts if put.entry.record.id == named] or puts[:1]
            if len(bad) == 1 and len(puts) > 1 and bad[0].entry.record.id != named:
                failure = self._append(bad)  # which one it is has to be tried out
                if failure is not None:
                    self._answer_failed([put.ticket for put in puts[1:]], failure)
                    return failure
            else:
                self._answer_failed([put.ticket for put in bad], error)
            puts = [put for put in puts if put not in bad]
        return None

    def _add_events(self, events: list[VoiceEvent], error: Exception | None) -> None:
        if error is None:
            error = self._attempt(partial(self._store.add_events, events))
        if error is None:
            self._tell_of(events, stored=True)
            return
        if isinstance(error, BadEntry) and len(events) > 1:
            for event in events:
                self._add_events([event], None)
            return
        self._tell_of(events, stored=False)
        if isinstance(error, StoreError) and not self._closing:
            self._late_events = events[-LATE_EVENTS:]  # the store may be back soon
            events = events[:-LATE_EVENTS]
        if events:
            log.warning("%d events were not stored: %s", len(events), error)
            with self._lock:
                self._events_lost += len(events)

    def _tell_of(self, events: Sequence[VoiceEvent], *, stored: bool) -> None:
        self._call(lambda told: self._on_events(told, stored=stored), events)

    def _take_in(self) -> Exception | None:
        """Bring what was spilled into the store; the store's error if it failed."""
        with self._lock:
            if not (self._take_in_now or self._spills.behind or self._spills.look_for_orphans):
                return None
            self._take_in_now = False
        return self._spills.take_in()

    def _taken_in(self, entries: list[Entry]) -> None:
        with self._lock:
            self._recovered += len(entries)
        self._call(self._on_recovered, [entry.record.request_id for entry in entries])

    # The thread that owns the spill file.

    def _run_spill(self) -> None:
        while True:
            with self._spill_wake:
                while not self._to_spill:
                    if self._closing:
                        return
                    self._spill_wake.wait()
                batch = [self._to_spill.popleft() for _ in range(min(BATCH, len(self._to_spill)))]
                self._finished += len(batch)
            for items in self._spilled_batches(batch):
                with self._lock:
                    self._spilled += len(items)
                    self._take_in_now = True
                    self._wake.notify()
                self._call(self._on_spilled, [item.ticket for item in items])

    def _spilled_batches(self, batch: list[_Spill]) -> Iterator[list[_Spill]]:
        """Spill them all with one sync, or one by one when they don't go together; what succeeded comes out."""
        if self._add_to_spill([entry for item in batch for entry in (*item.earlier, item.entry)]) is None:
            yield batch
            return
        for item in batch:
            error = self._add_to_spill([*item.earlier, item.entry])
            if item.earlier and isinstance(error, BadEntry | SpillFull):
                # The last record says how the session ended; it matters more than those before it.
                error = self._add_to_spill([item.entry])
            if error is None:
                yield [item]
            else:
                self._answer_failed([item.ticket], error)

    def _add_to_spill(self, entries: list[Entry]) -> Exception | None:
        return self._attempt(partial(self._spills.add, entries))

    # Both.

    def _attempt(self, action: Callable[[], None]) -> Exception | None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - it is answered to whoever waits
            return error
        return None

    def _answer_failed(self, tickets: Tickets, error: Exception, *, entries: int | None = None) -> None:
        if not tickets:
            return
        with self._lock:
            self._failed += len(tickets) if entries is None else entries
        self._call(lambda failed: self._on_failed(failed, error), tickets)

    def _call(self, callback: Callable[[Tickets], None], tickets: Tickets) -> None:
        try:
            callback(tickets)
        except Exception:
            log.exception("a callback of the store's writer failed")
