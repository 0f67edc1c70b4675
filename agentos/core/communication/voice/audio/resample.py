"""Change of sample rate in a stream: a polyphase windowed-sinc filter (Kaiser), aligned in time.

With source and target rate reduced to M and L, output sample k lies at k * M / L of the input. It is the sum of the
input samples around that place, weighted by a sinc that cuts below the lower of the two Nyquist frequencies and is
windowed by Kaiser's function (J. F. Kaiser, 1974; A. V. Oppenheim and R. W. Schafer, Discrete-Time Signal Processing,
7.5.3). The pass band reaches to 7/8 of that frequency; images and aliases are 75 dB down by design.

The weights are whole numbers of 2^-22. A 16 bit sample times such a weight, summed over a filter, is exact in a double,
whatever the order of summation. So the output is the same, bit for bit, however the stream is cut into chunks and
whichever routine adds the products up.
"""

from functools import lru_cache
from math import ceil, gcd, pi

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

LOWEST_RATE = 4_000
HIGHEST_RATE = 192_000

_STOP_BAND_DB = 75.0
_PASS_BAND = 0.875  # of the lower Nyquist frequency
_SCALE = 1 << 22
_LARGEST_BLOCK = 1_024  # input or output samples of one period, beyond which the block matrix would be too large
_BANK_PHASES = 1_024  # finer ratios interpolate between this many phases; the error is below -110 dB
_OUTPUTS_AT_ONCE = 2_048  # bounds the memory of the gathering filter

_KAISER_BETA = 0.1102 * (_STOP_BAND_DB - 8.7)
_HALF_WIDTH = ceil((_STOP_BAND_DB - 8.0) / (2.285 * pi * (1.0 - _PASS_BAND)) / 2.0)  # in samples of the lower rate

Samples = NDArray[np.int16]
Numbers = NDArray[np.float64]


def _half_taps(up: int, down: int) -> int:
    return ceil(_HALF_WIDTH * max(1.0, down / up))


def _response(distance: Numbers, up: int, down: int) -> Numbers:
    """The filter's continuous impulse response at `distance` input samples from its centre."""
    cutoff = min(1.0, up / down) * (1.0 + _PASS_BAND) / 2.0
    inside: Numbers = np.clip(1.0 - (distance / _half_taps(up, down)) ** 2, 0.0, None)
    window: Numbers = np.i0(_KAISER_BETA * np.sqrt(inside))
    window *= np.sinc(cutoff * distance)
    return window


def _whole(weights: Numbers) -> Numbers:
    """Rows of weights as whole multiples of 1/_SCALE that add up to exactly one."""
    rounded: Numbers = np.rint(weights * (_SCALE / weights.sum(axis=-1, keepdims=True)))
    largest = np.abs(weights).argmax(axis=-1)
    rounded[np.arange(len(rounded)), largest] += _SCALE - rounded.sum(axis=-1)
    return rounded


def _bank(phases: int, up: int, down: int) -> Numbers:
    """Unrounded weights, one row for each of `phases` + 1 places from one input sample to the next."""
    half = _half_taps(up, down)
    place = np.arange(phases + 1)[:, None] / phases
    return _response(place + (half - 1) - np.arange(2 * half)[None, :], up, down)


class _BlockFilter:
    """Multiplies whole blocks of input by one matrix: the fast way for ratios with a short period."""

    def __init__(self, up: int, down: int) -> None:
        taps = 2 * _half_taps(up, down)
        periods = max(1, round(taps / 2 / down))
        self._step_in = periods * down
        self._step_out = periods * up
        self.reach = self._step_in - 1 + taps
        weights = _whole(_bank(up, up, down)[:-1])
        self._matrix = np.zeros((self.reach, self._step_out))
        for k in range(self._step_out):
            start, phase = divmod(k * down, up)
            self._matrix[start : start + taps, k] = weights[phase]

    def run(self, signal: Numbers, produced: int) -> tuple[Numbers, int]:
        """All outputs of the whole blocks in `signal` (channels, n), and the number of its samples used up."""
        del produced  # a block always begins with phase 0
        blocks = (signal.shape[1] - self.reach) // self._step_in + 1
        if blocks <= 0:
            return np.empty((len(signal), 0)), 0
        across, along = signal.strides
        windows = as_strided(
            signal, (len(signal), blocks, self.reach), (across, along * self._step_in, along), writeable=False
        )
        return (windows @ self._matrix).reshape(len(signal), -1), blocks * self._step_in


class _GatherFilter:
    """Uses one row of weights for each output: for ratios with a long period."""

    def __init__(self, up: int, down: int) -> None:
        self._up, self._down = up, down
        self._taps = np.arange(2 * _half_taps(up, down))
        self.reach = len(self._taps)  # samples needed for a block, or here for one output
        self._phases = min(up, _BANK_PHASES)
        self._weights = _bank(self._phases, up, down)

    def run(self, signal: Numbers, produced: int) -> tuple[Numbers, int]:
        """All outputs that `signal` (channels, n) is long enough for, and the number of its samples used up."""
        origin = produced * self._down // self._up
        last = origin + signal.shape[1] - len(self._taps)  # the last place at which a window may begin
        count = max(0, ((last + 1) * self._up - 1) // self._down - produced + 1)
        out = np.empty((len(signal), count))
        for done in range(0, count, _OUTPUTS_AT_ONCE):
            k = np.arange(produced + done, produced + min(count, done + _OUTPUTS_AT_ONCE), dtype=np.int64)
            start, phase = np.divmod(k * self._down, self._up)
            row, rest = np.divmod(phase * self._phases, self._up)
            weights = self._weights[row]
            if self._phases != self._up:
                weights += (self._weights[row + 1] - weights) * (rest / self._up)[:, None]
            windows = signal[:, (start - origin)[:, None] + self._taps]
            out[:, done : done + len(k)] = np.einsum("ckt,kt->ck", windows, _whole(weights))
        return out, (produced + count) * self._down // self._up - origin


@lru_cache(maxsize=32)
def _filter(up: int, down: int) -> _BlockFilter | _GatherFilter:
    return _BlockFilter(up, down) if max(up, down) <= _LARGEST_BLOCK else _GatherFilter(up, down)


class Resampler:
    """Resamples a stream of int16 samples from `source_rate` to `target_rate` Hz.

    After `finish` there are n * target / source outputs for n inputs, rounded up, and output k is the signal at
    k / `target_rate` seconds: no delay is left. Before, the outputs lag by half the filter (5 ms at 8 kHz) and up to one
    period of the ratio. The same input gives the same output, bit for bit, however it is cut into chunks. With equal rates
    the samples pass unchanged. Rates are 4 kHz to 192 kHz; another rate or channel count is a `ValueError`.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1) -> None:
        for name, rate in (("source_rate", source_rate), ("target_rate", target_rate)):
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise ValueError(f"{name} must be {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        shared = gcd(source_rate, target_rate)
        self._up, self._down = target_rate // shared, source_rate // shared
        self._channels = channels
        self._identical = self._up == self._down
        self._consumed = 0
        self._produced = 0
        self._finished = False
        self._pending: Numbers
        if not self._identical:
            self._filter = _filter(self._up, self._down)
            self._half = _half_taps(self._up, self._down)
            self._pending = np.zeros((channels, self._half - 1))  # the silence before the first sample

    @property
    def lag(self) -> int:
        """The largest number of outputs that may still be missing for the inputs so far."""
        if self._identical:
            return 0
        return ceil((self._filter.reach - self._half) * self._up / self._down) + 1

    def process(self, samples: Samples) -> Samples:
        """Take `samples`, int16 of shape (n, channels); return the outputs that are ready, of shape (m, channels), m from 0 up.

        Raises `ValueError` for another shape or type, and after `finish`.
        """
        if self._finished:
            raise ValueError("the resampler is finished; make a new one for another stream")
        if samples.ndim != 2 or samples.shape[1] != self._channels or samples.dtype != np.int16:
            raise ValueError(
                f"samples must be int16 of shape (n, {self._channels}), got {samples.dtype} {samples.shape}"
            )
        if self._identical:
            return samples
        self._consumed += len(samples)
        return self._run(samples.T)

    def finish(self) -> Samples:
        """The last outputs, shape (m, channels). A second call gives none."""
        if self._finished or self._identical:
            self._finished = True
            return np.empty((0, self._channels), np.int16)
        self._finished = True
        total = -(-self._consumed * self._up // self._down)
        owed = total - self._produced
        # One period more than the filter's half, so that the last block is whole.
        silence = np.zeros((self._channels, self._half + self._down * (2 * self._half // self._down + 2)), np.int16)
        return self._run(silence)[:owed]

    def _run(self, samples: Samples) -> Samples:
        signal: Numbers = np.concatenate((self._pending, samples), axis=1, dtype=np.float64)
        sums, used = self._filter.run(signal, self._produced)
        self._pending = signal[:, used:]
        self._produced += sums.shape[1]
        rounded = np.rint(sums * (1.0 / _SCALE))
        return np.ascontiguousarray(np.clip(rounded, -32_768, 32_767, out=rounded).T.astype(np.int16))
