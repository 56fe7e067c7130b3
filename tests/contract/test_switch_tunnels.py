"""Switch drivers on two nodes, through the suite for tunnels."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.network.switch import Switch
from trivet.plugins.network.linux_bridge import LinuxBridge, LinuxBridgeConfig
from trivet.testing.fakes.switch import FakeSwitch
from trivet.testing.fakes.world import FaultConfig
from trivet.testing.suites.node_pair import NodePair, Placed
from trivet.testing.suites.switch_tunnels import Place, TunnelSuite

UNDERLAYS = {"v4": ("192.0.2.1", "192.0.2.2"), "v6": ("2001:db8::1", "2001:db8::2")}


def context(folder: Path, node: int) -> DriverContext:
    place = folder / f"n{node}"
    return DriverContext(f"n{node}", place, place)


class FakePair:
    """Two fake switches whose tunnels lead to each other."""

    def __init__(self, folder: Path) -> None:
        self.vteps = UNDERLAYS["v4"]
        self.switches = [FakeSwitch(context(folder, node), FaultConfig()) for node in (0, 1)]
        self.drivers = cast(tuple[Switch, Switch], tuple(self.switches))
        self._whole = True

    async def reaches(self, source: Place, target: Place, mac: str, size_bytes: int = 64) -> bool:
        here, there = (self.switches[place[0]].world for place in (source, target))
        arrived = here.arrives(source[1], mac)
        if source[0] == target[0]:
            return target[1] in arrived
        vni = here.plugs[source[1]].vni if source[1] in here.plugs else 0
        sent = self._whole and self.vteps[target[0]] in arrived
        return sent and target[1] in there.emerges(vni, self.vteps[target[0]], mac)

    async def answer(self, source: Place, address: str) -> str | None:
        return self.switches[source[0]].world.known(source[1], address)

    async def leave(self, place: Place) -> None:
        pass

    async def cut(self) -> None:
        self._whole = False

    async def empty_tables(self, node: int, vni: int) -> None:
        world = self.switches[node].world
        world.stations.pop(vni)
        world.segments[vni] = world.segments[vni].model_copy(update={"peers": ()})


class TestFakeTunnels(TunnelSuite):
    @pytest.fixture
    def pair(self, tmp_path: Path) -> FakePair:
        return FakePair(tmp_path)


@pytest.mark.root
class TestLinuxBridgeTunnels(TunnelSuite):
    @pytest.fixture(params=list(UNDERLAYS.values()), ids=list(UNDERLAYS))
    async def pair(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NodePair]:
        with NodePair(request.param) as pair:
            made: list[Any] = []
            for node in (0, 1):
                config = LinuxBridgeConfig(filtering="native")
                made.append(Placed(LinuxBridge(context(tmp_path, node), config), pair, node))
            for driver in made:
                await driver.open()
            pair.drivers = cast(tuple[Switch, Switch], tuple(made))
            yield pair
            for driver in made:
                await driver.close()
