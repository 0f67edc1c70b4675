"""The end of all sessions when the actor system has failed: what each would have done itself, done without actors."""

import anyio.to_thread
import structlog

from actors.messages import Append, Changed, Closed, Draft, Emit, SpillWork
from agentos.core.communication.voice.resources import ServiceResources
from machines.communication import RequestStatus
from machines.events import VoiceEventType
from machines.session import EndReason, FrameAccount, SessionResult, VoiceSessionState

log = structlog.get_logger(__name__)

AFTER_ALL_OTHERS = 0  # the number of a record that no session counted; its id is that of the final one


async def end_without_actors(resources: ServiceResources, problem: str, timeout_seconds: float) -> None:
    """End every running session as failed: its door closes, its final record is stored, its listeners and hooks are told.

    The record goes both to the store and to the spill file, because nobody is left who could choose when the store does
    not answer; it is stored once. Waits for the store up to `timeout_seconds`.
    """
    directory, store = resources.directory, resources.store_port
    told: list[tuple[Emit, Changed]] = []
    for session in directory.sessions():
        listing = directory.listing(session.session_id)
        if listing is None:
            continue  # it has stopped, and waits for the store only
        facts, verdict, ref = listing.facts, session.policy_verdict, listing.ref
        directory.submit(Closed(facts.session_id))
        result = SessionResult(reason=EndReason.FAILED, drained=False, frames=FrameAccount())
        draft = Draft(
            facts,
            AFTER_ALL_OTHERS,
            "session_stopped",
            RequestStatus.FAILED,
            verdict,
            VoiceSessionState.STOPPED,
            (("error", problem),),
            result,
        )
        store.submit(Append(ref, draft, ref))
        store.submit(SpillWork(ref, (draft,), ref))
        told.append(
            (
                Emit(facts.session_id, VoiceEventType.SESSION_STOPPED, (("reason", result.reason.value),)),
                Changed(facts, VoiceSessionState.STOPPED, ref, verdict, result),
            )
        )
    log.error("the actor system failed, all sessions end", error=problem, sessions=len(told))
    await anyio.to_thread.run_sync(store.writer.flush, timeout_seconds)
    for stopped, changed in told:
        directory.submit(stopped)
        directory.submit(changed)
