"""The law for switch drivers between nodes, as tests: bind a `pair` fixture and inherit.

`pair` is two empty nodes that reach each other at their tunnel addresses, each with an open
driver of the prefix `tv`, and what plays the guests there.
"""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.network.switch import Station, Switch
from trivet.testing.suites.switch import BROADCAST, plug, segment

Place = tuple[int, str]
"""A tap: the number of its node (0 or 1), and its name."""


class Pair(Protocol):
    """Two nodes. `drivers` act each on its own, at `vteps` their tunnels end."""

    drivers: tuple[Switch, Switch]
    vteps: tuple[str, str]

    async def reaches(self, source: Place, target: Place, mac: str, size_bytes: int = 64) -> bool:
        """Whether a frame of that size to `mac`, sent by the guest at `source`, comes to
        `target`."""
        ...

    async def answer(self, source: Place, address: str) -> str | None:
        """The MAC that the guest at `source` is told when it asks (ARP) for `address`."""
        ...

    async def leave(self, place: Place) -> None:
        """The guest at `place` is no more."""
        ...

    async def cut(self) -> None:
        """Break what is between the nodes."""
        ...

    async def empty_tables(self, node: int, vni: int) -> None:
        """Take all entries out of the tables of a segment's tunnel, behind the driver's back."""
        ...


async def join(pair: Pair, vni: int, members: tuple[tuple[int, int], ...]) -> None:
    """Make the segment on both nodes with these (node, port number), and tell each of all."""
    plugs = {node: [plug(n, vni) for at, n in members if at == node] for node in (0, 1)}
    for node, driver in enumerate(pair.drivers):
        peer = (pair.vteps[1 - node],)
        await driver.ensure_segment(segment(vni, local_vtep=pair.vteps[node], peers=peer))
        for each in plugs[node]:
            await driver.ensure_plug(each)
        stations = [
            Station(
                mac=each.mac, addresses=each.addresses, vtep=None if at == node else pair.vteps[at]
            )
            for at in (0, 1)
            for each in plugs[at]
        ]
        await driver.set_stations(vni, tuple(stations))


def tap(node: int, number: int) -> Place:
    """Where the guest of port `number` is."""
    return node, plug(number).device


class TunnelSuite:
    """What holds for every switch driver that joins nodes."""

    async def test_guests_on_two_nodes_reach_each_other(self, pair: Pair) -> None:
        """Both ways, by MAC and by broadcast, in frames as large as the MTU; nobody else is
        reached by what is not for it."""
        await join(pair, 100, ((0, 1), (1, 2), (1, 3)))
        one, two, three = tap(0, 1), tap(1, 2), tap(1, 3)
        assert await pair.reaches(one, two, plug(2).mac)
        assert await pair.reaches(two, one, plug(1).mac)
        assert await pair.reaches(one, two, plug(2).mac, size_bytes=1464)
        for target in (two, three):
            assert await pair.reaches(one, target, BROADCAST)
        assert await pair.reaches(two, one, BROADCAST)
        assert not await pair.reaches(one, three, plug(2).mac)
        assert not await pair.reaches(one, two, "02:00:00:00:00:99")

    async def test_networks_stay_apart(self, pair: Pair) -> None:
        """The same MACs and addresses on two networks; nothing crosses."""
        await join(pair, 100, ((0, 1), (1, 2)))
        await join(pair, 200, ((0, 3), (1, 4)))
        assert await pair.reaches(tap(0, 3), tap(1, 4), plug(4).mac)
        assert not await pair.reaches(tap(0, 3), tap(1, 2), BROADCAST)
        assert not await pair.reaches(tap(0, 1), tap(1, 4), plug(4).mac)

    async def test_a_guest_that_moved_is_found(self, pair: Pair) -> None:
        """From node 1 to node 0, and back."""
        await join(pair, 100, ((0, 1), (1, 2)))
        assert await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)
        await pair.leave(tap(1, 2))
        await pair.drivers[1].remove_plug(plug(2).device)
        await join(pair, 100, ((0, 1), (0, 2), (1, 3)))
        assert await pair.reaches(tap(0, 1), tap(0, 2), plug(2).mac)
        assert await pair.reaches(tap(1, 3), tap(0, 2), plug(2).mac)
        await pair.leave(tap(0, 2))
        await pair.drivers[0].remove_plug(plug(2).device)
        await join(pair, 100, ((0, 1), (1, 2), (1, 3)))
        assert await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)

    async def test_a_node_that_is_no_peer_gets_no_broadcast(self, pair: Pair) -> None:
        """What is for everybody goes to the members' nodes alone."""
        await join(pair, 100, ((0, 1), (1, 2)))
        alone = segment(100, local_vtep=pair.vteps[0], generation=2)
        await pair.drivers[0].ensure_segment(alone)
        assert (await pair.drivers[0].state()).segments == (alone,)
        assert not await pair.reaches(tap(0, 1), tap(1, 2), BROADCAST)
        assert await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)

    async def test_addresses_are_known_without_asking(self, pair: Pair) -> None:
        """ARP for a guest elsewhere is answered here, whether the other node is there or not;
        for an address that nobody is known to have, everybody is asked."""
        await join(pair, 100, ((0, 1), (1, 2)))
        await pair.cut()
        assert not await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)
        assert await pair.answer(tap(0, 1), plug(2).addresses[0]) == plug(2).mac
        assert await pair.answer(tap(0, 1), "10.9.0.99") is None

    async def test_tables_are_made_whole_again(self, pair: Pair) -> None:
        """The calls that made a segment mend it."""
        await join(pair, 100, ((0, 1), (1, 2)))
        await pair.empty_tables(0, 100)
        assert not await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)
        await join(pair, 100, ((0, 1), (1, 2)))
        assert await pair.reaches(tap(0, 1), tap(1, 2), plug(2).mac)
        assert await pair.reaches(tap(0, 1), tap(1, 2), BROADCAST)
