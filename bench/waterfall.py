"""Who waited for whom between two moments: the spans of all services, gathered and drawn.

The services of an instance send their OpenTelemetry traces to a collector of our own, which
keeps them in memory. What is drawn is every span that began within the time asked for, each
below the one that it is part of: loops that look at a whole node belong to no call's trace,
and a call may well wait for them.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

EXPORTED_WITHIN_S = 7.0
"""The services send what they have every five seconds."""
SHORTEST_MS = 0.3
LABEL_CHARS = 72


@dataclass(frozen=True)
class Span:
    """What a service did from one moment to another (seconds since the epoch)."""

    id: str
    parent: str
    service: str
    name: str
    key: str
    begun_s: float
    ended_s: float


class Collector:
    """Receives traces over HTTP, on a port of its own."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.spans.extend))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def settings(self) -> str:
        """The settings of an instance that sends all of its traces here."""
        url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        return f'\n[telemetry]\notlp_endpoint = "{url}"\nsample = 1.0\n'

    def within(self, begin_s: float, end_s: float) -> list[Span]:
        """All spans that began in that time, once they have been sent."""
        time.sleep(max(0.0, end_s + EXPORTED_WITHIN_S - time.time()))
        return [s for s in self.spans if begin_s <= s.begun_s <= end_s]

    def close(self) -> None:
        """Receive no more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(take: Callable[[Iterable[Span]], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            take(_read(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is named there
            """Not told."""

    return Handler


def _read(body: bytes) -> Iterator[Span]:
    for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
        named = {a.key: a.value.string_value for a in of_service.resource.attributes}
        service = named.get("service.name", "?").removeprefix("trivet-")
        for scope in of_service.scope_spans:
            for span in scope.spans:
                told = {a.key: a.value.string_value for a in span.attributes}
                yield Span(
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    service,
                    span.name,
                    told.get("trivet.key", ""),
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                )


def drawn(spans: Sequence[Span], begin_s: float, marks: dict[str, float]) -> list[str]:
    """A line a span, in order of time within what it is part of: when it began and how long it
    took, in ms since `begin_s`; `marks` are moments to be named between them."""
    known = {span.id for span in spans}
    below: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda s: s.begun_s):
        below.setdefault(span.parent if span.parent in known else "", []).append(span)
    left = sorted(marks.items(), key=lambda mark: mark[1])
    lines: list[str] = []

    def pass_marks(until_s: float) -> None:
        while left and left[0][1] <= until_s:
            name, at_s = left.pop(0)
            lines.append(f"{(at_s - begin_s) * 1000:8.1f} {'':8} == {name}")

    def draw(span: Span, depth: int) -> None:
        took_ms = (span.ended_s - span.begun_s) * 1000
        if took_ms < SHORTEST_MS:
            return
        label = f"{'  ' * depth}{span.service}: {span.name} {span.key}"[:LABEL_CHARS]
        lines.append(f"{(span.begun_s - begin_s) * 1000:8.1f} {took_ms:8.1f} {label}")
        for child in below.get(span.id, ()):
            draw(child, depth + 1)

    for top in below.get("", ()):
        pass_marks(top.begun_s)
        draw(top, 0)
    pass_marks(float("inf"))
    return lines
