"""An attached volume: one qemu-storage-daemon, a block graph over the replicas' exports.

A volume that is never to have more than one replica has it under the top node as it is. (QEMU's
quorum drops discards, and thin volumes would never shrink.) Any other has a quorum over slots
(`slots.py`), reads from the first that can, and fails a write that any slot missed: nothing is
acknowledged that is not everywhere. Between that and the top a throttle bounds what is taken;
its group has no bounds until some are asked for, and they change while it runs. The graph of a
preallocated volume ignores discards, which would give its space away.

`reconnect-delay` is 0: a replica that went away and came back is never waited for. A socket
without its daemon is a graph that died: an attachment, and not a healthy one.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from trivet.contracts.errors import Fatal
from trivet.contracts.storage.engine import AttachedVolume, AttachSpec, MemberState
from trivet.contracts.storage.volume import Qos
from trivet.plugins.storage.connections import connections
from trivet.plugins.storage.copies import begin_changes, changed_bytes
from trivet.plugins.storage.members import (
    first_record,
    read_record,
    states,
    write_record,
)
from trivet.plugins.storage.nbd_client import nbd
from trivet.plugins.storage.nbdkit import graph_export
from trivet.plugins.storage.node_process import Daemon, end, started_at
from trivet.plugins.storage.qmp import ask, ask_all
from trivet.plugins.storage.slots import (
    LIMITS,
    QUORUM,
    TOP,
    read_slots,
    single_nodes,
    slots_nodes,
)
from trivet.plugins.storage.sockets import Socket, Sockets, socket_path

PROGRAM = "qemu-storage-daemon"
UNIX_SERVER = re.compile(r"^nbd\+unix://.*[?&]socket=(?P<path>[^&]+)$")
EXPORT = "export"
LIMITS_PATH = f"/objects/{LIMITS}"
LAST = "last"
"""The export over which the last flush goes."""
END_GRACE_S = 20.0
REST_S = 5.0
LOOK_S = 0.005


def _limits(qos: Qos) -> dict[str, int]:
    return {"iops-total": qos.iops or 0, "bps-total": qos.bytes_per_s or 0}


def _qos(limits: dict[str, int]) -> Qos:
    return Qos(iops=limits["iops-total"] or None, bytes_per_s=limits["bps-total"] or None)


async def start_graph(graphs: Sockets, spec: AttachSpec, node: str) -> Socket:
    """Start the graph of a volume; returns once its socket listens."""
    socket = Socket(
        spec.volume, spec.epoch, socket_path(graphs.folder, spec.volume, spec.epoch), None
    )
    # The local replica's slot is the first: reads go there.
    local_first = tuple(sorted(spec.replicas, key=lambda r: r.node != node))
    spec = spec.model_copy(update={"replicas": local_first})
    nodes = single_nodes(spec.replicas[0], node, thin=spec.thin)
    if spec.slots:
        nodes = slots_nodes(spec, node)
    await asyncio.to_thread(write_record, socket.record, first_record(spec, node))
    group = {"qom-type": "throttle-group", "id": LIMITS, "limits": _limits(spec.qos)}
    arguments = ["--daemonize", "--object", json.dumps(group)]
    for block_node in nodes:
        arguments += ["--blockdev", json.dumps(block_node)]
    for name, path in (("qmp", socket.monitor), ("events", socket.events)):
        arguments += ["--chardev", f"socket,id={name},path={path},server=on,wait=off"]
        arguments += ["--monitor", f"chardev={name}"]
    arguments += ["--nbd-server", f"addr.type=unix,addr.path={socket.path}"]
    name = graph_export(spec.volume, spec.epoch)
    arguments += ["--export", f"type=nbd,id={EXPORT},node-name={TOP},name={name},writable=on"]
    try:
        started = await graphs.start(spec.volume, spec.epoch, *arguments)
        if spec.slots:
            await _remember(started)
        return started
    except BaseException:
        for left in graphs.of(spec.volume):
            if left.path == socket.path:
                await end_graph(graphs, left)
        raise


async def _remember(graph: Socket) -> None:
    """Begin to remember what is written, and by which sockets the members were reached."""
    await begin_changes(graph)
    assert graph.daemon is not None
    daemon = graph.daemon

    def act() -> None:
        record = read_record(graph.record)
        assert record is not None
        by_peer = {c.peer: c.inode for c in connections(daemon)}
        for number, member in record.members.items():
            known = member.model_copy(update={"inode": by_peer.get(member.peer, 0)})
            record = record.with_member(number, known)
        write_record(graph.record, record)

    await asyncio.to_thread(act)


async def come_to_rest(graph: Socket) -> bool:
    """End what clients do, and have all of it on the members' disks. False where that could not
    be seen: nothing may be believed of what was on the way."""
    if graph.daemon is None:
        return False
    gone = {"id": EXPORT, "mode": "hard"}
    last = {"type": "nbd", "id": LAST, "node-name": TOP, "name": LAST, "writable": True}
    try:
        async with asyncio.timeout(REST_S):
            if MemberState.FAILED in (await _members(graph)).values():
                return False  # and no time is lost over it
            if await ask(graph.monitor, "query-block-exports"):
                await ask(graph.monitor, "block-export-del", **gone)
            for _ in range(int(REST_S / LOOK_S)):
                if not await ask(graph.monitor, "query-block-exports"):
                    break
                await asyncio.sleep(LOOK_S)
            await ask(graph.monitor, "block-export-add", **last)
            server = {"type": "unix", "path": str(graph.path)}
            async with nbd(server, LAST, timeout_s=REST_S) as client:
                await client.flush()
            return MemberState.FAILED not in (await _members(graph)).values()
    except (Fatal, TimeoutError):
        return False


async def end_graph(graphs: Sockets, graph: Socket, *, grace_s: float = END_GRACE_S) -> None:
    """End a graph, and forget its sockets."""
    if graph.daemon is not None:
        await end(graph.daemon, grace_s=grace_s)
    graphs.forget(graph)


async def _members(graph: Socket) -> dict[str, MemberState]:
    """A graph's members, whether it still exports or not."""
    record = await asyncio.to_thread(read_record, graph.record)
    if record is None or graph.daemon is None:
        return {}
    shape = await ask(graph.monitor, "x-debug-query-block-graph")
    current, daemon = read_slots(shape).current(), graph.daemon
    return await asyncio.to_thread(lambda: states(record, current, connections(daemon)))


async def limit_graph(graph: Socket, qos: Qos) -> None:
    """Bound what a graph takes, from now on."""
    bounds = {"path": LIMITS_PATH, "property": "limits", "value": _limits(qos)}
    await ask(graph.monitor, "qom-set", **bounds)


async def look_at(graph: Socket, servers: Sockets) -> AttachedVolume:
    """A graph as the contract shows it. It is healthy if it answers, still exports, and (without
    slots) its local replica has its server running."""
    broken = AttachedVolume(
        volume=graph.volume,
        epoch=graph.epoch,
        socket=str(graph.path),
        export=graph_export(graph.volume, graph.epoch),
        healthy=False,
    )
    if graph.daemon is None:
        return broken
    try:
        nodes, exports, limits, shape = await ask_all(
            graph.monitor,
            ("query-named-block-nodes", {"flat": True}),
            ("query-block-exports", {}),
            ("qom-get", {"path": LIMITS_PATH, "property": "limits"}),
            ("x-debug-query-block-graph", {}),
        )
    except Fatal:
        return broken
    if not any(e["id"] == EXPORT and not e["shutting-down"] for e in exports):
        return broken
    by_name = {node["node-name"]: node for node in nodes}
    size = by_name[TOP]["image"]["virtual-size"]
    seen: dict[str, Any] = {"healthy": True, "size_bytes": size, "qos": _qos(limits)}
    record = await asyncio.to_thread(read_record, graph.record)
    if record is not None:
        seen["number"] = record.number
    if record is not None and record.slots:
        current, daemon = read_slots(shape).current(), graph.daemon
        members = await asyncio.to_thread(lambda: states(record, current, connections(daemon)))
        seen |= {"slots": record.slots, "members": members}
        seen["changed_bytes"] = changed_bytes(by_name[QUORUM])
    elif not _reaches_its_server(nodes, graph.daemon, servers):
        return broken
    return broken.model_copy(update=seen)


def _reaches_its_server(nodes: list[dict[str, Any]], graph: Daemon, servers: Sockets) -> bool:
    matches = [UNIX_SERVER.match(node["file"]) for node in nodes if node["drv"] == "nbd"]
    replicas = [servers.behind(Path(match["path"])) for match in matches if match]
    # One that was started after the graph is a stranger to it: its connection was another's.
    return all(r is not None and started_at(r) <= started_at(graph) for r in replicas)
