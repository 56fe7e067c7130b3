"""How a service is: an operation that every service answers in the same way.

It is what the gateway's health and `trivet doctor` ask. To answer, an instance reads the store,
so that an answer proves bus, store and process together.
"""

from __future__ import annotations

from functools import cache

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.model import Model


class ServiceStatus(Model):
    """What one instance tells. `leader` is the node whose instance leads (None: nobody does
    now); `unsent_events` are written and not yet told, the oldest for `unsent_s` seconds;
    `records` are the keys in the service's bucket, `up_s` how long this instance has run."""

    node: str
    leader: str | None
    unsent_events: int
    unsent_s: float
    records: int
    up_s: float


@cache
def status_endpoint(service: str) -> Endpoint[Nothing, ServiceStatus]:
    """The operation of one service."""
    return Endpoint(
        service=service,
        op="service.status",
        request=Nothing,
        response=ServiceStatus,
        policy=INTERNAL,
        summary="How an instance of the service is, asked by the gateway and by doctor.",
        changes=False,
        timeout_s=3.0,
    )
