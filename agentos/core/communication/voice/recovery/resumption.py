"""What another process goes on with: a session that a dead one left, with its account, its transcript and its recording.

Known is what `remains.py` knows. From it come the facts and the journal that a session actor begins with, and the recording,
open again behind its last whole frame. What was accepted and is not known to be durable is expected to be sent again; what the
caller can't send again is a gap that is declared. So is what a finished utterance was made of and neither the account nor the
recording has: sent again, its words would stand in the transcript twice.
"""

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from actors.voice.messages import Account, Facts, Resumption, Transcribed
from agentos.core.communication.voice.recording.port import Carried
from agentos.core.communication.voice.recording.recordings import RecordingKind, RecordingWriter
from agentos.core.communication.voice.recovery.dead_session import Kept, Remains, frames_of, kept_steps
from agentos.core.time import utc_now
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict
from machines.events import VoiceEvent
from machines.frozen import FrozenDict
from machines.losses import Losses, Lost
from machines.reasons import PROCESS_DIED
from machines.session import FrameAccount, STTProvider, VoiceSession


class Restored(NamedTuple):
    """A session as it goes on: what its actor begins with, the audio that the media port carries on, and, of its events, those
    that were not told and the number of the next one."""

    facts: Facts
    verdict: PolicyVerdict
    resumption: Resumption
    carried: Carried
    untold: tuple[VoiceEvent, ...]
    next_event: int


class NotWhole(Exception):
    """The recording can't be gone on with: it is not, to the frame, what evidence says was recorded."""


def restored_steps(
    remains: Remains, folder: Path, kind: RecordingKind, segment_seconds: int, first_frame: int
) -> Generator[None, None, Restored]:
    """Make a session ready to go on, in pieces of about a millisecond; its recording is in `folder`.

    Frames from `first_frame` on can be sent again; those that are in the transcript are not asked for. Given up half-way, or
    done again, it loses nothing. Raises `RecordingError` when the disk refuses, `NotWhole`.
    """
    session, account = remains.session, remains.account or {}
    first_frame = max(first_frame, remains.heard_upto)
    digest, kept, writer = hashlib.sha256(), Kept("none"), None
    if session.recording_enabled:
        upto = max(first_frame, int(account.get("upto_frame", 0)))
        writer = RecordingWriter.reopen(
            folder, session.audio_format, kind=kind, segment_seconds=segment_seconds, first_frame=upto
        )
        if writer is not None:
            kept = yield from kept_steps(remains, writer.info, writer.segments, writer.digest)
            if kept.digest:
                digest = writer.digest  # what is recorded is what came, to the byte
    frames = frames_of(session, account, kept)
    if kept.state == "differs" or (kept.digest and frames.digest != kept.digest):
        raise NotWhole
    if frames.accounted and not kept.digest:
        digest = hashlib.sha256(frames.digest.encode())
    known = _with_the_gap(frames, first_frame)
    untold, next_event = remains.untold()
    spoken = min(remains.spoken, known.upto)
    unheard = ((PROCESS_DIED, known.upto - spoken),) if known.upto > spoken else ()
    heard = Transcribed(remains.transcript, spoken, unheard)
    newest = max((record.created_at for record in remains.records), default=session.created_at)
    age = max(utc_now(), newest) - session.created_at  # the clock may have been set back meanwhile
    detail = (
        (
            "resumed",
            FrozenDict(
                {
                    "owner": remains.owner,
                    "state": session.state.value,
                    "last_account": remains.account,
                    "recording": kept.state,
                }
            ),
        ),
        ("upto_frame", known.upto),
        ("accounted", known.kept),
        ("bytes", known.n_bytes),
        ("digest", known.digest),
        ("dropped", FrozenDict(known.lost)),
    )
    return Restored(
        _facts(session, remains),
        session.policy_verdict,
        Resumption(
            session.state,
            remains.next_number,
            known,
            heard,
            max(0.0, age.total_seconds()),
            detail,
            remains.mismatches,
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
    """The account up to the first frame that comes again."""
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


def _lost(audio_format: AudioFormat, kept: Kept, accepted: int, upto: int) -> tuple[Lost, ...]:
    """The frames below `upto` that nobody has: the gaps of the recording and what is behind its end, or, without one, behind
    the `accepted` frames of the account. Why they are lost the dead process knew."""
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


def _facts(session: VoiceSession, remains: Remains) -> Facts:
    fallback = remains.records[0].request_summary.get("stt_fallback", "") if remains.records else ""
    return Facts(
        session_id=session.session_id,
        project_id=session.project_id,
        provider=session.provider,
        stt_provider=session.stt_provider,
        stt_engine=None if session.stt_engine == "none" else STTProvider(session.stt_engine),
        fallback=str(fallback),
        audio_format=session.audio_format,
        recording=session.recording_enabled,
        metadata=session.metadata,
        audit_trace_id=session.audit_trace_id,
        secret=remains.secret,
        admin_token_valid=None,
        created_at_ms=round(session.created_at.timestamp() * 1000),
        resumable=True,
        silence_seconds=session.silence_timeout_seconds,
    )
