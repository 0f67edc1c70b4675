"""A server whose descriptors run out, as a process of its own: it goes on, calls go on, and new ones are taken again."""

import http.client
import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.voice.gateway.serving import COMMAND, Server, serving

LIMIT = 160
BACKENDS = ("asyncio", "trio")


@contextmanager
def limited(*options: str, **settings: str) -> Iterator[Server]:
    """A server that may open `LIMIT` files at most."""
    with serving(*options, **settings) as server:
        server.gone()
        server.begin(["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *COMMAND, *options])
        server.complaints = ""
        yield server


def answer(server: Server, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """What the server answers; 0 when it closed the connection without a word."""
    host, port = server.url.removeprefix("http://").split(":")
    asking = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        asking.request(
            method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"}
        )
        reply = asking.getresponse()
        return reply.status, json.loads(reply.read())
    except (ConnectionError, http.client.HTTPException):
        return 0, None
    finally:
        asking.close()


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
@pytest.mark.parametrize("backend", BACKENDS)
def test_connections_without_a_byte_end_neither_the_server_nor_its_calls(backend: str, home: Path) -> None:
    with limited("--no-auth", "--backend", backend) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        call = answer(server, "POST", "/v1/sessions", {"project_id": "demo", "metadata": {"recording_enabled": True}})[
            1
        ]
        silent = [socket.create_connection(address) for _ in range(2 * LIMIT)]
        try:
            # Strangers give way to strangers, so that everybody who speaks is heard, however many are silent.
            assert answer(server, "GET", "/healthz")[0] == 200
            assert answer(server, "GET", f"/v1/sessions/{call['session_id']}")[1]["state"] == "created"
            assert open_files(server) < LIMIT
        finally:
            for one in silent:
                one.close()
        assert answer(server, "POST", f"/v1/sessions/{call['session_id']}/stop")[0] == 200
        assert server.end() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_clients_that_go_as_they_come_are_no_fault(backend: str, home: Path) -> None:
    """Reset before the server looks at them, as by a scan of ports: neither descriptors nor lines of the log are theirs."""
    with serving("--no-auth", "--backend", backend) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        before = open_files(server)
        for _ in range(50):
            client = socket.create_connection(address)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        assert answer(server, "GET", "/healthz")[0] == 200
        assert open_files(server) < before + 10
        assert server.end() == 0
        server.gone()
        assert "connection_failed" not in server.complaints


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_is_refused_is_told(backend: str, home: Path) -> None:
    """Connections that have asked something are known here, where nobody is asked for a token: they keep their places."""
    with limited("--no-auth", "--backend", backend, max_connections="3") as server:
        host, port = server.url.removeprefix("http://").split(":")
        known = [http.client.HTTPConnection(host, int(port), timeout=30) for _ in range(3)]
        try:
            for one in known:
                one.request("GET", "/v1/statistics")
                assert one.getresponse().read()
            one_more = socket.create_connection((host, int(port)), timeout=30)
            with one_more:
                said = one_more.makefile("rb").read()
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body)["type"] == "urn:agentos-voice:problem:overloaded"
            assert json.loads(body)["retry_after_seconds"] == 1
        finally:
            for one in known:
                one.close()
        server.until(lambda: answer(server, "GET", "/healthz")[0] == 200)
        assert server.end() == 0
