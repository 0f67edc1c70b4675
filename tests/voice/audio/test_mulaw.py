"""ITU-T G.711 mu-law."""

import numpy as np

from agentos.core.communication.voice.audio import mulaw

ALL_CODES = bytes(range(256))
ALL_VALUES = np.arange(-32_768, 32_768).astype(np.int16)


def recommended_value(code: int) -> int:
    """Table 2 of the recommendation in closed form: 33 + 2 * step, shifted by the segment, less 33; 14 bit made 16."""
    code ^= 0xFF
    value = ((33 + 2 * (code % 16)) * (1 << code // 16 % 8) - 33) * 4
    return -value if code >= 128 else value


def test_every_code_decodes_to_the_recommended_value() -> None:
    assert mulaw.decode(ALL_CODES).tolist() == [recommended_value(code) for code in range(256)]


def test_known_codes() -> None:
    assert mulaw.decode(b"\x00\x80\x7f\xff\x8f\x0f").tolist() == [-32_124, 32_124, 0, 0, 16_764, -16_764]


def test_silence_is_ff_both_ways() -> None:
    assert mulaw.decode(mulaw.SILENCE).tolist() == [0]
    assert mulaw.encode(np.zeros(3, np.int16)) == b"\xff\xff\xff"


def test_every_code_survives_a_round_trip_but_negative_zero_becomes_zero() -> None:
    again = mulaw.encode(mulaw.decode(ALL_CODES))
    assert again == ALL_CODES[:0x7F] + b"\xff" + ALL_CODES[0x80:]


def test_every_value_becomes_the_level_whose_interval_it_lies_in() -> None:
    codes = np.frombuffer(mulaw.encode(ALL_VALUES), np.uint8)
    half_step = 4 * 2 ** ((codes ^ 0xFF) // 16 % 8).astype(np.int64)
    decoded = mulaw.decode(codes.tobytes()).astype(np.int64)
    values = ALL_VALUES.astype(np.int64)
    within = np.abs(values) < 4 * 8_159  # the last decision value; louder is limited
    assert (np.abs(decoded - values) <= half_step)[within].all()
    assert set(np.abs(decoded[~within]).tolist()) == {mulaw.FULL_SCALE}
    assert (np.sign(decoded) * np.sign(values) >= 0).all()
    assert (np.diff(decoded) >= 0).all()


def test_encoding_takes_any_shape_and_layout() -> None:
    interleaved = np.array([[0, 32_124], [-32_124, 0]], np.int16)
    assert mulaw.encode(interleaved) == b"\xff\x80\x00\xff"
    assert mulaw.encode(interleaved.T) == b"\xff\x00\x80\xff"
    assert mulaw.decode(b"").shape == (0,)
