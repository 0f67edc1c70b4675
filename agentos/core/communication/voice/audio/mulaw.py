"""ITU-T G.711 mu-law: 8 bit logarithmic samples, as telephones use, to and from linear 16 bit.

Both directions are one table look-up a sample. The tables follow the recommendation: a code is, inverted, a sign bit, a
segment of three bits and a step of four; the linear values are scaled from 14 to 16 bit, so full scale is 32,124.
"""

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32_124
"""The largest linear value of mu-law."""

SILENCE = b"\xff"
"""The code of a zero sample."""

_BIAS = 132  # 33 of the recommendation, scaled by 4 like the values
_LARGEST = 32_635  # beyond it the biased magnitude would leave the last segment


def _linear_of_every_code() -> NDArray[np.int16]:
    inverted = ~np.arange(256, dtype=np.uint8)
    segment = (inverted >> 4 & 0x07).astype(np.int32)
    step = (inverted & 0x0F).astype(np.int32)
    magnitude = ((step << 3) + _BIAS << segment) - _BIAS
    return np.where(inverted & 0x80, -magnitude, magnitude).astype(np.int16)


def _code_of_every_linear() -> NDArray[np.uint8]:
    linear = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)  # in the order of the unsigned index
    biased = np.minimum(np.abs(linear), _LARGEST) + _BIAS
    segment = np.floor(np.log2(biased)).astype(np.int32) - 7
    step = biased >> segment + 3 & 0x0F
    sign = np.where(linear < 0, 0x80, 0)
    codes: NDArray[np.uint8] = ~(sign | segment << 4 | step).astype(np.uint8)
    return codes


_LINEAR = _linear_of_every_code()
_CODES = _code_of_every_linear()


def decode(codes: bytes) -> NDArray[np.int16]:
    """The linear samples of mu-law `codes`, one a byte, in the order given (channels stay interleaved)."""
    return _LINEAR[np.frombuffer(codes, np.uint8)]


def encode(samples: NDArray[np.int16]) -> bytes:
    """The mu-law codes of int16 `samples`, in C order. Louder than full scale becomes full scale; zero becomes 0xFF."""
    return _CODES[np.ascontiguousarray(samples, np.int16).view(np.uint16)].tobytes()
