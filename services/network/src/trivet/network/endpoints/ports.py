"""The common operations on ports: a port is stored with its MAC and its addresses, or not at all.

The order makes it safe without a lock. Claims first, then a second look at the network: a
network's deletion is marked first and looks at the claims second, so of the two one sees the
other. A create that is refused lets go of its claims; one that was cut leaves them to the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import Any

from trivet.contracts.endpoint import CreateRequest, DeleteRequest
from trivet.contracts.errors import (
    DELETING,
    IN_USE,
    INVALID,
    REFERENCE,
    FieldError,
    Refused,
    Retry,
)
from trivet.contracts.model import ResourceId
from trivet.contracts.network.codes import ADDRESS_TAKEN, NO_ADDRESS
from trivet.contracts.network.endpoints.ports import CRUD
from trivet.contracts.network.network import NETWORK, Network
from trivet.contracts.network.port import Port
from trivet.network.domain.addresses import candidates, normal, usable
from trivet.network.domain.mac import mac_of
from trivet.network.holdings import address_key, mac_key
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.crud import CrudHandlers, Hooks, immutable
from trivet.runtime.service import Service

FINALIZERS = ("node",)
ADDRESS_ATTEMPTS = 256
MAC_ATTEMPTS = 8


@dataclass
class Taken:
    """What a create has claimed so far: its undo list."""

    owner: ResourceId | None = None
    keys: list[str] = field(default_factory=list)
    tried: list[tuple[str, str]] = field(default_factory=list)


class PortHandlers(CrudHandlers[Port]):
    """The handlers."""

    def __init__(self, service: Service, parts: Parts) -> None:
        self._parts = parts
        # What creates of this instance are about to claim, so that they don't get in each
        # other's way; between instances it is the claims that decide.
        self._tried: set[tuple[str, str]] = set()
        super().__init__(service, parts.ports, Hooks(self._admit_edit, FINALIZERS))

    async def create(self, request: CreateRequest[Any], call: Call) -> Port:
        """Store a new port with what it holds alone."""
        taken = Taken()
        clock = self._parts.runtime.clock
        began = clock.monotonic()

        async def admit(before: Port | None, after: Port) -> Port:
            return await self._admit_new(after, taken)

        one = CrudHandlers(self._service, self._parts.ports, Hooks(admit, FINALIZERS))
        try:
            port = await one.create(request, call)
        except Refused:
            # Positively not stored. (After a `Retry` nobody knows: the sweep looks later.)
            await self._undo(taken)
            raise
        finally:
            self._tried.difference_update(taken.tried)
        age_s = self._parts.runtime.settings.network.claim_age_s
        if clock.monotonic() - began > age_s / 2:
            await self._still_ours(port, taken)
        return port

    async def delete(self, request: DeleteRequest, call: Call) -> Port:
        """Mark for deletion; a port that belongs to something goes with that."""
        port = self._parts.ports.get(request.name, request.project)
        mine = call.caller.user.startswith("service:")
        if port is not None and port.meta.owner is not None and not mine:
            owner = port.meta.owner
            raise Refused(
                IN_USE,
                f"port {port.meta.name} belongs to {owner.kind} {owner.name}",
                hint=f"change or delete {owner.name} instead",
            )
        return await super().delete(request, call)

    async def _admit_edit(self, before: Port | None, after: Port) -> Port:
        if before is not None:
            immutable(before.spec, after.spec, "network", "addresses", "mac")
        return after

    async def _admit_new(self, port: Port, taken: Taken) -> Port:
        taken.owner = port.meta.id
        key = NETWORK.key(port.meta.project, port.spec.network)
        network = self._parts.networks.by_key(key) or await self._parts.networks.fresh(key)
        network = _open(network, port)
        asked = _asked(port, network)
        mac = await self._take_mac(port, network, taken)
        addresses = [
            await self._take_address(port, network, subnet, asked.get(subnet), mac, taken)
            for subnet in network.spec.subnets
        ]
        again = _open(await self._parts.networks.fresh(key), port)
        if again.meta.id != network.meta.id:
            raise Refused(REFERENCE, f"network {port.spec.network} was replaced by another")
        return port.with_status(
            mac=mac,
            addresses=tuple(addresses),
            vni=network.status.vni,
            mtu=network.spec.mtu,
            network_id=network.meta.id,
        )

    async def _take(self, key: str, taken: Taken) -> bool:
        assert taken.owner is not None
        # Noted before it is tried: an answer that is lost must be undone too.
        taken.keys.append(key)
        return await self._parts.holdings.claims.claim(key, taken.owner)

    async def _take_mac(self, port: Port, network: Network, taken: Taken) -> str:
        asked = port.spec.mac
        tries = [asked] if asked else [mac_of(port.meta.id, n) for n in range(MAC_ATTEMPTS)]
        for mac in tries:
            if mac != network.status.gateway_mac and await self._take(
                mac_key(network.meta.id, mac), taken
            ):
                return mac
        wrong = FieldError(where="spec.mac", message="in use", accepted="leave it out")
        raise Refused(
            ADDRESS_TAKEN, f"{tries[-1]} is in use on {network.meta.name}", errors=(wrong,)
        )

    async def _take_address(
        self, port: Port, network: Network, subnet: str, asked: str | None, mac: str, taken: Taken
    ) -> str:
        if asked is not None:
            if await self._take(address_key(network.meta.id, asked), taken):
                return asked
            raise self._in_use(network, asked)
        known = self._known(network)
        for address in islice(candidates(subnet, known, mac), ADDRESS_ATTEMPTS):
            mine = (network.meta.id, address)
            if mine in self._tried:
                continue
            self._tried.add(mine)
            taken.tried.append(mine)
            if await self._take(address_key(network.meta.id, address), taken):
                return address
        if next(iter(candidates(subnet, self._known(network), mac)), None) is None:
            raise Refused(
                NO_ADDRESS, f"{subnet} is used up", hint="delete ports, or use another network"
            )
        raise Retry(NO_ADDRESS, f"{subnet} is being filled by many at once", retry_after_s=0.5)

    def _known(self, network: Network) -> set[str]:
        ports = self._parts.ports.list(network.meta.project)
        return {
            a for p in ports if p.status.network_id == network.meta.id for a in p.status.addresses
        }

    def _in_use(self, network: Network, address: str) -> Refused:
        """Who has it may be told: a network's ports are all of its project."""
        ports = self._parts.ports.list(network.meta.project)
        holder = next(
            (
                f" by port {p.meta.name}"
                for p in ports
                if p.status.network_id == network.meta.id and address in p.status.addresses
            ),
            "",
        )
        wrong = FieldError(where="spec.addresses", message=f"{address} is in use{holder}")
        return Refused(ADDRESS_TAKEN, f"{address} is in use{holder}", errors=(wrong,))

    async def _undo(self, taken: Taken) -> None:
        if taken.owner is not None:
            await self._parts.holdings.release(tuple(taken.keys), taken.owner)

    async def _still_ours(self, port: Port, taken: Taken) -> None:
        """After a create that took so long that the sweep may have thought it dead: make sure
        of every claim again, or take the port back."""
        for key in self._parts.holdings.of_port(port):
            if not await self._parts.holdings.claims.claim(key, port.meta.id):
                await self._parts.ports.remove(port)
                await self._undo(taken)
                raise Retry(ADDRESS_TAKEN, "the port's address was given away", retry_after_s=0.2)


def _open(network: Network | None, port: Port) -> Network:
    """The network, if it takes ports now."""
    name = port.spec.network
    if network is None:
        wrong = FieldError(where="spec.network", message="there is no such network")
        raise Refused(REFERENCE, f"there is no network {name}", errors=(wrong,))
    if network.meta.deleting_at is not None:
        raise Refused(DELETING, f"network {name} is being deleted")
    return network


def _asked(port: Port, network: Network) -> dict[str, str]:
    """The addresses that are asked for, by subnet; each must be one a port may have."""
    found: dict[str, str] = {}
    for number, text in enumerate(port.spec.addresses):
        address = normal(text)
        subnet = address and _subnet_of(network.spec.subnets, address)
        where = f"spec.addresses.{number}"
        accepted = " or ".join(network.spec.subnets)
        if not address or not subnet:
            wrong = FieldError(where=where, message="not of the network", accepted=accepted)
            raise Refused(INVALID, f"{text} is no address of {network.meta.name}", errors=(wrong,))
        if not usable(subnet, address):
            wrong = FieldError(where=where, message="not for ports", accepted=accepted)
            raise Refused(
                INVALID, f"{text} is the network's own, or its gateway's", errors=(wrong,)
            )
        if subnet in found:
            wrong = FieldError(where=where, message="a second one", accepted="one a subnet")
            raise Refused(INVALID, f"two addresses of {subnet} were asked for", errors=(wrong,))
        found[subnet] = address
    return found


def _subnet_of(subnets: Iterable[str], address: str) -> str | None:
    wanted = ip_address(address)
    return next((s for s in subnets if wanted in ip_network(s)), None)


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""
    handlers = PortHandlers(service, parts)
    for endpoint in CRUD.endpoints:
        service.handle(endpoint, getattr(handlers, endpoint.verb))
