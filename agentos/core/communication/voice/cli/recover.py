"""`agentos-voice recover`: end the sessions of dead processes."""

from rich.text import Text

from agentos.core.communication.voice.cli.exits import FAILED, OK
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, table
from agentos.core.communication.voice.cli.stores import settings_of
from agentos.core.communication.voice.recording.finishing import Finishing, FinishingReport
from agentos.core.communication.voice.recovery.recovery import Recovery, RecoveryReport
from agentos.core.communication.voice.storage.head_notes import check_heads
from agentos.core.communication.voice.storage.opening import open_store
from machines.session import VoiceSession


def recover(*, home: Home = None, json_output: Json = False) -> CommandOutcome:
    """End every session whose process is dead, with evidence that says so, and finish unfinished recordings.

    Does not touch sessions of living processes, or sessions that may still be resumed. A running service does the same by
    itself. Does nothing if the evidence chain does not go on from the noted heads.
    """
    del json_output
    settings = settings_of(home)
    report, finished = RecoveryReport((), 0, ()), FinishingReport((), (), {})
    problems: dict[str, str] = {}
    unknown: list[str] = []
    if settings.database.exists():
        with open_store(settings.database, busy_timeout_seconds=settings.store_busy_timeout_seconds) as store:
            if settings.heads is not None:
                check_heads(store, settings.heads)
            recovery = Recovery(
                store,
                settings.recordings,
                settings.recording_format,
                resume_window_seconds=settings.resume_window_seconds,
            )
            try:
                report = recovery.run()
            finally:
                recovery.close()
            finishing = Finishing(store, settings.recordings, settings.recording_format)
            problems |= finishing.take_in()
            finished = finishing.run()
            problems |= finished.problems
            unknown = sorted(name for name, owner in finishing.unnamed().items() if owner is None)
    said = [
        *report.problems,
        *(f"the recording of {name!r} can't be finished yet: {why}" for name, why in problems.items()),
    ]
    data = {
        "recovered": [session.model_dump(mode="json") for session in report.recovered],
        "owned": report.owned,
        "problems": said,
        "recordings_ready": [recording.path for recording in finished.ready],
        "recordings_failed": [recording.path for recording in finished.failed],
        "recordings_of_nobody": unknown,
        "resumable": [session.session_id for session in report.resumable],
    }
    waiting = f"; waiting to be resumed: {len(report.resumable)}" if report.resumable else ""
    ended, owned = len(report.recovered), report.owned
    summary = Text(f"sessions ended: {ended}; running in living processes: {owned}{waiting}")
    rows = (_row(session) for session in report.recovered)
    found = (table(("session", "created", "project", "frames", "recording"), rows),) if report.recovered else ()
    recordings = Text(f"recordings finished: {len(finished.ready)}; damaged: {len(finished.failed)}")
    if unknown:
        recordings.append(f"; samples of unknown sessions: {', '.join(unknown)}")
    problem = "; ".join(said)
    return CommandOutcome(data, (*found, summary, recordings), FAILED if problem else OK, problem)


def _row(session: VoiceSession) -> tuple[str, ...]:
    result = session.result
    frames = 0 if result is None else result.frames.accounted
    recording = result.recording if result is not None else None
    return (
        session.session_id,
        session.created_at.isoformat(timespec="seconds"),
        session.project_id,
        str(frames),
        "" if recording is None else recording.path,
    )
