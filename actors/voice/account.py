"""The account of a call and its final record, composed for all four that end a call.

A session ends its own call. Its supervisor ends the call of a session that crashes on its own end. The service ends all calls
when the actors have failed. Another process ends the calls of a dead process. Each of them knows how many frames were accepted
and which frames the parts told of. Frames that no part told of are declared, so that the sums of a `FrameAccount` always hold.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from actors.voice.call_part import CallPart, outcome_of
from actors.voice.messages import Account, Draft, Facts, Levels, Transcribed
from actors.voice.quality import UNMEASURED, QualityPart, quality_of
from actors.voice.recorder import NOTHING_YET, RecorderPart
from actors.voice.transcriber import NOTHING_HEARD, TranscriberPart
from machines.communication import PolicyVerdict, RequestStatus
from machines.frozen import FrozenDict, frozen
from machines.losses import counted, total
from machines.operations import SESSION_STOPPED
from machines.reasons import LATE, NO_ENGINE
from machines.session import (
    NO_COUNTS,
    NO_OUTCOMES,
    AudioMismatch,
    EndReason,
    FrameAccount,
    SessionResult,
    VoiceSessionState,
)


class PartAccounts(Struct, frozen=True):
    """The accounts that the parts of a call told: recorder, transcriber, quality part, and the `outcomes` of further parts by
    name."""

    recorder: Account = NOTHING_YET
    transcriber: Transcribed = NOTHING_HEARD
    quality: Levels = UNMEASURED
    outcomes: FrozenDict[Any] = NO_OUTCOMES


NOTHING_TOLD = PartAccounts()


class Uncounted(Struct, frozen=True):
    """Frames that no part was given: `skipped` behind the last one, by reason, and `late` ones that came behind the end."""

    skipped: tuple[tuple[str, int], ...] = ()
    late: int = 0


ALL_COUNTED = Uncounted()


def accounts_of(call_parts: tuple[CallPart, ...], accounts: Iterable[Any]) -> PartAccounts:
    """The accounts of these parts, each in its place.

    The quality part repeats the totals of the media port. Where the recorder's own word of them was set aside, these are the
    newer ones.
    """
    recorder, transcriber, quality, outcomes = NOTHING_YET, NOTHING_HEARD, UNMEASURED, {}
    for part, account in zip(call_parts, accounts, strict=True):
        if isinstance(part, RecorderPart):
            recorder = account
        elif isinstance(part, TranscriberPart):
            transcriber = account
        elif isinstance(part, QualityPart):
            quality = account
        elif (outcome := outcome_of(part, account)) is not None:
            outcomes[part.name] = outcome
    if quality.upto > recorder.upto:
        recorder = Account(quality.upto, quality.kept, quality.n_bytes, quality.digest, recorder.lost)
    return PartAccounts(recorder, transcriber, quality, frozen(outcomes) if outcomes else NO_OUTCOMES)


def frame_account(
    told: PartAccounts,
    accepted: int,
    missing_reason: str,
    *,
    recorded: bool,
    transcribed: bool,
    uncounted: Uncounted = ALL_COUNTED,
) -> FrameAccount:
    """Where every frame went: `accepted` ones were given to the parts, and those of which no part told are declared for
    `missing_reason`. `recorded` says whether kept frames are in a recording, `transcribed` whether an engine was there."""
    account, lost = told.recorder, told.recorder.lost
    missing = accepted - account.kept - total(lost)
    if missing:
        lost = counted(lost, missing_reason, missing)
    heard, unheard = told.transcriber.heard, told.transcriber.unheard
    missing = accepted - heard - total(unheard)
    if missing:
        unheard = counted(unheard, missing_reason if transcribed else NO_ENGINE, missing)
    for reason, count in uncounted.skipped:
        lost = counted(lost, reason, count)
        unheard = counted(unheard, reason if transcribed else NO_ENGINE, count)
    if uncounted.late:
        lost = counted(lost, LATE, uncounted.late)
        unheard = counted(unheard, LATE, uncounted.late)
    return FrameAccount(
        accepted=accepted + total(uncounted.skipped) + uncounted.late,
        accounted=account.kept,
        recorded=account.kept if recorded else 0,
        transcribed=heard,
        dropped=FrozenDict(lost) if lost else NO_COUNTS,
        untranscribed=FrozenDict(unheard) if unheard else NO_COUNTS,
        bytes=account.n_bytes,
        digest=account.digest,
    )


def session_result(
    reason: EndReason,
    told: PartAccounts,
    frames: FrameAccount,
    *,
    drained: bool,
    mismatches: tuple[AudioMismatch, ...] = (),
) -> SessionResult:
    """The result of a call that ended for `reason`, with the account of its `frames`."""
    return SessionResult(
        reason=reason,
        drained=drained,
        frames=frames,
        transcript=told.transcriber.text,
        recording=told.recorder.recording,
        quality=quality_of(told.quality),
        mismatches=mismatches,
        parts=told.outcomes,
    )


def final_record(
    facts: Facts,
    number: int,
    verdict: PolicyVerdict,
    result: SessionResult,
    *,
    error: str = "",
    failed: bool,
) -> Draft:
    """The last record of a session; each session has one, and no record of the session is stored behind it (see `Draft`)."""
    return Draft(
        facts,
        number,
        SESSION_STOPPED,
        RequestStatus.FAILED if failed else RequestStatus.SUCCESS,
        verdict,
        VoiceSessionState.STOPPED,
        (("error", error),) if error else (),
        result,
    )
