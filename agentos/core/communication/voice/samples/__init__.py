"""A speech sample that ships with the project, so that a first call needs no other file.

`go-forward.flac` says "go forward ten meters": 16 kHz, mono, 16 bit, 1.87 s. It was synthesised for this project by Flite
(https://github.com/festvox/flite, Carnegie Mellon University, a permissive licence) with its voice `rms`:

    flite -voice rms -t "go forward ten meters" -o go-forward.wav

and written as FLAC without loss. No person was recorded.
"""

from pathlib import Path
from typing import Final

SAMPLE: Final = Path(__file__).with_name("go-forward.flac")
SAMPLE_TEXT: Final = "go forward ten meters"
