"""What can be read in two ways, or not at all, is refused with its own code wherever it comes in; the log has no traceback."""

import json
import logging
import re
from typing import Any

import pytest

from machines.stream.messages import Hello, StreamCode, StreamFormat, encode
from tests.voice.gateway.conftest import Run
from tests.voice.gateway.streaming import PCM, TEXT, RawSocket, framed, server

pytestmark = pytest.mark.anyio

SESSION = '"project_id": "demo", "stt_provider": "whisper_local"'
BODIES = {
    "a name twice": f'{{{SESSION}, "project_id": "other"}}'.encode(),
    "a name twice, deep inside": f'{{{SESSION}, "metadata": {{"a": {{"b": 1, "b": 2}}}}}}'.encode(),
    "a name twice, written differently": f'{{{SESSION}, "\\u0070roject_id": "other"}}'.encode(),
    "no UTF-8": b'{"project_id": "\xff"}',
    "UTF-16": f"{{{SESSION}}}".encode("utf-16"),
    "no number": f'{{{SESSION}, "metadata": {{"a": NaN}}}}'.encode(),
    "a number beyond all": f'{{{SESSION}, "metadata": {{"a": 1e999}}}}'.encode(),
    "a number of many digits": f'{{{SESSION}, "metadata": {{"a": {"9" * 5_000}}}}}'.encode(),
    "too deep": b"[" * 10_000,
    "nothing of JSON": b"project_id=demo",
}
PYTHON = re.compile(r"[A-Za-z_]+\(|<[A-Z]|\\x|\\u|b'|'\w+'|Error|codec|`(str|int|float|bool)`|None|Unset", re.ASCII)


def no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert [
        record.getMessage() for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()
    ] == []


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_can_not_be_read_in_one_way_makes_nothing(
    name: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async with run() as running:
        reply = await running.client.post(
            "/v1/sessions", content=BODIES[name], headers={"Content-Type": "application/json", "Idempotency-Key": "1"}
        )
        assert reply.status_code == 422, reply.text
        assert reply.json()["type"].endswith((":invalid-request", ":unrecordable"))
        assert (await running.client.get("/v1/sessions")).json()["sessions"] == []
    no_traceback(caplog)


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "limit=1&li%6dit=1", "state=&state=", "project_id=%ff", "project_id=%ed%a0%80"]
)
async def test_a_query_that_can_be_read_in_two_ways_is_refused(
    query: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async with run() as running:
        reply = await running.client.get(f"/v1/sessions?{query}")
        assert reply.status_code == 422, reply.text
        assert reply.json()["field"] in ("limit", "state", "query")
    no_traceback(caplog)


@pytest.mark.parametrize("name", ["Idempotency-Key", "Content-Type", "Last-Event-ID"])
async def test_a_header_that_comes_twice_is_refused(name: str, run: Run) -> None:
    async with run() as running:
        value = "application/json" if name == "Content-Type" else "1"
        headers = [(name, value), (name.upper(), value)]
        reply = await running.client.post("/v1/sessions", content=f"{{{SESSION}}}", headers=headers)
        assert (reply.status_code, reply.json()["field"]) == (422, name.lower())


@pytest.mark.parametrize("body", [b'{"reason": "x"}', b"[]", b"1", b"text", b"\xff", b'"x"', b"false"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_that_is_sent_to_stop_is_refused_and_stops_nothing(
    body: bytes, kind: str | None, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async with run() as running:
        session_id = await running.create()
        headers = {} if kind is None else {"Content-Type": kind}
        reply = await running.client.post(f"/v1/sessions/{session_id}/stop", content=body, headers=headers)
        assert reply.status_code == 422, reply.text
        assert reply.json()["type"].endswith(":invalid-request")
        found = await running.client.get(f"/v1/sessions/{session_id}")
        assert found.json()["state"] == "created"
    no_traceback(caplog)


def hello(**fields: Any) -> str:
    return json.dumps({**json.loads(encode(Hello((PCM,), 1, ticket="avs_x"))), **fields})


HELLOS: dict[str, tuple[bytes, int]] = {
    "an attempt beyond 63 bits": (hello(attempt=2**63).encode(), StreamCode.MALFORMED),
    "an event beyond 63 bits": (hello(events=2**63).encode(), StreamCode.MALFORMED),
    "an event of many digits": (hello(events=0).replace('"events": 0', f'"events": {"9" * 5_000}').encode(), 4400),
    "a rate beyond 63 bits": (hello(formats=[{"encoding": "opus", "sample_rate": 2**64}]).encode(), 4400),
    "a name twice": (hello().replace('"attempt": 1', '"attempt": 1, "attempt": 2').encode(), StreamCode.MALFORMED),
    "no UTF-8": (b'{"type": "\xff"}', 1007),
    "a type of its own": (hello(type="shout").encode(), StreamCode.MALFORMED),
    "a ticket that is a number": (hello(ticket=1).encode(), StreamCode.MALFORMED),
    "a lone surrogate": (hello(ticket="\ud800").encode(), StreamCode.MALFORMED),
    "too deep": (b"[" * 10_000, StreamCode.MALFORMED),
    "nothing of JSON": (b"hello", StreamCode.MALFORMED),
}


@pytest.mark.parametrize("name", HELLOS)
async def test_a_hello_that_can_not_be_read_in_one_way_is_refused(
    name: str, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    said, code = HELLOS[name]
    async with server(anyio_backend) as at:
        socket = await RawSocket.open(at.port)
        await socket.send_raw(framed(TEXT, said))
        closed = await socket.closed()
        assert closed.code == code
        assert not PYTHON.search(closed.reason), closed.reason
    no_traceback(caplog)


async def test_close_reasons_have_no_python_in_them(anyio_backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with server(anyio_backend, max_session_seconds=60) as at:
        reasons: list[str] = []

        async def refused(**fields: Any) -> None:
            socket = await RawSocket.open(at.port)
            session = await at.session()
            fields = {"ticket": at.ticket(session), "formats": (PCM,), **fields}
            await socket.send(Hello(attempt=1, **fields))
            reasons.append((await socket.closed()).reason)

        await refused(formats=(StreamFormat("pcm_s16le", 8_000),))
        await refused(ticket="avs_nobody's")
        assert len(set(reasons)) == 2
        assert [reason for reason in reasons if PYTHON.search(reason)] == []
        assert reasons[0] == "none of your formats; taken is pcm_s16le of 16000 Hz with 1 channel"
    no_traceback(caplog)
