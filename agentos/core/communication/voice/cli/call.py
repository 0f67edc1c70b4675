"""`agentos-voice call`: a sound file through a real session."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import anyio
from cyclopts import Parameter
from rich.console import RenderableType
from rich.text import Text

from agentos.core.communication.voice.audio.files import SoundFile
from agentos.core.communication.voice.cli.exits import (
    EVIDENCE,
    FAILED,
    OK,
    SIGNAL_BASE,
    InputError,
    described,
    exit_code,
    one_line,
)
from agentos.core.communication.voice.cli.live_view import LiveView
from agentos.core.communication.voice.cli.logs import configure_logging
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, fields, terminal, whole
from agentos.core.communication.voice.cli.playback import NoView, PlaybackPlan, Played, View, loop_options, play
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.settings import TOKEN_VARIABLE, VoiceSettings, load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.audio import AudioFormat
from machines.names import text_of
from machines.recording import RecordingState
from machines.session import EndReason, FrameAccount, Quality, SessionResult
from machines.strict_json import read_strictly


def call(  # noqa: PLR0913 - each argument is an option of the command
    file: Annotated[
        Path | None, Parameter(help="A WAV, FLAC or OGG file, 4,000 to 192,000 Hz; a sample that ships, if none.")
    ] = None,
    /,
    *,
    fast: Annotated[
        bool, Parameter(negative=(), help="Play as fast as the session takes it, not in real time.")
    ] = False,
    record: Annotated[bool, Parameter(negative="--no-record", help="Record the call.")] = True,
    stt: Annotated[
        str, Parameter(help="The speech-to-text engine to ask for; `agentos-voice doctor` says which there are.")
    ] = "pocketsphinx",
    stt_options: Annotated[str, Parameter(help="What to ask of the engine, a JSON object.")] = "{}",
    project: Annotated[str, Parameter(help="The project that the session belongs to.")] = "command-line",
    metadata: Annotated[str, Parameter(help="The session's metadata, a JSON object.")] = "{}",
    admin_token: Annotated[
        str | None, Parameter(env_var=TOKEN_VARIABLE, help="For calls of a high risk tier; see `token create`.")
    ] = None,
    silence_timeout: Annotated[
        float | None, Parameter(help="End the call when nobody speaks for so many seconds; else the setting.")
    ] = None,
    loop: Annotated[
        Literal["asyncio", "trio"] | None, Parameter(help="The event loop; else the setting `loop`.")
    ] = None,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """Play a sound file through a real call: transcript, recording, evidence.

    Ctrl-C stops the call in order: the audio played until then is recorded, transcribed and accounted for.
    """
    settings = load_settings(**({} if home is None else {"home": home}))
    configure_logging(settings.log_level)
    given = _metadata(metadata, record=record)
    options = _object(stt_options, "--stt-options")
    audio_format = AudioFormat()
    path = SAMPLE if file is None else file
    sound = SoundFile(path, audio_format)
    notice = sound.check()
    plan = PlaybackPlan(sound, audio_format, project, stt, options, given, admin_token, fast, silence_timeout)
    if sys.stdout.isatty() and not json_output:
        with LiveView(terminal(), seconds=sound.duration_seconds) as view:
            played = _run(plan, settings, view, loop or settings.loop)
    else:
        played = _run(plan, settings, NoView(), loop or settings.loop)
    return _outcome(path, sound, played, settings, notice)


def _run(plan: PlaybackPlan, settings: VoiceSettings, view: View, loop: Literal["asyncio", "trio"]) -> Played:
    return anyio.run(play, plan, settings, view, backend=loop, backend_options=loop_options(loop, settings))


def _metadata(text: str, *, record: bool) -> dict[str, Any]:
    """The metadata in `text`, with recording enabled unless the metadata, or `--no-record`, says otherwise."""
    given = _object(text, "--metadata")
    if not record:
        return {**given, "recording_enabled": False}
    return {"recording_enabled": True, **given}


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        given = read_strictly(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option} must be a JSON object, and it is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(f"{option} must be a JSON object like '{{\"key\": 1}}', got {text!r}")
    return given


class _Evidence(NamedTuple):
    """The evidence after the call: the call's records, and the verification of the whole chain."""

    database: Path
    records: int
    chain_records: int
    head: str
    fault: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "verified": self.fault is None,
            "head": self.head,
            "database": str(self.database),
            "chain_records": self.chain_records,
            "fault": self.fault,
        }


def _evidence(settings: VoiceSettings, session_id: str) -> _Evidence:
    database = settings.database
    try:
        with open_to_read(database) as store:
            records = len(store.evidence(session_id))
            found = store.verify()
    except StoreError as error:
        return _Evidence(database, 0, 0, "", one_line(str(error)))
    fault = None if found.ok else f"record {found.at_seq}: {found.fault}"
    return _Evidence(database, records, found.records, found.head, fault)


def _outcome(path: Path, sound: SoundFile, played: Played, settings: VoiceSettings, notice: str) -> CommandOutcome:
    session = played.session
    result = session.result or SessionResult(reason=EndReason.FAILED, drained=False)
    evidence = _evidence(settings, session.session_id)
    code, problem = _verdict(played, result, evidence)
    seconds = result.frames.bytes / (session.audio_format.sample_bytes * session.audio_format.sample_rate)
    data = {
        "session_id": session.session_id,
        "project_id": session.project_id,
        "file": str(path),
        "state": session.state.value,
        "reason": result.reason.value,
        "drained": result.drained,
        "interrupted": played.signum is not None,
        "notice": notice or None,
        "seconds": seconds,
        "took_seconds": played.took_seconds,
        "risk_tier": session.risk_tier.value,
        "stt_provider": text_of(session.stt_provider),
        "stt_engine": session.stt_engine,
        "stt_fallback": played.fallback,
        "transcript": result.transcript,
        "recording": None if result.recording is None else result.recording.path,
        "recording_info": None if result.recording is None else result.recording.model_dump(mode="json"),
        "frames": result.frames.model_dump(mode="json"),
        "quality": result.quality.model_dump(mode="json"),
        "mismatches": [mismatch.model_dump(mode="json") for mismatch in result.mismatches],
        "parts": result.parts,
        "evidence": evidence.as_json(),
        "audit_trace_id": session.audit_trace_id,
    }
    if played.problem is not None:
        data |= described(played.problem, code)
    ended = f"{result.reason.value}, risk: {session.risk_tier.value}"
    if not result.drained:
        ended += ", the drain deadline passed"
    rows: list[tuple[str, RenderableType]] = [
        ("session", whole(session.session_id)),
        ("ended", ended),
        ("said", Text(result.transcript or "(nothing)", style="bold")),
        ("engine", session.stt_engine + (f", because {played.fallback}" if played.fallback else "")),
        ("audio", _audio(path, sound, seconds, played.took_seconds)),
        ("frames", _frames(result.frames)),
        ("quality", _quality(result.quality)),
        ("evidence", _chain(evidence)),
        ("database", whole(str(evidence.database))),
        *_recording(result),
        *([("notice", Text(notice, style="yellow"))] if notice else []),
    ]
    return CommandOutcome(data, (fields(rows),), code, problem)


def _verdict(played: Played, result: SessionResult, evidence: _Evidence) -> tuple[int, str]:
    if played.problem is not None:
        return exit_code(played.problem), one_line(str(played.problem))
    if evidence.fault is not None:
        return EVIDENCE, f"the evidence chain does not hold: {evidence.fault}"
    if played.signum is not None:
        name = signal.Signals(played.signum).name
        return SIGNAL_BASE + played.signum, f"{name} came, and the call was stopped in order"
    if result.reason is not EndReason.STOPPED:
        return FAILED, f"the call ended before the file did, reason: {result.reason.value}"
    return OK, ""


def _audio(path: Path, sound: SoundFile, seconds: float, took_seconds: float) -> str:
    channels = f"{sound.channels} channel{'s' if sound.channels > 1 else ''}"
    source = f"{path.name} ({sound.duration_seconds:.2f} s, {sound.sample_rate} Hz, {channels})"
    return f"{seconds:.2f} s of {source} in {took_seconds:.2f} s"


def _frames(frames: FrameAccount) -> str:
    return (
        f"{frames.accepted} accepted, {frames.accounted} accounted, {frames.recorded} recorded, "
        f"{_lost(frames.dropped)} dropped, {frames.transcribed} transcribed, "
        f"{_lost(frames.untranscribed)} not transcribed"
    )


def _lost(counts: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({reasons})" if counts else "0"


def _quality(quality: Quality) -> str:
    return (
        f"level {_dbfs(quality.level_dbfs)}, peak {_dbfs(quality.peak_dbfs)}, {quality.clipped_share:.0%} clipped, "
        f"{quality.silent_share:.0%} silent, longest wait for a chunk {quality.longest_pause_ms} ms"
    )


def _dbfs(level: float | None) -> str:
    return "none" if level is None else f"{level:.1f} dBFS"


def _chain(evidence: _Evidence) -> RenderableType:
    if evidence.fault is not None:
        return Text(f"{evidence.records} records; the chain does not hold: {evidence.fault}", style="red")
    return Text(f"{evidence.records} records, the chain of {evidence.chain_records} verified, head {evidence.head}")


def _recording(result: SessionResult) -> list[tuple[str, RenderableType]]:
    recording = result.recording
    if recording is None:
        return [("recording", "none")]
    gaps = f", {len(recording.gaps)} gaps" if recording.gaps else ""
    recorded = f"{recording.seconds:.2f} s{gaps}"
    if recording.state is not RecordingState.READY:
        recorded += f"; the file is not ready: {recording.state.value}"
    return [("recorded", recorded), ("recording", whole(recording.path))]
