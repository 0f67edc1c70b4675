"""The manifest of a recording, `recording.json`: the list of the files in the recording's folder.

The segment that is being filled is `000003.wav`, say; once complete it becomes `000003.flac` (or stays WAV), durable, and the
manifest names it. After the call the manifest is closed: it names every segment and has the digest of all samples. A packed
recording is one file, `recording.flac` or `recording.wav`.
"""

import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from agentos.core.communication.voice.recording.segments import (
    RecordingDamaged,
    RecordingKind,
    replace_durably,
)
from machines.audio import FRAMES_PER_SECOND
from machines.recording import RecordingInfo, RecordingState

MANIFEST: Final = "recording.json"
GAPS: Final = "gaps"
SEGMENT_FILE: Final = re.compile(r"\d{6,}\.(wav|flac)")
_PACKED: Final = ("recording.flac", "recording.wav")


def new_recording_id() -> str:
    """An id that no other recording has."""
    return f"rec-{secrets.token_hex(8)}"


class Segment(BaseModel):
    """A complete segment: its file's name and its sample instants."""

    model_config = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")

    file: str
    samples: int


class Manifest(BaseModel):
    """The complete segments of a recording, in order, and its gaps, of which a part may lie behind the segments.

    `full` is the number of samples in a full segment behind the ones listed here; None in a recording of one process, whose
    segments show it. `digest` is that of `RecordingInfo`, empty until the recording is closed; `recording_id` is empty in
    recordings of older versions. `silence` counts the sample instants of a closed recording behind its segments: a gap at the
    end of the call, for which there is no file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")

    version: int = 1
    kind: RecordingKind
    sample_rate: int
    channels: int
    segments: tuple[Segment, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    full: int | None = None
    recording_id: str = ""
    digest: str = ""
    silence: int = 0

    @property
    def samples(self) -> int:
        """Sample instants in the segments."""
        return sum(segment.samples for segment in self.segments)

    @property
    def length(self) -> int:
        """Sample instants in the packed file."""
        return self.samples + self.silence

    @property
    def file(self) -> str:
        """The name of the packed file."""
        return f"recording.{self.kind}"

    def info(self, folder: Path, state: RecordingState) -> RecordingInfo:
        """The description of the recording in `folder`, with this state."""
        return RecordingInfo(
            path=str(folder / self.file),
            sample_rate=self.sample_rate,
            channels=self.channels,
            samples=self.length,
            seconds=self.length / self.sample_rate,
            segments=len(self.segments),
            gaps=gaps_below(self.length, self.gaps),
            state=state,
            digest=self.digest,
            recording_id=self.recording_id,
        )

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`, durably and atomically. Raises `RecordingError`."""
        replace_durably(folder / MANIFEST, self.model_dump_json(indent=1).encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None if there is none. Raises `RecordingDamaged`, `OSError`."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RecordingDamaged(22, f"the manifest is damaged: {error.error_count()} errors", str(path)) from error


def has_samples(folder: Path) -> bool:
    """Whether `folder` has samples, in segments or packed; does not read them. Raises `OSError`."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(name in _PACKED or SEGMENT_FILE.fullmatch(name) for name in names)


def silence_behind(samples: int, end: int, sample_rate: int) -> int:
    """How many sample instants of silence follow behind `samples` in a call that ends at sample `end`. Less than a frame counts
    as none: the last frame of a call may be short."""
    return end - samples if end - samples >= sample_rate // FRAMES_PER_SECOND else 0


def gaps_below(end: int, gaps: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The gaps, cut at sample `end`."""
    return tuple([(first, min(count, end - first)) for first, count in gaps if first < end])
