"""The port behind the evidence actor: it stamps drafts, hands them to the writer, and tells what became of them."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import structlog

from actors.messages import Append, Draft, NotStored, Probe, Probed, SpillDone, SpillWork, Stored
from agentos.core.communication.voice.directory import Directory
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import Entry, StoreError, VoiceStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter
from agentos.core.time import utc_now
from machines.communication import ConnectorType, RiskLevel
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.session import EndReason, VoiceSessionState

log = structlog.get_logger(__name__)

HOMELESS_BOUND = 10_000  # final records kept in memory while neither store nor spill file takes them


class StorePort:
    """Turns drafts into evidence records with the session's snapshot, and the writer's answers into messages.

    `post(ref, message)` is thread-safe: the writer answers from its own threads.
    """

    def __init__(
        self, store: VoiceStore, spill: SpillFile, *, directory: Directory, post: Callable[[Any, object], None]
    ) -> None:
        self._directory = directory
        self._post = post
        self._homeless: list[Entry] = []  # final records that neither the store nor the spill file would take
        self._lock = Lock()
        self.writer = GroupCommitWriter(
            store,
            spill,
            on_stored=self._stored,
            on_failed=self._failed,
            on_spilled=self._spilled,
            on_recovered=self._recovered,
        )

    def submit(self, work: Append | SpillWork | Probe) -> None:
        """Hand a record over to be stored, records to be spilled, or a probe. It never blocks."""
        try:
            if isinstance(work, Append):
                self.writer.put(self._entry(work.draft), work)
            elif isinstance(work, Probe):
                self.writer.probe(work)
            else:
                for draft in work.drafts:
                    entry = self._entry(draft)
                    begun = draft.result is not None and draft.result.reason is not EndReason.UNEVIDENCED
                    if begun and entry.session is not None:
                        self._directory.not_stored(entry.session)
                    self.writer.spill(entry, (work, draft, entry))
        except StoreError as error:
            if isinstance(work, SpillWork):
                for draft in work.drafts:
                    self._failed([(work, draft, self._entry(draft))], error)
            else:
                self._failed([work], error)

    def close(self, timeout_seconds: float, then: Callable[[], None] = lambda: None) -> bool:
        """Store what is left; blocks. True when that was done in time. What the store never took is lost now, and logged.

        `then` is called once the store is no longer in use, as `GroupCommitWriter.close` does.
        """
        done = self.writer.close(timeout_seconds, then)
        for entry in self._homeless:
            log.error("evidence is lost", record_id=entry.record.id, session_id=entry.record.request_id)
        return done

    def keep_events(self, events: tuple[VoiceEvent, ...]) -> None:
        """Store events, as well as can be."""
        self.writer.add_events(events)

    def _entry(self, draft: Draft) -> Entry:
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
                "provider": facts.provider.value,
                "stt_provider": facts.stt_provider.value,
                "stt_engine": "none" if facts.stt_engine is None else facts.stt_engine.value,
                "stt_fallback": facts.fallback,
                "audio_format": str(facts.audio_format),
                "recording_enabled": facts.recording,
                "metadata": facts.metadata,
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
        return Entry(record, session)

    # --- from the writer's threads ---------------------------------------------------------------------------------

    def _stored(self, tickets: Sequence[Any]) -> None:
        by_actor: dict[Any, list[tuple[Any, int]]] = {}
        for work in tickets:
            if isinstance(work, Probe):
                self._post(work.reply_to, Probed(ok=True))
            elif isinstance(work, Entry):
                self._directory.stored(work.record.request_id)
            else:
                by_actor.setdefault(work.reply_to, []).append((work.owner, work.draft.number))
                if work.draft.state is VoiceSessionState.STOPPED:
                    self._directory.stored(work.draft.facts.session_id)
        for actor, acknowledged in by_actor.items():
            self._post(actor, Stored(tuple(acknowledged)))
        self._house()

    def _failed(self, tickets: Sequence[Any], error: Exception) -> None:
        down = isinstance(error, StoreError)
        by_actor: dict[Any, list[tuple[Any, int]]] = {}
        for work in tickets:
            if isinstance(work, Probe):
                self._post(work.reply_to, Probed(ok=False))
            elif isinstance(work, Append):
                by_actor.setdefault(work.reply_to, []).append((work.owner, work.draft.number))
            elif isinstance(work, Entry):
                self._keep(work, again=down)
            else:
                self._keep(work[2], again=True)
                self._spill_answer(work, ok=False)
        for actor, refused in by_actor.items():
            self._post(actor, NotStored(tuple(refused), str(error), store_down=down))

    def _spilled(self, tickets: Sequence[Any]) -> None:
        for ticket in tickets:
            self._spill_answer(ticket, ok=True)

    def _recovered(self, session_ids: Sequence[Any]) -> None:
        for session_id in session_ids:
            self._directory.stored(session_id)

    def _spill_answer(self, ticket: tuple[SpillWork, Draft, Entry], *, ok: bool) -> None:
        """One answer for the whole: the first failure, or the last success."""
        work, draft, _ = ticket
        if not ok or draft is work.drafts[-1]:
            self._post(work.reply_to, SpillDone(work.owner, ok))

    def _keep(self, entry: Entry, *, again: bool) -> None:
        """Keep a record that nobody took, until the store is back."""
        with self._lock:
            if again and len(self._homeless) < HOMELESS_BOUND:
                self._homeless.append(entry)
                return
        log.error("evidence is lost", record_id=entry.record.id, session_id=entry.record.request_id)

    def _house(self) -> None:
        """The store is back: it gets what was kept."""
        with self._lock:
            homeless, self._homeless = self._homeless, []
        for entry in homeless:
            try:
                self.writer.put(entry, entry)
            except StoreError:
                self._keep(entry, again=True)
