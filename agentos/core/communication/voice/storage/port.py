"""The port behind the evidence actor: it stamps drafts, hands them to the writer, and tells what became of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock
from typing import Any, NamedTuple

import anyio

from actors.runtime.loop import thread_waker
from actors.voice.messages import Append, Draft, NotStored, Probe, Probed, SpillDone, SpillWork, Stored
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.sessions.directory import Directory
from agentos.core.communication.voice.storage.mending import flaw, mended, plain, said_of
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter
from agentos.core.time import monotonic_ms, utc_now
from machines.communication import ConnectorType, RiskLevel
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.names import text_of
from machines.operations import AUDIO_ACCOUNTED, SESSION_RESUMED
from machines.session import EndReason, VoiceSessionState

log = logger(__name__)

FIRST_STATES = (None, VoiceSessionState.CREATED)  # of the records that whoever asks for a session waits for
FRESH_MS = 2_000  # what the store could do so long ago it can still do
KEPT_FINALS_BOUND = 10_000  # final records kept in memory while neither store nor spill file takes them


class _Spilling:
    """Records of one owner on their way into the spill file: one answer for all, when the last has its own."""

    __slots__ = ("left", "ok", "work")

    def __init__(self, work: SpillWork) -> None:
        self.work = work
        self.left = len(work.drafts)
        self.ok = True


class _ToSpill(NamedTuple):
    spilling: _Spilling
    entry: Entry


def _waking(wake: Callable[[], None]) -> Callable[[Future[None]], None]:
    def woken(question: Future[None]) -> None:
        del question
        with suppress(RuntimeError):  # the loop of whoever asked is over
            wake()

    return woken


class StorePort:
    """Turns drafts into evidence records with the session's snapshot, and the writer's answers into messages.

    An actor whose record can't be written is told so, and may hand another one over in its place. Where nobody waits for an
    answer, or records are to be spilled, what can't be written is left out here.

    `post(ref, message)` is thread-safe: the writer answers from its own threads. `on_durable` is called there when records came
    into the store.
    """

    def __init__(
        self,
        store: VoiceStore,
        spill: SpillFile,
        *,
        directory: Directory,
        post: Callable[[Any, object], None],
        on_durable: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_durable = on_durable
        self._directory = directory
        self._post = post
        self._kept_finals: list[Entry] = []  # final records that neither the store nor the spill file would take
        self._unrecordable: dict[
            str, str
        ] = {}  # what was wrong with the first record of a session, until it is asked for
        self._lock = Lock()
        self._accounted: dict[str, int] = {}  # of the resumable sessions that run
        self._sealed = False
        self._written_ms: int | None = None  # when the store took something; None since it failed
        self._question: Future[None] | None = None
        self.writer = GroupCommitWriter(
            store,
            spill,
            on_stored=self._stored,
            on_failed=self._failed,
            on_spilled=self._spilled,
            on_recovered=self._recovered,
            on_events=directory.events_settled,
        )

    def submit(self, work: Append | SpillWork | Probe) -> None:
        """Hand a record over to be stored, records to be spilled, or a probe. It never blocks."""
        if self._sealed:
            return
        if isinstance(work, SpillWork):
            self._spill(work)
            return
        self._write(work)

    def seal(self) -> None:
        """Take no more work from actors: they are not to write behind the final records of `put_last`."""
        self._sealed = True

    def put_last(self, draft: Draft) -> None:
        """Store the final record of a session that has nobody to answer to, and spill it as well; callable from any thread."""
        self._write(Append(None, draft, None))
        self._spill(SpillWork(None, (draft,), None))

    def _write(self, work: Append | Probe) -> None:
        try:
            if isinstance(work, Append):
                self.writer.put(self._entry(work.draft), work)
            else:
                self.writer.probe(work)
        except (BadEntry, StoreError) as error:
            self._failed([work], error)

    def unrecordable(self, session_id: str) -> str | None:
        """Why the first record of this session, or its refusal, can never be stored; None when that was not the trouble.

        It is told once.
        """
        with self._lock:
            return self._unrecordable.pop(session_id, None)

    def accounted_below(self, session_id: str) -> int:
        """The frames of a running, resumable session below this number are accounted for in a record that the store has; 0 when
        there is none. From any thread."""
        return self._accounted.get(session_id, 0)

    def close(self, timeout_seconds: float, then: Callable[[], None] = lambda: None) -> bool:
        """Store what is left; blocks. True when that was done in time. What the store never took is lost now, and logged.

        `then` is called once the store is no longer in use, as `GroupCommitWriter.close` does.
        """
        done = self.writer.close(timeout_seconds, then)
        for entry in self._kept_finals:
            log.error("evidence is lost", record_id=entry.record.id, session_id=entry.record.request_id)
        return done

    def keep_events(self, events: tuple[VoiceEvent, ...]) -> None:
        """Store events, as well as can be; the directory learns what became of them."""
        self.writer.add_events(events)

    async def check(self) -> None:
        """Whether the store can be written: what it has shown within `FRESH_MS` counts, otherwise it is asked now, once for all
        who wait. Raises `StoreError`; a store that hangs is waited for."""
        if self._written_ms is not None and monotonic_ms() - self._written_ms < FRESH_MS:
            return
        question = self._question
        if question is None or question.done():
            question = self._question = Future()
            try:
                self.writer.probe(question)
            except StoreError as error:
                question.set_exception(error)
        answered = anyio.Event()
        question.add_done_callback(_waking(thread_waker(answered.set)))
        await answered.wait()
        question.result()

    def note(self, record: EvidenceRecord) -> None:
        """Store a record that is no session's and that nobody waits for; callable from any thread.

        While the store is down it is kept in memory. Raises `StoreError` when the writer is closed or too far behind.
        """
        entry = _written(Entry(record))
        self.writer.put(entry, entry)

    def _spill(self, work: SpillWork) -> None:
        spilling = _Spilling(work)
        for draft in work.drafts:
            try:
                entry = _written(self._entry(draft))
            except BadEntry:
                log.exception("evidence is lost", record_id=draft.record_id)
                self._answer_spilling(spilling, ok=False)
                continue
            begun = draft.result is not None and draft.result.reason is not EndReason.UNEVIDENCED
            if begun and entry.session is not None:
                self._directory.not_stored(entry.session)
            ticket = _ToSpill(spilling, entry)
            try:
                self.writer.spill(entry, ticket)
            except StoreError as error:
                self._failed([ticket], error)

    def _entry(self, draft: Draft) -> Entry:
        """The draft as an entry. Raises `BadEntry` when its values make no record."""
        try:
            entry = self._stamped(draft)
        except (TypeError, ValueError) as error:
            raise BadEntry(draft.record_id, said_of(error)) from error
        return mended(entry, draft.refusal) if draft.refusal else entry

    def _stamped(self, draft: Draft) -> Entry:
        facts, verdict = draft.facts, draft.verdict
        session = None
        if draft.state is not None:
            session = self._directory.snapshot(facts, draft.state, verdict, draft.result)
        tier = verdict.metadata.get("risk_level") if verdict is not None else None
        record = EvidenceRecord(
            id=draft.record_id,
            request_id=facts.session_id,
            connector_type=ConnectorType.CUSTOM,
            operation=draft.operation,
            request_summary={
                "session_id": facts.session_id,
                "project_id": facts.project_id,
                "provider": text_of(facts.provider),
                "stt_provider": text_of(facts.stt_provider),
                "stt_engine": "none" if facts.stt_engine is None else text_of(facts.stt_engine),
                "stt_fallback": facts.fallback,
                "audio_format": str(facts.audio_format),
                "recording_enabled": facts.recording,
                "silence_timeout_seconds": facts.silence_seconds,
                "metadata": facts.metadata,
                **({"stt_options": facts.stt_options} if facts.stt_options else {}),
            },
            response_summary={
                "state": None if draft.state is None else draft.state.value,
                **dict(draft.detail),
                **({"result": session.result.model_dump(mode="json")} if session and session.result else {}),
            },
            status=draft.status,
            metadata={
                "audit_trace_id": facts.audit_trace_id,
                "risk_tier": tier or RiskLevel.LOW.value,
                "verdict": None if verdict is None else verdict.reason_code,
                "number": draft.number,
            },
            created_at=utc_now(),
        )
        return Entry(record, session, takes_over=draft.operation == SESSION_RESUMED)

    # --- from the writer's threads ---------------------------------------------------------------------------------

    def _stored(self, tickets: Sequence[Any]) -> None:
        self._written_ms = monotonic_ms()
        by_actor: dict[Any, list[tuple[Any, int]]] = {}
        for work in tickets:
            if isinstance(work, Probe):
                self._post(work.reply_to, Probed(ok=True))
            elif isinstance(work, Future):
                work.set_result(None)
            elif isinstance(work, Entry):
                self._directory.stored(work.record.request_id)
            else:
                by_actor.setdefault(work.reply_to, []).append((work.owner, work.draft.number))
                if work.draft.facts.resumable:
                    self._account(work.draft)
                if work.draft.state is VoiceSessionState.STOPPED:
                    self._directory.stored(work.draft.facts.session_id)
        for actor, acknowledged in by_actor.items():
            self._answer(actor, Stored(tuple(acknowledged)))
        self._write_kept_finals()
        self._on_durable()

    def _account(self, draft: Draft) -> None:
        if draft.state is VoiceSessionState.STOPPED:
            self._accounted.pop(draft.facts.session_id, None)
        upto = next((value for name, value in draft.detail if name == "upto_frame"), None)
        if upto is not None and draft.operation in (AUDIO_ACCOUNTED, SESSION_RESUMED):
            self._accounted[draft.facts.session_id] = upto

    def _failed(self, tickets: Sequence[Any], error: Exception) -> None:
        down = isinstance(error, StoreError)
        if down:
            self._written_ms = None
        problem = plain(said_of(error))
        by_actor: dict[Any, list[tuple[Any, int]]] = {}
        for work in tickets:
            if isinstance(work, Probe):
                self._post(work.reply_to, Probed(ok=False))
            elif isinstance(work, Future):
                work.set_exception(error)
            elif isinstance(work, Append):
                if not down:
                    self._refused(work.draft, problem)
                by_actor.setdefault(work.reply_to, []).append((work.owner, work.draft.number))
            elif isinstance(work, Entry):
                self._keep(work, again=down)
            else:
                self._keep(work.entry, again=down)
                self._answer_spilling(work.spilling, ok=False)
        for actor, refused in by_actor.items():
            self._answer(actor, NotStored(tuple(refused), str(error) if down else problem, store_down=down))

    def _refused(self, draft: Draft, problem: str) -> None:
        """A record of an actor can't be written as it is."""
        session_id = draft.facts.session_id
        log.error(
            "a record can't be stored",
            record_id=draft.record_id,
            session_id=session_id,
            operation=draft.operation,
            problem=problem,
        )
        if draft.state in FIRST_STATES:
            with self._lock:
                self._unrecordable[session_id] = problem

    def _spilled(self, tickets: Sequence[Any]) -> None:
        for ticket in tickets:
            self._accounted.pop(ticket.entry.record.request_id, None)
            self._answer_spilling(ticket.spilling, ok=True)

    def _recovered(self, session_ids: Sequence[Any]) -> None:
        for session_id in session_ids:
            self._directory.stored(session_id)
        self._on_durable()

    def _answer(self, actor: Any, message: Stored | NotStored | SpillDone) -> None:
        if actor is not None:
            self._post(actor, message)

    def _answer_spilling(self, spilling: _Spilling, *, ok: bool) -> None:
        with self._lock:
            spilling.left -= 1
            spilling.ok = spilling.ok and ok
            done = not spilling.left
        if done:
            self._answer(spilling.work.reply_to, SpillDone(spilling.work.owner, spilling.ok))

    def _keep(self, entry: Entry, *, again: bool) -> None:
        """Keep a record that nobody took, until the store is back."""
        with self._lock:
            if again and len(self._kept_finals) < KEPT_FINALS_BOUND:
                self._kept_finals.append(entry)
                return
        log.error("evidence is lost", record_id=entry.record.id, session_id=entry.record.request_id)

    def _write_kept_finals(self) -> None:
        """The store is back: it gets what was kept."""
        with self._lock:
            kept, self._kept_finals = self._kept_finals, []
        for entry in kept:
            try:
                self.writer.put(entry, entry)
            except StoreError:
                self._keep(entry, again=True)


def _written(entry: Entry) -> Entry:
    """The entry, without what can't be written in it."""
    problem = flaw(entry)
    if not problem:
        return entry
    log.error("a record can't be stored as it is", record_id=entry.record.id, problem=problem)
    return mended(entry, problem)
