"""The network service with its real drivers on a node of the test's own (a namespace).

A guest with a real stack hangs on the tap that the agent made; only the firewall is a fake.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_instance_data import ENDPOINT as INSTANCE_DATA
from trivet.contracts.compute.endpoints.vm_instance_data import InstanceData, InstanceDataRequest
from trivet.contracts.endpoint import CreateRequest, DeleteRequest, GetRequest, ListRequest, NewMeta
from trivet.contracts.model import ResourceId
from trivet.contracts.network.endpoints.network_ping import ENDPOINT as PING
from trivet.contracts.network.endpoints.network_ping import PingRequest
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.network import Network, NetworkSpec
from trivet.contracts.network.port import Port, PortSpec
from trivet.contracts.resource import OwnerRef, Phase
from trivet.contracts.security.endpoints.node_protect import ENDPOINT as PROTECT
from trivet.contracts.security.endpoints.node_protect import ProtectRequest, ProtectResponse
from trivet.network.bootstrap import bootstrap
from trivet.plugins.network import dnsmasq, linux_bridge, netns_gateway
from trivet.runtime.call import Call
from trivet.testing.harness import Harness
from trivet.testing.suites.guests import TapGuest
from trivet.testing.suites.node_ground import NodeGround, node_ground, shell

pytestmark = pytest.mark.root

TOLD = '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip address add $ip/$mask dev eth0\n'
TOLD += 'ip route add default via $router\nprintf "%s" "$ip"\n'

READ = """
import sys, urllib.request
print(end=urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())
"""

# A DHCPv6 client in short: SOLICIT (RFC 8415) with an IA_NA, and the address of the ADVERTISE.
SOLICIT = """
import socket, struct, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
option = lambda kind, body: struct.pack("!HH", kind, len(body)) + body
identity = option(1, struct.pack("!HH", 3, 1) + mac)
asked = bytes([1, 0, 0, 7]) + identity + option(3, bytes(12)) + option(8, bytes(2))
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::", 546))
sock.settimeout(2)
card = socket.if_nametoindex("eth0")
sock.sendto(asked, ("ff02::1:2", 547, 0, card))
told = sock.recv(1500)
at = told.index(struct.pack("!HH", 5, 24)) + 4
print(end=socket.inet_ntop(socket.AF_INET6, told[at:at + 16]))
"""

ASK_DNS = """
import socket, struct, sys
server, name = sys.argv[1:]
words = b"".join(bytes([len(w)]) + w.encode() for w in name.split("."))
asked = struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0) + words + bytes([0]) + struct.pack("!HH", 1, 1)
sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.sendto(asked, (server, 53))
print(end=socket.inet_ntoa(sock.recv(512)[-4:]))
"""

SERVERS = "run/network/dnsmasq/*/record.json"
LEGS = "state/network/netns-gateway/leg-*.json"
ASKED: list[ProtectRequest] = []


def found(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


@pytest.fixture
def ground() -> Iterator[NodeGround]:
    with node_ground() as ground:
        yield ground


@pytest.fixture
async def node(ground: NodeGround, tmp_path: Path) -> AsyncIterator[Harness]:
    plugins = (linux_bridge, netns_gateway, dnsmasq)
    async with Harness(
        tmp_path, plugins=plugins, network={"look_s": 1.0, "linger_s": 0.0}
    ) as harness:

        async def protect(request: ProtectRequest, call: Call) -> ProtectResponse:
            ASKED.append(request)
            return ProtectResponse(protected={b.port: b.generation for b in request.bindings})

        await harness.fake(PROTECT, protect, node="n1")
        await harness.start("network", bootstrap)
        yield harness
    # What a failed test left: found by the drivers' own records.
    for record in found(tmp_path, SERVERS):
        os.kill(json.loads(record.read_text())["pid"], signal.SIGTERM)
    for record in found(tmp_path, LEGS):
        await shell(f"ip netns delete tv-gw-{record.stem[-10:]} || true")


async def make(
    harness: Harness,
    crud: Any,
    name: str,
    spec: Any,
    project: str = "p",
    owner: OwnerRef | None = None,
) -> Any:
    request = CreateRequest[Any](meta=NewMeta(name=name, project=project), spec=spec, owner=owner)
    await harness.call(crud.create, request)
    asked = GetRequest(project=project, name=name, settle_s=20)
    return await harness.call(crud.get, asked)


async def drop(harness: Harness, crud: Any, name: str, project: str = "p") -> None:
    await harness.call(crud.delete, DeleteRequest(project=project, name=name))

    async def gone() -> bool:
        page = await harness.call(crud.list, ListRequest(project=project))
        return name not in {r.meta.name for r in page.items}

    await until(gone)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def no_segment() -> bool:
    return "tvbr" not in await shell("ip -br link show")


async def test_a_guest_gets_its_address_and_the_world(
    node: Harness, ground: NodeGround, tmp_path: Path
) -> None:
    script = tmp_path / "told"
    script.write_text(TOLD)
    script.chmod(0o755)
    spec = NetworkSpec(subnets=("10.9.0.0/24", "fd00:9::/64"))
    await make(node, NETWORKS, "lan", spec)
    ports: list[Port] = [
        await make(node, PORTS, name, PortSpec(network="lan", node="n1")) for name in ("a", "b")
    ]
    guests = []
    try:
        for port in ports:
            assert port.status.phase is Phase.READY, port.status.conditions
            assert port.status.device is not None
            assert port.status.mac is not None
            guest = TapGuest(port.status.device, port.status.mac)
            await guest.plug_in()
            guests.append(guest)
        for port, guest in zip(ports, guests, strict=True):
            leased = await guest.run(
                "busybox", "udhcpc", "-i", "eth0", "-s", str(script), "-n", "-q", "-f", "-t", "10",
                "-T", "1",
            )  # fmt: skip
            assert leased == port.status.addresses[0]
        other = ports[1].status.addresses[0]
        for address in ("10.9.0.1", other, ground.outside):
            out = await guests[0].run("ping", "-n", "-c", "2", "-i", "0.2", "-w", "5", address)
            assert " 0% packet loss" in out, address
        asked = PingRequest(project="p", name="lan", address=other, timeout_s=5)
        assert (await node.call(PING, asked)).answered
    finally:
        for guest in guests:
            await guest.unplug()
    for name in ("a", "b"):
        await drop(node, PORTS, name)
    await drop(node, NETWORKS, "lan")
    await until(no_segment)
    await until(ground.untouched)


async def footprint(harness: Harness, folder: Path) -> tuple[object, ...]:
    """What would differ if anything were made anew or written again."""
    links = json.loads(await shell("ip -j link show"))
    (server,) = found(folder, SERVERS)
    (leg,) = found(folder, LEGS)
    port = await harness.call(PORTS.get, GetRequest(project="p", name="a"))
    return (
        [(link["ifname"], link["ifindex"], link["mtu"], link.get("ifalias")) for link in links],
        server.stat().st_mtime_ns,
        leg.stat().st_mtime_ns,
        port.meta.revision,
    )


async def test_a_settled_node_is_left_in_peace(node: Harness, tmp_path: Path) -> None:
    """What the drivers read back equals what was asked: no look changes anything."""
    spec = NetworkSpec(subnets=("10.9.0.0/24", "fd00:9::/64"))
    await make(node, NETWORKS, "lan", spec)
    port: Port = await make(node, PORTS, "a", PortSpec(network="lan", node="n1"))
    assert port.status.phase is Phase.READY
    before = await footprint(node, tmp_path)
    # The firewall is asked again at each look, though nothing changed.
    asked = len(ASKED)

    async def looked_again() -> bool:
        return len(ASKED) > asked + 2

    await until(looked_again)
    assert await footprint(node, tmp_path) == before
    await drop(node, PORTS, "a")
    await until(no_segment)


def damaged(prefix: str, port: Port, gateway: str, server: int) -> dict[str, str]:
    """What an administrator might do, by what is then said of it."""
    return {
        "bridge was gone": f"ip link delete {prefix}br{port.status.vni}",
        "bridge was down": f"ip link set {prefix}br{port.status.vni} down",
        "tap was down": f"ip link set {port.status.device} down",
        "tap was on no bridge": f"ip link set {port.status.device} nomaster",
        "tap's entry": f"bridge fdb flush dev {port.status.device} master static",
        "gateway was gone": f"ip netns delete {gateway}",
        "gateway's addresses": f"ip -n {gateway} address flush dev net0 scope global",
        "gateway was down": f"ip -n {gateway} link set net0 down",
        "gateway's rules": f"ip netns exec {gateway} nft flush ruleset",
        "translation rules": f"nft delete table inet {prefix}_nat",
        "DHCP server": f"kill -9 {server}",
    }


async def test_what_is_changed_behind_our_back_is_mended(
    node: Harness, ground: NodeGround, tmp_path: Path
) -> None:
    """Each damage is found and said, and the guest reaches the world again by the same tap."""
    network: Network = await make(node, NETWORKS, "lan", NetworkSpec(subnets=("10.9.0.0/24",)))
    port: Port = await make(node, PORTS, "a", PortSpec(network="lan", node="n1"))
    assert port.status.device is not None
    assert port.status.mac is not None
    guest = TapGuest(port.status.device, port.status.mac)
    await guest.plug_in()
    await guest.run("ip", "address", "add", f"{port.status.addresses[0]}/24", "dev", "eth0")
    await guest.run("ip", "route", "add", "default", "via", "10.9.0.1")

    async def reaches() -> bool:
        return " 0% packet loss" in await guest.run("ping", "-n", "-c1", "-w1", ground.outside)

    async def told(what: str) -> bool:
        seen = [
            await node.call(NETWORKS.get, GetRequest(project="p", name="lan")),
            await node.call(PORTS.get, GetRequest(project="p", name="a")),
        ]
        conditions = [r.status.condition("Intact") for r in seen]
        return any(c is not None and what in c.message for c in conditions)

    try:
        await until(reaches)
        gateway = f"tv-gw-{network.meta.id[-10:]}"
        (record,) = found(tmp_path, SERVERS)
        for what in damaged("tv", port, gateway, 0):
            server = json.loads(record.read_text())["pid"]
            command = damaged("tv", port, gateway, server)[what]
            identity = socket.if_nametoindex(port.status.device)
            await shell(command)
            await until(partial(told, what))
            await until(reaches)
            again = socket.if_nametoindex(port.status.device)
            assert again == identity, what
    finally:
        await guest.unplug()
    for crud, name in ((PORTS, "a"), (NETWORKS, "lan")):
        await drop(node, crud, name)
    await until(no_segment)
    await until(ground.untouched)


async def test_guests_are_told_who_they_are(node: Harness, ground: NodeGround) -> None:
    """Two networks of two projects with the same addresses: each guest its own VM's data, after
    a kill of the service as before; and a guest with another's address gets nobody's."""

    async def vm(request: InstanceDataRequest, call: Call) -> InstanceData:
        project = request.project or ""
        return InstanceData(id=request.id, name=request.name, project=project, user_data="hi\n")

    await node.fake(INSTANCE_DATA, vm)
    guests: list[TapGuest] = []
    spec = NetworkSpec(subnets=("10.9.0.0/24",))
    for project in ("p", "q"):
        await make(node, NETWORKS, "lan", spec, project=project)
        owner = OwnerRef(kind="vm", id=ResourceId(f"vm-{project}"), project=project, name="a")
        asked = PortSpec(network="lan", node="n1")
        port: Port = await make(node, PORTS, "a-0", asked, project=project, owner=owner)
        assert port.status.device is not None
        assert port.status.mac is not None
        guest = TapGuest(port.status.device, port.status.mac)
        await guest.plug_in()
        guests.append(guest)
        await guest.run("ip", "address", "add", "10.9.0.2/24", "dev", "eth0")
        await guest.run("ip", "route", "add", "default", "via", "10.9.0.1")

    async def read(guest: TapGuest, path: str) -> str:
        return await guest.run(sys.executable, "-c", READ, f"http://169.254.169.254{path}")

    async def told() -> bool:
        ids = [await read(g, "/latest/meta-data/instance-id") for g in guests]
        return ids == ["vm-p", "vm-q"]

    try:
        await until(told)
        assert await read(guests[0], "/openstack/latest/user_data") == "hi\n"
        await node.crash("network")
        assert await read(guests[0], "/latest/meta-data/instance-id") == ""
        await node.start("network", bootstrap)
        await until(told)
        await guests[0].run("ip", "address", "replace", "10.9.0.9/24", "dev", "eth0")
        await guests[0].run("ip", "address", "delete", "10.9.0.2/24", "dev", "eth0")
        assert await read(guests[0], "/latest/meta-data/instance-id") == ""
    finally:
        for guest in guests:
            await guest.unplug()
    for crud, name in ((PORTS, "a-0"), (NETWORKS, "lan")):
        for project in ("p", "q"):
            await drop(node, crud, name, project)
    await until(no_segment)
    await until(ground.untouched)


async def test_a_guest_gets_its_ipv6_from_the_network(node: Harness, ground: NodeGround) -> None:
    """Advertisements tell the router, the prefix, the MTU, and to ask by DHCPv6, which leases
    the very address that the port has (nobody makes one up: it would be taken for spoofed).
    Names of the network's guests are answered."""
    spec = NetworkSpec(subnets=("10.9.0.0/24", "fd00:9::/64"), mtu=1400)
    await make(node, NETWORKS, "lan", spec)
    port: Port = await make(node, PORTS, "web", PortSpec(network="lan", node="n1"))
    assert port.status.device is not None
    assert port.status.mac is not None
    address = port.status.addresses[1]
    guest = TapGuest(port.status.device, port.status.mac)
    await guest.plug_in()
    await guest.run("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=2")

    async def routed() -> bool:
        routes = await guest.run("ip", "-6", "route", "show", "default")
        return "proto ra" in routes and "mtu 1400" in routes

    async def leased() -> bool:
        told = await guest.run(sys.executable, "-c", SOLICIT, port.status.mac or "")
        return told == address

    async def reaches() -> bool:
        out = await guest.run("ping", "-6", "-n", "-c1", "-w1", "fd00:9::1")
        return " 0% packet loss" in out

    try:
        await until(routed)
        assert "global" not in await guest.run("ip", "-6", "address", "show", "dev", "eth0")
        await until(leased)
        await guest.run("ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
        await until(reaches)
        told = await guest.run(sys.executable, "-c", ASK_DNS, "fd00:9::1", "web.trivet.internal")
        assert told == port.status.addresses[0]
    finally:
        await guest.unplug()
    for crud, name in ((PORTS, "web"), (NETWORKS, "lan")):
        await drop(node, crud, name)
    await until(no_segment)
    await until(ground.untouched)
