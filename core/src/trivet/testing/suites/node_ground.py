"""A node for suites on real gateways and DHCP servers: a namespace, with an outside.

The calling thread is in the node's namespace while the context lasts; guests are namespaces
with a veth in a segment's bridge, and the outside is one more namespace behind the node.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.testing.suites.gateway import GatewayDamage
from trivet.testing.suites.guests import scratch_namespace

OUTSIDE = "192.0.2.1"
NODE = "192.0.2.2"
OUTSIDE6 = "2001:db8:ff::1"
NODE6 = "2001:db8:ff::2"
WATCHED = ("net/ipv4/ip_forward", "net/ipv4/conf/all/accept_redirects")


class NodeGround:
    """The node that this thread is in, with the prefix `tv`."""

    outside = OUTSIDE
    outside6 = OUTSIDE6
    node = NODE

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.guests: dict[str, str] = {}
        self._before = self._look()

    async def segment(self, vni: int) -> None:
        """Make an empty bridge, as the switch would."""
        name = f"tvbr{vni}"
        await shell(f"ip link add {name} type bridge mcast_snooping 0; ip link set {name} up")
        write(f"net/ipv6/conf/{name}/disable_ipv6", "1")

    async def guest(self, name: str, vni: int, mac: str, address: str, gateway: str) -> None:
        """Plug in a guest that has its address already."""
        await self.card(name, vni, mac)
        space = self.guests[name]
        nodad = "nodad" if ":" in address else ""
        await shell(
            f"ip -n {space} address add {address} {nodad} dev eth0;"
            f"ip -n {space} route add default via {gateway}"
        )

    async def card(self, name: str, vni: int, mac: str) -> None:
        """Plug in a guest without an address."""
        space = self.guests[name] = f"{self.namespace}-{name}"
        link = f"tvp{secrets.token_hex(5)}"
        await shell(f"ip netns add {space}")
        await shell(
            f"ip link add {link} type veth peer name eth0 netns {space};"
            f"ip link set {link} master tvbr{vni} up;"
            f"ip -n {space} link set eth0 address {mac};"
            f"ip -n {space} link set lo up; ip -n {space} link set eth0 up"
        )

    async def pings(self, guest: str, address: str) -> bool:
        """Whether `address` answers the guest."""
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.guests[guest],
            "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-w", "2", address,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait() == 0

    async def damage(self, damage: GatewayDamage, namespace: str) -> None:
        """Do it with the tools that an administrator has."""
        link = f"tvg{namespace.removeprefix('tv-gw-')}"
        await shell(
            {
                GatewayDamage.NAMESPACE_GONE: f"ip netns delete {namespace}",
                GatewayDamage.LINK_DOWN: f"ip link set {link} down",
                GatewayDamage.OFF_BRIDGE: f"ip link set {link} nomaster",
                GatewayDamage.ADDRESS_GONE: f"ip -n {namespace} -4 address flush dev net0",
                GatewayDamage.ROUTE_GONE: f"ip -n {namespace} route delete default",
                GatewayDamage.RULES_FLUSHED: f"ip netns exec {namespace} nft flush ruleset",
                GatewayDamage.NODE_RULES_GONE: "nft delete table inet tv_nat",
                GatewayDamage.FORWARDING_OFF: "echo 0 > /proc/sys/net/ipv4/ip_forward",
            }[damage]
        )

    async def untouched(self) -> bool:
        """Whether links, rules, namespaces and sysctls are as they were."""
        return self._look() == self._before

    def _look(self) -> tuple[object, ...]:
        links = _output("ip -br link show").split("\n")
        ours = [w[0] for line in links if (w := line.split()) and w[0].startswith("tv")]
        return (
            [name for name in ours if not name.startswith(("tvbr", "tvp"))],
            _output("nft list ruleset"),
            [read(key) for key in WATCHED],
        )


@contextmanager
def node_ground() -> Iterator[NodeGround]:
    """A node with somebody outside; all of it removed after."""
    with scratch_namespace() as name:
        outside = f"{name}-out"
        _output(
            f"ip netns add {outside}; ip link add up0 type veth peer name eth0 netns {outside};"
            f"ip link set up0 up; ip address add {NODE}/24 dev up0;"
            f"ip -n {outside} address add {OUTSIDE}/24 dev eth0; ip -n {outside} link set eth0 up;"
            f"ip route add default via {OUTSIDE};"
            f"ip address add {NODE6}/64 dev up0 nodad;"
            f"ip -n {outside} address add {OUTSIDE6}/64 dev eth0 nodad;"
            f"ip route add default via {OUTSIDE6};"
            # A new namespace begins with what the machine has.
            "echo 0 > /proc/sys/net/ipv4/ip_forward"
        )
        ground = NodeGround(name)
        try:
            yield ground
        finally:
            for space in [outside, *ground.guests.values()]:
                subprocess.run(["ip", "netns", "delete", space], check=False)
            for path in Path("/run/netns").glob("tv-gw-*"):
                # Those of this suite alone: its networks' ids are small numbers.
                if path.name.startswith("tv-gw-00000000"):
                    subprocess.run(["ip", "netns", "delete", path.name], check=False)


def read(key: str) -> str:
    """A sysctl of the thread's namespace."""
    return (Path("/proc/sys") / key).read_text().strip()


def write(key: str, value: str) -> None:
    """Set a sysctl of the thread's namespace."""
    (Path("/proc/sys") / key).write_text(value)


async def shell(script: str) -> str:
    """What a shell script printed; raises if a step failed."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{script}: {err.decode()}"
    return out.decode()


def _output(script: str) -> str:
    done = subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True)
    return done.stdout
