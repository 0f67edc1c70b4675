"""A session of a dead process, restored so that this process can go on with it: its account, transcript and recording.

From a `DeadSession` come the facts and the journal that a session actor begins with, and the recording, opened again behind
its last whole frame. The caller is expected to send accepted frames again that are not known to be durable. Frames that the
caller can't send again are declared as a gap. So are frames of a stored utterance that neither the account nor the recording
has: sent again, their words would stand in the transcript twice.
"""

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from actors.voice.messages import Account, Facts, Resumption, Transcribed
from agentos.core.communication.voice.recording.port import Carried
from agentos.core.communication.voice.recording.recordings import RecordingKind, RecordingWriter
from agentos.core.communication.voice.recovery.dead_session import (
    DeadSession,
    RecordingOnDisk,
    frames_of,
    recording_steps,
)
from agentos.core.time import utc_now
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict
from machines.events import VoiceEvent
from machines.frozen import FrozenDict
from machines.losses import Losses, Lost
from machines.names import engine_named
from machines.reasons import PROCESS_DIED
from machines.session import FrameAccount, VoiceSession


class Restored(NamedTuple):
    """A session ready to go on.

    Its actor begins with `facts`, `verdict` and `resumption`; the media port goes on with `carried`. `untold` are events that
    no listener was told, `next_event` is the number of the next event.
    """

    facts: Facts
    verdict: PolicyVerdict
    resumption: Resumption
    carried: Carried
    untold: tuple[VoiceEvent, ...]
    next_event: int


class NotWhole(Exception):
    """The recording can't be continued: it differs from the account in evidence."""


def restored_steps(
    dead: DeadSession, folder: Path, kind: RecordingKind, segment_seconds: int, first_frame: int
) -> Generator[None, None, Restored]:
    """Prepare a session to go on, in steps of about a millisecond; its recording is in `folder`.

    The caller can send frames from `first_frame` on again; it is not asked for frames that are in the transcript. Abandoned
    half-way or done again, it loses nothing. Raises `RecordingError` if the disk refuses, and `NotWhole`.
    """
    session, account = dead.session, dead.account or {}
    first_frame = max(first_frame, dead.heard_upto)
    digest, kept, writer = hashlib.sha256(), RecordingOnDisk("none"), None
    if session.recording_enabled:
        upto = max(first_frame, int(account.get("upto_frame", 0)))
        writer = RecordingWriter.reopen(
            folder, session.audio_format, kind=kind, segment_seconds=segment_seconds, first_frame=upto
        )
        if writer is not None:
            kept = yield from recording_steps(dead, writer.info, writer.segments, writer.digest)
            if kept.digest:
                digest = writer.digest  # the recorded bytes are the received ones
    frames = frames_of(session, account, kept)
    if kept.state == "differs" or (kept.digest and frames.digest != kept.digest):
        raise NotWhole
    if frames.accounted and not kept.digest:
        digest = hashlib.sha256(frames.digest.encode())
    known = _with_the_gap(frames, first_frame)
    untold, next_event = dead.untold()
    spoken = min(dead.spoken, known.upto)
    unheard = ((PROCESS_DIED, known.upto - spoken),) if known.upto > spoken else ()
    heard = Transcribed(dead.transcript, spoken, unheard)
    newest = max((record.created_at for record in dead.records), default=session.created_at)
    age = max(utc_now(), newest) - session.created_at  # the clock may have been set back since
    detail = (
        (
            "resumed",
            FrozenDict(
                {
                    "owner": dead.owner,
                    "state": session.state.value,
                    "last_account": dead.account,
                    "recording": kept.state,
                }
            ),
        ),
        *known.detail(),
    )
    return Restored(
        _facts(session, dead),
        session.policy_verdict,
        Resumption(
            session.state,
            dead.next_number,
            known,
            heard,
            max(0.0, age.total_seconds()),
            detail,
            dead.mismatches,
        ),
        Carried(
            known.upto,
            known.kept,
            known.n_bytes,
            digest,
            writer,
            _lost(session.audio_format, kept, frames.accepted, known.upto),
        ),
        untold,
        next_event,
    )


def _with_the_gap(frames: FrameAccount, first_frame: int) -> Account:
    """The account up to `first_frame`, the first that comes again; missing frames below it are dropped as `process_died`."""
    dropped = dict(frames.dropped)
    gap = max(0, first_frame - frames.accepted)
    if gap:
        dropped[PROCESS_DIED] = dropped.get(PROCESS_DIED, 0) + gap
    return Account(
        upto=frames.accepted + gap,
        kept=frames.accounted,
        n_bytes=frames.bytes,
        digest=frames.digest if frames.accounted else "",
        lost=tuple(sorted(dropped.items())),
    )


def _lost(audio_format: AudioFormat, kept: RecordingOnDisk, accepted: int, upto: int) -> tuple[Lost, ...]:
    """The frames below `upto` that nobody has: the recording's gaps and the frames behind its end, or, without a recording,
    the frames behind the `accepted` ones. Only the dead process knew the real reasons."""
    frame = audio_format.frame_samples
    lost = Losses()
    if kept.info is not None:
        accepted = min(upto, -(-kept.info.samples // frame))
        for first, count in kept.info.gaps:
            begin = first // frame
            lost.add(begin, -(-(first + count) // frame) - begin, PROCESS_DIED)
    if accepted < upto:
        lost.add(accepted, upto - accepted, PROCESS_DIED)
    return lost.between(0, upto)


def _facts(session: VoiceSession, dead: DeadSession) -> Facts:
    fallback = dead.records[0].request_summary.get("stt_fallback", "") if dead.records else ""
    return Facts(
        session_id=session.session_id,
        project_id=session.project_id,
        provider=session.provider,
        stt_provider=session.stt_provider,
        stt_engine=None if session.stt_engine == "none" else engine_named(session.stt_engine),
        fallback=str(fallback),
        audio_format=session.audio_format,
        recording=session.recording_enabled,
        metadata=session.metadata,
        audit_trace_id=session.audit_trace_id,
        secret=dead.secret,
        admin_token_valid=None,
        created_at_ms=round(session.created_at.timestamp() * 1000),
        resumable=True,
        silence_seconds=session.silence_timeout_seconds,
        stt_options=FrozenDict(session.stt_options),
    )
