"""The block nodes of a graph with slots, and what such a graph says of itself. All pure.

    top (raw) - throttle - quorum (every slot's vote) - slot0, slot1, ...
    slotK: a quorum that needs the vote of one child, which is
        r.N   a replica: its NBD client, or, where the replica is larger than the volume, raw over
              n.N, the client
        w.N   the same for writes only (blkdebug, which fails every read, over r.N)
        p.N   a placeholder (blkdebug over z.N, which keeps nothing)

    c.N, d.N: what a copy to replica N writes to, and its client

A number N is given once in the life of a graph. A slot with two children was left in the middle
of a change: the one with the higher number is what it changes to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivet.contracts.storage.engine import AttachSpec, ServedReplica

TOP, THROTTLE, QUORUM = "top", "throttle", "quorum"
LIMITS = "limits"
SLOT = "slot"
READS, WRITES, PLACEHOLDER = "r", "w", "p"
CLIENT, NOTHING = "n", "z"
COPY, COPY_CLIENT = "c", "d"
EIO = 5
OPEN_TIMEOUT_S = 3
"""Where it is not there already, the graph is not held up for longer."""
Nodes = list[dict[str, Any]]


@dataclass(frozen=True)
class Child:
    """What stands in a slot."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """Its block node."""
        return f"{self.kind}.{self.number}"


@dataclass(frozen=True)
class Slots:
    """The children of each slot, the older first, by what a storage daemon says of its graph."""

    children: Mapping[int, tuple[Child, ...]]
    edges: Mapping[tuple[str, str], str]

    def holding(self, number: int) -> int | None:
        """The slot in which that number stands."""
        for slot, children in self.children.items():
            if any(child.number == number for child in children):
                return slot
        return None

    def current(self) -> dict[int, Child]:
        """What each slot holds, or is about to."""
        return {slot: children[-1] for slot, children in self.children.items() if children}

    def free(self) -> list[int]:
        """The slots with a placeholder."""
        return [slot for slot, child in self.current().items() if child.kind == PLACEHOLDER]

    def nodes(self, child: Child) -> list[str]:
        """All block nodes of a child, from the top down."""
        found, below = [child.name], child.name
        while below := next((c for p, c in self.edges if p == below), ""):
            found.append(below)
        return found

    def edge(self, slot: int, child: Child) -> str:
        """What a slot calls one of its children."""
        return self.edges[slot_name(slot), child.name]


def slot_name(slot: int) -> str:
    """The block node of a slot."""
    return f"{SLOT}{slot}"


def child_of(name: str) -> Child | None:
    """The child whose block node has that name."""
    kind, _, number = name.partition(".")
    if kind in (READS, WRITES, PLACEHOLDER) and number.isdecimal():
        return Child(kind, int(number))
    return None


def read_slots(graph: Mapping[str, Any]) -> Slots:
    """The slots by the answer to `x-debug-query-block-graph`."""
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    edges = {(names[e["parent"]], names[e["child"]]): e["name"] for e in graph["edges"]}
    found: dict[int, list[Child]] = defaultdict(list)
    for parent, name in edges:
        number, child = parent.removeprefix(SLOT), child_of(name)
        if parent.startswith(SLOT) and number.isdecimal() and child is not None:
            found[int(number)].append(child)
    ordered = {s: tuple(sorted(found[s], key=lambda c: c.number)) for s in sorted(found)}
    return Slots(ordered, edges)


def replica_nodes(
    number: int,
    server: Mapping[str, str],
    export: str,
    size_bytes: int,
    *,
    thin: bool,
    larger: bool,
) -> Nodes:
    """The nodes r.N and below; `larger`: the replica may be larger than the volume."""
    name = f"{CLIENT if larger else READS}.{number}"
    nodes = [_client(name, server, export, thin=thin)]
    if larger:
        nodes.append(_bounded(f"{READS}.{number}", name, size_bytes, thin=thin))
    return nodes


def _client(name: str, server: Mapping[str, str], export: str, *, thin: bool) -> dict[str, Any]:
    return {
        "driver": "nbd",
        "node-name": name,
        "server": dict(server),
        "export": export,
        "reconnect-delay": 0,
        "open-timeout": OPEN_TIMEOUT_S,
        "discard": "unmap" if thin else "ignore",
    }


def _bounded(name: str, below: str, size_bytes: int, *, thin: bool) -> dict[str, Any]:
    return {
        "driver": "raw",
        "node-name": name,
        "size": size_bytes,
        "file": below,
        "discard": "unmap" if thin else "ignore",
    }


def copy_nodes(
    number: int, server: Mapping[str, str], export: str, size_bytes: int, *, thin: bool
) -> Nodes:
    """The nodes c.N, what a copy to N writes to, and d.N, its client."""
    client, name = f"{COPY_CLIENT}.{number}", f"{COPY}.{number}"
    top = _bounded(name, client, size_bytes, thin=thin)
    if thin:
        top["detect-zeroes"] = "unmap"
    return [_client(client, server, export, thin=thin), top]


def writes_only_node(number: int) -> dict[str, Any]:
    """The node w.N over r.N."""
    return _without_reads(f"{WRITES}.{number}", f"{READS}.{number}")


def placeholder_nodes(number: int, size_bytes: int) -> Nodes:
    """The nodes p.N and z.N. It is said to be all zero, as it hides nobody's zeroes then."""
    nothing = {
        "driver": "null-co",
        "node-name": f"{NOTHING}.{number}",
        "size": size_bytes,
        "read-zeroes": True,
    }
    return [nothing, _without_reads(f"{PLACEHOLDER}.{number}", f"{NOTHING}.{number}")]


def _without_reads(name: str, below: str) -> dict[str, Any]:
    rule = {"event": "none", "iotype": "read", "errno": EIO, "once": False, "immediately": True}
    return {"driver": "blkdebug", "node-name": name, "image": below, "inject-error": [rule]}


def quorum_node(name: str, children: Sequence[str], votes: int) -> dict[str, Any]:
    """A quorum that reads from the first child that can."""
    return {
        "driver": "quorum",
        "node-name": name,
        "vote-threshold": votes,
        "read-pattern": "fifo",
        "children": list(children),
    }


def server_of(replica: ServedReplica, node: str) -> dict[str, str]:
    """How a node reaches a replica, in QEMU's words: its own without the network."""
    if replica.node == node or replica.host is None or replica.port is None:
        return {"type": "unix", "path": replica.socket}
    return {"type": "inet", "host": replica.host, "port": str(replica.port)}


def single_nodes(replica: ServedReplica, node: str, *, thin: bool) -> Nodes:
    """The graph over the one replica of a volume, up to the top."""
    client = _client("replica0", server_of(replica, node), replica.export, thin=thin)
    return [client, *_upper_nodes("replica0", thin=thin)]


def slots_nodes(spec: AttachSpec, node: str) -> Nodes:
    """The graph over slots, up to the top: replica N is number N in slot N."""
    nodes: Nodes = []
    for number in range(spec.slots):
        if number < len(spec.replicas):
            replica = spec.replicas[number]
            server = server_of(replica, node)
            nodes += replica_nodes(
                number,
                server,
                replica.export,
                spec.size_bytes,
                thin=spec.thin,
                larger=replica.size_bytes != spec.size_bytes,
            )
            child = Child(READS, number)
            if replica.node in spec.writes_only:
                nodes.append(writes_only_node(number))
                child = Child(WRITES, number)
        else:
            nodes += placeholder_nodes(number, spec.size_bytes)
            child = Child(PLACEHOLDER, number)
        nodes.append(quorum_node(slot_name(number), [child.name], votes=1))
    names = [slot_name(number) for number in range(spec.slots)]
    nodes.append(quorum_node(QUORUM, names, votes=spec.slots))
    return [*nodes, *_upper_nodes(QUORUM, thin=spec.thin)]


def _upper_nodes(below: str, *, thin: bool) -> Nodes:
    discard = "unmap" if thin else "ignore"
    throttle = {
        "driver": "throttle",
        "node-name": THROTTLE,
        "throttle-group": LIMITS,
        "file": below,
        "discard": discard,
    }
    return [throttle, {"driver": "raw", "node-name": TOP, "file": THROTTLE, "discard": discard}]
