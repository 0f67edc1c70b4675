"""The traces of calls on their way to a collector: OTLP over HTTP (extra `otel`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentos.core.communication.voice.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

SERVICE_NAME: Final = "agentos-voice"
SEND_SECONDS: Final = 5.0  # for one batch, again and again until then; at the end of the server too


@contextmanager
def exporting(address: str | None) -> "Iterator[TracerProvider | None]":
    """A tracer provider that sends to `address`, as `http://127.0.0.1:4318/v1/traces`; None for None.

    Spans are sent by a thread, in batches. What the collector doesn't take in time is logged and given up; at the end the
    last ones are sent. Further settings come from the environment, as OpenTelemetry names them (`OTEL_EXPORTER_OTLP_HEADERS`,
    `OTEL_RESOURCE_ATTRIBUTES`, …). Raises `SettingsError` for what is no such address, `ImportError` without the extra.
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
