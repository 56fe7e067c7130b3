"""Serving one replica: an nbdkit process whose only export name carries the epoch.

nbdkit's file plugin ignores export names, so its `exportname` filter stands before it and
refuses every other one: a client of an older epoch finds its name gone. nbdkit returns from its
start when its socket listens, and stays behind as a daemon. A server for other nodes is a second
one, over the same file: what one has written the other reads, for both go through the page cache.
"""

from __future__ import annotations

import socket as socket_module
from pathlib import Path

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.plugins.storage.node_process import end
from trivet.plugins.storage.sockets import Socket, Sockets, socket_path

PROGRAM = "nbdkit"
THREADS = 16
PORT_ATTEMPTS = 5
END_GRACE_S = 0.2
"""Asked to end, nbdkit waits for its clients to leave, for ever; one of an old epoch will not."""


def export_name(volume: ResourceId, epoch: int) -> str:
    """The one name under which a volume is served in an epoch."""
    return f"{volume}.e{epoch}"


def served(
    server: Socket, remote: Socket | None = None, address: str | None = None
) -> ServedReplica:
    """How a replica's server is reached; `remote` is the one that listens on `address`."""
    return ServedReplica(
        volume=server.volume,
        epoch=server.epoch,
        export=export_name(server.volume, server.epoch),
        socket=str(server.path),
        host=address if remote else None,
        port=remote.port if remote else None,
    )


async def start_replica_server(
    servers: Sockets, volume: ResourceId, epoch: int, data: Path
) -> Socket:
    """Start a server for this node; returns once it listens."""
    socket = socket_path(servers.folder, volume, epoch)
    where = ("--unix", str(socket))
    return await servers.start(volume, epoch, *where, *_served_file(volume, epoch, data))


async def start_remote_server(
    servers: Sockets, volume: ResourceId, epoch: int, data: Path, address: str
) -> Socket:
    """Start a server for other nodes; returns once it listens, on a port that was free."""
    for _ in range(PORT_ATTEMPTS):
        port = _free_port(address)
        where = ("--ipaddr", address, "--port", str(port))
        try:
            return await servers.start(
                volume, epoch, *where, *_served_file(volume, epoch, data), port=port
            )
        except Fatal as error:
            # Somebody may have taken the port since: another one is as good.
            socket_path(servers.folder, volume, epoch, port).unlink(missing_ok=True)
            failed = error
    raise Fatal(DRIVER_FAILED, f"no port on {address}: {failed.detail}") from failed


def _free_port(address: str) -> int:
    family = socket_module.AF_INET6 if ":" in address else socket_module.AF_INET
    with socket_module.socket(family) as tried:
        tried.bind((address, 0))
        return int(tried.getsockname()[1])


def _served_file(volume: ResourceId, epoch: int, data: Path) -> tuple[str, ...]:
    return (
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
    """End a server: what it had acknowledged is in the file, and synced where it was asked, so
    that it may be killed in the middle of a write, which ends before the process does."""
    if server.daemon is not None:
        await end(server.daemon, grace_s=END_GRACE_S)
    servers.forget(server)
