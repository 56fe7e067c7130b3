"""`/metrics`: the figures of this gateway, and of every service's instance, for Prometheus.

Services listen nowhere: `/metrics/<node>/<service>` asks the instance over the bus. A scrape
shows a token like any other request, and needs `gateway.metrics.get` in the cluster.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from trivet.contracts.access import allowed, needs
from trivet.contracts.endpoint import SERVICES, Nothing
from trivet.contracts.errors import FORBIDDEN, NOT_FOUND, Refused
from trivet.contracts.service_metrics import metrics_endpoint
from trivet.gateway.identity import Identities
from trivet.runtime.call import Client
from trivet.runtime.metrics import REGISTRY

POLICY = needs("gateway.metrics.get")


class Metrics:
    """Answers scrapes."""

    def __init__(self, client: Client, identities: Identities) -> None:
        self._client = client
        self._identities = identities

    async def own(self, request: Request) -> Response:
        """The figures of this process."""
        await self._admit(request)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def of_service(self, request: Request) -> Response:
        """The figures of a service's instance on a node."""
        await self._admit(request)
        service, node = request.path_params["service"], request.path_params["node"]
        if service not in SERVICES or service == "gateway":
            services = ", ".join(s for s in SERVICES if s != "gateway")
            raise Refused(NOT_FOUND, f"no service {service[:63]!a}", hint=f"one of {services}")
        found = await self._client.call(metrics_endpoint(service), Nothing(), node=_label(node))
        return Response(found.text, media_type=CONTENT_TYPE_LATEST)

    async def _admit(self, request: Request) -> None:
        address = request.client.host if request.client else None
        caller = await self._identities.caller(request.headers.get("Authorization"), address)
        if not allowed(caller, POLICY, None):
            raise Refused(FORBIDDEN, f"{caller.user} has no {POLICY.permission} in the cluster")


def _label(node: str) -> str:
    if not node.replace("-", "").isalnum() or not node.isascii() or len(node) > 63:
        raise Refused(NOT_FOUND, f"no node {node[:63]!a}", hint="`trivet node list` shows them")
    return node
