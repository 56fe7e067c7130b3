"""The law for switch drivers as tests: bind `driver` and `wire` fixtures and inherit.

`driver` is an open driver with the prefix `tv` on an empty node; `wire` plays the guests.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Protocol

import pytest

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.network.drift import Watches
from trivet.contracts.network.switch import Plug, Segment, Station, Switch

BROADCAST = "ff:ff:ff:ff:ff:ff"


class Damage(StrEnum):
    """What somebody does to a switch behind its driver's back."""

    BRIDGE_GONE = "bridge gone"
    BRIDGE_DOWN = "bridge down"
    TUNNEL_GONE = "tunnel gone"
    TUNNEL_DOWN = "tunnel down"
    TAP_GONE = "tap gone"
    TAP_DOWN = "tap down"
    TAP_ELSEWHERE = "tap on no bridge"
    MAC_GONE = "MAC's entry gone"
    BOUNDS_GONE = "bounds gone"


class Wire(Protocol):
    """What a test can do at the guests' end of the taps."""

    async def reaches(self, source: str, target: str, mac: str) -> bool:
        """Whether a frame to `mac`, sent by the guest at tap `source`, comes to `target`."""
        ...

    async def identity(self, device: str) -> object:
        """Something that is another when the tap was made anew."""
        ...

    async def passes(self, source: str, target: str, mac: str) -> int:
        """How many of 200 frames of 1000 bytes, sent at once to `mac`, come to `target`."""
        ...

    async def damage(self, damage: Damage, vni: int, device: str) -> None:
        """Do that to the segment, or to the tap on it."""
        ...


def segment(vni: int = 100, **changes: object) -> Segment:
    """A segment of network `network-<vni>`."""
    plain = {"network": f"network-{vni:016x}", "vni": vni, "mtu": 1450, "generation": 1}
    return Segment.model_validate({**plain, **changes})


def plug(number: int, vni: int = 100, **changes: object) -> Plug:
    """The plug of port `number`, up."""
    plain = {
        "port": f"port-{number:016x}",
        "vni": vni,
        "device": f"tvp{number:010x}",
        "mac": f"02:00:00:00:00:{number:02x}",
        "addresses": (f"10.9.0.{number}", f"fd00:9::{number:x}"),
        "mtu": 1450,
        "generation": 1,
        "up": True,
    }
    return Plug.model_validate({**plain, **changes})


class SwitchSuite:
    """What holds for every switch driver."""

    async def test_an_empty_node_has_nothing(self, driver: Switch) -> None:
        """No segments, no plugs."""
        state = await driver.state()
        assert state.segments == ()
        assert state.plugs == ()

    async def test_what_was_asked_is_read_back(self, driver: Switch) -> None:
        """Every field of segments and plugs comes back from the node itself."""
        asked = segment(local_vtep="127.0.0.1", peers=("127.0.0.2", "127.0.0.3"), generation=7)
        await driver.ensure_segment(asked)
        await driver.ensure_plug(plug(1, generation=3))
        await driver.ensure_plug(plug(2, up=False, addresses=()))
        state = await driver.state()
        assert state.segments == (asked,)
        assert state.plugs == (plug(1, generation=3), plug(2, up=False, addresses=()))

    async def test_ensuring_twice_equals_once(self, driver: Switch, wire: Wire) -> None:
        """A repeated call changes nothing and keeps the same tap."""
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        before, identity = await driver.state(), await wire.identity("tvp0000000001")
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        assert await driver.state() == before
        assert await wire.identity("tvp0000000001") == identity

    async def test_changes_keep_the_guest_connected(self, driver: Switch, wire: Wire) -> None:
        """MTU, addresses, MAC, up and the segment's own changes keep the tap."""
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        identity = await wire.identity("tvp0000000001")
        await driver.ensure_segment(segment(mtu=1400, local_vtep="127.0.0.1", generation=2))
        changed = plug(
            1, mtu=1400, addresses=("10.9.0.77",), mac="02:00:00:00:00:77", up=False, generation=2
        )
        await driver.ensure_plug(changed)
        state = await driver.state()
        assert state.plugs == (changed,)
        assert state.segments[0].mtu == 1400
        assert await wire.identity("tvp0000000001") == identity

    async def test_there_and_back_restores(self, driver: Switch) -> None:
        """A change and its reverse leave the node as it was."""
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        before = await driver.state()
        await driver.ensure_segment(segment(local_vtep="127.0.0.1", peers=("127.0.0.2",)))
        await driver.ensure_plug(plug(2))
        await driver.ensure_segment(segment())
        await driver.remove_plug("tvp0000000002")
        assert await driver.state() == before

    async def test_frames_get_where_they_belong(self, driver: Switch, wire: Wire) -> None:
        """Unicast to the MAC's tap alone, broadcast within the segment, nothing across."""
        await driver.ensure_segment(segment(100))
        await driver.ensure_segment(segment(200))
        for number, vni in ((1, 100), (2, 100), (3, 100), (4, 200)):
            await driver.ensure_plug(plug(number, vni))
        one, two, three, four = (f"tvp{n:010x}" for n in (1, 2, 3, 4))
        assert await wire.reaches(one, two, "02:00:00:00:00:02")
        assert await wire.reaches(one, two, BROADCAST)
        assert await wire.reaches(one, three, BROADCAST)
        assert not await wire.reaches(one, three, "02:00:00:00:00:02")
        assert not await wire.reaches(one, four, BROADCAST)
        assert not await wire.reaches(one, two, "02:00:00:00:00:99")

    async def test_a_plug_that_is_down_passes_nothing(self, driver: Switch, wire: Wire) -> None:
        """Neither in nor out, until it is up."""
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        await driver.ensure_plug(plug(2, up=False))
        one, two = "tvp0000000001", "tvp0000000002"
        assert not await wire.reaches(one, two, BROADCAST)
        assert not await wire.reaches(two, one, BROADCAST)
        await driver.ensure_plug(plug(2))
        assert await wire.reaches(one, two, BROADCAST)
        assert await wire.reaches(two, one, "02:00:00:00:00:01")

    async def test_a_plug_needs_its_segment(self, driver: Switch) -> None:
        """`Refused(NOT_FOUND)`, and nothing is left."""
        with pytest.raises(Refused) as caught:
            await driver.ensure_plug(plug(1))
        assert caught.value.code is NOT_FOUND
        assert (await driver.state()).plugs == ()

    async def test_a_name_that_is_not_ours_is_refused(self, driver: Switch) -> None:
        """No link without the prefix is made or removed."""
        await driver.ensure_segment(segment())
        with pytest.raises(Refused):
            await driver.ensure_plug(plug(1, device="eth0"))
        with pytest.raises(Refused):
            await driver.remove_plug("lo")

    async def test_a_plug_moves_between_segments(self, driver: Switch, wire: Wire) -> None:
        """The tap follows its port to another network."""
        await driver.ensure_segment(segment(100))
        await driver.ensure_segment(segment(200))
        await driver.ensure_plug(plug(1, 100))
        await driver.ensure_plug(plug(2, 100))
        await driver.ensure_plug(plug(1, 200))
        assert not await wire.reaches("tvp0000000001", "tvp0000000002", BROADCAST)
        assert [p.vni for p in (await driver.state()).plugs] == [200, 100]

    async def test_stations_are_replaced(self, driver: Switch) -> None:
        """Any list of stations can follow any other; a segment must be there."""
        await driver.ensure_segment(segment(local_vtep="127.0.0.1", peers=("127.0.0.2",)))
        station = Station(
            mac="02:00:00:00:01:01", vtep="127.0.0.2", addresses=("10.9.0.101", "fd00:9::101")
        )
        moved = station.model_copy(update={"vtep": "127.0.0.3"})
        for stations in ((station,), (station,), (moved,), ()):
            await driver.set_stations(100, stations)
        with pytest.raises(Refused) as caught:
            await driver.set_stations(999, (station,))
        assert caught.value.code is NOT_FOUND

    async def test_removing_is_repeatable(self, driver: Switch) -> None:
        """Absence is normal; a segment goes with what is plugged there."""
        await driver.ensure_segment(segment(100, local_vtep="127.0.0.1"))
        await driver.ensure_segment(segment(200))
        await driver.ensure_plug(plug(1, 100))
        await driver.ensure_plug(plug(2, 200))
        for _ in range(2):
            await driver.remove_segment(100)
            await driver.remove_plug("tvp0000000009")
        state = await driver.state()
        assert [s.vni for s in state.segments] == [200]
        assert [p.port for p in state.plugs] == [ResourceId(f"port-{2:016x}")]

    async def test_bounds_on_traffic_hold(self, driver: Switch, wire: Wire) -> None:
        """In each direction for itself; changed and taken off without a new tap; told back."""
        few, many = {"bytes_per_s": 1000, "burst_bytes": 20_000}, {"bytes_per_s": 10**9}
        await driver.ensure_segment(segment())
        one, two = plug(1), plug(2)
        for each in (one, two):
            await driver.ensure_plug(each)
        there, back = (one.device, two.device, two.mac), (two.device, one.device, one.mac)
        assert await wire.passes(*there) == 200
        identity = await wire.identity(two.device)
        for qos, forth_least, forth_most, back_least, back_most in (
            ({"ingress": few}, 5, 60, 200, 200),
            ({"egress": few}, 200, 200, 5, 60),
            ({"ingress": many, "egress": many}, 200, 200, 200, 200),
            ({"ingress": few, "egress": few}, 5, 60, 5, 60),
            ({}, 200, 200, 200, 200),
        ):
            bounded = plug(2, qos=qos)
            await driver.ensure_plug(bounded)
            assert (await driver.state()).plugs == (one, bounded)
            assert await driver.drift() == ()
            assert forth_least <= await wire.passes(*there) <= forth_most, qos
            assert back_least <= await wire.passes(*back) <= back_most, qos
        assert await wire.identity(two.device) == identity

    @pytest.mark.parametrize("damage", list(Damage))
    async def test_damage_is_seen_and_mended(
        self, driver: Switch, wire: Wire, damage: Damage
    ) -> None:
        """By `state` or by `drift`, and told at once; the same calls that make a thing mend it,
        and the guest stays connected unless its tap is gone."""
        asked = segment(local_vtep="127.0.0.1", peers=("127.0.0.2",))
        rate = {"bytes_per_s": 10**8}
        plugs = (plug(1), plug(2, qos={"ingress": rate, "egress": rate}))
        await driver.ensure_segment(asked)
        for each in plugs:
            await driver.ensure_plug(each)
        before, identity = await driver.state(), await wire.identity(plugs[1].device)
        assert await driver.drift() == ()
        told = asyncio.ensure_future(driver.changed()) if isinstance(driver, Watches) else None
        await wire.damage(damage, 100, plugs[1].device)
        assert await driver.state() != before or await driver.drift()
        if told is not None and damage not in (Damage.MAC_GONE, Damage.BOUNDS_GONE):
            await asyncio.wait_for(told, 5)
        await driver.ensure_segment(asked)
        for each in plugs:
            await driver.ensure_plug(each)
        assert await driver.state() == before
        assert await driver.drift() == ()
        if damage is not Damage.TAP_GONE:
            assert await wire.identity(plugs[1].device) == identity
            assert await wire.reaches(plugs[0].device, plugs[1].device, plugs[1].mac)
        if told is not None:
            told.cancel()
