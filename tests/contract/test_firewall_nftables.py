"""The nftables firewall keeps the law of firewalls: real frames over a real bridge.

Two scratch namespaces: one has the bridge and the rules, the other the guests' ends of the
links, from which frames are sent and at which they are awaited.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import NFCTSocket

from trivet.contracts.driver import DriverContext
from trivet.contracts.security.firewall import Ruleset
from trivet.plugins import kernel_probe
from trivet.plugins.security.nftables_backend import NftablesConfig, NftablesFirewall
from trivet.testing.packets import BROADCAST, Packet, Shape, encode
from trivet.testing.suites.firewall import BOB, DEVICES, HELLO, RULES, VNI, FirewallSuite

pytestmark = pytest.mark.root

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
PATIENCE_S = 3.0
IMPATIENCE_S = 0.15
T = TypeVar("T")


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def _within_netns(name: str, make: Callable[[], T]) -> T:
    """What `make` returns when run by a thread inside a network namespace."""
    made: list[T] = []

    def enter() -> None:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            assert ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) == 0
        finally:
            os.close(fd)
        made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


class RealWire:
    """The bridge `tvbr100` with four links, made of veth pairs."""

    def __init__(self, bridge_side: str, guest_side: str) -> None:
        self.bridge_side, self._guest_side = bridge_side, guest_side
        self._tokens = count(1)
        self._sockets: dict[str, socket.socket] = {}

    def build(self) -> None:
        for name in (self.bridge_side, self._guest_side):
            _run("ip", "netns", "add", name)
        inside = ("ip", "-n", self.bridge_side)
        bridge = f"tvbr{VNI}"
        flags = ("nf_call_iptables", "1", "nf_call_ip6tables", "1", "mcast_snooping", "0")
        _run(*inside, "link", "add", bridge, "type", "bridge", *flags)
        for netns in (self.bridge_side, self._guest_side):
            quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6;"
            quiet += "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6;"
            quiet += "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $f; done"
            _run("ip", "netns", "exec", netns, "sh", "-c", quiet)
        _run(*inside, "link", "set", bridge, "up")
        for device in DEVICES:
            peer = ("peer", "name", f"g{device}", "netns", self._guest_side)
            _run(*inside, "link", "add", device, "type", "veth", *peer)
            _run(*inside, "link", "set", device, "master", bridge, "up")
            _run("ip", "-n", self._guest_side, "link", "set", f"g{device}", "up")
            self._sockets[device] = _within_netns(self._guest_side, partial(_raw, f"g{device}"))

    def destroy(self) -> None:
        for opened in self._sockets.values():
            opened.close()
        for name in (self.bridge_side, self._guest_side):
            _run("ip", "netns", "del", name, check=False)

    def hears(self, address: str, device: str) -> bool:
        """Whether an ARP frame with that address comes out at the device's other end."""
        sought = socket.inet_aton(address)
        while select.select([self._sockets[device]], [], [], IMPATIENCE_S)[0]:
            frame = self._sockets[device].recv(4096)
            if frame[12:14] == b"\x08\x06" and frame[28:32] == sought:
                return True
        return False

    async def passes(self, packet: Packet, *, expected: bool) -> bool:
        token = b"tv" + next(self._tokens).to_bytes(2, "big")
        receiving = self._sockets[packet.receiver]
        self._sockets[packet.sender].send(encode(packet, token))
        while select.select([receiving], [], [], PATIENCE_S if expected else IMPATIENCE_S)[0]:
            if token in receiving.recv(4096):
                return True
        return False


def _forget_connections() -> None:
    with NFCTSocket() as conntrack:
        conntrack.flush()


def _raw(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((device, 0))
    return opened


@pytest.fixture(scope="module")
def bench() -> Iterator[RealWire]:
    wire = RealWire(f"tvfw{os.getpid()}a", f"tvfw{os.getpid()}b")
    try:
        wire.build()
        yield wire
    finally:
        wire.destroy()


@pytest.fixture
async def driver(bench: RealWire, tmp_path: Path) -> AsyncIterator[NftablesFirewall]:
    driver = _made(bench, tmp_path)
    await driver.open()
    yield driver
    await driver.clear()
    _within_netns(bench.bridge_side, _forget_connections)


def _made(bench: RealWire, folder: Path) -> NftablesFirewall:
    context = DriverContext("n1", folder, folder)
    return NftablesFirewall(context, NftablesConfig(netns=bench.bridge_side))


@pytest.fixture
def wire(bench: RealWire) -> RealWire:
    return bench


class TestNftablesFirewall(FirewallSuite):
    async def test_a_restart_is_not_felt(
        self, bench: RealWire, driver: NftablesFirewall, wire: RealWire, tmp_path: Path
    ) -> None:
        await driver.apply(RULES)
        assert await wire.passes(HELLO, expected=True)
        assert await wire.passes(HELLO.reply(), expected=True)
        again = _made(bench, tmp_path)
        await again.open()
        assert await again.state() == await driver.state()
        await again.apply(Ruleset(ports=tuple(reversed(RULES.ports)), groups=RULES.groups))
        assert await wire.passes(HELLO.reply("PA"), expected=True)

    @pytest.mark.parametrize(
        "damage",
        [
            "flush table bridge tv_firewall",
            "flush table inet tv_firewall",
            "delete table inet tv_firewall",
            "flush chain bridge tv_firewall prerouting",
            "insert rule bridge tv_firewall prerouting accept",
            "flush map bridge tv_firewall sources",
        ],
    )
    async def test_damage_is_seen_and_repaired(
        self, bench: RealWire, driver: NftablesFirewall, damage: str
    ) -> None:
        await driver.apply(RULES)
        whole = await driver.state()
        _run("ip", "netns", "exec", bench.bridge_side, "nft", *damage.split())
        assert (await driver.state()).ports == {}
        await driver.apply(RULES)
        assert await driver.state() == whole

    async def test_a_bridge_that_hides_its_packets_passes_nothing(
        self, bench: RealWire, driver: NftablesFirewall, wire: RealWire
    ) -> None:
        if await kernel_probe.native_bridge_conntrack():
            pytest.skip("this kernel's bridge tracks connections itself: nothing can be hidden")
        await driver.apply(RULES)
        link = ("ip", "-n", bench.bridge_side, "link", "set", f"tvbr{VNI}", "type", "bridge")
        _run(*link, "nf_call_iptables", "0")
        try:
            assert not await wire.passes(HELLO, expected=False)
        finally:
            _run(*link, "nf_call_iptables", "1")
        assert await wire.passes(HELLO, expected=True)

    async def test_guests_and_the_host_do_not_talk_over_the_bridge(
        self, bench: RealWire, driver: NftablesFirewall, wire: RealWire
    ) -> None:
        await driver.apply(RULES)
        inside = ("ip", "-n", bench.bridge_side, "address")
        address = ("10.0.0.200/24", "dev", f"tvbr{VNI}")
        _run(*inside, "add", *address)
        try:
            asked = replace(HELLO, shape=Shape.ARP, dst="10.0.0.200", dst_mac=BROADCAST)
            await wire.passes(asked, expected=True)
            assert not wire.hears("10.0.0.200", BOB)
        finally:
            _run(*inside, "del", *address)
