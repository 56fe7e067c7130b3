"""An attached volume: one qemu-storage-daemon, a block graph over the replicas' exports.

One replica stands under the top node as it is. More of them stand under a quorum that wants
every vote, reads from the first (the local one), and fails a write that any replica missed:
nothing is acknowledged that is not everywhere. (A quorum over one child would keep the graph's
shape the same, but QEMU's quorum drops discards, and thin volumes would never shrink.)

`reconnect-delay` is 0: a replica that went away and came back is never taken in silently.
The daemon is found again in the process table by its sockets, like the replicas' servers. A
socket without its daemon is a graph that died: an attachment, and not a healthy one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.contracts.errors import Fatal
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, AttachSpec, ServedReplica
from trivet.plugins.storage.nbdkit import SOCKET_NAME, export_name
from trivet.plugins.storage.node_process import Daemon, daemons, end, run
from trivet.plugins.storage.qmp import ask

PROGRAM = "qemu-storage-daemon"
UNIX_SERVER = re.compile(r"^nbd\+unix://.*[?&]socket=(?P<path>[^&]+)$")
TOP, QUORUM, EXPORT = "top", "quorum", "export"


@dataclass(frozen=True)
class Graph:
    """An attached volume as found; `daemon` None: only its socket is left."""

    volume: ResourceId
    epoch: int
    socket: Path
    daemon: Daemon | None

    @property
    def monitor(self) -> Path:
        """The control socket."""
        return self.socket.with_suffix(".qmp")

    def attached(self, healthy: bool) -> AttachedVolume:
        """As the contract shows it."""
        return AttachedVolume(
            volume=self.volume,
            epoch=self.epoch,
            socket=str(self.socket),
            export=export_name(self.volume, self.epoch),
            healthy=healthy,
        )


def graphs(folder: Path) -> Iterator[Graph]:
    """All attached volumes, alive or left behind."""
    alive: dict[Path, Daemon] = {}
    for daemon in daemons(PROGRAM, folder):
        for argument in daemon.argv:
            if argument.startswith("addr.type=unix,addr.path="):
                alive[Path(argument.rpartition("=")[2])] = daemon
    for path in sorted({*alive, *folder.glob("*.sock")}):
        match = SOCKET_NAME.match(path.name)
        if match:
            volume = ResourceId(match["volume"])
            yield Graph(volume, int(match["epoch"]), path, alive.get(path))


def block_graph(replicas: tuple[ServedReplica, ...]) -> list[dict[str, Any]]:
    """The block nodes of a volume, leaves first; the last is the one to export."""
    nodes: list[dict[str, Any]] = []
    for n, replica in enumerate(replicas):
        nodes.append(
            {
                "driver": "nbd",
                "node-name": f"replica{n}",
                "server": _address(replica),
                "export": replica.export,
                "reconnect-delay": 0,
                "discard": "unmap",
            }
        )
    below = "replica0"
    if len(replicas) > 1:
        below = QUORUM
        nodes.append(
            {
                "driver": "quorum",
                "node-name": QUORUM,
                "vote-threshold": len(replicas),
                "read-pattern": "fifo",
                "children": [node["node-name"] for node in nodes],
            }
        )
    top = {"driver": "raw", "node-name": TOP, "file": below, "discard": "unmap"}
    return [*nodes, top]


def _address(replica: ServedReplica) -> dict[str, str]:
    if replica.host is not None and replica.port is not None:
        return {"type": "inet", "host": replica.host, "port": str(replica.port)}
    return {"type": "unix", "path": replica.socket}


async def start_graph(folder: Path, spec: AttachSpec) -> Graph:
    """Start the graph of a volume; returns once its socket listens."""
    socket = folder / f"{spec.volume}.e{spec.epoch}.sock"
    graph = Graph(spec.volume, spec.epoch, socket, None)
    arguments = [PROGRAM, "--daemonize"]
    for node in block_graph(spec.replicas):
        arguments += ["--blockdev", json.dumps(node)]
    arguments += ["--chardev", f"socket,id=qmp,path={graph.monitor},server=on,wait=off"]
    arguments += ["--monitor", "chardev=qmp"]
    arguments += ["--nbd-server", f"addr.type=unix,addr.path={socket}"]
    name = export_name(spec.volume, spec.epoch)
    arguments += ["--export", f"type=nbd,id={EXPORT},node-name={TOP},name={name},writable=on"]
    try:
        await run(*arguments, timeout_s=30)
    except BaseException:
        await end_graph(next((g for g in graphs(folder) if g.socket == socket), graph))
        raise
    return next(g for g in graphs(folder) if g.socket == socket)


async def end_graph(graph: Graph) -> None:
    """Flush and end a graph, and forget its sockets."""
    if graph.daemon is not None:
        await end(graph.daemon, grace_s=20.0)
    graph.monitor.unlink(missing_ok=True)
    graph.socket.unlink(missing_ok=True)


async def healthy(graph: Graph, serving: frozenset[str]) -> bool:
    """Whether the graph answers, still exports, and each local replica in it is `serving`
    (the sockets of the replicas' servers that run)."""
    if graph.daemon is None:
        return False
    try:
        nodes = await ask(graph.monitor, "query-named-block-nodes", flat=True)
        exports = await ask(graph.monitor, "query-block-exports")
    except Fatal:
        return False
    if not any(e["id"] == EXPORT and not e["shutting-down"] for e in exports):
        return False
    servers = [UNIX_SERVER.match(node["file"]) for node in nodes if node["drv"] == "nbd"]
    return all(match["path"] in serving for match in servers if match)
