"""Checks of the recordings on the disk against the sessions' results in the chain."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.recording.segments import blocks_of, heard, sound_in_gaps
from agentos.core.communication.voice.storage.store import VoiceStore
from machines.audio import AudioEncoding
from machines.cross_checks import Mismatch
from machines.recording import RecordingInfo, RecordingState
from machines.session import VoiceSession, VoiceSessionState

SOUND: Final = (".flac", ".wav")


@dataclass(frozen=True, slots=True)
class RecordingsChecked:
    """The result of the checks: `whole` recordings fit their results, `unfinished` ones can't be compared yet, and the
    mismatches."""

    whole: int
    unfinished: int
    mismatches: tuple[Mismatch, ...]


def check_recordings(store: VoiceStore, recordings: Path) -> RecordingsChecked:
    """Read every recording in the folder `recordings` that a stopped session names, and look for unnamed ones.

    Takes the time of decoding them all. Raises `StoreError`, and `OSError` if the folder can't be read.
    """
    folders = {path.name for path in recordings.iterdir() if path.is_dir()} if recordings.is_dir() else set()
    sessions = {session.session_id: session for session in store.sessions()}
    found = [
        Mismatch("folder-of-nobody", name, "its folder of recordings belongs to no session that is stored")
        for name in sorted(folders - sessions.keys())
    ]
    whole = unfinished = 0
    for session_id, session in sorted(sessions.items()):
        if session.state is not VoiceSessionState.STOPPED or session.result is None:
            continue
        info = session.result.recording
        if info is None:
            if session_id in folders and any(_sound_in(recordings / session_id)):
                text = "its folder holds samples, and its result names no recording"
                found.append(Mismatch("recording-unnamed", session_id, text))
        elif info.state is RecordingState.FINISHING or Path(info.path).suffix not in SOUND:
            unfinished += 1
        elif info.recording_id and not _on_record(store, info):
            text = f"its recording is {info.state.value}, and the records of {info.recording_id!r} don't say so"
            found.append(Mismatch("recording-unrecorded", session_id, text))
        elif info.state is RecordingState.FAILED:
            found.append(Mismatch("recording-failed", session_id, "its recording was damaged, as is on record"))
        elif problem := _problem(session, info, recordings / session_id / Path(info.path).name):
            kind, text = problem
            found.append(Mismatch(kind, session_id, text))
        else:
            whole += 1
    return RecordingsChecked(whole, unfinished, tuple(found))


def _sound_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix in SOUND)


def _on_record(store: VoiceStore, info: RecordingInfo) -> bool:
    """Whether evidence says that this recording is ready or failed, and with this digest."""
    said = [record.response_summary or {} for record in store.evidence(info.recording_id)]
    return [(one.get("state"), one.get("digest")) for one in said] == [(info.state.value, info.digest)]


def _problem(session: VoiceSession, info: RecordingInfo, path: Path) -> tuple[str, str] | None:
    """The fault of a recording, as a kind and a text; None if it has none."""
    if not path.is_file():
        return "recording-missing", f"its recording is not at {path}"
    try:
        with soundfile.SoundFile(path) as file:
            form = (file.samplerate, file.channels, file.frames)
        if form != (info.sample_rate, info.channels, info.samples):
            return "recording-differs", f"its recording at {path} has another length or form than its result says"
        wanted = _digest(session, info)
        if wanted is not None:
            digest, at = hashlib.sha256(), 0
            for block in blocks_of(path):
                digest.update(heard(block, at, info.gaps))
                if sound_in_gaps(block, at, info.gaps):
                    return (
                        "recording-differs",
                        f"its recording at {path} has sound where its result says that nothing came",
                    )
                at += len(block)
            if digest.hexdigest() != wanted:
                return "recording-differs", f"its recording at {path} holds other samples than its result says"
    except (RuntimeError, OSError) as error:  # libsndfile's own errors are RuntimeErrors
        return "recording-unreadable", f"its recording at {path} can't be read: {error}"
    return None


def _digest(session: VoiceSession, info: RecordingInfo) -> str | None:
    """The SHA-256 that the samples of the recording without its gaps must have; None if no record has it.

    If the recording has no digest of its own, the digest of the received bytes is the same, provided that they were linear PCM
    and all were recorded.
    """
    if info.digest:
        return info.digest
    assert session.result is not None  # noqa: S101 - narrows the type
    frames = session.result.frames
    samples = info.samples - sum(count for _, count in info.gaps)
    linear = session.audio_format.encoding is AudioEncoding.PCM_S16LE
    whole = frames.recorded == frames.accounted and samples * session.audio_format.sample_bytes == frames.bytes
    return frames.digest or None if linear and whole else None
