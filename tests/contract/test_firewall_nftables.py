"""The nftables firewall keeps the law of firewalls: real frames over a real bridge.

Two scratch namespaces: one has the bridge and the rules, the other the guests' ends of the
links, from which frames are sent and at which they are awaited.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import NFCTSocket

from trivet.contracts.driver import DriverContext
from trivet.contracts.security.firewall import Ruleset
from trivet.contracts.security.group import Rule
from trivet.plugins import kernel_probe
from trivet.plugins.security import nftables_backend
from trivet.plugins.security.nftables_backend import NftablesConfig, NftablesFirewall
from trivet.testing.packets import BROADCAST, Packet, Shape, encode
from trivet.testing.suites.firewall import BOB, DEVICES, HELLO, RULES, VNI, FirewallSuite, group
from trivet.testing.suites.firewall_rules import FirewallRulesSuite, ruleset, sent  # noqa: F401

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
        # What was flooded there in earlier tests may fill its buffer.
        while select.select([receiving], [], [], 0)[0]:
            receiving.recv(4096)
        for frame in encode(packet, token):
            self._sockets[packet.sender].send(frame)
        while select.select([receiving], [], [], PATIENCE_S if expected else IMPATIENCE_S)[0]:
            if token in receiving.recv(4096):
                return True
        return False

    async def verdicts(self, packets: Sequence[Packet], expected: Sequence[bool]) -> list[bool]:
        """What became of packets that are sent all at once, to one receiver."""
        receiving = self._sockets[packets[0].receiver]
        tokens = [b"tv" + next(self._tokens).to_bytes(2, "big") for _ in packets]
        arrived: set[bytes] = set()
        awaited = {token for token, passes in zip(tokens, expected, strict=True) if passes}
        for packet, token in zip(packets, tokens, strict=True):
            for frame in encode(packet, token):
                self._sockets[packet.sender].send(frame)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            missing = bool(awaited - arrived) and time.monotonic() < deadline
            if not select.select([receiving], [], [], 0.5 if missing else IMPATIENCE_S)[0]:
                if not missing:
                    return [token in arrived for token in tokens]
                continue
            frame = receiving.recv(4096)
            arrived |= {token for token in tokens if token in frame}


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
    await driver.close()
    _within_netns(bench.bridge_side, _forget_connections)


def _made(bench: RealWire, folder: Path) -> NftablesFirewall:
    context = DriverContext("n1", folder, folder)
    return NftablesFirewall(context, NftablesConfig(netns=bench.bridge_side))


@pytest.fixture
def wire(bench: RealWire) -> RealWire:
    return bench


class TestNftablesFirewall(FirewallSuite, FirewallRulesSuite):
    async def test_a_restart_is_not_felt(
        self, bench: RealWire, driver: NftablesFirewall, wire: RealWire, tmp_path: Path
    ) -> None:
        await driver.apply(RULES)
        assert await wire.passes(HELLO, expected=True)
        assert await wire.passes(HELLO.reply(), expected=True)
        await driver.close()
        again = _made(bench, tmp_path)
        await again.open()
        assert await again.state() == await driver.state()
        await again.apply(Ruleset(ports=tuple(reversed(RULES.ports)), groups=RULES.groups))
        assert await wire.passes(HELLO.reply("PA"), expected=True)
        await again.close()

    @pytest.mark.parametrize(
        "damage",
        [
            "flush table bridge tv_firewall",
            "flush table inet tv_firewall",
            "delete table inet tv_firewall",
            "flush chain bridge tv_firewall prerouting",
            "insert rule bridge tv_firewall prerouting accept",
            "flush map bridge tv_firewall sources",
            "flush ruleset",
            "add element bridge tv_firewall taken_1 { fe80::99 }",
        ],
    )
    async def test_damage_is_seen_and_repaired(
        self, bench: RealWire, driver: NftablesFirewall, damage: str
    ) -> None:
        await driver.apply(RULES)
        whole = await driver.state()
        _run("ip", "netns", "exec", bench.bridge_side, "nft", *damage.split())
        assert (await asyncio.wait_for(driver.disturbed(), 5)).startswith("nft (process ")
        assert (await driver.state()).ports == {}
        await driver.apply(RULES)
        assert await driver.state() == whole

    async def test_what_was_not_heard_is_seen_in_time(
        self, bench: RealWire, driver: NftablesFirewall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A damage that is taken for the driver's own doing."""
        await driver.apply(RULES)
        whole = await driver.state()
        inside = f"read go; exec ip netns exec {bench.bridge_side}"
        command = ("sh", "-c", f"{inside} nft flush table inet tv_firewall")
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
        assert driver._watch is not None
        driver._watch.ours(process.pid)
        await process.communicate(b"\n")
        assert await driver.state() == whole
        monkeypatch.setattr(nftables_backend, "BELIEVED_S", 0.0)
        assert (await driver.state()).ports == {}
        await driver.apply(RULES)
        assert await driver.state() == whole

    async def test_what_others_do_elsewhere_disturbs_nobody(
        self, bench: RealWire, driver: NftablesFirewall
    ) -> None:
        await driver.apply(RULES)
        _run("ip", "netns", "exec", bench.bridge_side, "nft", "add table inet somebodys")
        await driver.apply(Ruleset())
        assert (await driver.state()).ports == {}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(driver.disturbed(), 0.1)
        _run("ip", "netns", "exec", bench.bridge_side, "nft", "delete table inet somebodys")

    async def test_small_changes_do_not_take_nft(
        self, driver: NftablesFirewall, wire: RealWire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = group("guarded", *(Rule(remote=f"10.0.0.{n}") for n in range(20, 170)))
        more = group("guarded", *few.rules, Rule(remote="10.0.0.11"), generation=2)
        await driver.apply(ruleset(few))

        async def never(*command: str, text: str = "") -> str:
            raise AssertionError(f"{command} was run")

        assert not await wire.passes(HELLO, expected=False)
        with monkeypatch.context() as patched:
            patched.setattr(driver, "_run", never)
            await driver.apply(ruleset(more))
        assert await wire.passes(HELLO, expected=True)
        # It is what a look finds, too.
        driver._standing = None
        assert (await driver.state()).groups == {more.id: 2}

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
