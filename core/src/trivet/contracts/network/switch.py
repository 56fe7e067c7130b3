"""The law for switch drivers: one node's part of the distributed switch."""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.drift import Drift
from trivet.contracts.network.port import PortQos


class Segment(Model):
    """A network's part on this node. `peers` are the tunnel addresses (VTEPs) of the other
    nodes that have members."""

    network: ResourceId
    vni: int
    mtu: int
    generation: int
    local_vtep: str | None = None
    peers: tuple[str, ...] = ()


class Station(Model):
    """Somebody on a segment that is tunnelled. `vtep`: the tunnel address of the node where
    frames for it go; None: it is here. Whoever asks for one of its `addresses` (ARP) is
    answered without asking the other nodes, as far as the driver can."""

    mac: str
    vtep: str | None
    addresses: tuple[str, ...] = ()


class Plug(Model):
    """A tap on a segment. `up` false: the tap is there and passes nothing. `qos` is changed
    without a cut; a driver that can't bound traffic raises `Refused(NOT_SUPPORTED)`."""

    port: ResourceId
    vni: int
    device: str
    mac: str
    addresses: tuple[str, ...]
    mtu: int
    generation: int
    up: bool
    qos: PortQos = PortQos()


class SwitchState(Model):
    """What is on the node, read from the links themselves and the records on them."""

    segments: tuple[Segment, ...] = ()
    plugs: tuple[Plug, ...] = ()


class Switch(Driver, Protocol):
    """One node's part of the distributed switch.

    Each `ensure` makes what is asked so, whatever was there; each removal finds absence
    normal. A plug on a segment that is not there raises `Refused(NOT_FOUND)`. Only links whose
    name begins with the context's prefix are ever seen or touched.
    """

    async def ensure_segment(self, segment: Segment) -> None:
        """Make the segment (a bridge, a tunnel) as asked."""
        ...

    async def remove_segment(self, vni: int) -> None:
        """Remove a segment, its tunnel, and what is plugged there."""
        ...

    async def ensure_plug(self, plug: Plug) -> None:
        """Make the tap, on its segment, up or down as asked; keeps a guest connected."""
        ...

    async def remove_plug(self, device: str) -> None:
        """Remove the tap."""
        ...

    async def set_stations(self, vni: int, stations: tuple[Station, ...]) -> None:
        """Make exactly these known on the segment; a segment without a tunnel takes none."""
        ...

    async def state(self) -> SwitchState:
        """What is on the node. A plug whose segment is gone shows with VNI 0. What has our
        kind of name and a record of somebody else's is not ours, and not shown."""
        ...

    async def drift(self) -> tuple[Drift, ...]:
        """What of it is not as it was made, beyond what `state` shows, by network or port."""
        ...
