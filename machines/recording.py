"""The recording of a session, from the moment that its call has ended.

    FINISHING -> READY
              -> FAILED

- FINISHING: every sample is on the disk, in segments, and the session's final record says what they are. They are still to be
  packed into the one file that is handed out. That belongs to the service and takes as long as it takes: whoever runs does it,
  also after a restart. A full disk only puts it off.
- READY: the file is there, and its samples are those of which the final record has the digest.
- FAILED: it can't be made: a segment is damaged, or its samples are not those of the digest. What there is stays where it is.
"""

from enum import Enum
from typing import Final

from machines.lifecycle import Lifecycle, Move
from machines.value import Value


class RecordingState(str, Enum):
    """Where the recording of an ended call is on its way to one file; see the module for what each state means."""

    FINISHING = "finishing"
    READY = "ready"
    FAILED = "failed"


_S = RecordingState

RECORDING: Final = Lifecycle(
    "recording",
    states=_S,
    initial=_S.FINISHING,
    final=[_S.READY, _S.FAILED],
    moves=[
        Move("packed", _S.FINISHING, _S.READY, "its segments are one file, which has the samples of the digest"),
        Move("damaged", _S.FINISHING, _S.FAILED, "a segment is damaged, or holds other samples"),
    ],
)


class RecordingInfo(Value, frozen=True):
    """One recording: where it is and what it holds.

    `path` is the playable file, which is there once `state` is READY. `samples` are sample instants at `sample_rate`; `gaps`
    lists `(first_sample, samples)` of silence put in for audio that was lost. `digest` is the SHA-256 of the samples that are
    no gap, as signed 16 bit little-endian, computed while they were written. `recording_id` is what the evidence of its end
    goes under. Both are empty in recordings of older versions.
    """

    path: str
    sample_rate: int
    channels: int
    samples: int
    seconds: float
    segments: int
    gaps: tuple[tuple[int, int], ...] = ()
    state: RecordingState = RecordingState.READY
    digest: str = ""
    recording_id: str = ""
