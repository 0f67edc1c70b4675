"""The silence timeout: whether anybody speaks in a call, and when a silence has lasted too long.

Speech: if an engine transcribes the call, only its words count as speech. If none does, or if it has missed part of the call,
voice counts: sound that stands out of the noise around it (`VoiceMeter`). Steady noise counts as neither, nor does comfort
noise.

Timeout: a timer runs from the last speech. When it fires, the engine, or the port that measures sound, may be behind, and its
backlog may have speech in it. So the silence counts only once all audio that had come by then was processed (`Listening`).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

HEARING_SECONDS: Final = 1.0  # between two checks while the engine, or the port that measures sound, is behind
HELD_BACK_FRAMES: Final = 100  # two seconds: an engine may report its last frames only after more audio

QUIET_MEAN_SQUARE: Final = 1e-6  # -60 dBFS: quieter noise counts as this loud
STANDS_OUT: Final = 10.0  # times the noise: 10 dB
RISE: Final = 10 ** (0.1 / 50)  # growth of the noise level per 20 ms frame: 1 dB a second
SHORTEST_VOICE_FRAMES: Final = 5  # a tenth of a second, as long as a syllable; a click is shorter


class Listening(NamedTuple):
    """How speech is detected in a call: by the engine's words (`by_ear`, if an engine hears all of the call), else by
    measuring sound. `upto` is set once the timer has fired while the detector was behind: the silence counts when all frames
    below `upto` are processed."""

    by_ear: bool
    upto: int | None = None

    def run_out(self, accepted: int, heard: int, measured: int) -> "Listening | None":
        """The timer fired. Of the `accepted` frames an engine has processed `heard`; `measured` frames were measured or are
        known to be lost. Returns None if the silence counts, else the next state, to be asked again after `HEARING_SECONDS`."""
        if (heard if self.by_ear else measured) >= (accepted if self.upto is None else self.upto):
            return None
        if self.by_ear and self.upto == accepted and heard >= accepted - HELD_BACK_FRAMES:
            return None
        return self._replace(upto=accepted if self.upto is None else self.upto)


class VoiceMeter:
    """Finds the frames with voice in the sound of one call, from their levels.

    The noise level is the lowest level of a frame for a while: it falls at once, and rises slowly. Frames of digital silence
    do not change it.
    """

    __slots__ = ("_noise", "_run")

    def __init__(self) -> None:
        self._noise: float | None = None
        self._run = 0

    def voiced(self, mean_squares: Iterable[float]) -> int:
        """How many of the next frames have voice. `mean_squares` has one mean square a frame (full scale is 1.0). A run of loud
        frames counts, from its first frame on, once it is long enough."""
        count, noise, run = 0, self._noise, self._run
        for mean_square in mean_squares:
            if not mean_square:
                run = 0
                continue
            level = max(mean_square, QUIET_MEAN_SQUARE)
            noise = level if noise is None else min(level, noise * RISE)
            run = run + 1 if level > noise * STANDS_OUT else 0
            if run >= SHORTEST_VOICE_FRAMES:
                count += SHORTEST_VOICE_FRAMES if run == SHORTEST_VOICE_FRAMES else 1
        self._noise, self._run = noise, run
        return count
