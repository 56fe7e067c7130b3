"""Applies the node's plan through its drivers, and looks at what is there.

One action that fails does not keep the others from being tried: what went wrong is kept by what
it concerns, a network's VNI or a tap's name, and told in the status of the ports there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.network.drift import Watches
from trivet.contracts.network.gateway_driver import DhcpDriver, DhcpNetwork, GatewayDriver
from trivet.contracts.network.switch import Station, Switch
from trivet.network.domain.node_plan import (
    Action,
    EnsureDhcp,
    EnsureLeg,
    EnsurePlug,
    EnsureSegment,
    Observed,
    RemoveDhcp,
    RemoveLeg,
    RemovePlug,
    RemoveSegment,
    SetStations,
)

log = logging.getLogger(__name__)

Problems = dict[str, str]
OF_NETWORKS = (EnsureSegment, EnsureLeg, RemoveLeg, RemoveSegment)
"""What changes segments and gateways: the rest concerns taps, and what is known of guests."""


class NodeEffects:
    """The three drivers of a node."""

    def __init__(self, switch: Switch, gateway: GatewayDriver, dhcp: DhcpDriver) -> None:
        self.switch = switch
        self.gateway = gateway
        self.dhcp = dhcp
        self.gateways_anew: set[ResourceId] = set()
        self._asked_dhcp: dict[ResourceId, DhcpNetwork] = {}
        self._asked_stations: dict[int, tuple[Station, ...]] = {}

    async def observe(self, *, closely: bool = False) -> Observed:
        """What is on the node now; `closely`: with what only a closer look shows."""
        state = await self.switch.state()
        return Observed(
            segments=state.segments,
            plugs=state.plugs,
            legs=await self.gateway.legs(),
            served=await self.dhcp.served(),
            dhcp=dict(self._asked_dhcp),
            stations=dict(self._asked_stations),
            drift=await self._drift() if closely else {},
        )

    async def observe_after(self, actions: Sequence[Action], before: Observed) -> Observed:
        """What is on the node after `actions`: those parts of it that they may have changed are
        looked at again, the others are as they were `before`, a moment ago."""
        if any(isinstance(action, OF_NETWORKS) for action in actions):
            return await self.observe()
        state = await self.switch.state()
        return Observed(
            segments=state.segments,
            plugs=state.plugs,
            legs=before.legs,
            served=await self.dhcp.served(),
            dhcp=dict(self._asked_dhcp),
            stations=dict(self._asked_stations),
        )

    async def _drift(self) -> dict[ResourceId, str]:
        found: dict[ResourceId, list[str]] = {}
        for drift in (*await self.switch.drift(), *await self.gateway.drift()):
            found.setdefault(drift.concerns, []).append(drift.what)
        # Entries of tables are not read back: they are put in again.
        self._asked_stations.clear()
        return {concerns: "; ".join(what) for concerns, what in found.items()}

    def watches(self) -> tuple[Watches, ...]:
        """The drivers that are told of changes."""
        return tuple(d for d in (self.switch, self.gateway, self.dhcp) if isinstance(d, Watches))

    async def apply(self, actions: Iterable[Action]) -> Problems:
        """Do all of them, in order; what failed, by what it concerns."""
        problems: Problems = {}
        for action in actions:
            try:
                await self._do(action)
            except TrivetError as error:
                log.warning("%s: %s", action, error)
                problems.setdefault(_concerns(action), error.detail)
        return problems

    async def _do(self, action: Action) -> None:
        match action:
            case EnsureSegment(segment):
                # A tunnel that is made anew has lost its stations.
                self._asked_stations.pop(segment.vni, None)
                await self.switch.ensure_segment(segment)
            case SetStations(vni, stations):
                await self.switch.set_stations(vni, stations)
                self._asked_stations[vni] = stations
            case EnsureLeg(leg):
                self.gateways_anew.add(leg.network)
                await self.gateway.ensure_leg(leg)
            case EnsureDhcp(network):
                await self.dhcp.ensure(network)
                self._asked_dhcp[network.network] = network
            case EnsurePlug(plug):
                await self.switch.ensure_plug(plug)
            case RemovePlug(device):
                await self.switch.remove_plug(device)
            case RemoveDhcp(network_id):
                await self.dhcp.remove(network_id)
                self._asked_dhcp.pop(network_id, None)
            case RemoveLeg(network_id):
                await self.gateway.remove_leg(network_id)
            case RemoveSegment(vni):
                await self.switch.remove_segment(vni)
                self._asked_stations.pop(vni, None)


def _concerns(action: Action) -> str:
    """A tap's name, or a network's id."""
    match action:
        case EnsurePlug(plug):
            return plug.device
        case RemovePlug(device):
            return device
        case EnsureSegment(segment):
            return segment.network
        case EnsureLeg(leg):
            return leg.network
        case EnsureDhcp(network):
            return network.network
        case RemoveDhcp(id_) | RemoveLeg(id_):
            return id_
        case SetStations(vni, _) | RemoveSegment(vni):
            return f"vni {vni}"
