"""The lab's network: a namespace with two bridges, and two cables to every node.

The switch is not a node's, so it goes on when a node dies, and what is cut is cut there, where
no node can see or undo it. The machine itself has one cable, to the management network, by which
its command line reaches the API.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trivet.host.failure import failed
from trivet.testing.lab.plan import NETS, LabPlan, subnet

BRIDGES = {"mgmt": "brm", "storage": "brs"}
PORTS = {"mgmt": "m", "storage": "s"}
CARDS = {"mgmt": "mgmt0", "storage": "storage0"}
HOST = "host"
PRIORITY = -310
"""Before br_netfilter's hooks: at 0 a bridge's forward chain is silently passed by."""


@dataclass(frozen=True)
class Drop:
    """Frames from `source` to `target` (nodes, or `host`) are dropped in one network."""

    net: str
    source: str
    target: str


class Switch:
    """The network of one lab. What is there already is left as it is."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self._space = plan.namespace("switch")

    def make(self) -> None:
        """Make the bridges and the machine's cable."""
        plan = self._plan
        if namespace_exists(self._space):
            return
        _run("ip", "netns", "add", self._space)
        _batch(
            self._space,
            "link set lo up",
            *(
                f"link add {bridge} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                for bridge in BRIDGES.values()
            ),
            f"link add {PORTS['mgmt']}h type veth peer name {plan.host_link}",
            f"link set {PORTS['mgmt']}h up master {BRIDGES['mgmt']}",
            f"link set {plan.host_link} netns 1",
        )
        _batch(
            None,
            f"addr add {plan.host_address}/24 dev {plan.host_link}",
            f"link set {plan.host_link} up",
        )

    def plug(self, name: str) -> None:
        """Give a node a namespace with its cables; one of an earlier life is taken away."""
        self.unplug(name)
        plan, space = self._plan, self._plan.namespace(name)
        _run("ip", "netns", "add", space)
        inside = ["link set lo up"]
        for net in NETS:
            port, card = self._port(net, name), CARDS[net]
            _batch(
                self._space,
                f"link add {port} type veth peer name {card} netns {space}",
                f"link set {port} up master {BRIDGES[net]}",
            )
            inside += [f"addr add {plan.address(name, net)}/24 dev {card}", f"link set {card} up"]
        _batch(space, *inside, f"route add default via {plan.host_address}")

    def silence(self, name: str) -> None:
        """Cut a node's cables in one go: from now on nothing of it is heard."""
        _batch(self._space, *(f"link set {port} down" for port in self._ports(name)))

    def unplug(self, name: str) -> None:
        """Take a node's cables and its namespace."""
        _batch(self._space, *(f"link del {port}" for port in self._ports(name)))
        if namespace_exists(self._plan.namespace(name)):
            _run("ip", "netns", "delete", self._plan.namespace(name))

    def cut(self, drops: Iterable[Drop]) -> None:
        """Drop more frames; what is dropped already stays so."""
        self._apply({*self.drops(), *drops})

    def heal(self) -> None:
        """Drop nothing any more."""
        self._apply(set())

    def drops(self) -> set[Drop]:
        """What is dropped now, as the rules' comments say."""
        told = _run("ip", "netns", "exec", self._space, "nft", "-j", "list", "ruleset")
        rules = (item["rule"] for item in json.loads(told)["nftables"] if "rule" in item)
        return {Drop(*rule["comment"].split()) for rule in rules if "comment" in rule}

    def _apply(self, drops: set[Drop]) -> None:
        lines = "".join(f"  {self._rule(drop)}\n" for drop in sorted(drops, key=repr))
        text = (
            "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n"
            f" chain cut {{\n  type filter hook forward priority {PRIORITY};\n{lines} }}\n}}\n"
        )
        _run("ip", "netns", "exec", self._space, "nft", "-f", "-", stdin=text)

    def _rule(self, drop: Drop) -> str:
        source, target = self._port(drop.net, drop.source), self._port(drop.net, drop.target)
        words = f"{drop.net} {drop.source} {drop.target}"
        return f'iifname "{source}" oifname "{target}" drop comment "{words}"'

    def _port(self, net: str, name: str) -> str:
        number = "h" if name == HOST else str(self._plan.number(name))
        return f"{PORTS[net]}{number}"

    def _ports(self, name: str) -> list[str]:
        """The ports of a node that are there."""
        if not namespace_exists(self._space):
            return []
        told = json.loads(_run("ip", "-n", self._space, "-j", "link", "show"))
        there = {link["ifname"] for link in told}
        return [port for net in NETS if (port := self._port(net, name)) in there]


def namespace_exists(name: str) -> bool:
    """Whether there is a network namespace of that name."""
    return Path("/run/netns", name).exists()


def free_net(wanted: int) -> int:
    """The first third number from `wanted` on that no route of this machine leads to."""
    told = json.loads(_run("ip", "-j", "route", "show", "table", "all"))
    used = {str(route.get("dst", "")).rpartition(".")[0] for route in told}
    for step in range(256):
        third = (wanted + step) % 256
        if not any(subnet(net, third) in used for net in NETS):
            return third
    raise failed("no network 10.231.0.0/24 to 10.231.255.0/24 is free")


def _batch(space: str | None, *lines: str) -> None:
    """Commands of `ip`, in a namespace or (None) outside, all in one process."""
    if lines:
        where = ("-n", space) if space else ()
        _run("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")


def _run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise failed(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
