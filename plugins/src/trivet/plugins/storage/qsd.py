"""An attached volume: one qemu-storage-daemon, a block graph over the replicas' exports.

One replica stands under the top node as it is. More of them stand under a quorum that wants
every vote, reads from the first (the local one), and fails a write that any replica missed:
nothing is acknowledged that is not everywhere. (A quorum over one child would keep the graph's
shape the same, but QEMU's quorum drops discards, and thin volumes would never shrink.) Between
them and the top a throttle bounds what is taken; its group has no bounds until some are asked for,
and they change while it runs. The graph of a preallocated volume ignores discards, which would
give its space away.

`reconnect-delay` is 0: a replica that went away and came back is never waited for. A socket
without its daemon is a graph that died: an attachment, and not a healthy one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trivet.contracts.errors import Fatal
from trivet.contracts.storage.engine import AttachedVolume, AttachSpec, ServedReplica
from trivet.contracts.storage.volume import Qos
from trivet.plugins.storage.nbdkit import export_name
from trivet.plugins.storage.node_process import end, started_at
from trivet.plugins.storage.qmp import ask, ask_all
from trivet.plugins.storage.sockets import Socket, Sockets, socket_path

PROGRAM = "qemu-storage-daemon"
UNIX_SERVER = re.compile(r"^nbd\+unix://.*[?&]socket=(?P<path>[^&]+)$")
TOP, THROTTLE, QUORUM, EXPORT = "top", "throttle", "quorum", "export"
LIMITS = "limits"
LIMITS_PATH = f"/objects/{LIMITS}"
END_GRACE_S = 20.0


def block_graph(replicas: tuple[ServedReplica, ...], *, thin: bool = True) -> list[dict[str, Any]]:
    """The block nodes of a volume, leaves first; the last is the one to export."""
    discard = "unmap" if thin else "ignore"
    nodes: list[dict[str, Any]] = []
    for n, replica in enumerate(replicas):
        nodes.append(
            {
                "driver": "nbd",
                "node-name": f"replica{n}",
                "server": _address(replica),
                "export": replica.export,
                "reconnect-delay": 0,
                "discard": discard,
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
    throttle = {
        "driver": "throttle",
        "node-name": THROTTLE,
        "throttle-group": LIMITS,
        "file": below,
        "discard": discard,
    }
    top = {"driver": "raw", "node-name": TOP, "file": THROTTLE, "discard": discard}
    return [*nodes, throttle, top]


def _address(replica: ServedReplica) -> dict[str, str]:
    if replica.host is not None and replica.port is not None:
        return {"type": "inet", "host": replica.host, "port": str(replica.port)}
    return {"type": "unix", "path": replica.socket}


def _limits(qos: Qos) -> dict[str, int]:
    return {"iops-total": qos.iops or 0, "bps-total": qos.bytes_per_s or 0}


def _qos(limits: dict[str, int]) -> Qos:
    return Qos(iops=limits["iops-total"] or None, bytes_per_s=limits["bps-total"] or None)


async def start_graph(graphs: Sockets, spec: AttachSpec) -> Socket:
    """Start the graph of a volume; returns once its socket listens."""
    socket = Socket(
        spec.volume, spec.epoch, socket_path(graphs.folder, spec.volume, spec.epoch), None
    )
    group = {"qom-type": "throttle-group", "id": LIMITS, "limits": _limits(spec.qos)}
    arguments = ["--daemonize", "--object", json.dumps(group)]
    for node in block_graph(spec.replicas, thin=spec.thin):
        arguments += ["--blockdev", json.dumps(node)]
    arguments += ["--chardev", f"socket,id=qmp,path={socket.monitor},server=on,wait=off"]
    arguments += ["--monitor", "chardev=qmp"]
    arguments += ["--nbd-server", f"addr.type=unix,addr.path={socket.path}"]
    name = export_name(spec.volume, spec.epoch)
    arguments += ["--export", f"type=nbd,id={EXPORT},node-name={TOP},name={name},writable=on"]
    try:
        return await graphs.start(spec.volume, spec.epoch, *arguments)
    except BaseException:
        for left in graphs.of(spec.volume):
            if left.path == socket.path:
                await end_graph(graphs, left)
        raise


async def end_graph(graphs: Sockets, graph: Socket) -> None:
    """Flush and end a graph, and forget its sockets."""
    if graph.daemon is not None:
        await end(graph.daemon, grace_s=END_GRACE_S)
    graphs.forget(graph)


async def limit_graph(graph: Socket, qos: Qos) -> None:
    """Bound what a graph takes, from now on."""
    bounds = {"path": LIMITS_PATH, "property": "limits", "value": _limits(qos)}
    await ask(graph.monitor, "qom-set", **bounds)


async def look_at(graph: Socket, servers: Sockets) -> AttachedVolume:
    """A graph as the contract shows it. It is healthy if it answers, still exports, and each
    local replica in it has its server running."""
    broken = AttachedVolume(
        volume=graph.volume,
        epoch=graph.epoch,
        socket=str(graph.path),
        export=export_name(graph.volume, graph.epoch),
        healthy=False,
    )
    if graph.daemon is None:
        return broken
    try:
        nodes, exports, limits = await ask_all(
            graph.monitor,
            ("query-named-block-nodes", {"flat": True}),
            ("query-block-exports", {}),
            ("qom-get", {"path": LIMITS_PATH, "property": "limits"}),
        )
    except Fatal:
        return broken
    if not any(e["id"] == EXPORT and not e["shutting-down"] for e in exports):
        return broken
    matches = [UNIX_SERVER.match(node["file"]) for node in nodes if node["drv"] == "nbd"]
    replicas = [servers.behind(Path(match["path"])) for match in matches if match]
    # One that was started after the graph is a stranger to it: its connection was another's.
    if not all(r is not None and started_at(r) <= started_at(graph.daemon) for r in replicas):
        return broken
    top = next(node for node in nodes if node["node-name"] == TOP)
    seen = {"healthy": True, "size_bytes": top["image"]["virtual-size"], "qos": _qos(limits)}
    return broken.model_copy(update=seen)
