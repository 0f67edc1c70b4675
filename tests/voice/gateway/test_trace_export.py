"""A real server sends the traces of its calls to a collector, which is a plain HTTP server here."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agentos.core.communication.voice.errors import SettingsError
from agentos.core.communication.voice.gateway.trace_export import SERVICE_NAME, exporting
from agentos.core.communication.voice.running.call_traces import trace_id_of
from tests.voice.gateway.serving import serving


class Collector(HTTPServer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"
        self.taken: list[ExportTraceServiceRequest] = []

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.taken
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.usefixtures("home")
def test_each_call_is_one_trace_that_is_there_when_the_server_has_ended(backend: str) -> None:
    with collecting() as collector:
        with serving("--no-auth", "--backend", backend, "--traces", collector.url) as here:
            session_id = here.create()
            audit_trace_id = here.curl(f"/v1/sessions/{session_id}/stop", "-X", "POST")["session"]["audit_trace_id"]
            assert here.end() == 0
        spans = collector.spans()
    assert {span.name for span in spans} == {"voice.call", "voice.created", "voice.stopping"}
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == {trace_id_of(audit_trace_id)}
    resource = {one.key: one.value.string_value for one in collector.taken[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == SERVICE_NAME


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.usefixtures("home")
def test_a_collector_that_is_not_there_holds_nothing_up() -> None:
    with collecting() as collector:
        gone = collector.url
    with serving("--no-auth", "--traces", gone) as here:
        session_id = here.create()
        assert here.curl(f"/v1/sessions/{session_id}/stop", "-X", "POST", status=200)["durable"]
        assert here.end() == 0


@pytest.mark.parametrize("address", ["", "127.0.0.1:4318", "ftp://127.0.0.1/", "http://", "http://a:b/"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"http://127\.0\.0\.1:4318"), exporting(address):
        pass
