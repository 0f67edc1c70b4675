"""Whether anybody speaks in a call, and when a silence has lasted its time.

What is speech. Where an engine transcribes, its words are, and no other sound is. Where none does, or has missed some of the
call, voice is: sound that stands out of the noise around it (`VoiceMeter`). Steady noise is neither, comfort noise with it.

When it is over. A timer runs from the last speech that was heard. When it has run out, the engine, or the port that measures
sound, may be behind: somebody may have spoken in audio that waits there. So the silence is one once all that had come by then
was dealt with (`Listening`).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

HEARING_SECONDS: Final = 1.0  # from one look to the next, while the engine, or the port that measures sound, is behind
HELD_BACK_FRAMES: Final = 100  # of which an engine may say nothing before more audio comes: two seconds

QUIET_MEAN_SQUARE: Final = 1e-6  # -60 dBFS: noise below is taken to be as loud
STANDS_OUT: Final = 10.0  # times the noise: 10 dB
RISE: Final = 10 ** (0.1 / 50)  # of the noise in a frame of 20 ms: 1 dB in a second
SHORTEST_VOICE_FRAMES: Final = 5  # a tenth of a second, as long as a syllable; a click is shorter


class Listening(NamedTuple):
    """How a call is listened to. `by_ear` is set while an engine hears all of it, and otherwise its sound is measured; `upto`
    is set once the silence has run out while that was behind: the frames below have to be dealt with before it counts."""

    by_ear: bool
    upto: int | None = None

    def run_out(self, accepted: int, heard: int, measured: int) -> "Listening | None":
        """The silence has run out; of the `accepted` frames an engine has dealt with `heard`, and `measured` were measured or
        are known to be lost. None when nobody spoke, and otherwise how it goes on, with a look after `HEARING_SECONDS`."""
        if (heard if self.by_ear else measured) >= (accepted if self.upto is None else self.upto):
            return None
        if self.by_ear and self.upto == accepted and heard >= accepted - HELD_BACK_FRAMES:
            return None
        return self._replace(upto=accepted if self.upto is None else self.upto)


class VoiceMeter:
    """Finds the frames with voice in the sound of one call, from their levels.

    The noise is the level below which no frame has been for a while: it falls at once, and rises slowly. Frames of digital
    silence say nothing of it.
    """

    __slots__ = ("_noise", "_run")

    def __init__(self) -> None:
        self._noise: float | None = None
        self._run = 0

    def voiced(self, mean_squares: Iterable[float]) -> int:
        """How many of the next frames have voice; each is given by its mean square (full scale is 1.0). Of a run of loud frames
        the first ones count once it is long enough."""
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
