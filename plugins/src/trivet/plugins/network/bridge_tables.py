"""What the bridges and tunnels of the switch know: which MAC is where, which address has it.

Nothing is learnt, so every entry here was put in, and the tables are made exactly what is
asked: entries that are not asked for are taken out.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.plugins.network.netlink import FdbEntry, Link, Netlink

ZERO_MAC = "00:00:00:00:00:00"
STATIC = 64
# Entries of the bridge's table (NTF_MASTER, static) and of the tunnel's own (NTF_SELF,
# permanent). A *bridge* entry that is permanent would mean "this host" and swallow frames.
IN_BRIDGE = {"flags": 4, "state": STATIC}
IN_TUNNEL = {"flags": 2, "state": 192}


class BridgeTables:
    """Forwarding and neighbour entries, over one netlink socket."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def peers(self, tunnel: Link) -> set[str]:
        """The tunnel addresses that get what is for everybody."""
        entries = await self._netlink.fdb(tunnel.index)
        return {e.dst for e in entries if e.own and e.mac == ZERO_MAC and e.dst}

    async def set_peers(self, tunnel: Link, wanted: set[str]) -> None:
        """Make exactly these the peers."""
        present = await self.peers(tunnel)
        for peer in present - wanted:
            await self._netlink.change_fdb("del", tunnel.index, ZERO_MAC, dst=peer, **IN_TUNNEL)
        for peer in sorted(wanted - present):
            await self._netlink.change_fdb("append", tunnel.index, ZERO_MAC, dst=peer, **IN_TUNNEL)

    async def set_stations(self, tunnel: Link, wanted: Mapping[str, str]) -> None:
        """Make exactly these MACs live behind the tunnel, each at its tunnel address."""
        entries = await self._netlink.fdb(tunnel.index)
        present = {e.mac: e.dst for e in entries if e.own and e.dst and e.mac != ZERO_MAC}
        for mac, vtep in present.items():
            if wanted.get(mac) != vtep:
                await self._netlink.change_fdb("del", tunnel.index, mac, dst=vtep, **IN_TUNNEL)
        for mac in pinned(entries) - wanted.keys():
            await self._netlink.change_fdb("del", tunnel.index, mac, flags=4)
        for mac, vtep in wanted.items():
            if present.get(mac) != vtep:
                await self._netlink.change_fdb("add", tunnel.index, mac, dst=vtep, **IN_TUNNEL)
            await self._netlink.change_fdb("replace", tunnel.index, mac, **IN_BRIDGE)

    async def set_neighbours(self, bridge: Link, wanted: Mapping[str, str]) -> None:
        """Make exactly these addresses answered here, each with its MAC."""
        present = await self._netlink.neighbours(bridge.index)
        for address, mac in present.items():
            if address not in wanted:
                await self._netlink.change_neighbour("del", bridge.index, address, mac)
        for address, mac in wanted.items():
            if present.get(address) != mac:
                await self._netlink.change_neighbour("replace", bridge.index, address, mac)

    async def pin(self, tap: Link, mac: str) -> None:
        """Make this the one MAC that lives at the tap."""
        there = pinned(await self._netlink.fdb(tap.index))
        for old in there - {mac}:
            await self._netlink.change_fdb("del", tap.index, old, flags=4)
        if mac not in there:
            # It may have been behind the tunnel until now: a guest that moved here.
            await self._netlink.change_fdb("replace", tap.index, mac, **IN_BRIDGE)


def pinned(entries: tuple[FdbEntry, ...]) -> set[str]:
    """The MACs that a bridge has for a link by a static entry."""
    return {e.mac for e in entries if not e.own and e.state == STATIC}
