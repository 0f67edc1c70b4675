"""The recording of a session after its call has ended.

    FINISHING -> READY
              -> FAILED

- FINISHING: every sample is on the disk, in segments, and the session's final record has the digest. A service of the home
  packs the segments into one file, also after a restart, however long that takes. A full disk only delays it.
- READY: the file is there, and its samples have the digest of the final record.
- FAILED: a segment is damaged, or the samples do not have that digest, so no file can be made. The segments stay.
"""

from enum import Enum
from typing import Final

from machines.lifecycle import Lifecycle, Move
from machines.value import Value


class RecordingState(str, Enum):
    """The state of an ended call's recording; the module's docstring explains each."""

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
    lists `(first_sample, samples)` of silence put in for lost audio. `digest` is the SHA-256 of the samples outside the gaps,
    as signed 16 bit little-endian, computed while they were written. `recording_id` is the request id of the evidence that
    the recording is ready or has failed. Both are empty in recordings of older versions.
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
