"""Whether the cluster is well: each service asked over the bus how it is.

An answer proves that a service, its bucket and the bus are there, and says who leads and whether
its events are told in time. The finding is kept for a short while, since anybody may ask.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version

from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.model import Model
from trivet.contracts.service_status import ServiceStatus, status_endpoint
from trivet.gateway.limits import Limits
from trivet.runtime.bus import Bus
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock
from trivet.runtime.nats_config import BUCKET_OWNERS

UNSENT_S = 60.0
"""Events that wait for longer say that the publisher does not work."""


class ServiceHealth(Model):
    """Whether a service answers and does its work, and if not, why. `leader` is the node whose
    instance makes the cluster's decisions, `unsent_events` wait to be told."""

    reachable: bool
    reason: str = ""
    leader: str | None = None
    unsent_events: int = 0

    @property
    def well(self) -> bool:
        """Whether it does all of its work."""
        return self.reachable and not self.reason


class Health(Model):
    """`ok` if the bus is there and every service does its work, else `degraded`."""

    status: str
    bus: bool
    services: dict[str, ServiceHealth]


class Version(Model):
    """What runs here, and which API it speaks."""

    version: str
    api: str = "v1"


def product_version() -> Version:
    """The version of this gateway."""
    try:
        return Version(version=version("trivet-gateway"))
    except PackageNotFoundError:
        return Version(version="unknown")


class HealthCheck:
    """Asks the services how they are, at most once in a while."""

    def __init__(
        self,
        bus: Bus,
        client: Client,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._bus = bus
        self._client = client
        self._clock = clock
        self._limits = limits
        self._asking = asyncio.Lock()
        self._found: tuple[float, Health] | None = None

    async def health(self) -> Health:
        """How the services are, or were a moment ago."""
        async with self._asking:
            if self._found is None or self._found[0] <= self._clock.monotonic():
                found = await self._ask()
                self._found = (self._clock.monotonic() + self._limits.health_s, found)
            return self._found[1]

    async def _ask(self) -> Health:
        answers = await asyncio.gather(*(self._reach(name) for name in BUCKET_OWNERS))
        services = dict(zip(BUCKET_OWNERS, answers, strict=True))
        ok = self._bus.connected and all(a.well for a in answers)
        return Health(status="ok" if ok else "degraded", bus=self._bus.connected, services=services)

    async def _reach(self, service: str) -> ServiceHealth:
        endpoint = status_endpoint(service)
        try:
            told = await self._client.call(endpoint, Nothing(), timeout_s=self._limits.health_s)
        except Retry as error:
            return ServiceHealth(reachable=False, reason=error.detail)
        except TrivetError as error:
            return ServiceHealth(reachable=True, reason=error.detail)
        return ServiceHealth(
            reachable=True,
            reason=_trouble(told),
            leader=told.leader,
            unsent_events=told.unsent_events,
        )


def _trouble(told: ServiceStatus) -> str:
    """What keeps a service that answers from its work; '' nothing."""
    if told.leader is None:
        return "no instance of it leads: nothing is decided"
    if told.unsent_s > UNSENT_S:
        return f"{told.unsent_events} events wait to be told, one for {told.unsent_s:.0f} s"
    return ""
