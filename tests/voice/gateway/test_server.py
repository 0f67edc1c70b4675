"""The real server, a process of its own on loopback, on each loop, asked by a client of another make."""

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.errors import CannotListen
from agentos.core.communication.voice.gateway import asyncio_server, trio_server, uvicorn_http
from agentos.core.communication.voice.gateway.server import address_of, listening, serve
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from machines.session import EndReason, VoiceSessionState
from tests.voice.gateway.conftest import Run
from tests.voice.gateway.serving import COMMAND, CURL, PATIENCE, ROOT, serving

BACKENDS = ("asyncio", "trio")

pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")


def reason(home: Path, session_id: str) -> EndReason:
    with open_to_read(home / "voice.db") as store:
        session = store.session(session_id)
        assert store.verify().ok
    assert session is not None
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    return session.result.reason


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_by_curl(backend: str, home: Path) -> None:
    with serving("--no-auth", "--backend", backend) as here:
        session_id = here.create("-H", "Idempotency-Key: 1")
        assert here.create("-H", "Idempotency-Key: 1") == session_id
        assert here.curl("/readyz") == {"status": "ok"}
        stopped = here.curl(f"/v1/sessions/{session_id}/stop", "-X", "POST", status=200)
        assert stopped["session"]["state"] == "stopped"
        _, told = here.raw(f"/v1/sessions/{session_id}/events", "-N", "-H", "Accept: text/event-stream")
        assert told.count("\nid: ") == 5
        assert "agentos_voice_sessions_started_total 1.0" in here.raw("/metrics")[1]
        assert here.curl("/v1/nothing", status=404)["title"] == "Not Found"
        assert here.curl("/v1/sessions", "-H", "Host: evil.example", status=403)["reason"] == "host"
        assert here.end() == 0
    assert reason(home, session_id) is EndReason.STOPPED


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_drain_lets_running_calls_end_and_then_ends(backend: str, home: Path) -> None:
    with serving("--no-auth", "--backend", backend, drain_timeout_seconds="600") as here:
        ends, stays = here.create(), here.create()
        here.process.send_signal(signal.SIGTERM)
        here.until(lambda: here.raw("/readyz")[0] == 503)
        assert here.curl("/healthz") == {"status": "ok"}
        refused = here.curl("/v1/sessions", "--json", '{"project_id": "demo"}', status=503)
        assert refused["type"].endswith(":draining")
        assert here.curl(f"/v1/sessions/{stays}")["state"] == "created"
        for session_id in (ends, stays):
            assert here.curl(f"/v1/sessions/{session_id}/stop", "-X", "POST", status=200)["durable"]
        assert here.process.wait(PATIENCE) == 0
    assert reason(home, ends) is reason(home, stays) is EndReason.STOPPED


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["time is over", "a second signal"])
def test_calls_that_do_not_end_are_stopped(backend: str, how: str, home: Path) -> None:
    patience = "0.2" if how == "time is over" else "600"
    with serving("--no-auth", "--backend", backend, drain_timeout_seconds=patience) as here:
        calls = [here.create() for _ in range(3)]
        # A reader that follows a call is told of its end, and the server does not wait for it for ever.
        follow = [str(CURL), "-sSN", "-H", "Accept: text/event-stream", f"{here.url}/v1/sessions/{calls[0]}/events"]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "retry: 1000\n"
            here.process.send_signal(signal.SIGINT)
            if how == "a second signal":
                here.until(lambda: here.raw("/readyz")[0] == 503)
                here.process.send_signal(signal.SIGTERM)
            assert here.process.wait(PATIENCE) == 0
            assert "session_stopped" in reader.stdout.read()
    for session_id in calls:
        assert reason(home, session_id) is EndReason.SHUTDOWN


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_drain_that_was_asked_for_ends_the_server(backend: str, home: Path) -> None:
    with serving("--no-auth", "--backend", backend, drain_timeout_seconds="0.1") as here:
        session_id = here.create()
        assert here.curl("/v1/drain", "-X", "POST", status=202) == {"draining": True, "sessions": 1}
        assert here.process.wait(PATIENCE) == 0
    assert reason(home, session_id) is EndReason.SHUTDOWN


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_request_that_never_came_whole_holds_no_end_up_and_is_no_error(backend: str, home: Path) -> None:
    begun = "POST /v1/sessions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{{"
    with serving("--no-auth", "--backend", backend) as here:
        address = here.url.removeprefix("http://")
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(begun.format(address).encode())
            here.curl("/healthz", status=200)  # it came behind the other
            assert here.end() == 0
    assert here.complaints == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_has_no_token_is_refused_and_the_refusal_is_in_evidence(backend: str, home: Path) -> None:
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        token = TokenStore(store).create("curl", role=Role.OPERATOR)
    with serving("--backend", backend) as here:
        for _ in range(12):
            assert here.curl("/v1/sessions", status=401)["reason"] == "no_token"
        assert here.curl("/v1/sessions", "-H", f"Authorization: Bearer {token}", status=200)["sessions"] == []
        assert here.end() == 0
    with EvidenceLogger(home / "voice.db") as log:
        assert log.verify().ok
        refused = log.get_request_evidence("gateway")
    assert [record.operation for record in refused] == ["access_refused"] * 10 + ["access_refusals"]


def test_off_loopback_nothing_is_served_without_authentication(home: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "localhost"):
        done = subprocess.run(
            [*COMMAND, "--no-auth", "--host", host],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 2
        assert "without authentication nothing is served" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not home.exists()


def test_a_port_that_is_taken_is_said(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [*COMMAND[:-1], str(port), "--no-auth", "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], error["port"]) == (5, "CannotListen", port)
    assert "in use" in error["message"]
    assert not home.exists()


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no.such.host.invalid", 0)])
def test_an_address_that_can_not_be_had(host: str, port: int) -> None:
    with pytest.raises(CannotListen), listening(host, port):
        pass


def test_the_address_is_a_url() -> None:
    with listening("127.0.0.1", 0) as taken:
        assert address_of(taken) == f"http://127.0.0.1:{taken.getsockname()[1]}"
    with listening("::1", 0) as taken:
        assert address_of(taken) == f"http://[::1]:{taken.getsockname()[1]}"


@pytest.mark.anyio
@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
async def test_who_does_not_say_in_time_what_they_want_is_cut_off(
    run: Run, anyio_backend_name: str, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_http, "HEAD_SECONDS", 0.1)
    serving_by = asyncio_server if anyio_backend_name == "asyncio" else trio_server
    monkeypatch.setattr(serving_by, "KEEP_ALIVE_SECONDS", 0.1)
    with listening("127.0.0.1", 0) as taken, anyio.fail_after(PATIENCE):
        async with run() as running, anyio.create_task_group() as group:
            await group.start(serve, running.app, taken, running.service, anyio_backend_name)
            for asks_first in (False, True):
                async with await anyio.connect_tcp("127.0.0.1", taken.getsockname()[1]) as slow:
                    if asks_first:
                        await slow.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                        assert b" 200 " in await slow.receive()
                    if head:
                        await slow.send(head)
                    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                        while True:
                            await slow.receive()
            await running.service.drain()


def test_json_says_where_it_listens() -> None:
    with subprocess.Popen(
        [*COMMAND, "--no-auth", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(6))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert json.loads(said).keys() == {"url", "console", "backend", "authentication"}


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agentos.core.communication.voice.cli.serve.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    complaint = capsys.readouterr().err
    assert "pip install '.[server]'" in complaint
    assert len(complaint.splitlines()) == 1
