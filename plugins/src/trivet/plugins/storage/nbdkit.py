"""Serving one replica: an nbdkit process whose only export name carries the epoch.

nbdkit's file plugin ignores export names, so its `exportname` filter stands before it and
refuses every other one: a client of an older epoch finds its name gone. nbdkit returns from its
start when its socket listens, and stays behind as a daemon.
"""

from __future__ import annotations

from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.plugins.storage.node_process import end
from trivet.plugins.storage.sockets import Socket, Sockets, socket_path

PROGRAM = "nbdkit"
THREADS = 16


def export_name(volume: ResourceId, epoch: int) -> str:
    """The one name under which a volume is served in an epoch."""
    return f"{volume}.e{epoch}"


def served(server: Socket) -> ServedReplica:
    """How a replica's server is reached."""
    return ServedReplica(
        volume=server.volume,
        epoch=server.epoch,
        export=export_name(server.volume, server.epoch),
        socket=str(server.path),
    )


async def start_replica_server(
    servers: Sockets, volume: ResourceId, epoch: int, data: Path
) -> Socket:
    """Start a server; returns once it listens."""
    return await servers.start(
        volume,
        epoch,
        "--unix",
        str(socket_path(servers.folder, volume, epoch)),
        "--threads",
        str(THREADS),
        "--filter=exportname",
        "file",
        f"file={data}",
        "exportname-strict=true",
        "exportname-list=explicit",
        f"exportname={export_name(volume, epoch)}",
    )


async def end_replica_server(servers: Sockets, server: Socket) -> None:
    """End a server: what it had acknowledged is in the file, and synced where it was asked."""
    if server.daemon is not None:
        await end(server.daemon)
    servers.forget(server)
