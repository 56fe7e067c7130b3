"""Figures for Prometheus: what a process counts, and what it reads when it is asked.

What happens is counted where it happens, in figures that belong to the process (`REGISTRY`).
What *is* (resources by phase, the events still to tell, who leads) is read at the moment of a
scrape, by a `State` of each service, so that it costs nothing in between. Names and labels are
for dashboards and never change once set; a label takes few values: never a name or an id that
callers choose, but for nodes and pools.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trivet.runtime.collection import Collection

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
WORK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120)

ProcessCollector(registry=REGISTRY)
HTTP_SECONDS = Histogram(
    "trivet_http_request_seconds",
    "API requests, by operation: how long they took",
    ("op",),
    buckets=CALL_BUCKETS,
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "trivet_http_requests",
    "API requests, by operation and status",
    ("op", "status"),
    registry=REGISTRY,
)
SERVED_SECONDS = Histogram(
    "trivet_bus_served_seconds",
    "Calls that were answered, by operation: how long it took",
    ("op",),
    buckets=CALL_BUCKETS,
    registry=REGISTRY,
)
SERVED = Counter(
    "trivet_bus_served",
    "Calls that were answered, by operation and code (`ok` or an error's)",
    ("op", "code"),
    registry=REGISTRY,
)
CALLS_FAILED = Counter(
    "trivet_bus_calls_failed",
    "Calls that were made and got no good answer, by operation and code",
    ("service", "op", "code"),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "trivet_reconcile_seconds",
    "Looks at one object, by loop: how long they took",
    ("loop",),
    buckets=WORK_BUCKETS,
    registry=REGISTRY,
)
RECONCILES = Counter(
    "trivet_reconciles",
    "Looks at one object, by loop and outcome (done, conflict, retry, refused, failed)",
    ("loop", "outcome"),
    registry=REGISTRY,
)
RECONCILE_QUEUE = Gauge(
    "trivet_reconcile_queue",
    "Objects that wait to be looked at, by loop",
    ("loop",),
    registry=REGISTRY,
)
RECONCILE_FAILING = Gauge(
    "trivet_reconcile_failing",
    "Objects whose last look failed and is tried again, by loop",
    ("loop",),
    registry=REGISTRY,
)


@cache
def http_figures(op: str, status: int) -> tuple[Histogram, Counter]:
    """The figures of requests of an operation that ended with a status, looked up once."""
    return HTTP_SECONDS.labels(op), HTTP_REQUESTS.labels(op, status)


@dataclass(frozen=True)
class Reading:
    """One figure as it is now; `help` is the same for all of a name."""

    name: str
    help: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


Read = Callable[[], Iterable[Reading]]


class State(Collector):
    """What one service's instance is, read when asked."""

    def __init__(self) -> None:
        self._reads: list[Read] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, read: Read) -> None:
        """Read this too; it must be quick, and only look at what is in memory."""
        self._reads.append(read)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is known before it is read."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All readings, those of one name together."""
        families: dict[str, GaugeMetricFamily] = {}
        for read in self._reads:
            for one in read():
                names = tuple(one.labels)
                family = families.setdefault(
                    one.name, GaugeMetricFamily(one.name, one.help, labels=names)
                )
                family.add_metric(list(one.labels.values()), one.value)
        yield from families.values()

    def text(self) -> str:
        """All figures of the process and of this service, in Prometheus' text format."""
        return (generate_latest(REGISTRY) + generate_latest(self._registry)).decode()


def resources(collections: Iterable[Collection[Any]]) -> Iterator[Reading]:
    """How many resources there are, by kind and phase."""
    for collection in collections:
        phases = Count(resource.status.phase.value for resource in collection.list())
        for phase, count in sorted(phases.items()):
            yield Reading(
                "trivet_resources",
                "Resources, by kind and phase",
                count,
                {"kind": collection.kind.name, "phase": phase},
            )


class Looks:
    """The figures of one reconcile loop."""

    def __init__(self, name: str) -> None:
        self._seconds = RECONCILE_SECONDS.labels(name)
        self._outcomes = {
            outcome: RECONCILES.labels(name, outcome)
            for outcome in ("done", "conflict", "retry", "refused", "failed")
        }
        self.queue = RECONCILE_QUEUE.labels(name)
        self.failing = RECONCILE_FAILING.labels(name)

    def note(self, outcome: str, began: float) -> None:
        """A look that began then (`time.perf_counter`) is over."""
        self._seconds.observe(time.perf_counter() - began)
        self._outcomes[outcome].inc()
