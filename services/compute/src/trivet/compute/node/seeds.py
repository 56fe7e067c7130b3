"""Makes a VM's seed before it starts, from what the VM and its networks are then."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.compute.domain.seed import seed_of, wants_seed
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.seed import SeedDisks
from trivet.contracts.compute.vm import Vm, VmNic
from trivet.contracts.endpoint import GetRequest
from trivet.contracts.errors import NOT_FOUND, NOT_SUPPORTED, Refused
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.network import Network
from trivet.runtime.call import Client


class Seeds:
    """The seeds of this node's VMs."""

    def __init__(self, client: Client, hypervisor: Hypervisor) -> None:
        self._client = client
        self._hypervisor = hypervisor

    async def put(self, vm: Vm, nics: Sequence[VmNic]) -> str | None:
        """See to the seed that the VM is to start with; its digest, or None: it has none."""
        if not wants_seed(vm):
            if isinstance(self._hypervisor, SeedDisks):
                await self._hypervisor.put_seed(vm.meta.id, None)
            return None
        if not isinstance(self._hypervisor, SeedDisks):
            detail = f"{self._hypervisor.name} can't give user_data or ssh_keys to its guests"
            raise Refused(NOT_SUPPORTED, detail)
        names = {nic.network for nic in nics}
        found = {name: await self._network(vm, name) for name in names}
        networks = {name: network for name, network in found.items() if network is not None}
        seed = seed_of(vm, nics, networks)
        await self._hypervisor.put_seed(vm.meta.id, seed)
        return seed.digest

    async def _network(self, vm: Vm, name: str) -> Network | None:
        try:
            network: Network = await self._client.call(
                NETWORKS.get, GetRequest(project=vm.meta.project, name=name)
            )
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise
            return None
        return network
