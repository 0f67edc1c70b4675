"""The rules of the JavaScript client are those of `machines.stream.ends.ClientStream`: the same answers and the same state,
whatever is done to both."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machines.losses import Lost
from machines.stream.ends import ClientStream, FrameRun
from machines.stream.messages import (
    COME_BACK,
    MAX_FRAME,
    Ack,
    Audio,
    Bye,
    Event,
    Ping,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
    encode,
    read_from_server,
    write_audio,
)

PCM = StreamFormat("pcm_s16le", 16_000)
Play = Callable[[dict[str, Any]], Any]


@pytest.fixture
def play(node: str, module: Path) -> Iterator[Play]:
    """Has a script played by the JavaScript rules."""
    driver = Path(__file__).with_name("client_rules.mjs")
    with subprocess.Popen([node, driver, module.as_uri()], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        write, read = process.stdin, process.stdout

        def played(script: dict[str, Any]) -> Any:
            write.write(json.dumps(script).encode() + b"\n")
            write.flush()
            return json.loads(read.readline())

        yield played


# --- scripts -------------------------------------------------------------------------------------------------------

small = st.integers(0, 12)
durable = st.none() | small
lost = st.lists(st.builds(Lost, small, st.integers(1, 4), st.sampled_from(["disk_full", "missing"])), max_size=3).map(
    tuple
)


def welcome(expected: int, durable: int | None, more: int, token: int, lost: tuple[Lost, ...] = ()) -> Welcome:
    format_ = StreamFormat("pcm_s16le", 16_000)
    limit = expected + more
    return Welcome("voice-1", f"avr_{token}", format_, expected, durable, limit, "active", {}, 1000, 65536, lost)  # type: ignore[arg-type]


messages = st.one_of(
    st.builds(welcome, small, durable, small, st.integers(0, 1), lost),
    st.builds(Ack, small, durable, small, lost),
    st.builds(Event, st.integers(1, 6), st.just("stt_final"), st.just(5), st.just({"text": "go"})),
    st.builds(Ping, st.integers(0, 3)),
    st.builds(Bye, st.just("stopped"), st.just("idle")),
)
codes = st.sampled_from(
    sorted({*COME_BACK, *(code for name, code in vars(StreamCode).items() if name.isupper()), 4321})
)
steps = st.one_of(
    st.tuples(st.just("capture"), st.integers(1, 4)),
    st.tuples(st.just("skip"), st.integers(1, 4)),
    st.tuples(st.just("finish"), st.booleans()),
    st.just(("hello", [msgspec.to_builtins(PCM)])),
    st.tuples(st.just("closed"), codes),
    st.tuples(st.just("receive"), messages.map(lambda message: encode(message).decode())),
    st.tuples(st.just("to_send"), st.integers(1, 5)),
    st.just(("beat",)),
    st.tuples(st.just("credential"), st.sampled_from(["avs_2", "avs_3"])),
)
# A stream that is open gets further than one that chance alone would open.
opened = [("hello", [msgspec.to_builtins(PCM)]), ("receive", encode(welcome(0, 0, 6, 0)).decode())]
scripts = st.builds(
    lambda begins, rest: [*opened, *rest] if begins else rest, st.booleans(), st.lists(steps, max_size=40)
)


def step(client: ClientStream, name: str, *given_: Any) -> Any:
    if name == "receive":
        return client.receive(read_from_server(given_[0]))
    if name == "finish":
        return client.finish(short=given_[0])
    if name == "hello":
        return client.hello((PCM,))
    if name == "credential":
        client.credential = given_[0]
        return None
    return getattr(client, name)(*given_)


def answer(client: ClientStream, name: str, *given_: Any) -> Any:
    try:
        said = step(client, name, *given_)
    except StreamViolation as violation:
        return {"violation": violation.code}
    except ValueError:
        return {"refused": True}
    written = json.loads(encode(said))
    return {"type": "run", **written} if isinstance(said, FrameRun) else written


def as_written(said: Any) -> Any:
    """A message as it is on the wire: fields that have their default may be left out."""
    if not isinstance(said, dict) or said.get("type") != "hello":
        return said
    return {"first": 0, "next": 0, "events": 0, "durable": 0} | said


# --- what holds ----------------------------------------------------------------------------------------------------


def test_every_answer_and_every_state_is_the_same(play: Play) -> None:
    @settings(max_examples=400)
    @given(st.integers(1, 6), scripts)
    def same(capacity: int, script: list[tuple[Any, ...]]) -> None:
        client = ClientStream(capacity, "avs_1")
        theirs = play({"capacity": capacity, "script": script})
        assert len(theirs) == len(script)
        for (name, *given_), (said, state) in zip(script, theirs, strict=True):
            assert as_written(said) == as_written(answer(client, name, *given_)), name
            assert state == json.loads(encode(client)), name

    same()


@pytest.mark.parametrize(
    "text",
    [
        encode(welcome(3, 2, 5, 0)).decode(),
        encode(Ack(1, 2, 3)).decode(),
        encode(Ack(1, None, 3)).decode(),
        encode(Ack(9, 2, 9, (Lost(3, 2, "disk_full"), Lost(6, 1, "missing")))).decode(),
        encode(Event(1, "stt_final", 5, {"text": "go"})).decode(),
        encode(Ping(7)).decode(),
        encode(Bye("stopped", "idle")).decode(),  # type: ignore[arg-type]
    ],
)
def test_messages_are_read_alike_and_so_are_those_that_are_none(play: Play, text: str) -> None:
    message = json.loads(text)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1.5,
        MAX_FRAME,
        MAX_FRAME + 1,
        "",
        "stopped",
        "gone",
        [],
        {},
        {"encoding": "opus"},
        [[0, 1, "x"]],
        [[0, 1, "x", 0]],
        [[0, 1]],
        [[0, 0, "x"]],
        [[-1, 1, "x"]],
        [[0, MAX_FRAME + 1, "x"]],
        [[0, 1, ""]],
        [[0, 1, "x" * 65]],
        [[0, 1, "\N{GRINNING FACE}" * 64]],
        [0, 1, "x"],
    ]
    spoiled: list[Any] = [
        message,
        {**message, "more": 1},
        {**message, "type": "hello"},
        {**message, "type": "__proto__"},
    ]
    spoiled += [{name: value for name, value in message.items() if name != left_out} for left_out in message]
    spoiled += [{**message, name: value} for name in message if name != "type" for value in values]
    for one in spoiled:
        assert (play({"read": json.dumps(one)}) != {"violation": StreamCode.MALFORMED}) is is_read(json.dumps(one)), one


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", '"ack"', "{}", '{"type":7}'])
def test_text_that_is_no_message_is_refused_by_both(play: Play, text: str) -> None:
    assert play({"read": text}) == {"violation": StreamCode.MALFORMED}
    assert not is_read(text)


def is_read(text: str) -> bool:
    try:
        read_from_server(text)
    except StreamViolation:
        return False
    return True


def test_audio_is_written_alike(play: Play) -> None:
    @settings(max_examples=200)
    @given(
        st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=5),
        st.integers(0, MAX_FRAME - 5),
        st.integers(0, MAX_FRAME),
        st.booleans(),
    )
    def same(frames: list[bytes], first: int, media_ms: int, last: bool) -> None:
        audio = {"first": first, "mediaMs": media_ms, "last": last, "frames": [frame.hex() for frame in frames]}
        written = write_audio(Audio(first, len(frames), media_ms, last, b"".join(frames)))
        assert play({"audio": audio}) == written.hex()

    same()
