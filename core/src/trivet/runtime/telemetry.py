"""Traces from the API call to the driver, off unless settings turn them on.

One trace follows a change wherever it leads: the API call, the bus calls that it makes, the
handler that writes the resource, the loops that then make it so, and the drivers that they use.
Across the bus the context travels in message headers (W3C `traceparent`: nats-py carries none by
itself); from a write to the loops that it wakes it travels in the record (`Record.trace`), so
that it reaches a loop of another process on another node. Such a loop's spans belong to the
trace for as long as the cause is recent; a look at the same resource next week does not.

While it is off (the usual case) every function here returns at once, so that it costs nothing.
"""

from __future__ import annotations

import inspect
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trivet.runtime.logs import tell_traces
from trivet.runtime.settings import TelemetrySettings

RECENT_S = 120.0
CAUSES_BOUND = 10_000
_HEADER = "traceparent"
_NO_SPAN: AbstractContextManager[trace.Span] = nullcontext(trace.INVALID_SPAN)
_NOTHING: AbstractContextManager[None] = nullcontext()
_propagator = TraceContextTextMapPropagator()


class Causes:
    """The trace of the last change of each record that this process saw, for a while."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, tuple[str, int, float]] = OrderedDict()

    def note(self, key: str, traceparent: str, generation: int) -> None:
        """The record of `key`, at that generation, was written under that trace."""
        self._by_key[key] = (traceparent, generation, time.monotonic())
        self._by_key.move_to_end(key)
        if len(self._by_key) > CAUSES_BOUND:
            self._by_key.popitem(last=False)

    def of(self, key: str) -> tuple[str, int] | None:
        """The trace and the generation behind the record of `key`, where they are recent."""
        found = self._by_key.get(key)
        if found is None or time.monotonic() - found[2] > RECENT_S:
            return None
        return found[0], found[1]


class _Tracing:
    """Whether traces are made, and by what."""

    tracer: trace.Tracer | None = None
    causes = Causes()


def trace_with(provider: trace.TracerProvider | None) -> None:
    """Make traces with `provider` from now on; None: make none."""
    _Tracing.tracer = provider.get_tracer("trivet") if provider else None
    _Tracing.causes = Causes()
    tell_traces(_trace_id if provider else None)


def _trace_id() -> str | None:
    present = trace.get_current_span().get_span_context()
    return f"{present.trace_id:032x}" if present.is_valid else None


def span(name: str, **attributes: str | int) -> AbstractContextManager[trace.Span]:
    """A span around the block, child of the current one."""
    if _Tracing.tracer is None:
        return _NO_SPAN
    named = {f"trivet.{key}": value for key, value in attributes.items()}
    return _Tracing.tracer.start_as_current_span(name, attributes=named)


def look_span(loop: str, key: str) -> AbstractContextManager[trace.Span]:
    """A span around a loop's look at `key`: part of the trace of the change that caused it, and
    linked to it by its generation."""
    if _Tracing.tracer is None:
        return _NO_SPAN
    cause = _Tracing.causes.of(key)
    attributes: dict[str, str | int] = {"trivet.loop": loop, "trivet.key": key}
    if cause is None:
        return _Tracing.tracer.start_as_current_span(f"reconcile {loop}", attributes=attributes)
    parent = _propagator.extract({_HEADER: cause[0]})
    link = trace.Link(trace.get_current_span(parent).get_span_context())
    return _Tracing.tracer.start_as_current_span(
        f"reconcile {loop}",
        context=parent,
        attributes={**attributes, "trivet.generation": cause[1]},
        links=[link],
    )


def current_trace() -> str | None:
    """The present trace as a `traceparent`, to be written beside what it causes."""
    if _Tracing.tracer is None:
        return None
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return headers.get(_HEADER)


def note_cause(key: str, traceparent: str, generation: int) -> None:
    """A record was read that was written under a trace."""
    if _Tracing.tracer is not None:
        _Tracing.causes.note(key, traceparent, generation)


def inject_context(headers: dict[str, str]) -> None:
    """Put the current trace context into message headers."""
    if _Tracing.tracer is not None:
        _propagator.inject(headers)


def extract_context(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Make the trace context of message headers the current one, within the block."""
    if _Tracing.tracer is None or _HEADER not in headers:
        return _NOTHING
    return _within(headers)


@contextmanager
def _within(headers: Mapping[str, str]) -> Any:
    token = context.attach(_propagator.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def trace_calls(driver: Any, name: str) -> None:
    """Make a span of every call of a driver's own async methods, if traces are made at all."""
    if _Tracing.tracer is None:
        return
    for method, _ in inspect.getmembers(type(driver), inspect.iscoroutinefunction):
        if not method.startswith("_"):
            setattr(driver, method, _traced(getattr(driver, method), f"driver {name}.{method}"))


def _traced(call: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
    @wraps(call)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        with span(name):
            return await call(*args, **kwargs)

    return traced


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
    trace_with(provider)
