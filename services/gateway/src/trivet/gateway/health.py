"""Whether each service answers: asked over the bus by its cheapest operation.

A service is asked to list one of its resources; any answer, an error of its own too, proves that
it is there. The finding is kept for a short while, since anybody may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trivet.contracts.endpoint import Endpoint, ListRequest
from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.model import Model
from trivet.gateway.limits import Limits
from trivet.runtime.bus import Bus
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock


class ServiceHealth(Model):
    """Whether a service answers, and if not, why."""

    reachable: bool
    reason: str = ""


class Health(Model):
    """`ok` if the bus is there and every service answers, else `degraded`."""

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
        endpoints: Iterable[Endpoint[Any, Any]],
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._bus = bus
        self._client = client
        self._clock = clock
        self._limits = limits
        self._asking = asyncio.Lock()
        self._found: tuple[float, Health] | None = None
        lists = (e for e in endpoints if issubclass(e.request, ListRequest))
        self._probes = {e.service: e for e in sorted(lists, key=lambda e: e.op, reverse=True)}

    async def health(self) -> Health:
        """How the services are, or were a moment ago."""
        async with self._asking:
            if self._found is None or self._found[0] <= self._clock.monotonic():
                found = await self._ask()
                self._found = (self._clock.monotonic() + self._limits.health_s, found)
            return self._found[1]

    async def _ask(self) -> Health:
        names = sorted(self._probes)
        answers = await asyncio.gather(*(self._reach(self._probes[n]) for n in names))
        services = dict(zip(names, answers, strict=True))
        ok = self._bus.connected and all(a.reachable for a in answers)
        return Health(status="ok" if ok else "degraded", bus=self._bus.connected, services=services)

    async def _reach(self, probe: Endpoint[Any, Any]) -> ServiceHealth:
        try:
            await self._client.call(probe, ListRequest(limit=1), timeout_s=self._limits.health_s)
        except Retry as error:
            return ServiceHealth(reachable=False, reason=error.detail)
        except TrivetError as error:
            return ServiceHealth(reachable=True, reason=error.detail)
        return ServiceHealth(reachable=True)
