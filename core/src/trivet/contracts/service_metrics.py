"""The figures of a process for Prometheus: an operation of every service's instance on a node.

The gateway asks it at a scrape, so that no service listens anywhere for it, and who may read the
figures is decided like everything else that is asked of the API.
"""

from __future__ import annotations

from functools import cache

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.model import Model


class MetricsText(Model):
    """The figures in Prometheus' text format."""

    text: str


@cache
def metrics_endpoint(service: str) -> Endpoint[Nothing, MetricsText]:
    """The operation of one service."""
    return Endpoint(
        service=service,
        op="service.metrics",
        request=Nothing,
        response=MetricsText,
        policy=INTERNAL,
        summary="The figures of the service's instance on a node, for Prometheus.",
        per_node=True,
        changes=False,
        timeout_s=5.0,
    )
