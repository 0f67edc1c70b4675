"""How fast speech to text runs here and now, and how long what waits for it will take.

Only the time in which a worker decodes counts, so that the pace is known long before the workers have all that they can do.
Older work counts less, since a machine that gets busy has another pace.
"""

from typing import Final

HALF_LIFE_SECONDS: Final = 10.0  # of work
LEAST_FRAMES: Final = 50  # a second of audio, before anything is said


class Pace:
    """The frames that a worker decodes in a second of work."""

    __slots__ = ("_frames", "_seconds")

    def __init__(self) -> None:
        self._frames = self._seconds = 0.0

    def worked(self, frames: int, seconds: float) -> None:
        """A worker has worked for so long, and decoded so many frames."""
        kept = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        self._frames = self._frames * kept + frames
        self._seconds = self._seconds * kept + seconds

    def frames_per_second(self, working_seconds: float = 0.0) -> float | None:
        """The pace, where workers have been at work for `working_seconds` without an answer yet; None while it is not known."""
        if self._frames < LEAST_FRAMES:
            return None
        seconds = self._seconds + working_seconds
        return self._frames / seconds if seconds else None

    def seconds_for(self, frames: int, workers: int, working_seconds: float = 0.0) -> float:
        """How long so many workers will take for so many frames; 0 while the pace is not known."""
        pace = self.frames_per_second(working_seconds)
        return 0.0 if pace is None else frames / (pace * max(1, workers))
