"""The end of all sessions without their actors: what each would have done itself, when the actor system has failed, when they
do not stop within their deadlines, or when the host's cancellation leaves no time to ask.

A session's final record goes both to the store and to the spill file, because nobody is left who could choose when the store
does not answer; it is stored once. A session that was still being created gets one as well if its creation is in the store,
or may get there; nobody is told of it.
"""

from collections.abc import Callable

import anyio.to_thread

from actors.runtime.actor import as_committed
from actors.voice.account import NOTHING_TOLD, final_record, frame_account, session_result
from actors.voice.messages import Changed, Closed, Emit, Facts
from actors.voice.session import SessionActor
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.running.resources import ServiceResources
from agentos.core.communication.voice.sessions.directory import Listing
from machines.communication import PolicyVerdict
from machines.events import VoiceEventType
from machines.reasons import CUT_OFF, SESSION_FAILED
from machines.session import EndReason, SessionResult, VoiceSession, VoiceSessionState

log = logger(__name__)

AFTER_ALL_OTHERS = 0  # the number of a record that no session counted; its id is that of the final one


async def end_without_actors(resources: ServiceResources, problem: str, timeout_seconds: float) -> None:
    """End every session as failed: its door closes, its final record is stored, its listeners and hooks are told.

    Waits for the store up to `timeout_seconds`, and as long again for sessions that were being created.
    """
    ending = _Ending(resources, problem, EndReason.FAILED)
    log.error("sessions end without their actors", error=problem, sessions=ending.sessions)
    ending.close_doors()
    await anyio.to_thread.run_sync(ending.store_records, timeout_seconds)
    ending.tell()


def end_at_once(resources: ServiceResources, problem: str, timeout_seconds: float) -> None:
    """End every session because the service is closed, without an await, and close the resources, whose actors could only
    write behind the final records. It blocks the loop, as long as `end_without_actors` waits and resources take to close."""
    ending = _Ending(resources, problem, EndReason.SHUTDOWN)
    if ending.sessions:
        log.warning("the voice service is ended at once", reason=problem, sessions=ending.sessions)
    ending.close_doors()
    ending.store_records(timeout_seconds)
    ending.tell()
    resources.close()


class _Ending:
    """One end of all sessions. `store_records` blocks and may run in any thread, the rest is for the loop's."""

    def __init__(self, resources: ServiceResources, problem: str, reason: EndReason) -> None:
        self._resources = resources
        self._problem = problem
        self._reason = reason
        self._running = resources.directory.listings()
        self._being_created = resources.directory.being_created()
        self._told: list[Callable[[], None]] = []

    @property
    def sessions(self) -> int:
        """How many there are to end."""
        return len(self._running) + len(self._being_created)

    def close_doors(self) -> None:
        """No more audio comes in, no more records come from actors, and the final ones are on their way."""
        self._resources.store_port.seal()
        for listing in self._running:
            self._resources.directory.submit(Closed(listing.facts.session_id))
            if listing.session is not None:
                self._put_last(listing, listing.session.policy_verdict)
        for listing in self._being_created:
            listing.door.close()

    def store_records(self, timeout_seconds: float) -> None:
        """Wait for the store, up to `timeout_seconds`; then look which sessions came to be while they were being created."""
        writer = self._resources.store_port.writer
        writer.flush(timeout_seconds)
        created = [(listing, self._stored(listing.facts)) for listing in self._being_created]
        for listing, session in created:
            if session is not None and session.state is not VoiceSessionState.STOPPED:
                self._put_last(listing, session.policy_verdict)
        if created:
            writer.flush(timeout_seconds)

    def tell(self) -> None:
        """Tell listeners and hooks, and whoever waits for an empty directory."""
        for tell in self._told:
            tell()
        for listing in self._being_created:
            self._resources.directory.forget(listing.facts.session_id)

    def _stored(self, facts: Facts) -> VoiceSession | None:
        """The session as it is in the store, or as it would be if what is on its way there still came in."""
        waiting = self._resources.store_port.writer.unstored(facts.session_id)
        snapshots = [entry.session for entry in waiting if entry.session is not None]
        if snapshots:
            return snapshots[-1]
        try:
            return self._resources.store.session(facts.session_id)
        except StoreError:
            log.exception("whether a session was created is not known", session_id=facts.session_id)
            return None

    def _result(self, listing: Listing) -> SessionResult:
        """What the session had settled when its last step was done; the other frames that its door took are declared."""
        accepted = listing.door.accepted
        why = SESSION_FAILED if self._reason is EndReason.FAILED else CUT_OFF
        try:
            actor = None if listing.ref is None else as_committed(listing.ref)
            if isinstance(actor, SessionActor):
                return actor.result_without_it(self._reason, why, accepted)
        except Exception:  # whatever made it fail; it ends all the same
            log.exception("a session's account can't be had", session_id=listing.facts.session_id)
        frames = frame_account(
            NOTHING_TOLD, accepted, why, recorded=False, transcribed=listing.facts.stt_engine is not None
        )
        return session_result(self._reason, NOTHING_TOLD, frames, drained=False)

    def _put_last(self, listing: Listing, verdict: PolicyVerdict) -> None:
        facts, directory = listing.facts, self._resources.directory
        result = self._result(listing)
        failed = self._reason is EndReason.FAILED
        draft = final_record(facts, AFTER_ALL_OTHERS, verdict, result, error=self._problem, failed=failed)
        self._resources.store_port.put_last(draft)
        if listing.session is not None:
            stopped = Emit(facts.session_id, VoiceEventType.SESSION_STOPPED, (("reason", result.reason.value),))
            changed = Changed(facts, VoiceSessionState.STOPPED, listing.ref, verdict, result)
            self._told += [lambda: directory.submit(stopped), lambda: directory.submit(changed)]
