"""Levels of audio, frame by frame, computed for many frames in one go.

Full scale is 1.0, so a mean square of 1.0 is 0 dBFS (a square wave at full scale; a sine there is -3 dBFS).
"""

from math import log10
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SILENT_MEAN_SQUARE = 1e-6  # -60 dBFS
CLIPPED_RUN = 3  # successive samples at full scale; fewer happen in sound recordings
_FULL_SCALE = 32_768.0
_LARGEST = 32_767
_ROWS_AT_ONCE = 256  # keeps the working copy within the processor's cache


class Measure(NamedTuple):
    """The level of some audio: `mean_square` and `peak` with full scale 1.0, and among its `frames` how many were
    clipped and how many silent.
    """

    mean_square: float
    peak: float
    clipped_frames: int
    silent_frames: int
    frames: int


class FrameLevels(NamedTuple):
    """One entry for each frame: mean square and peak (full scale 1.0), whether it is clipped, whether silent."""

    mean_square: NDArray[np.float64]
    peak: NDArray[np.float64]
    clipped: NDArray[np.bool_]
    silent: NDArray[np.bool_]


def dbfs(mean_square: float) -> float | None:
    """A mean square in dBFS; None for digital silence, which has no level. For a peak, pass its square."""
    return 10.0 * log10(mean_square) if mean_square > 0.0 else None


def frame_levels(frames: NDArray[np.int16], channels: int = 1, *, full_scale: int = _LARGEST) -> FrameLevels:
    """The levels of whole frames of equal length: int16 of shape (frames, samples * channels), channels interleaved.

    A frame is silent below -60 dBFS RMS. It is clipped when at least three successive samples of a channel are at full
    scale, that is when their magnitude is `full_scale` or more (mu-law's is 32,124).
    """
    count, width = frames.shape
    mean_square = np.empty(count)
    peak = np.empty(count)
    clipped = np.zeros(count, np.bool_)
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = min(count, start + _ROWS_AT_ONCE)
        rows = frames[start:stop].astype(np.float32)  # squares of 16 bit numbers, summed: float32 errs below 1e-6
        np.einsum("ij,ij->i", rows, rows, out=mean_square[start:stop])
        np.abs(rows, out=rows).max(axis=1, out=peak[start:stop])
    for row in np.flatnonzero(peak >= full_scale):
        clipped[row] = _has_clipped_run(frames[row].reshape(-1, channels), full_scale)
    mean_square /= width * _FULL_SCALE**2
    return FrameLevels(mean_square, peak / _FULL_SCALE, clipped, mean_square < SILENT_MEAN_SQUARE)


def _has_clipped_run(samples: NDArray[np.int16], full_scale: int) -> bool:
    full = np.abs(samples.astype(np.int32)) >= full_scale
    run = full[: len(full) - CLIPPED_RUN + 1].copy()
    for shift in range(1, CLIPPED_RUN):
        run &= full[shift : len(full) - CLIPPED_RUN + 1 + shift]
    return bool(run.any())


def measure(samples: NDArray[np.int16], frame_samples: int, *, full_scale: int = _LARGEST) -> Measure:
    """The level of `samples`, int16 of shape (n, channels), cut into frames of `frame_samples`; the last may be
    shorter.

    A frame is silent below -60 dBFS RMS. It is clipped when at least three successive samples of a channel are at full
    scale (magnitude `full_scale` or more). Without samples all values are zero.
    """
    count, channels = samples.shape
    whole, rest = divmod(count, frame_samples)
    parts = []
    if whole:
        rows = samples[: whole * frame_samples].reshape(whole, frame_samples * channels)
        parts.append((frame_levels(rows, channels, full_scale=full_scale), whole * frame_samples))
    if rest:
        row = samples[whole * frame_samples :].reshape(1, rest * channels)
        parts.append((frame_levels(row, channels, full_scale=full_scale), rest))
    if not parts:
        return Measure(0.0, 0.0, 0, 0, 0)
    return Measure(
        sum(float(levels.mean_square.mean()) * size for levels, size in parts) / count,
        max(float(levels.peak.max()) for levels, _ in parts),
        sum(int(levels.clipped.sum()) for levels, _ in parts),
        sum(int(levels.silent.sum()) for levels, _ in parts),
        whole + bool(rest),
    )
