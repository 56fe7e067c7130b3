"""A fake switch that forwards by rule: ask it whether a frame would get there.

It is stricter than the real one: it refuses a tap of another's name, two taps with one MAC on
a segment, and a generation that goes backwards.
"""

from __future__ import annotations

import re
from typing import ClassVar

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, INVALID, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.network.switch import Plug, Segment, Station, SwitchState
from trivet.testing.fakes.world import DamagedWorld, FakeNodeDriver, FaultConfig, Worlds

BROADCAST = "ff:ff:ff:ff:ff:ff"


class SwitchWorld(DamagedWorld):
    """The links of one node. `making` counts: a tap made anew has another number;
    `looks`: how often the state was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.segments: dict[int, Segment] = {}
        self.plugs: dict[str, Plug] = {}
        self.identities: dict[str, int] = {}
        self.stations: dict[int, tuple[Station, ...]] = {}
        self.making = 0
        self.looks = 0

    def arrives(self, source: str, mac: str) -> set[str]:
        """Where a frame that the guest at tap `source` sends to `mac` comes out: taps, and
        the tunnel addresses of other nodes."""
        plug = self.plugs.get(source)
        if plug is None or not plug.up or plug.vni not in self.segments:
            return set()
        if {plug.port, self.segments[plug.vni].network} & self.wrong.keys():
            return set()
        others = [
            p
            for p in self.plugs.values()
            if p.vni == plug.vni and p.up and p.device != source and p.port not in self.wrong
        ]
        if mac == BROADCAST:
            return {p.device for p in others} | set(self.segments[plug.vni].peers)
        stations = self.stations.get(plug.vni, ())
        return {p.device for p in others if p.mac == mac} | {
            s.vtep for s in stations if s.mac == mac and s.vtep is not None
        }

    def emerges(self, vni: int, vtep: str, mac: str) -> set[str]:
        """Where a frame to `mac` comes out that was sent to this node's tunnel at `vtep`."""
        segment = self.segments.get(vni)
        if segment is None or segment.local_vtep != vtep or segment.network in self.wrong:
            return set()
        here = [
            p for p in self.plugs.values() if p.vni == vni and p.up and p.port not in self.wrong
        ]
        return {p.device for p in here if mac in (BROADCAST, p.mac)}

    def known(self, source: str, address: str) -> str | None:
        """What the guest at tap `source` is told when it asks for an address that is known of
        somebody elsewhere."""
        stations = self.stations.get(self.plugs[source].vni, ())
        found = (s.mac for s in stations if s.vtep is not None and address in s.addresses)
        return next(found, None)

    def passes(self, source: str, mac: str, frames: int, size_bytes: int) -> int:
        """How many of so many frames at once, sent by the guest at `source` to `mac`, arrive
        before a bound lets more through."""
        targets = [p for p in self.plugs.values() if p.device in self.arrives(source, mac)]
        bounds = [self.plugs[source].qos.egress, *(t.qos.ingress for t in targets)]
        room = [(b.burst_bytes or b.bytes_per_s // 50) // size_bytes for b in bounds if b]
        return min([frames, *room]) if targets else 0


class FakeSwitch(FakeNodeDriver):
    """A switch in memory."""

    name: ClassVar[str] = "fake-switch"
    worlds: ClassVar[Worlds[SwitchWorld]] = Worlds(SwitchWorld)

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        super().__init__(context, config)
        self.damaged = self.world = self.worlds.at(context.state_dir)

    async def ensure_segment(self, segment: Segment) -> None:
        """Make the segment as asked."""
        self.faults.check("ensure_segment")
        present = self.world.segments.get(segment.vni)
        if present and present.network == segment.network:
            _forward_only(present.generation, segment.generation, f"segment {segment.vni}")
        self.world.segments[segment.vni] = segment
        self.world.wrong.pop(segment.network, None)
        if segment.local_vtep is None:
            self.world.stations.pop(segment.vni, None)

    async def remove_segment(self, vni: int) -> None:
        """Remove it with all that is plugged there."""
        self.faults.check("remove_segment")
        segment = self.world.segments.pop(vni, None)
        if segment is not None:
            self.world.wrong.pop(segment.network, None)
        self.world.stations.pop(vni, None)
        for device in [p.device for p in self.world.plugs.values() if p.vni == vni]:
            await self.remove_plug(device)

    async def ensure_plug(self, plug: Plug) -> None:
        """Make the tap as asked; one that is there stays the same one."""
        self.faults.check("ensure_plug")
        self._check_device(plug.device)
        if plug.vni not in self.world.segments:
            raise Refused(NOT_FOUND, f"segment {plug.vni} is not on this node")
        for other in self.world.plugs.values():
            # The MAC first: it is another's in nearly all of what may be very many.
            if other.mac == plug.mac and other.vni == plug.vni and other.device != plug.device:
                raise Refused(CONFLICT, f"{other.device} has the MAC {plug.mac} already")
        present = self.world.plugs.get(plug.device)
        if present and present.port == plug.port:
            _forward_only(present.generation, plug.generation, plug.device)
        if present is None:
            self.world.making += 1
            self.world.identities[plug.device] = self.world.making
        self.world.plugs[plug.device] = plug
        self.world.wrong.pop(plug.port, None)

    async def remove_plug(self, device: str) -> None:
        """Remove the tap."""
        self.faults.check("remove_plug")
        self._check_device(device)
        plug = self.world.plugs.pop(device, None)
        if plug is not None:
            self.world.wrong.pop(plug.port, None)
        self.world.identities.pop(device, None)

    async def set_stations(self, vni: int, stations: tuple[Station, ...]) -> None:
        """Make exactly these known."""
        self.faults.check("set_stations")
        segment = self.world.segments.get(vni)
        if segment is None:
            raise Refused(NOT_FOUND, f"segment {vni} is not on this node")
        if segment.local_vtep is None and stations:
            raise Refused(INVALID, f"segment {vni} has no tunnel", hint="give local_vtep")
        self.world.stations[vni] = stations

    async def state(self) -> SwitchState:
        """What is on the node."""
        self.faults.check("state")
        self.world.looks += 1
        return SwitchState(
            segments=tuple(self.world.segments[vni] for vni in sorted(self.world.segments)),
            plugs=tuple(self.world.plugs[device] for device in sorted(self.world.plugs)),
        )

    def _check_device(self, device: str) -> None:
        if re.fullmatch(rf"{self.prefix}p[0-9a-f]{{10}}", device) is None:
            raise Refused(INVALID, f"{device} is not a tap of ours")


def _forward_only(present: int, wanted: int, what: str) -> None:
    if wanted < present:
        raise Refused(CONFLICT, f"{what} is at generation {present}, {wanted} was asked")


@hookimpl
def trivet_switch_drivers() -> list[type[FakeSwitch]]:
    """Register the fake."""
    return [FakeSwitch]
