"""The common operations on networks: what a new one gets, and what may not change.

A network has its VNI, its gateways and its gateway's MAC from the moment it is stored, so
whoever reads it never meets one without.
"""

from __future__ import annotations

from typing import Any

from trivet.contracts.endpoint import CreateRequest
from trivet.contracts.errors import IN_USE, FieldError, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.network.codes import VNI_TAKEN
from trivet.contracts.network.endpoints.networks import CRUD
from trivet.contracts.network.network import Network
from trivet.network.domain import vni
from trivet.network.domain.addresses import gateways_of
from trivet.network.domain.mac import mac_of
from trivet.network.holdings import vni_key
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.crud import CrudHandlers, Hooks, immutable
from trivet.runtime.service import Service

FINALIZERS = ("network",)
VNI_ATTEMPTS = 64


class NetworkHandlers(CrudHandlers[Network]):
    """The handlers; a create that fails lets go of what it had taken."""

    def __init__(self, service: Service, parts: Parts) -> None:
        self._parts = parts
        hooks = Hooks(self.admit, FINALIZERS, self.may_delete)
        super().__init__(service, parts.networks, hooks)

    async def create(self, request: CreateRequest[Any], call: Call) -> Network:
        """Store a new network with its VNI and gateways."""
        made: list[Network] = []

        async def admit(before: Network | None, after: Network) -> Network:
            made.append(after)
            made.append(admitted := await self.admit(before, after))
            return admitted

        one = CrudHandlers(self._service, self._parts.networks, Hooks(admit, FINALIZERS))
        try:
            return await one.create(request, call)
        except Refused:
            # Positively not stored. (After a `Retry` nobody knows: the sweep looks later.)
            if made:
                await self._let_go(made[-1])
            raise

    async def admit(self, before: Network | None, after: Network) -> Network:
        """Check a network, and give a new one what it holds alone."""
        if before is not None:
            immutable(before.spec, after.spec, "subnets", "vni")
            return after
        project = after.meta.project or ""
        await self._parts.holdings.subnets.add(project, after.meta.id, after.spec.subnets)
        return after.with_status(
            vni=await self._claim_vni(after),
            gateways=gateways_of(after.spec.subnets),
            gateway_mac=mac_of(after.meta.id),
        )

    async def may_delete(self, network: Network) -> None:
        """Refused while ports are there; those that are going count too."""
        ports = _ports_of(self._parts, network.meta.id)
        if ports:
            named = ", ".join(ports[:5])
            raise Refused(
                IN_USE,
                f"network {network.meta.name} has {len(ports)} ports: {named}",
                hint="delete its ports, or the machines they belong to, first",
            )

    async def _claim_vni(self, network: Network) -> int:
        claims = self._parts.holdings.claims
        asked = network.spec.vni
        if asked is not None:
            if await claims.claim(vni_key(asked), network.meta.id):
                return asked
            wrong = FieldError(where="spec.vni", message="in use", accepted="leave it out")
            raise Refused(VNI_TAKEN, f"VNI {asked} is in use", errors=(wrong,))
        for number in vni.candidates(network.meta.id, VNI_ATTEMPTS):
            if await claims.claim(vni_key(number), network.meta.id):
                return number
        raise Retry(VNI_TAKEN, f"{VNI_ATTEMPTS} VNIs in a row are in use", retry_after_s=1.0)

    async def _let_go(self, network: Network) -> None:
        id_ = network.meta.id
        await self._parts.holdings.subnets.remove(network.meta.project or "", {id_})
        if network.status.vni is not None:
            await self._parts.holdings.claims.release(vni_key(network.status.vni), id_)


def _ports_of(parts: Parts, network: ResourceId) -> list[str]:
    return [p.meta.name for p in parts.ports.list() if p.status.network_id == network]


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""
    handlers = NetworkHandlers(service, parts)
    for endpoint in CRUD.endpoints:
        service.handle(endpoint, getattr(handlers, endpoint.verb))
