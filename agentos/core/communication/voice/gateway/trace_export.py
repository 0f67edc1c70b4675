"""The export of call traces to a collector: OTLP over HTTP (extra `otel`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentos.core.communication.voice.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

SERVICE_NAME: Final = "agentos-voice"
SEND_SECONDS: Final = 5.0  # for one batch with its retries; at the end of the server too


@contextmanager
def exporting(address: str | None) -> "Iterator[TracerProvider | None]":
    """A tracer provider that sends to `address`, like `http://127.0.0.1:4318/v1/traces`; None without an address.

    A thread sends spans in batches. Batches that the collector doesn't take in time are logged and dropped; at the end the last
    spans are sent. Further settings come from OpenTelemetry's environment variables (`OTEL_EXPORTER_OTLP_HEADERS`,
    `OTEL_RESOURCE_ATTRIBUTES`, …). Raises `SettingsError` for a malformed address, `ImportError` without the extra.
    """
    if address is None:
        yield None
        return
    _check(address)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=SEND_SECONDS)))
    try:
        yield provider
    finally:
        provider.shutdown()


def _check(address: str) -> None:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"traces go to an address such as http://127.0.0.1:4318/v1/traces, not {address!r}")
