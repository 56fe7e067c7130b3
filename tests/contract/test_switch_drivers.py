"""Every switch driver through its suite."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.plugins.network.linux_bridge import LinuxBridge, LinuxBridgeConfig
from trivet.plugins.network.tap import make_tap
from trivet.testing.fakes.switch import FakeSwitch
from trivet.testing.fakes.world import FaultConfig
from trivet.testing.suites.guests import TapWire, scratch_namespace
from trivet.testing.suites.switch import Damage, SwitchSuite, plug, segment


def context(folder: Path) -> DriverContext:
    return DriverContext("n1", folder, folder)


class FakeWire:
    def __init__(self, driver: FakeSwitch) -> None:
        self.world = driver.world

    async def reaches(self, source: str, target: str, mac: str) -> bool:
        return target in self.world.arrives(source, mac)

    async def identity(self, device: str) -> object:
        return self.world.identities[device]

    async def passes(self, source: str, target: str, mac: str) -> int:
        return self.world.passes(source, mac, 200, 1000)

    async def damage(self, damage: Damage, vni: int, device: str) -> None:
        world = self.world
        plug, segment = world.plugs[device], world.segments[vni]
        match damage:
            case Damage.BRIDGE_GONE:
                del world.segments[vni]
                for name, each in world.plugs.items():
                    world.plugs[name] = each.model_copy(update={"vni": 0})
            case Damage.TUNNEL_GONE:
                gone = {"local_vtep": None, "peers": ()}
                world.segments[vni] = segment.model_copy(update=gone)
            case Damage.TAP_GONE:
                del world.plugs[device]
            case Damage.TAP_DOWN:
                world.plugs[device] = plug.model_copy(update={"up": False})
            case Damage.TAP_ELSEWHERE:
                world.plugs[device] = plug.model_copy(update={"vni": 0})
            case Damage.BRIDGE_DOWN | Damage.TUNNEL_DOWN:
                world.damage(segment.network, damage.value)
            case Damage.MAC_GONE | Damage.BOUNDS_GONE:
                world.damage(plug.port, damage.value)
        world.told.set()


class TestFakeSwitch(SwitchSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FakeSwitch:
        return FakeSwitch(context(tmp_path), FaultConfig())

    @pytest.fixture
    def wire(self, driver: FakeSwitch) -> FakeWire:
        return FakeWire(driver)


@pytest.mark.root
class TestLinuxBridge(SwitchSuite):
    @pytest.fixture
    def namespace(self) -> Iterator[str]:
        with scratch_namespace() as name:
            yield name

    @pytest.fixture
    async def driver(self, namespace: str, tmp_path: Path) -> AsyncIterator[LinuxBridge]:
        # No firewall here: frames must not depend on what br_netfilter is set to.
        driver = LinuxBridge(context(tmp_path), LinuxBridgeConfig(filtering="native"))
        await driver.open()
        yield driver
        await driver.close()

    @pytest.fixture
    def wire(self, driver: LinuxBridge) -> Iterator[TapWire]:
        wire = TapWire()
        yield wire
        wire.close()

    async def test_a_tap_without_its_record_is_seen(self, driver: LinuxBridge) -> None:
        """Its making was cut short: it shows as nobody's, so it can be removed or completed."""
        make_tap("tvp0000000001")
        (found,) = (await driver.state()).plugs
        assert (found.port, found.generation, found.vni) == ("", 0, 0)
        await driver.ensure_segment(segment())
        await driver.ensure_plug(plug(1))
        assert (await driver.state()).plugs == (plug(1),)

    async def test_the_host_does_not_answer_guests(self, driver: LinuxBridge) -> None:
        """No IPv6 on the bridge, no ARP, nothing routed back: the host is not on the segment."""
        await driver.ensure_segment(segment())
        read = Path("/proc/sys/net")
        assert (read / "ipv6/conf/tvbr100/disable_ipv6").read_text().strip() == "1"
        assert (read / "ipv4/conf/tvbr100/arp_ignore").read_text().strip() == "8"
        assert (read / "ipv4/conf/tvbr100/rp_filter").read_text().strip() == "1"
