"""The directory of running sessions: the actors keep it up to date, and any thread may read it.

Actors hand it `Changed` when the record of a move is durable (the end also if it can't be made durable), and `Closed`, `Emit`
and `Metered` as they come. Readers get frozen snapshots. A stopped session leaves the directory when the store has it.

Listeners are told of a finished utterance when the store has it, and later events wait too: so if the process dies, the
transcript has all that its listeners were told. If the store fails, or is silent for too long, the utterance is told all the
same, with `stored` false in the payload.
"""

import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import anyio
from msgspec.structs import replace

from actors.runtime.loop import thread_waker
from actors.runtime.mailbox import Ref
from actors.voice.messages import Changed, Closed, Emit, Facts, Metered
from actors.voice.quality import level_fields
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.communication.voice.sessions.door import OPEN_STATES, Door
from agentos.core.communication.voice.sessions.session_counts import SessionCounts, SessionStatistics
from agentos.core.time import from_ms, monotonic_ms, utc_now_ms
from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.frozen import FrozenDict, frozen
from machines.losses import counted
from machines.names import text_of
from machines.reasons import LATE, NO_ENGINE, SESSION_FAILED
from machines.session import EndReason, FrameAccount, SessionResult, VoiceSession, VoiceSessionState

log = logger(__name__)

PASSING = frozenset({VoiceEventType.STT_PARTIAL, VoiceEventType.AUDIO_RECEIVED})  # told to listeners, not stored
KEPT_FIRST = frozenset({VoiceEventType.STT_FINAL})  # told when the store has them, since results must agree with them
LOOK_SECONDS: Final = 1.0  # between two looks for events that wait for a silent store
KEPT_EVENTS = 1000  # of one running session, in memory; the store has all


_EventData = tuple[VoiceEventType, tuple[tuple[str, Any], ...]]  # an event's type and payload


class _Held:
    """An event on its way to the listeners. It waits for the store until `until_ms`, unless it is `settled`, and for earlier
    events."""

    __slots__ = ("event", "settled", "stored", "until_ms")

    def __init__(self, event: VoiceEvent, until_ms: int, *, settled: bool) -> None:
        self.event = event
        self.until_ms = until_ms
        self.settled = settled
        self.stored = True


class Listing:
    """One running session: its address, its door, its snapshot and its events."""

    __slots__ = (
        "accounted_below",
        "door",
        "ended",
        "events",
        "facts",
        "held",
        "known",
        "listeners",
        "next_number",
        "on_over",
        "ref",
        "session",
        "settle",
        "stopping_ms",
        "unwanted",
    )

    def __init__(self, facts: Facts, door: Door, known: VoiceSessionState | None = None, next_number: int = 1) -> None:
        self.facts = facts
        self.known = known  # the state that another process had told listeners
        self.door = door
        self.ref: Ref | None = None
        self.session: VoiceSession | None = None
        self.settle: Callable[[bool], None] | None = None  # tells a resume whether the session goes on
        self.ended: tuple[datetime, datetime] | None = None  # its last activity and its end, as in its record
        self.stopping_ms: int | None = None  # when listeners were told that it is STOPPING, on the monotonic clock
        self.unwanted = False  # its caller gave up
        self.events: deque[VoiceEvent] = deque(maxlen=KEPT_EVENTS)
        self.next_number = next_number
        self.held: deque[_Held] = deque()
        self.listeners: list[Callable[[VoiceEvent | None], None]] = []
        self.on_over: list[Callable[[], None]] = []
        self.accounted_below = door.accepted  # frames below are in the session's account, also those of another process


class Directory:
    """The running sessions by id; a port to the actors.

    `keep_events` gets every event to be stored; the outcome comes by `events_settled`, for which a finished utterance waits up
    to `patience_seconds`. `on_started` and `on_stopped` are called in the loop's thread with the session's snapshot: when
    listeners were told that it is CREATED (or ACTIVE, if it was resumed), and that it is STOPPED. `on_stopped` also gets the
    session's last `KEPT_EVENTS` events.
    """

    def __init__(
        self,
        *,
        keep_events: Callable[[tuple[VoiceEvent, ...]], None],
        on_started: Callable[[VoiceSession], None],
        on_stopped: Callable[[VoiceSession, Sequence[VoiceEvent]], None],
        patience_seconds: float,
    ) -> None:
        self._keep_events = keep_events
        self._patience_ms = int(patience_seconds * 1000)
        self._wake: Callable[[], None] | None = None
        self._holding: dict[str, Listing] = {}  # sessions with events that wait for the store
        self._settled: deque[tuple[str, int, bool]] = (
            deque()
        )  # the session, the event's number, and whether the store has it
        self._store_answers = True
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._listings: dict[str, Listing] = {}
        self._unstored: dict[str, VoiceSession] = {}
        self._on_empty: list[Callable[[], None]] = []
        self._counts = SessionCounts()
        self._event_ids = _event_ids()

    async def run(self) -> None:
        """Tell waiting events that the store has settled, or that have waited for too long; until cancelled."""
        self._wake = thread_waker(self.tell_settled)
        look = Look("events")
        try:
            while True:
                with look:
                    self.tell_settled()
                await anyio.sleep(LOOK_SECONDS)
        finally:
            self._wake = None

    # --- for the service -------------------------------------------------------------------------------------------

    def expect(self, facts: Facts, door: Door) -> None:
        """Make an entry for a requested session, which readers do not see until its creation is durable."""
        self._listings[facts.session_id] = Listing(facts, door)

    def expect_again(
        self,
        facts: Facts,
        door: Door,
        known: VoiceSessionState,
        next_number: int,
        settle: Callable[[bool], None],
    ) -> None:
        """Make an entry for a session that is to be resumed. Its listeners know the state `known`; its next event gets
        `next_number`. `settle` is called once, with whether the session goes on."""
        listing = self._listings[facts.session_id] = Listing(facts, door, known, next_number)
        listing.settle = settle

    def forget(self, session_id: str) -> None:
        """Remove the entry of an expected session that did not come to be."""
        listing = self._listings.get(session_id)
        if listing is not None and listing.session is None:
            listing.door.close()
            self._remove(session_id)

    def abandon(self, session_id: str) -> Ref | None:
        """The caller gave up; stop the session once it exists. Returns its address, if it exists already; else None, and marks
        it `unwanted`, so that it is stopped when it starts."""
        listing = self._listings.get(session_id)
        if listing is None:
            return None
        listing.unwanted = True
        return listing.ref

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as no session is running or being created; at once, if so now."""
        if self._listings:
            self._on_empty.append(callback)
        else:
            callback()

    def when_over(self, listing: Listing, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as listeners were told that this session is STOPPED; at once, if so already."""
        if self._listings.get(listing.facts.session_id) is not listing:
            callback()
        else:
            listing.on_over.append(callback)

    def listing(self, session_id: str) -> Listing | None:
        """The running session with this id, if listeners were told of its creation."""
        listing = self._listings.get(session_id) if isinstance(session_id, str) else None
        return listing if listing is not None and listing.session is not None else None

    def listings(self) -> list[Listing]:
        """The running sessions."""
        return [listing for listing in self._listings.values() if listing.session is not None]

    def being_created(self) -> list[Listing]:
        """The requested sessions of which listeners were not told yet."""
        return [listing for listing in self._listings.values() if listing.session is None]

    def session(self, session_id: str) -> VoiceSession | None:
        """A snapshot of a running session, or of a stopped one whose final record the store does not have yet."""
        listing = self.listing(session_id)
        if listing is None or listing.session is None:
            return self._unstored.get(session_id)
        session = listing.session
        at = from_ms(utc_now_ms() - (monotonic_ms() - listing.door.last_ms))
        return session.model_copy(update={"last_activity_at": at}) if at > session.last_activity_at else session

    def sessions(self) -> list[VoiceSession]:
        """Snapshots of all running sessions, and of stopped ones that the store does not have yet."""
        known = [self.session(session_id) for session_id in (*list(self._listings), *list(self._unstored))]
        return [session for session in known if session is not None]

    def states(self) -> dict[str, int]:
        """How many sessions run in each state; requested sessions that do not exist yet count as "opening"."""
        listings = tuple(self._listings.values())
        return dict(Counter("opening" if one.session is None else one.session.state.value for one in listings))

    def statistics(self) -> SessionStatistics:
        """The statistics of the sessions so far."""
        listings = tuple(self._listings.values())
        return self._counts.statistics(
            ("opening" if one.session is None else one.session.state.value, text_of(one.facts.provider))
            for one in listings
        )

    def stored(self, session_id: str) -> None:
        """Note that the store has the stopped session now."""
        self._unstored.pop(session_id, None)

    def events_settled(self, events: Sequence[VoiceEvent], *, stored: bool) -> None:
        """Note whether the store has these events; from any thread."""
        news = [(event.session_id, event.number, stored) for event in events if event.event_type in KEPT_FIRST]
        if news:
            self._settled.extend(news)
            wake = self._wake
            if wake is not None:
                with suppress(RuntimeError):  # the event loop is over
                    wake()

    def tell_settled(self) -> None:
        """Tell waiting events that the store has settled, or that have waited for too long; in the loop's thread."""
        while self._settled:
            session_id, number, stored = self._settled.popleft()
            self._store_answers = True
            listing = self._holding.get(session_id)
            for held in () if listing is None else listing.held:
                if held.event.number == number and not held.settled:
                    held.settled, held.stored = True, stored
        now = monotonic_ms()
        for listing in tuple(self._holding.values()):
            first = listing.held[0]
            if not first.settled and first.until_ms <= now:
                self._store_answers = False  # further events do not wait for the store until it answers again
            self._tell_held(listing, now)

    def take(self, port: int, session_id: str, first: int, _count: int) -> bytes:
        """The bytes of a run of frames, for `port`. Raises `KeyError` if they are gone."""
        return self._listings[session_id].door.take(port, first)

    def take_tap(self, tap: str, session_id: str, first: int) -> bytes:
        """The bytes of a run of frames, for the port called `tap`. Raises `KeyError` when they are gone. From any thread."""
        return self._listings[session_id].door.take_tap(tap, first)

    def accounted_below(self, session_id: str) -> int:
        """The frames of a running session below this number are in its account: its end can't declare more of them as lost.

        0 if the session is not here. From any thread.
        """
        listing = self._listings.get(session_id)
        return 0 if listing is None else listing.accounted_below

    def room(self, port: int, session_id: str, frames: int) -> None:
        """Note that `port` has handled so many frames of a session; from any thread."""
        listing = self._listings.get(session_id)
        if listing is not None:
            listing.door.room(port, frames)

    def end(self, session_id: str) -> int:
        """The frame at which a session ends so far: behind all frames that its door has let in or skipped. 0 if the session is
        not here. From any thread."""
        listing = self._listings.get(session_id)
        return 0 if listing is None else listing.door.accepted

    def __len__(self) -> int:
        return len(self._listings)

    # --- for the actors --------------------------------------------------------------------------------------------

    def submit(self, work: Changed | Closed | Emit | Metered) -> None:
        """Take news of a session from the actors."""
        if isinstance(work, Metered):
            listing = self._listings.get(work.session_id)
            if listing is None:
                return
            listing.accounted_below = max(listing.accounted_below, work.measure.upto)
            if listing.listeners and work.measure.frames:
                self._emit(Emit(work.session_id, VoiceEventType.AUDIO_RECEIVED, level_fields(work.measure)))
        elif isinstance(work, Emit):
            self._emit(work)
        elif isinstance(work, Closed):
            listing = self._listings.get(work.session_id)
            if listing is not None:
                listing.door.close()
                if work.gone:
                    listing.ref = None
                if listing.session is None:
                    self._remove(work.session_id)
        else:
            self._changed(work)

    def snapshot(
        self,
        facts: Facts,
        state: VoiceSessionState,
        verdict: PolicyVerdict | None,
        result: SessionResult | None,
    ) -> VoiceSession:
        """The session as it is in `state`."""
        listing = self._listings.get(facts.session_id)
        created_at = from_ms(facts.created_at_ms)
        activity = monotonic_ms() - listing.door.last_ms if listing is not None else 0
        last_activity_at = max(created_at, from_ms(utc_now_ms() - activity))
        if result is not None:
            frames, stopped_at = result.frames, from_ms(utc_now_ms())
            if listing is not None:
                frames = _with_the_last(result, listing.door, no_engine=facts.stt_engine is None)
                listing.ended = last_activity_at, stopped_at = listing.ended or (last_activity_at, stopped_at)
            result = replace(result, stopped_at=stopped_at, frames=frames)
        known = verdict or PolicyVerdict(status=RequestStatus.PENDING, reason_code="NOT_JUDGED")
        return VoiceSession(
            session_id=facts.session_id,
            project_id=facts.project_id,
            provider=facts.provider,
            stt_provider=facts.stt_provider,
            state=state,
            created_at=created_at,
            last_activity_at=last_activity_at,
            risk_tier=RiskLevel(known.metadata.get("risk_level", RiskLevel.LOW.value)),
            policy_verdict=known,
            audit_trace_id=facts.audit_trace_id,
            metadata=facts.metadata,
            stt_engine="none" if facts.stt_engine is None else text_of(facts.stt_engine),
            stt_options=facts.stt_options,
            audio_format=facts.audio_format,
            recording_enabled=facts.recording,
            resumable=facts.resumable,
            silence_timeout_seconds=facts.silence_seconds,
            result=result,
        )

    def not_stored(self, session: VoiceSession) -> None:
        """Keep a stopped session here until the store has its final record."""
        self._unstored[session.session_id] = session

    def _changed(self, work: Changed) -> None:
        session_id = work.facts.session_id
        listing = self._listings.get(session_id)
        if listing is None:
            return
        before = listing.known if listing.session is None else listing.session.state
        for event_type, payload in _events_of(work, before):
            self._emit(Emit(session_id, event_type, payload))
        session = self.snapshot(work.facts, work.state, work.verdict, work.result)
        if work.state is VoiceSessionState.STOPPED:
            listing.door.state = work.state
            listing.door.close()
            session = self._unstored.get(session_id, session)
            if session.result is not None:
                drain_ms = None if listing.stopping_ms is None else monotonic_ms() - listing.stopping_ms
                self._counts.ended(session.result, drain_ms)
        else:
            if work.state is VoiceSessionState.STOPPING and listing.stopping_ms is None:
                listing.stopping_ms = monotonic_ms()
            listing.ref = work.route
            listing.door.ref = work.route
            if listing.door.state in OPEN_STATES:  # late news does not open a closed door
                listing.door.state = work.state
        first = listing.session is None
        listing.session = session
        if first and listing.settle is not None:
            listing.settle(True)
        if work.state is not VoiceSessionState.STOPPED:
            if first:
                self._counts.started += 1
                self._tell(self._on_started, session)
        else:
            self._remove(session_id)
            self._tell(self._on_stopped, session, tuple(listing.events))

    def _remove(self, session_id: str) -> None:
        listing = self._listings.pop(session_id)
        self._tell_held(
            listing, all_of_it=True
        )  # the result has these events, and is recorded, or told as not recorded
        if listing.session is None and listing.settle is not None:
            listing.settle(False)
        for listener in tuple(listing.listeners):
            listener(None)
        for callback in tuple(listing.on_over):
            callback()
        if not self._listings:
            waiting, self._on_empty = self._on_empty, []
            for callback in waiting:
                callback()

    def _emit(self, work: Emit) -> None:
        listing = self._listings.get(work.session_id)
        if listing is None:
            return
        passing = work.event_type in PASSING
        if passing and not listing.listeners:
            return
        event = VoiceEvent(
            event_id=next(self._event_ids),
            session_id=work.session_id,
            event_type=work.event_type,
            payload=dict(work.payload),
            timestamp_ms=utc_now_ms(),
            metadata={"audit_trace_id": listing.facts.audit_trace_id},
            number=listing.next_number,
        )
        listing.next_number += 1
        if not passing:
            self._keep_events((event,))
        first = event.event_type in KEPT_FIRST
        if first or listing.held:
            held = _Held(event, monotonic_ms() + self._patience_ms, settled=not first or not self._store_answers)
            held.stored = not first or self._store_answers
            listing.held.append(held)
            self._holding[work.session_id] = listing
            self._tell_held(listing)
        else:
            self._hand_out(listing, event)

    def _tell_held(self, listing: Listing, overdue_ms: int | None = None, *, all_of_it: bool = False) -> None:
        """Tell settled events in order, and events that waited until `overdue_ms` as not stored."""
        held = listing.held
        while held:
            first = held[0]
            if not (first.settled or all_of_it):
                if overdue_ms is None or first.until_ms > overdue_ms:
                    return
                first.stored = False
            held.popleft()
            event = first.event
            if not first.stored:
                event = event.model_copy(update={"payload": frozen({**event.payload, "stored": False})})
            self._hand_out(listing, event)
        self._holding.pop(listing.facts.session_id, None)

    def _hand_out(self, listing: Listing, event: VoiceEvent) -> None:
        if event.event_type not in PASSING:
            listing.events.append(event)
        for listener in tuple(listing.listeners):
            listener(event)

    def _tell(self, listener: Callable[..., None], session: VoiceSession, *more: object) -> None:
        try:
            listener(session, *more)
        except Exception:  # a host's hook must not disturb the call
            log.exception("a provider's hook failed", session_id=session.session_id)


def _events_of(work: Changed, before: VoiceSessionState | None) -> list[_EventData]:
    """The events that tell of a session's new state; none if it is `before`, the state told last."""
    facts, state, result = work.facts, work.state, work.result
    if state is before:
        return []
    if state is VoiceSessionState.STOPPED:
        if result is None:
            return []
        return [
            (VoiceEventType.TRANSCRIPT_READY, (("text", result.transcript),)),
            (VoiceEventType.SESSION_STOPPED, (("reason", result.reason.value),)),
        ]
    if before is not None:
        return [(VoiceEventType.STATE_CHANGED, (("state", state.value),))]
    runs = "none" if facts.stt_engine is None else text_of(facts.stt_engine)
    events: list[_EventData] = [(VoiceEventType.SESSION_STARTED, (("state", state.value), ("stt_engine", runs)))]
    if facts.fallback:
        why = (("asked", text_of(facts.stt_provider)), ("runs", runs), ("reason", facts.fallback))
        events.append((VoiceEventType.STT_FALLBACK, why))
    return events


def _with_the_last(result: SessionResult, door: Door, *, no_engine: bool) -> FrameAccount:
    """The account, completed with what only the closed door knows: skipped frames at the end, of which the session has not
    heard; frames that came too late for the session; and bytes that made no frame. If the session failed without an account,
    all frames."""
    frames = result.frames
    reason = SESSION_FAILED if result.reason is EndReason.FAILED and not frames.accepted else LATE
    unseen = max(0, door.accepted - frames.accepted)
    changes: dict[str, Any] = {"leftover_bytes": door.leftover}
    if unseen:
        changes["accepted"] = door.accepted
        dropped, unheard = tuple(sorted(frames.dropped.items())), tuple(sorted(frames.untranscribed.items()))
        for why, count in (*reversed(door.skipped), (reason, unseen)):
            known = min(count, unseen)
            unseen -= known
            if known:
                dropped = counted(dropped, why, known)
                unheard = counted(unheard, NO_ENGINE if no_engine and why != reason else why, known)
        changes["dropped"], changes["untranscribed"] = FrozenDict(dropped), FrozenDict(unheard)
    return replace(frames, **changes)


def _event_ids() -> Iterator[str]:
    """Ids of 64 random bits, drawn from the system many at once."""
    while True:
        digits = secrets.token_hex(8 * 256)
        for at in range(0, len(digits), 16):
            yield f"evt-{digits[at : at + 16]}"
