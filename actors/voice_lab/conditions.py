"""What must hold of callers, ports and records at any time: the checker's promises and the simulator's watch ask the same."""

from collections.abc import Callable
from typing import NamedTuple

from actors.voice import messages as m
from actors.voice.quality import dbfs
from actors.voice_lab.parts import FRAME_BYTES, Call, Record, Records, Track, owner_of
from machines.operations import (
    AUDIO_LOST,
    PORT_FAILED,
    SESSION_ACTIVE,
    SESSION_CREATED,
    SESSION_DENIED,
    SESSION_STOPPED,
    SESSION_STOPPING,
)
from machines.reasons import DISK_FULL, MEDIA_SILENT, SPEECH_SILENT, WORKER_DIED
from machines.recording import RecordingState
from machines.session import EndReason, VoiceSessionState

RANK = {state: rank for rank, state in enumerate(VoiceSessionState)}
ASKED_FOR = {
    EndReason.STOPPED: lambda call: call.stops > call.cancels + call.vanished,
    EndReason.SHUTDOWN: lambda call: call.cancels > 0,
    EndReason.CALLER_GONE: lambda call: call.vanished > 0,
}
"""The reasons that callers give for an end, and whether a call was asked to end for them."""
OF_PORTS = {
    DISK_FULL: AUDIO_LOST,
    WORKER_DIED: AUDIO_LOST,
    MEDIA_SILENT: PORT_FAILED,
    SPEECH_SILENT: PORT_FAILED,
}
"""What is on record of frames that a port did not take, by the reason in the account."""
ORDER = (SESSION_CREATED, SESSION_ACTIVE, SESSION_STOPPING, SESSION_STOPPED)

Condition = Callable[..., bool]
"""Whether something holds of the values that it is asked of."""


def told_forward(callers: tuple[Call, ...]) -> bool:
    """Whether the states that listeners were told come in their order, each once."""
    return all(
        RANK[earlier] < RANK[later]
        for call in callers
        for earlier, later in zip(call.told, call.told[1:], strict=False)
    )


def told_why(callers: tuple[Call, ...]) -> bool:
    """Whether every call that ended as stopped, as shut down, or for its caller had vanished, was."""
    return all(
        call.result is None or call.result.reason not in ASKED_FOR or ASKED_FOR[call.result.reason](call)
        for call in callers
    )


def conserved(
    callers: tuple[Call, ...], media: tuple[Track, ...], speech: tuple[Track, ...], untold: frozenset[str] = frozenset()
) -> bool:
    """Whether every frame of a call that ended is accounted for. A loss that the engine told of is declared, unless that word
    was set aside: `untold` are the sessions of which."""
    for call in callers:
        if call.result is None:
            continue
        account = call.result.frames
        kept = sum(track.told - track.lost for track in media if track.session_id == call.session_id)
        own = [track for track in speech if track.session_id == call.session_id]
        heard = sum(track.told - (0 if call.session_id in untold else track.lost) for track in own)
        dropped, unheard = dict(account.dropped), dict(account.untranscribed)
        if (
            account.accepted != account.accounted + sum(dropped.values())
            or account.accepted != account.transcribed + sum(unheard.values())
            or min([0, *dropped.values(), *unheard.values()]) < 0
            or account.accepted > call.sent
            or (call.result.reason in ASKED_FOR and account.accepted < call.owed)
            or account.recorded != (account.accounted if call.result.recording is not None else 0)
            or account.accounted > kept
            or account.transcribed > heard
        ):
            return False
    return True


def told_no_less(callers: tuple[Call, ...]) -> bool:
    """Whether every result says at least what those who listened were told: each finished utterance in its place, its frames as
    transcribed, and the audio that was measured as accounted for."""
    for call in callers:
        result, heard = call.result, call.heard
        if result is None:
            continue
        if (
            not _in_turn(heard.finals, result.transcript)
            or result.frames.transcribed < heard.spoken
            or result.frames.accounted < heard.measured
            or _less(result.quality.peak_dbfs, dbfs(heard.peak**2))
        ):
            return False
    return True


def called_durable(callers: tuple[Call, ...], media: tuple[Track, ...]) -> bool:
    """Whether every frame that was called durable is kept, or is one that its media port has lost or never got, of which its
    caller is told; and whether no result declares more of them lost than these."""
    for call in callers:
        durable = call.heard.durable
        if not durable:
            continue
        own = [track for track in media if track.session_id == call.session_id]
        lost = sum(track.lost + track.upto - track.got for track in own)
        kept = sum(track.told - track.lost for track in own)
        if durable > kept + lost or (call.result is not None and durable > call.result.frames.accounted + lost):
            return False
    return True


def _less(peak: float | None, told: float | None) -> bool:
    return told is not None and (peak is None or peak < told)


def _in_turn(told: tuple[str, ...], transcript: str) -> bool:
    """Whether these stand in the transcript one behind the other, perhaps with others between them."""
    at, said = 0, f" {transcript} "
    for text in filter(None, told):
        found = said.find(f" {text} ", at)
        if found < 0:
            return False
        at = found + len(text) + 1
    return True


def recording_told(callers: tuple[Call, ...], media: tuple[Track, ...], silent: frozenset[str]) -> bool:
    """Whether the result of every drained call has the recording that its media port has closed; nobody waits for a port of
    which it is on record that it was `silent`. It is not told as ready: its file comes when the call is over."""
    closed = {track.session_id for track in media if track.recording and track.over}
    return all(
        call.result is None
        or not call.result.drained
        or call.session_id not in closed - silent
        or (call.result.recording is not None and call.result.recording.state is RecordingState.FINISHING)
        for call in callers
    )


def nothing_lost(total: int) -> Condition:
    """While all of the budget of faults is left, every frame that was let in is kept and heard, or declared late."""

    def holds(callers: tuple[Call, ...], left: int) -> bool:
        return left < total or all(
            call.result is None
            or (
                call.result.frames.accounted == call.result.frames.transcribed
                and call.result.frames.accounted + dict(call.result.frames.dropped).get("late", 0) == call.sent
            )
            for call in callers
        )

    return holds


class Safe(NamedTuple):
    """What a store keeps: each session's states on record, the sessions with a final record, in the store and anywhere, those
    whose last records it was given up to keep, and those that were denied."""

    states: frozenset[tuple[str, VoiceSessionState | None]]
    final: frozenset[str]
    kept: frozenset[str]
    given_up: frozenset[str]
    denied: frozenset[str]


def safe_in(store: Records) -> Safe:
    """What a store keeps of the records that it was given."""
    final = frozenset([record.session_id for record in store.durable if record.final])
    spilling = [owner_of(work) for work in store.waiting if isinstance(work, m.SpillWork)]
    return Safe(
        frozenset([(record.session_id, record.state) for record in (*store.durable, *store.spilled)]),
        final,
        final | {record.session_id for record in store.spilled if record.final},
        frozenset([*store.unspilled, *spilling]),
        denied_in(store),
    )


def denied_in(store: Records) -> frozenset[str]:
    """The sessions whose denial is on record."""
    return frozenset([record.session_id for record in store.durable if record.operation == SESSION_DENIED])


def evidence_first(total: int) -> Condition:
    """When not even the spill file takes the last records, the end is told all the same, and as lost. One fault can do that
    only at the spill file; of several, one may take away the word that the records should go there."""

    def holds(callers: tuple[Call, ...], store: Safe) -> bool:
        for call in callers:
            excused = call.session_id in store.given_up or (total > 1 and not {"durable", "spilled"} & {*call.ended})
            lost = excused and (total > 2 or call.told[-1:] == (VoiceSessionState.STOPPED,))
            if (
                any((call.session_id, state) not in store.states for state in call.told if not lost)
                or ("durable" in call.ended and call.session_id not in store.final)
                or ("spilled" in call.ended and call.session_id not in store.kept)
                or (call.answer == "opened" and (call.session_id, VoiceSessionState.CREATED) not in store.states)
                or (call.answer == "denied" and call.session_id not in store.denied)
            ):
                return False
        return True

    return holds


def in_order(store: Records) -> bool:
    """Whether each record is there once, a session's in their order, and none behind its final one."""
    ids = [record.record_id for record in store.durable]
    by_session: dict[str, list[Record]] = {}
    for record in store.durable:
        by_session.setdefault(record.session_id, []).append(record)
    for records in by_session.values():
        places = [ORDER.index(record.operation) for record in records if record.operation in ORDER]
        finals = [record.final for record in records]
        if places != sorted(set(places)) or True in finals[:-1]:
            return False
    return len(set(ids)) == len(ids)


def denied_stays_out(asked: tuple[m.Facts, ...]) -> Condition:
    """Who may not have a session has none, whatever else is there."""
    unauthorized = {one.session_id for one in asked if one.metadata.get("requires_data_access")}

    def holds(callers: tuple[Call, ...], recorded: frozenset[str], *unborn: bool) -> bool:
        denied = unauthorized | recorded | {call.session_id for call in callers if call.answer == "denied"}
        return all(
            call.session_id not in denied
            or (never_born and not call.told and not call.open and call.answer != "opened")
            for call, never_born in zip(callers, unborn, strict=True)
        )

    return holds


def all_own(store: Records) -> bool:
    """Whether every record carries the secret of its own session."""
    return all(f"-of-{record.session_id}-" in record.record_id for record in (*store.durable, *store.spilled))


def apart(callers: tuple[Call, ...]) -> bool:
    """Whether the results of calls can be of their own audio."""
    return all(
        call.result is None
        or (
            call.result.frames.bytes == call.result.frames.accounted * FRAME_BYTES
            and _is_own(call.result.transcript, call.sent)
        )
        for call in callers
    )


def _is_own(transcript: str, sent: int) -> bool:
    """Whether it is what the engine can have heard of so many frames: words below one number after another."""
    below = [int(word) for word in transcript.split() if word.isdecimal()]
    told = " ".join([f"words below {upto}" for upto in below])
    return transcript == told and below == sorted({*below}) and all(0 < upto <= sent for upto in below)


def tracks_ended(session_id: str) -> Condition:
    """Whether an audio port knows that a session is over."""
    return lambda tracks: all(track.ending or track.over for track in tracks if track.session_id == session_id)
