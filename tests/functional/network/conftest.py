"""The network service on the in-memory bus, with fake drivers and a firewall that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.endpoint import CreateRequest, DeleteRequest, EditRequest, GetRequest, NewMeta
from trivet.contracts.errors import NOT_FOUND, UNAVAILABLE, Refused, Retry
from trivet.contracts.event import EventType
from trivet.contracts.model import ResourceId
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.network import Network, NetworkSpec
from trivet.contracts.network.port import Port, PortSpec
from trivet.contracts.resource import OwnerRef
from trivet.contracts.security.endpoints.node_protect import ENDPOINT as PROTECT
from trivet.contracts.security.endpoints.node_protect import ProtectRequest, ProtectResponse
from trivet.network.bootstrap import bootstrap
from trivet.runtime.call import Call
from trivet.runtime.claims import Claims
from trivet.runtime.service import Service
from trivet.testing.fakes import dhcp, gateway, switch
from trivet.testing.fakes.dhcp import DhcpWorld, FakeDhcp
from trivet.testing.fakes.gateway import FakeGateway, GatewayWorld
from trivet.testing.fakes.switch import FakeSwitch, SwitchWorld
from trivet.testing.harness import Harness

DEADLINE_S = 60.0
FAKES = {"switch": "fake-switch", "gateway": "fake-gateway", "dhcp": "fake-dhcp"}


@dataclass
class Firewall:
    """Protects what it is asked to, unless told otherwise."""

    away: bool = False
    refuse: str = ""
    asked: list[ProtectRequest] = field(default_factory=list)
    up_when_asked: list[set[str]] = field(default_factory=list)
    look: Callable[[], set[str]] = set

    async def protect(self, request: ProtectRequest, call: Call) -> ProtectResponse:
        self.asked.append(request)
        self.up_when_asked.append(self.look())
        if self.away:
            raise Retry(UNAVAILABLE, "the firewall is away")
        if self.refuse:
            reasons = {b.port: self.refuse for b in request.bindings}
            return ProtectResponse(protected={}, reasons=reasons)
        return ProtectResponse(protected={b.port: b.generation for b in request.bindings})


class World:
    """The service, and what its drivers made of the node."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.firewalls: dict[str, Firewall] = {}
        self.service: Service | None = None

    @property
    def firewall(self) -> Firewall:
        return self.firewalls["n1"]

    async def start(self, node: str = "n1") -> None:
        if node not in self.firewalls:
            firewall = self.firewalls[node] = Firewall()
            firewall.look = lambda: {p.port for p in self.switch().plugs.values() if p.up}
            await self.harness.fake(PROTECT, firewall.protect, node=node)
        self.service = await self.harness.start("network", bootstrap, node)

    def _folder(self, driver: str) -> Path:
        return self.harness.settings.state_dir / "network" / driver

    def switch(self) -> SwitchWorld:
        return FakeSwitch.worlds.at(self._folder("fake-switch"))

    def gateway(self) -> GatewayWorld:
        return FakeGateway.worlds.at(self._folder("fake-gateway"))

    def dhcp(self) -> DhcpWorld:
        return FakeDhcp.worlds.at(self._folder("fake-dhcp"))

    def told(self, type_: EventType) -> bool:
        """Whether such an event is in the stream."""
        return any(e[0].subject == type_.subject for e in self.harness.broker.events)

    async def network(self, name: str = "lan", project: str = "p", **spec: Any) -> Network:
        spec = {"subnets": ("10.9.0.0/24",), **spec}
        request = CreateRequest[NetworkSpec](
            meta=NewMeta(name=name, project=project), spec=NetworkSpec.model_validate(spec)
        )
        made: Network = await self.harness.call(NETWORKS.create, request)
        return made

    async def port(
        self, name: str, network: str = "lan", owner: OwnerRef | None = None, **spec: Any
    ) -> Port:
        spec = {"network": network, "node": "n1", **spec}
        request = CreateRequest[PortSpec](
            meta=NewMeta(name=name, project="p"),
            spec=PortSpec.model_validate(spec),
            owner=owner,
        )
        made: Port = await self.harness.call(PORTS.create, request)
        return made

    async def get_port(self, name: str, settle_s: float = 0) -> Port:
        request = GetRequest(project="p", name=name, settle_s=settle_s)
        found: Port = await self.harness.call(PORTS.get, request)
        return found

    async def get_network(self, name: str = "lan", settle_s: float = 0) -> Network:
        request = GetRequest(project="p", name=name, settle_s=settle_s)
        found: Network = await self.harness.call(NETWORKS.get, request)
        return found

    async def edit_port(self, name: str, **spec: Any) -> Port:
        request = EditRequest(project="p", name=name, spec=spec)
        edited: Port = await self.harness.call(PORTS.edit, request)
        return edited

    async def edit_network(self, name: str, **spec: Any) -> Network:
        request = EditRequest(project="p", name=name, spec=spec)
        edited: Network = await self.harness.call(NETWORKS.edit, request)
        return edited

    async def delete_port(self, name: str) -> None:
        await self.harness.call(PORTS.delete, DeleteRequest(project="p", name=name))

    async def delete_network(self, name: str = "lan") -> None:
        await self.harness.call(NETWORKS.delete, DeleteRequest(project="p", name=name))

    async def gone(self, look: Callable[[], Awaitable[object]]) -> bool:
        try:
            await look()
        except Refused as error:
            return error.code is NOT_FOUND
        return False

    async def port_gone(self, name: str) -> bool:
        return await self.gone(lambda: self.get_port(name))

    async def network_gone(self, name: str = "lan") -> bool:
        return await self.gone(lambda: self.get_network(name))

    async def claims(self) -> dict[str, ResourceId]:
        return await Claims(self.harness.store("network")).owners("claim.")


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until it holds, or fail."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = holds()
            if seen if isinstance(seen, bool) else await seen:
                return
            await asyncio.sleep(0.01)


def settings(**network: Any) -> dict[str, Any]:
    return {**FAKES, "look_s": 0.5, **network}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Harness(tmp_path, plugins=(switch, gateway, dhcp), network=settings()) as harness:
        world = World(harness)
        await world.start()
        yield world


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[World]:
    """A world without safety looks: what happens in it was told."""
    plugins = (switch, gateway, dhcp)
    async with Harness(tmp_path, plugins=plugins, network=settings(look_s=600.0)) as harness:
        world = World(harness)
        await world.start()
        yield world
