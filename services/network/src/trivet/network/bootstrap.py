"""Puts the network service together: the only place that wires."""

from __future__ import annotations

from functools import partial

from trivet.contracts.network.alarms import ALARM, RULES
from trivet.contracts.network.gateway_driver import DhcpDriver, GatewayDriver
from trivet.contracts.network.network import NETWORK
from trivet.contracts.network.port import PORT
from trivet.contracts.network.switch import Switch
from trivet.network.controllers.networks import NetworkController
from trivet.network.controllers.ports import PortController
from trivet.network.controllers.sweep import Sweep
from trivet.network.holdings import Holdings
from trivet.network.node.agent import NodeAgent
from trivet.network.node.effects import NodeEffects
from trivet.network.node.metadata import MetadataService
from trivet.network.node.vteps import PREFIX, Vteps
from trivet.network.parts import Parts
from trivet.runtime.alarms import keep_alarms
from trivet.runtime.service import Service
from trivet.runtime.wiring import wire_endpoints


async def bootstrap(service: Service) -> None:
    """Open the drivers, and register endpoints, controllers and the agent."""
    runtime = service.runtime
    networks, ports = service.collection(NETWORK), service.collection(PORT)
    holdings, vteps = Holdings(runtime.store), Vteps(runtime.store)
    service.feed.add(PREFIX, vteps.take)
    effects = await _effects(service)
    metadata = MetadataService(runtime, effects.gateway, networks, ports)
    service.on_close(metadata.close)
    agent = NodeAgent(service, networks, ports, holdings, effects, vteps, metadata)
    service.agent("node", agent.run)
    for driver in effects.watches():
        service.agent(f"watch {type(driver).__name__}", partial(agent.watch, driver))
    service.controller("networks", NetworkController(service, networks, ports, holdings).run)
    service.controller("ports", PortController(service, ports, holdings).run)
    service.controller("sweep", Sweep(service, holdings).run)
    await keep_alarms(service, ALARM, RULES)
    wire_endpoints(service, Parts(runtime, networks, ports, holdings, agent))


async def _effects(service: Service) -> NodeEffects:
    runtime, names = service.runtime, service.runtime.settings.network
    switch: Switch = await runtime.driver("trivet_switch_drivers", names.switch)
    service.on_close(switch.close)
    gateway: GatewayDriver = await runtime.driver("trivet_gateway_drivers", names.gateway)
    service.on_close(gateway.close)
    dhcp: DhcpDriver = await runtime.driver("trivet_dhcp_drivers", names.dhcp)
    service.on_close(dhcp.close)
    return NodeEffects(switch, gateway, dhcp)
