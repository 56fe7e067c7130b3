"""What networks and ports hold alone: VNIs, MACs, addresses. Claimed before use, let go after.

A port's claims name the network's id, so two networks never dispute one; and a network that is
being deleted can see by them that a port is on its way in.
"""

from __future__ import annotations

import json
from contextlib import aclosing

from trivet.contracts.keys import claim_key
from trivet.contracts.model import ResourceId
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.network.subnet_ledger import SubnetLedger
from trivet.runtime.claims import Claims
from trivet.runtime.collection import Collection
from trivet.runtime.store import Store, Synced

ALL_CLAIMS = "claim."


def vni_key(vni: int) -> str:
    """The claim on a VNI."""
    return claim_key("vni", str(vni))


def address_key(network: str, address: str) -> str:
    """The claim on an address of a network."""
    return claim_key("address", network, address)


def mac_key(network: str, mac: str) -> str:
    """The claim on a MAC in a network."""
    return claim_key("mac", network, mac)


class Holdings:
    """Claims and the subnets' ledger of this service's bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.claims = Claims(store)
        self.subnets = SubnetLedger(store)

    def of_port(self, port: Port) -> tuple[str, ...]:
        """The keys of what a port that was admitted holds."""
        network = port.status.network_id
        if network is None:
            return ()
        macs = (mac_key(network, port.status.mac),) if port.status.mac else ()
        return (*macs, *(address_key(network, a) for a in port.status.addresses))

    async def release(self, keys: tuple[str, ...], owner: ResourceId) -> None:
        """Let go of claims; what is somebody else's stays."""
        for key in keys:
            await self.claims.release(key, owner)

    async def members(self, network: str) -> set[ResourceId]:
        """Who holds an address or a MAC of the network: ports, there or on their way in."""
        found: set[ResourceId] = set()
        for what in ("address", "mac"):
            found |= set((await self.claims.owners(claim_key(what, network) + ".")).values())
        return found

    async def finish_port(self, ports: Collection[Port], port: Port) -> None:
        """Remove a port for ever, then what it held: nobody gets its address before."""
        await ports.remove(port)
        await self.release(self.of_port(port), port.meta.id)

    async def finish_network(self, networks: Collection[Network], network: Network) -> None:
        """Remove a network for ever, then its VNI and its subnets."""
        await networks.remove(network)
        if network.status.vni is not None:
            await self.claims.release(vni_key(network.status.vni), network.meta.id)
        if network.meta.project is not None:
            await self.subnets.remove(network.meta.project, {network.meta.id})

    async def recorded(self) -> set[ResourceId]:
        """The ids of all networks and ports that the store has now, from the store itself."""
        found: set[ResourceId] = set()
        for prefix in ("network.", "port."):
            async with aclosing(self._store.watch(prefix)) as steps:
                async for step in steps:
                    if isinstance(step, Synced):
                        break
                    if step.value is None:
                        continue
                    record = json.loads(step.value)
                    if not record.get("gone"):
                        found.add(ResourceId(record["resource"]["meta"]["id"]))
        return found
