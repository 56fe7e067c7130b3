"""Traces across the bus, off unless settings turn them on.

Until `configure` is called OpenTelemetry's API is a no-op, so spans cost next to nothing. The
trace context travels in message headers (W3C `traceparent`): nats-py carries none by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace

from trivet.runtime.settings import TelemetrySettings

_tracer = trace.get_tracer("trivet")


@contextmanager
def span(name: str) -> Iterator[trace.Span]:
    """A span around the block, child of the current one."""
    with _tracer.start_as_current_span(name) as current:
        yield current


def inject_context(headers: dict[str, str]) -> None:
    """Put the current trace context into message headers."""
    propagate.inject(headers)


@contextmanager
def extract_context(headers: Mapping[str, str]) -> Iterator[None]:
    """Make the trace context of message headers the current one, within the block."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def configure_telemetry(service: str, settings: TelemetrySettings) -> None:
    """Turn tracing on where settings name an endpoint; else leave it off."""
    if settings.otlp_endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"trivet-{service}"}),
        sampler=ParentBasedTraceIdRatio(settings.sample),
    )
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
