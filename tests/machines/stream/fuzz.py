"""What a fuzzer runs, in a process of its own: any bytes as a message of a browser stream, for both ends and through the rules.

`test_fuzz.py` starts it; by hand it takes the options of libFuzzer: `python tests/machines/stream/fuzz.py -runs=1000`.
"""

import sys
from contextlib import suppress
from typing import Any

import atheris

with atheris.instrument_imports(include=["machines"]):
    from machines.stream.ends import ServerStream
    from machines.stream.messages import (
        Audio,
        Hello,
        StreamFormat,
        StreamViolation,
        encode,
        read_audio,
        read_from_client,
        read_from_server,
        write_audio,
    )

HELLO = Hello((StreamFormat("pcm_s16le", 16_000),), 1, ticket="t")
LIMIT = 50


def read(data: bytes) -> None:
    """Whatever is read comes out again as it was."""
    with suppress(StreamViolation):
        assert write_audio(read_audio(data)) == data
    for reader in (read_from_client, read_from_server):
        with suppress(StreamViolation):
            message: Any = reader(data)
            assert reader(encode(message)) == message


def follow(data: bytes) -> None:
    """Messages cut from the data go to a server's end: no frame twice, none left out, none beyond the limit."""
    stream = ServerStream()
    stream.greeted(HELLO)
    stream.open(HELLO, 0, 0, 0, LIMIT)
    taken, violation = 0, StreamViolation(4400, "none")
    chosen = atheris.FuzzedDataProvider(data)
    while chosen.remaining_bytes():
        try:
            if chosen.ConsumeBool():
                audio = Audio(
                    chosen.ConsumeIntInRange(0, 60), chosen.ConsumeIntInRange(1, 60), taken, chosen.ConsumeBool(), b""
                )
                stream.audio(audio.first, audio.count, audio.media_ms, last=audio.last)
                assert audio.first == taken
                taken += audio.count
                assert taken <= LIMIT
            else:
                said = read_from_client(chosen.ConsumeBytes(chosen.ConsumeIntInRange(0, 80)))
                found = stream.receive(said)
                if found is not None and hasattr(found, "count"):
                    assert found.first == taken
                    taken += found.count
        except StreamViolation as error:
            violation = error
            break
        assert stream.expected == taken
    assert violation.code >= 4000
    assert 0 < len(violation.reason.encode()) <= 123


def one_input(data: bytes) -> None:
    """Both."""
    read(data)
    follow(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
