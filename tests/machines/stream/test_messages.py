"""What may be said on a browser stream, and what is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.frozen import FrozenDict
from machines.session import VoiceSessionState
from machines.stream.messages import (
    HEADER,
    MAX_FRAME,
    Ack,
    Audio,
    Bye,
    End,
    Event,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
    encode,
    json_schema,
    read_audio,
    read_from_client,
    read_from_server,
    write_audio,
)

PCM = StreamFormat("pcm_s16le", 16_000)
FROM_CLIENT = [
    Hello((PCM,), 1, ticket="avs_x"),
    Hello((PCM, StreamFormat("opus", 48_000, 2)), 3, resume="avr_x", first=7, next=9, events=4),
    Gap(3, 2, "ring"),
    Gap(0, 1, "capture"),
    End(0),
    Pong(5),
]
ACTIVE = VoiceSessionState.ACTIVE
FROM_SERVER = [
    Welcome("voice-1", "avr_x", PCM, 3, 2, 9, ACTIVE, FrozenDict({"status": "approved"}), 10_000, 65_536),
    Ack(4, 3, 10),
    Event(1, "stt_final", 1_700_000_000_000, {"text": "go"}),
    Ping(1),
    Bye(VoiceSessionState.STOPPED, "stopped"),
]


@pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda one: type(one).__name__)
def test_what_a_client_says_is_read_as_it_was_said(message: object) -> None:
    assert read_from_client(encode(message)) == message


@pytest.mark.parametrize("message", FROM_SERVER, ids=lambda one: type(one).__name__)
def test_what_a_server_says_is_read_as_it_was_said(message: object) -> None:
    assert read_from_server(encode(message).decode()) == message


REFUSED = {
    "no JSON": "{",
    "no object": "[]",
    "no type": '{"id": 1}',
    "an unknown type": '{"type": "shout"}',
    "a message of the server": '{"type": "ping", "id": 1}',
    "an unknown field": '{"type": "pong", "id": 1, "more": 2}',
    "a missing field": '{"type": "gap", "first": 1}',
    "a number as text": '{"type": "end", "upto": "1"}',
    "a negative frame": '{"type": "end", "upto": -1}',
    "a frame without a number": json.dumps({"type": "end", "upto": MAX_FRAME + 1}),
    "the same field twice": '{"type": "end", "upto": 1, "upto": 2}',
    "the same type twice": '{"type": "pong", "type": "pong", "id": 1}',
    "a number that is too large": json.dumps({"type": "pong", "id": 2**63}),
    "a number of many digits": '{"type": "pong", "id": ' + "9" * 5_000 + "}",
    "an event beyond the last": (
        '{"type":"hello","ticket":"t","attempt":1,"events":9223372036854775808,'
        '"formats":[{"encoding":"pcm_s16le","sample_rate":16000}]}'
    ),
    "a lone surrogate": '{"type": "pong", "id": 1}\ud800',
    "an empty gap": '{"type": "gap", "first": 1, "count": 0, "reason": "ring"}',
    "a gap for another reason": '{"type": "gap", "first": 1, "count": 1, "reason": "whim"}',
    "no format": '{"type": "hello", "ticket": "t", "attempt": 1, "formats": []}',
    "neither ticket nor token": '{"type":"hello","attempt":1,"formats":[{"encoding":"opus","sample_rate":48000}]}',
    "ticket and token": (
        '{"type":"hello","attempt":1,"ticket":"a","resume":"b","formats":[{"encoding":"opus","sample_rate":48000}]}'
    ),
    "a ticket for a stream that goes on": (
        '{"type":"hello","attempt":1,"ticket":"a","next":4,"formats":[{"encoding":"opus","sample_rate":48000}]}'
    ),
    "an oldest frame above the next": (
        '{"type":"hello","attempt":1,"resume":"a","first":5,"next":4,'
        '"formats":[{"encoding":"opus","sample_rate":48000}]}'
    ),
    "a rate that nobody has": (
        '{"type":"hello","attempt":1,"ticket":"a","formats":[{"encoding":"pcm_s16le","sample_rate":4000}]}'
    ),
    "a depth that nobody reads": "[" * 100_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(StreamViolation) as refused:
        read_from_client(text)
    assert refused.value.code == StreamCode.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "pong", "id": 1, "secret`\\n` x": 2}',
        '{"type": "secret"}',
        '{"type": "hello", "attempt": 1, "ticket": "a", "formats": [{"encoding": "secret", "sample_rate": 1}]}',
        '{"type": "hello", "attempt": 1, "ticket": "a", "formats": [{"secret": 1}]}',
        '{"type": "pong", "id": "secret"}',
        '{"secret": 1, "secret": 2}',
    ],
)
def test_a_reason_repeats_nothing_that_was_sent(text: str) -> None:
    with pytest.raises(StreamViolation) as refused:
        read_from_client(text)
    assert "secret" not in refused.value.reason
    assert len(refused.value.reason.encode()) <= 123


@given(
    st.one_of(st.binary(), st.text(), st.dictionaries(st.text(), st.none() | st.integers() | st.text()).map(json.dumps))
)
def test_whatever_comes_as_text_is_a_message_or_a_violation(text: str | bytes) -> None:
    for read in (read_from_client, read_from_server):
        with suppress(StreamViolation):
            read(text)


@given(
    st.integers(0, MAX_FRAME - 65_535),
    st.integers(1, 65_535),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.binary(min_size=1),
)
def test_audio_is_read_as_it_was_written(first: int, count: int, media_ms: int, last: bool, payload: bytes) -> None:
    audio = Audio(first, count, media_ms, last, payload)
    assert read_audio(write_audio(audio)) == audio


@given(st.binary())
def test_whatever_comes_as_audio_is_audio_or_a_violation(data: bytes) -> None:
    with suppress(StreamViolation):
        assert write_audio(read_audio(data)) == data


BAD_AUDIO = {
    "nothing": b"",
    "a header alone": HEADER.pack(1, 0, 1, 0, 0),
    "another kind": HEADER.pack(2, 0, 1, 0, 0) + b"x",
    "an unknown flag": HEADER.pack(1, 2, 1, 0, 0) + b"x",
    "no frame": HEADER.pack(1, 0, 0, 0, 0) + b"x",
    "frames without a number": HEADER.pack(1, 0, 1, MAX_FRAME, 0) + b"x",
}


@pytest.mark.parametrize("data", BAD_AUDIO.values(), ids=BAD_AUDIO)
def test_audio_with_a_wrong_header_is_malformed(data: bytes) -> None:
    with pytest.raises(StreamViolation, match="header"):
        read_audio(data)


def test_a_long_reason_is_cut_to_what_a_close_frame_holds() -> None:
    assert len(StreamViolation(4400, "ü" * 200).reason.encode()) == 122


def test_the_schema_names_every_message_and_refuses_unknown_fields() -> None:
    found = json_schema()["$defs"]
    for kind in (*FROM_CLIENT, *FROM_SERVER):
        shape = found[type(kind).__name__]
        assert shape["additionalProperties"] is False
        assert shape["properties"]["type"]["enum"] == [type(kind).__struct_config__.tag]
    assert json.loads(json.dumps(json_schema())) == json_schema()
