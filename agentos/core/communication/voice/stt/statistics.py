"""What the speech-to-text port tells of itself."""

from dataclasses import dataclass

from agentos.core.communication.voice.measuring.durations import DurationStatistics


@dataclass(frozen=True, slots=True)
class SpeechStatistics:
    """How the port is doing. The first seven are the present, the others count since the start."""

    worker_pids: tuple[int, ...]
    """The process ids of the workers that run."""
    workers: int
    """Worker processes that run or are being started."""
    streams: int
    """Sessions that are listened to."""
    queued_frames: int
    """Frames that no worker has been given yet."""
    frames_under_way: int
    """Frames at a worker whose outcome isn't known."""
    undecoded_frames: int
    """Frames that a worker has still to decode: those that wait, and those that it was given and has not answered for."""
    wait_seconds: float
    """How long the workers will take for these, at the pace that they have shown here and now; at least as long as the oldest
    of them has waited, since a worker that starts, or loads an engine, shows none."""
    heard_frames: int
    """Frames that were transcribed, or are no speech."""
    unheard_frames: tuple[tuple[str, int], ...]
    """Frames that were declared lost, by reason."""
    abandoned_frames: int
    """Frames of sessions that were abandoned; what becomes of them is told to nobody."""
    stray_frames: int
    """Frames of a session that isn't listened to, or that had been handed over before; they were ignored."""
    utterances: int
    """Finished utterances told."""
    workers_started: int
    """Worker processes started."""
    workers_died: int
    """Worker processes that ended by themselves or were killed by another."""
    workers_hung: int
    """Worker processes that were killed because they answered nothing."""
    latencies: DurationStatistics
    """How long it took from the hand-over of audio until a worker had decoded it; one for each of a worker's answers."""
